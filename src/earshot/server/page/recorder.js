// Records a spoken example with the microphone. In: a button. Out: a Blob of whatever kind the browser records.

import { clock, icon } from "./markup.js";

// what browsers do else makes speech sound unlike other speech
const AS_SAID = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const REASONS = { NotAllowedError: "the browser was not allowed to", NotFoundError: "there is none" };

export class Recorder {
  #recorder = null;
  #timers = [];
  #starting = null;

  /** `seconds()`: the longest recording; `onStart()`, `onSound(blob)`, `onTrouble(line)`. */
  constructor(button, { seconds, onStart, onSound, onTrouble }) {
    this.button = button;
    this.asked = { seconds, onStart, onSound, onTrouble };
    button.addEventListener("click", () => (this.#recorder ? this.stop() : this.start()));
    this.#show();
  }

  async start() {
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      const why = window.isSecureContext
        ? "this browser cannot record"
        : "browsers record only on https:// and localhost";
      return this.asked.onTrouble(`The microphone cannot be used: ${why}; choose a sound file instead.`);
    }
    if (this.#starting) return;
    const starting = (this.#starting = {}); // until it records, or is cancelled
    this.asked.onStart();
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: AS_SAID });
      if (this.#starting === starting) this.#record(stream);
      else release(stream);
    } catch (error) {
      if (stream) release(stream);
      const why = REASONS[error.name] ?? "the browser cannot record from it";
      if (this.#starting === starting)
        this.asked.onTrouble(`The microphone cannot be used: ${why}; allow it or choose a sound file.`);
    } finally {
      if (this.#starting === starting) this.#starting = null;
    }
  }

  #record(stream) {
    const pieces = [];
    const recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      release(stream);
      if (recorder === this.#recorder) {
        this.#end();
        this.asked.onSound(new Blob(pieces, { type: recorder.mimeType }));
      }
    };
    recorder.start();
    this.#recorder = recorder;
    this.#show(0);
    const began = performance.now();
    this.#timers = [
      setInterval(() => this.#show((performance.now() - began) / 1000), 200),
      setTimeout(() => this.stop(), this.asked.seconds() * 1000),
    ];
  }

  /** Ends the recording; what was said is searched for. */
  stop() {
    this.#recorder?.stop();
  }

  /** Throws what was recorded away, and waits no longer to be allowed to record. */
  cancel() {
    this.#starting = null;
    const recorder = this.#recorder;
    this.#end();
    recorder?.stop();
  }

  #end() {
    this.#timers.forEach(clearTimeout);
    this.#recorder = null;
    this.#show();
  }

  #show(seconds) {
    const on = seconds !== undefined;
    this.button.classList.toggle("recording", on);
    this.button.replaceChildren(icon(on ? "stop" : "mic"), ...(on ? [clock(seconds, 0)] : []));
    this.button.ariaLabel = on ? "Stop recording and search" : "Say it";
  }
}

const release = (stream) => stream.getTracks().forEach((track) => track.stop());

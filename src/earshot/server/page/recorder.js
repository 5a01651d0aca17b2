// Records a spoken example with the microphone. In: a button. Out: a Blob of whatever kind the browser records.

import { clock, icon } from "./markup.js";

const AS_SAID = { echoCancellation: false, noiseSuppression: false }; // they make speech sound unlike other speech

export class Recorder {
  #recorder = null;
  #timers = [];
  #starting = false;

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
    this.#starting = true;
    this.asked.onStart();
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: AS_SAID });
    } catch (error) {
      const why = error.name === "NotAllowedError" ? "the browser was not allowed to" : "there is none";
      return this.asked.onTrouble(`The microphone cannot be used: ${why}; allow it or choose a sound file.`);
    } finally {
      this.#starting = false;
    }
    const pieces = [];
    const recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
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

  /** Throws what was recorded away. */
  cancel() {
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

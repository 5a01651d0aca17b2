// Plays recordings, and draws the sound around where they play. One <audio> plays; wavesurfer draws a window of it.

import * as api from "./api.js";
import { $, clock, icon, nameOf } from "./markup.js";
import RegionsPlugin from "./wavesurfer/regions.esm.js";
import WaveSurfer from "./wavesurfer/wavesurfer.esm.js";

const HEIGHT = 72; // px; the server allows the style sheet that wavesurfer writes for just this height
const LEAD = 0.3; // s that are played before a hit
const SPANS = [2, 4, 8, 15, 30, 60, 120, 300, 600]; // s that a window may be long
const POINTS = 1000; // peaks of a window
const CLIP = 120; // s of a clip that is got at once
const SHORTEST = 0.15; // s; of a stretch that can be searched for
const LONGEST = 6;

export class Player {
  recording = null; // {id, recording, seconds}
  stop = null; // the hit or passage that was last gone to: {start, end}
  #window = { start: 0, end: 0 };
  #cut = false; // whether the sound comes from the server as clips, as the browser cannot decode the file
  #offset = 0; // where in the recording the audio element's sound begins
  #marks = [];
  #selected = null; // {start, end}
  #zoom = 8; // s that the window has, where the hit is not longer
  #wanted = null; // the time to go to once there is sound
  #asked = false; // to play
  #drawing = new AbortController();

  /** `onMore(id, start, end)`: find what sounds like this; `onStep(by)`; `onMove(player)`; `onTrouble(line)`. */
  constructor(root, told) {
    this.root = root;
    this.told = told;
    this.audio = $("#audio", root);
    this.regions = RegionsPlugin.create();
    this.wave = WaveSurfer.create({
      container: $("#waveform", root),
      height: HEIGHT,
      barWidth: 2,
      barGap: 1,
      barRadius: 2,
      cursorWidth: 2,
      cursorColor: "var(--ink)",
      dragToSeek: false,
      autoScroll: false,
      hideScrollbar: true,
      plugins: [this.regions],
      ...waveColors(),
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.wave.setOptions(waveColors()));
    this.regions.enableDragSelection({ id: "selection", color: "var(--selected)", minLength: SHORTEST });
    this.regions.on("region-created", (region) => region.id === "selection" && this.#select(region));
    this.regions.on("region-update", (region) => region.id === "selection" && this.#tellSelection(region));
    this.regions.on("region-updated", (region) => region.id === "selection" && this.#select(region));
    this.wave.on("interaction", (time) => this.seek(this.#window.start + time));
    this.#listen();
    this.#showPlaying();
  }

  get time() {
    return this.#wanted ?? this.audio.currentTime + this.#offset;
  }

  get window() {
    return this.#window;
  }

  get playing() {
    return !this.audio.paused;
  }

  /** Goes to `stop` {start, end, from}; `marks` [{start, end, probability}] are shown wherever they come into view. */
  show(recording, stop, marks, play) {
    this.root.hidden = false;
    document.body.classList.add("with-player");
    this.stop = stop;
    this.#marks = marks;
    this.#selected = null;
    const from = Math.max(0, (stop.from ?? stop.start) - LEAD);
    const other = this.recording?.id !== recording.id;
    if (other) {
      this.pause();
      this.recording = recording;
      this.#cut = false;
      this.#fetch(from);
      $("#player-name").textContent = nameOf(recording.recording).name;
    }
    const span = SPANS.find((span) => span >= Math.max(this.#zoom, (stop.end - stop.start) * 1.2));
    this.#draw((stop.start + stop.end) / 2, span ?? SPANS.at(-1));
    if (!other) this.seek(from);
    this.#moved();
    this.#tellSelection();
    if (play) this.play();
  }

  /** Hits that are shown now; the threshold may have changed. */
  mark(marks) {
    this.#marks = marks;
    this.#drawRegions();
  }

  close() {
    this.pause();
    this.audio.removeAttribute("src");
    this.recording = null;
    this.root.hidden = true;
    document.body.classList.remove("with-player");
    this.told.onMove(this);
  }

  seek(time) {
    const to = Math.min(Math.max(0, time), this.recording.seconds);
    if (this.#cut) this.#fetch(to);
    else if (this.#wanted === null) this.audio.currentTime = Math.max(0, to - this.#offset);
    else this.#wanted = to; // there is no sound yet
    if (to < this.#window.start || to > this.#window.end) this.#draw(to);
    this.#moved();
  }

  play() {
    this.#asked = true;
    this.audio.play().catch((error) => {
      if (error.name === "NotAllowedError") this.told.onTrouble("The browser did not let it play; press play.");
    }); // what cannot be decoded is an error event, and a pause is none
  }

  pause() {
    this.#asked = false;
    this.audio.pause();
  }

  toggle() {
    if (!this.recording) return;
    if (this.playing) this.pause();
    else this.play();
  }

  /** The stretch that is selected, or the hit that was gone to. */
  get stretch() {
    return this.#selected ?? this.stop;
  }

  /** The selected stretch begins ("start") or ends ("end") where it plays. */
  selectHere(side) {
    if (!this.recording) return;
    const now = { ...this.stretch, [side]: this.time };
    if (now.end - now.start < SHORTEST) {
      if (side === "start") now.end = Math.min(this.recording.seconds, now.start + 0.5);
      else now.start = Math.max(0, now.end - 0.5);
    }
    this.#selected = { start: now.start, end: now.end };
    this.#drawRegions();
    this.#tellSelection();
  }

  more() {
    if (this.recording && !$("#more", this.root).disabled)
      this.told.onMore(this.recording.id, this.stretch.start, this.stretch.end);
  }

  #listen() {
    const { audio } = this;
    audio.addEventListener("loadedmetadata", () => {
      if (this.#wanted !== null) audio.currentTime = Math.max(0, this.#wanted - this.#offset);
      this.#wanted = null;
      this.#moved();
    });
    audio.addEventListener("play", () => {
      this.#showPlaying();
      this.#follow();
    });
    for (const name of ["pause", "ended"]) audio.addEventListener(name, () => this.#showPlaying());
    for (const name of ["seeked", "timeupdate"]) audio.addEventListener(name, () => this.#moved());
    audio.addEventListener(
      "ended",
      () => this.#cut && this.time < this.recording.seconds - 1 && this.#fetch(this.time),
    );
    audio.addEventListener("error", () => this.#fail());
    $("#play", this.root).addEventListener("click", () => this.toggle());
    $("#previous", this.root).addEventListener("click", () => this.told.onStep(-1));
    $("#next", this.root).addEventListener("click", () => this.told.onStep(1));
    $("#more", this.root).addEventListener("click", () => this.more());
    $("#wider", this.root).addEventListener("click", () => this.#rescale(1));
    $("#closer", this.root).addEventListener("click", () => this.#rescale(-1));
  }

  /** Gets the sound: the file, to go to `time` in it, or a clip from there on. */
  #fetch(time) {
    const { id, seconds } = this.recording;
    this.#wanted = time;
    this.#offset = this.#cut ? Math.min(time, seconds - 0.2) : 0;
    const end = Math.min(this.#offset + CLIP, seconds);
    this.audio.src = this.#cut ? api.clipAddress(id, this.#offset, end) : api.audioAddress(id);
    if (this.#asked) this.play();
  }

  /** What the browser cannot decode it gets as clips. */
  #fail() {
    if (!this.recording) return;
    if (this.#cut)
      return this.told.onTrouble(
        `${nameOf(this.recording.recording).name} cannot be played: see whether its file is still there.`,
      );
    const { time } = this;
    this.#cut = true;
    this.#fetch(time);
  }

  #follow() {
    if (!this.playing) return;
    this.#moved();
    requestAnimationFrame(() => this.#follow());
  }

  #moved() {
    if (!this.recording) return;
    const { time } = this;
    if (this.playing && time > this.#window.end && this.#window.end < this.recording.seconds - 0.1) {
      this.#draw(time + this.#span * 0.45);
    }
    this.wave.setTime(Math.min(Math.max(0, time - this.#window.start), this.#span));
    $("#player-time").textContent = `${clock(time)} / ${clock(this.recording.seconds, 0)}`;
    this.told.onMove(this);
  }

  #showPlaying() {
    const button = $("#play", this.root);
    button.replaceChildren(icon(this.playing ? "pause" : "play"));
    button.ariaLabel = this.playing ? "Pause" : "Play";
  }

  get #span() {
    return this.#window.end - this.#window.start;
  }

  #rescale(by) {
    const at = SPANS.findIndex((span) => span >= this.#span - 0.01);
    this.#zoom = SPANS[Math.min(Math.max(0, at + by), SPANS.length - 1)];
    this.#draw(this.playing ? this.time : (this.stretch.start + this.stretch.end) / 2, this.#zoom);
  }

  /** Shows the window of `span` seconds around `middle`. */
  async #draw(middle, span = this.#span) {
    const { recording } = this;
    const start = Math.max(0, Math.min(middle - span / 2, recording.seconds - span));
    this.#window = { start, end: Math.min(start + span, recording.seconds) };
    const { end } = this.#window;
    [start, (start + end) / 2, end].forEach(
      (time, at) => ($(".ruler", this.root).children[at].textContent = clock(time)),
    );
    this.#drawing.abort();
    this.#drawing = new AbortController();
    const { signal } = this.#drawing;
    try {
      await this.#load([new Array(POINTS).fill(0)]);
      const { peaks } = await api.peaks(recording.id, start.toFixed(3), end.toFixed(3), POINTS, signal);
      const loudest = Math.max(0.05, ...peaks);
      if (!signal.aborted) await this.#load([peaks.map((peak) => peak / loudest)]);
    } catch (error) {
      if (error.name !== "AbortError") this.told.onTrouble(error.message);
    }
  }

  async #load(peaks) {
    this.regions.clearRegions();
    await this.wave.load("", peaks, this.#span);
    this.#drawRegions();
    this.#moved();
  }

  #drawRegions() {
    this.regions.clearRegions();
    const { start, end } = this.#window;
    for (const mark of this.#marks.filter((mark) => mark.end > start && mark.start < end)) {
      const region = this.regions.addRegion({
        id: "hit",
        start: mark.start - start,
        end: mark.end - start,
        color: `color-mix(in srgb, var(--accent) ${Math.round(10 + 25 * mark.probability)}%, transparent)`,
        drag: false,
        resize: false,
      });
      region.element.style.pointerEvents = "none"; // a selection may begin on it
    }
    const selected = this.#selected;
    if (selected && selected.end > start && selected.start < end) {
      this.regions.addRegion({
        id: "selection",
        start: selected.start - start,
        end: selected.end - start,
        color: "var(--selected)",
        minLength: SHORTEST,
      });
    }
  }

  #select(region) {
    for (const other of this.regions.getRegions()) {
      if (other.id === "selection" && other !== region) other.remove();
    }
    this.#selected = { start: region.start + this.#window.start, end: region.end + this.#window.start };
    this.#tellSelection();
  }

  #tellSelection(region) {
    const { start } = this.#window;
    const stretch = region ? { start: region.start + start, end: region.end + start } : this.stretch;
    const what = region || this.#selected ? "selected " : "";
    const long = stretch.end - stretch.start > LONGEST;
    $("#player-selection").textContent = long
      ? "drag to select a word or phrase"
      : `${what}${clock(stretch.start, 2)}–${clock(stretch.end, 2)}`;
    const more = $("#more", this.root);
    more.disabled = long;
    more.title = long
      ? `Drag on the waveform to select a word or phrase of up to ${LONGEST} s`
      : "Find what sounds like the selected stretch (m)";
    const save = $("#save", this.root);
    save.href = api.clipAddress(this.recording.id, stretch.start, Math.min(stretch.end, stretch.start + 600));
    save.download = `${nameOf(this.recording.recording).name} ${clock(stretch.start, 2).replaceAll(":", ".")}.wav`;
  }
}

function waveColors() {
  const styles = getComputedStyle(document.documentElement);
  const color = styles.getPropertyValue("--wave").trim();
  return { waveColor: color, progressColor: styles.getPropertyValue("--wave-played").trim() };
}

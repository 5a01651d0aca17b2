// Hits, grouped by recording on time lines. In: what /api/find gives. Only hits above the threshold are shown.

import * as api from "./api.js";
import { $, clock, count, element, nameOf, percent, place, timeline } from "./markup.js";

const NEAR = 14; // px around a hit in which a click on the time line means the hit

/** The name of a recording, the folder it is in, and something beside them. */
export function heading(recording, beside) {
  const { name, folder } = nameOf(recording.recording);
  const named = element("h2", { title: recording.recording }, name);
  return element("header", {}, element("div", {}, named, element("p", { className: "folder" }, folder)), beside);
}

export class Hits {
  #stops = []; // {hit, recording, chip, item, mark} by recording, then by time
  #groups = []; // {card, beside, stops}

  /** `go(stop, play)` is called when one is chosen, `onCount(shown, all, groups)` when the threshold changes. */
  constructor(list, { go, onCount }) {
    this.list = list;
    this.told = { go, onCount };
  }

  show(hits, recordings) {
    this.#groups = [...byRecording(hits)].map(([id, hits]) => this.#group(recordings.get(id), hits));
    this.#stops = this.#groups.flatMap((group) => group.stops);
    this.list.replaceChildren(...this.#groups.map((group) => group.card));
  }

  /** What is shown now, in the order of the page. */
  get shown() {
    return this.#stops.filter((stop) => !stop.item.hidden);
  }

  /** The likeliest hit that is shown. */
  get best() {
    return this.shown.reduce((best, stop) => (!best || stop.probability > best.probability ? stop : best), undefined);
  }

  filter(threshold) {
    for (const { hit, item, mark } of this.#stops) item.hidden = mark.hidden = hit.probability < threshold;
    for (const { card, beside, stops } of this.#groups) {
      const shown = stops.filter((stop) => !stop.item.hidden).length;
      card.hidden = !shown;
      beside.textContent = count(shown, "hit");
    }
    const groups = this.#groups.filter((group) => !group.card.hidden).length;
    this.told.onCount(this.shown.length, this.#stops.length, groups);
  }

  marksOf(id) {
    return this.shown.filter((stop) => stop.recording.id === id).map((stop) => stop.hit);
  }

  #group(recording, hits) {
    const inTime = hits.toSorted((a, b) => a.start - b.start);
    const line = timeline(recording.seconds, (time, perPixel) => {
      const near = stops.filter((stop) => !stop.item.hidden && distance(stop, time) < NEAR * perPixel);
      const nearest = near.sort((a, b) => distance(a, time) - distance(b, time))[0];
      this.told.go(nearest ?? { recording, start: time, end: Math.min(time + 1, recording.seconds) }, true);
    });
    const chips = element("ul", { className: "chips" });
    const stops = inTime.map((hit) => {
      const mark = place(line, element("span", { className: "mark" }), hit.start, hit.end, recording.seconds);
      mark.style.setProperty("--p", hit.probability);
      const chip = element(
        "button",
        { type: "button", className: "chip", title: "Play from here" },
        element("span", { className: "when" }, clock(hit.start)),
        element("span", { className: "chance" }, percent(hit.probability)),
      );
      chip.style.setProperty("--p", hit.probability);
      const item = element("li", {}, chip);
      const stop = { ...hit, hit, recording, chip, item, mark };
      chip.addEventListener("click", () => this.told.go(stop, true));
      chips.append(item);
      return stop;
    });
    const beside = element("p", { className: "beside" });
    const ends = element(
      "div",
      { className: "ends" },
      element("span", {}, "0:00"),
      element("span", {}, clock(recording.seconds, 0)),
    );
    ends.ariaHidden = "true";
    const card = element("li", { className: "card" }, heading(recording, beside), line, ends, chips);
    card.dataset.recording = recording.id;
    return { card, beside, stops };
  }
}

function byRecording(hits) {
  const groups = new Map();
  for (const hit of hits) groups.set(hit.id, [...(groups.get(hit.id) ?? []), hit]);
  return groups;
}

const distance = (stop, time) => Math.max(0, stop.start - time, time - stop.end);

/** Saves hits as a file that the browser downloads. */
export async function save(format, hits) {
  const fields = hits.map(({ id, start, end, query, probability, score }) => ({
    id,
    start,
    end,
    query,
    probability,
    score,
  }));
  const { blob, name } = await api.exported(format, fields);
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

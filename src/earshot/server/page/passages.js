// Passages that may answer a question, and the answer made of them. In: what /api/ask gives.

import * as api from "./api.js";
import { $, clock, element, icon, percent, place, timeline } from "./markup.js";
import { heading } from "./results.js";

export class Passages {
  #stops = [];

  /** `go(stop, play)` is called when a passage, or a word in one, is chosen. */
  constructor(list, { go }) {
    this.list = list;
    this.go = go;
  }

  show(passages, recordings) {
    this.#stops = passages.map((passage) => this.#card(passage, recordings.get(passage.id)));
    this.list.replaceChildren(...this.#stops.map((stop) => stop.card));
  }

  get shown() {
    return this.#stops;
  }

  get best() {
    return this.#stops[0];
  }

  marksOf(id) {
    return this.#stops.filter((stop) => stop.recording.id === id).flatMap((stop) => stop.words);
  }

  #card(passage, recording) {
    const { start, end, best, words, heard } = passage;
    const stop = {
      ...passage,
      recording,
      from: best.start,
      chip: element("button", { type: "button", className: "chip play" }),
    };
    stop.chip.append(icon("play"), `Play from ${clock(best.start)}`);
    stop.chip.addEventListener("click", () => this.go(stop, true));
    const line = timeline(recording.seconds, (time) => {
      const inside = time >= start && time <= end;
      this.go(
        inside ? { ...stop, from: time } : { recording, start: time, end: Math.min(time + 1, recording.seconds) },
        true,
      );
    });
    place(line, element("span", { className: "passage" }), start, end, recording.seconds);
    place(line, element("span", { className: "best" }), best.start, best.end, recording.seconds);
    for (const word of words) {
      place(line, element("span", { className: "mark" }), word.start, word.end, recording.seconds).style.setProperty(
        "--p",
        word.probability,
      );
    }
    const kind = element(
      "p",
      { className: "kind", title: heard ? "Rough, with mistakes: listen before you quote" : "" },
      heard ? "machine-heard" : "transcript",
    );
    const where = element("p", { className: "beside" }, `${clock(start, 0)}–${clock(end, 0)}`);
    stop.card = element(
      "li",
      { className: "card" },
      heading(recording, where),
      line,
      element("div", { className: "quote" }, kind, element("blockquote", {}, ...marked(passage.text, best.text))),
      element(
        "ul",
        { className: "chips" },
        element("li", {}, stop.chip),
        ...words.map((word) => this.#word(word, stop)),
      ),
    );
    stop.card.dataset.recording = recording.id;
    return stop;
  }

  #word(word, stop) {
    const chip = element(
      "button",
      { type: "button", className: "chip word", title: "Play from here" },
      element("span", {}, word.word),
      element("span", { className: "when" }, clock(word.start)),
      element("span", { className: "chance" }, percent(word.probability)),
    );
    chip.style.setProperty("--p", word.probability);
    chip.addEventListener("click", () =>
      this.go({ ...stop, start: word.start, end: word.end, from: word.start, chip }, true),
    );
    return element("li", {}, chip);
  }
}

/** The text with the best part of it marked, where it is found. */
function marked(text, best) {
  const at = best ? text.indexOf(best) : -1;
  if (at < 0) return [text];
  return [text.slice(0, at), element("mark", {}, best), text.slice(at + best.length)];
}

/** The panel that asks a model for an answer, when somebody presses its button and not before. */
export class AnswerPanel {
  #asking = new AbortController();

  constructor(root, { go, recordings }) {
    this.root = root;
    this.told = { go, recordings };
    this.button = $("button", root);
    this.note = $(".note", root);
    this.text = $(".text", root);
    this.button.addEventListener("click", () => this.#ask());
  }

  /** Ready for `question`; hidden without one. */
  offer(question) {
    this.#asking.abort();
    this.question = question;
    this.root.hidden = !question;
    this.button.hidden = false;
    this.text.replaceChildren();
    this.note.textContent = "A model writes it from the passages below, which are sent to it.";
  }

  async #ask() {
    let text = "";
    this.button.hidden = true;
    this.note.textContent = "Writing…";
    const { signal } = (this.#asking = new AbortController());
    const write = (piece) => (this.text.textContent = text += piece);
    try {
      const { answer, citations } = await api.answer(this.question, write, signal);
      this.note.textContent = "Written by a model from the passages below: check it by listening.";
      this.text.replaceChildren(...this.#cited(answer, citations));
    } catch (error) {
      if (signal.aborted) return;
      this.note.textContent = error.message;
      this.button.hidden = false;
    }
  }

  /** The answer with a button for each number in brackets, [1-3] being three; other brackets stay. */
  #cited(answer, citations) {
    const byNumber = new Map(citations.map((citation) => [citation.number, citation]));
    const each = (range, first, last) => {
      const inside = [...byNumber.keys()].filter((n) => n >= first && n <= last).sort((a, b) => a - b);
      return inside.length && inside.length === last - first + 1 ? inside.join(", ") : range;
    };
    return answer.split(/([[【][^\]】]*[\]】])/).flatMap((piece, at) => {
      if (at % 2 === 0) return [piece];
      const numbers = piece.replace(/(\d+)\s*[–-]\s*(\d+)/g, each);
      const parts = numbers.split(/(\d+)/).map((part) => this.#citation(byNumber.get(Number(part)), part));
      const plain = parts.every((part, at) => (at % 2 ? part instanceof Element : /^[\s,;[\]【】]*$/.test(part)));
      return plain ? parts.filter((_, at) => at % 2) : parts;
    });
  }

  #citation(citation, number) {
    const recording = this.told.recordings().get(citation?.id);
    if (!recording) return number;
    const label = `${recording.recording}, ${clock(citation.start)}`;
    const button = element(
      "button",
      { type: "button", className: "citation", title: label, ariaLabel: `${number}: play ${label}` },
      number,
    );
    button.addEventListener("click", () => this.told.go({ ...citation, recording }, true));
    return button;
  }
}

// The recordings of the library: the list, adding some with a progress bar, taking one out.

import * as api from "./api.js";
import { $, clock, count, element, length, nameOf, percent } from "./markup.js";

const MANY = 10; // recordings; so many are worth a filter

export class Recordings {
  byId = new Map(); // id -> {id, recording, seconds, speech_seconds}
  empty = false; // whether the library is known to hold none
  #adding = false;

  /** `onList()` is called when the list has changed, `open(recording)` when one is to be played. */
  constructor({ onList, open, onTrouble }) {
    this.told = { onList, open, onTrouble };
    this.dialog = $("#recordings");
    this.adding = $("#adding");
    this.filter = $("#filter");
    $("#open-recordings").addEventListener("click", () => {
      this.filter.value = "";
      this.dialog.showModal();
      this.#list();
    });
    this.filter.addEventListener("input", () => this.#list());
    for (const add of [$("#add"), $("#add-first")]) add.addEventListener("click", () => $("#added").click());
    $("#added").addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      this.dialog.close();
      this.add(files);
    });
    $("button", this.adding).addEventListener("click", () => (this.adding.hidden = true));
  }

  async load() {
    const rows = await api.recordings();
    this.byId = new Map(rows.map((row) => [row.id, row]));
    this.empty = !rows.length;
    const total = rows.reduce((sum, row) => sum + row.seconds, 0);
    const speech = rows.reduce((sum, row) => sum + row.speech_seconds, 0);
    const held = `${count(rows.length, "recording")}, ${length(total)}`;
    $("#open-recordings").replaceChildren(
      ...(rows.length
        ? [count(rows.length, "recording"), element("span", {}, ` · ${length(total)}`)]
        : ["Add recordings"]),
    );
    $("#held").textContent = rows.length
      ? `${held}, ${length(speech)} of speech. The file of one that is removed stays, unless it was added here.`
      : "None yet. Add some here or drop them on the page; folders go in with earshot index FOLDER.";
    if (this.dialog.open) this.#list();
    this.told.onList();
  }

  #list() {
    const part = this.filter.value.trim().toLowerCase();
    const rows = [...this.byId.values()].filter((row) => row.recording.toLowerCase().includes(part));
    this.filter.hidden = !part && this.byId.size < MANY;
    $("#recording-list").replaceChildren(
      ...(part && !rows.length ? [element("li", {}, "None is called that.")] : rows.map((row) => this.#row(row))),
    );
  }

  /** Shows how far what is being indexed is, if anything is: another page may have added it. */
  async resume() {
    if ((await api.indexing()).running) await this.#watch([]);
  }

  async add(files) {
    if (this.#adding) return this.told.onTrouble("Wait until what is being added is in.");
    if (!files.length) return;
    const failures = [];
    this.#adding = true;
    this.#show("", 0, []);
    for (const file of files) {
      const sent = (share) => this.#show(`Sending ${file.name}: ${percent(share)}`, share, failures);
      sent(0);
      try {
        await api.upload(file, sent);
      } catch (error) {
        failures.push({ name: file.name, reason: error.message });
      }
    }
    this.#adding = false;
    await this.#watch(failures);
  }

  async #watch(failures) {
    const before = this.byId.size;
    try {
      const state = await api.watchIndexing((state) => {
        const { seconds, expected_seconds: expected, hearing } = state;
        const line = expected
          ? `Listening, ${hearing ? "for words" : "for sounds"}: ${clock(seconds, 0)} of ${clock(expected, 0)}`
          : "Listening…";
        const share = expected ? (seconds / expected + (hearing ? 1 : 0)) / 2 : null; // it listens twice
        this.#show(line, share, [...failures, ...state.failures]);
      });
      failures = [...failures, ...state.failures];
      await this.load();
    } catch (error) {
      this.told.onTrouble(error.message);
    }
    const added = this.byId.size - before;
    this.#show(added > 0 ? `${count(added, "recording")} added.` : "Nothing new was added.", 1, failures, true);
  }

  /** `share` of the work that is done: 0 to 1, null where nobody knows. */
  #show(line, share, failures, done = false) {
    const bar = $("progress", this.adding);
    this.adding.hidden = false;
    $("p", this.adding).textContent = line;
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
    bar.hidden = done;
    $("button", this.adding).hidden = !done;
    $("ul", this.adding).replaceChildren(
      ...failures.map(({ name, reason }) =>
        element("li", {}, element("strong", {}, name), `: ${reason.replace(`${name}: `, "")}`),
      ),
    );
  }

  #row(row) {
    const { name, folder } = nameOf(row.recording);
    const open = element("button", { type: "button", className: "name", title: `Open ${row.recording}` }, name);
    open.addEventListener("click", () => {
      this.dialog.close();
      this.told.open(row);
    });
    const remove = element("button", { type: "button", className: "quiet", ariaLabel: `Remove ${name}` }, "Remove");
    remove.addEventListener("click", () => this.#confirm(row, remove));
    const facts = [folder, length(row.seconds), row.speech_seconds === 0 && "no speech"];
    const about = element("p", {}, facts.filter(Boolean).join(" · "));
    return element("li", {}, element("div", {}, open, about), remove);
  }

  /** The button asks once more before it removes. */
  #confirm(row, button) {
    if (!button.classList.contains("sure")) {
      button.classList.add("sure");
      button.textContent = "Sure?";
      button.ariaLabel = `Remove ${nameOf(row.recording).name}: sure?`;
      button.addEventListener("blur", () => button.isConnected && this.load(), { once: true });
      return;
    }
    button.disabled = true;
    api
      .remove(row.id)
      .catch((error) => this.told.onTrouble(error.message))
      .finally(() => this.load());
  }
}

// The page: what is asked, how it is shown, the address that stands for it, keys and drops.

import * as api from "./api.js";
import { $, clock, count, nameOf } from "./markup.js";
import { AnswerPanel, Passages } from "./passages.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { Recordings } from "./recordings.js";
import { Hits, save } from "./results.js";

const QUESTION =
  /\?\s*$|^(who|whom|whose|what|when|where|why|which|how|is|are|was|were|do|does|did|can|could|should|would|will|has|have)\s+\S+\s+\S/i;
const SOON = 300; // ms; a search that takes longer is told of
const SECONDS_TO_SAY = { find: 6, ask: 20 };

const form = $("#search");
const box = $("#query");
const threshold = $("#threshold");
let chosenMode = null; // what the user chose; the box decides otherwise
let model = { answers: false, hears: false }; // what the server has to write answers with
let view = null; // Hits or Passages: what is shown
let current = null; // the hit or passage that was last gone to
let searching = new AbortController();
let wanted = null; // what was last searched for
let slow; // the timer that tells that a search goes on

const player = new Player($("#player"), {
  onMore: (like, start, end) => go({ mode: "find", like, start: start.toFixed(3), end: end.toFixed(3) }),
  onStep: step,
  onMove: showPlayhead,
  onTrouble: trouble,
});
const recordings = new Recordings({
  onList: showStart,
  open: (recording) => visit(whole(recording), true),
  onTrouble: trouble,
});
const hits = new Hits($("#list"), { go: visit, onCount: showCount });
const passages = new Passages($("#list"), { go: visit });
const answerPanel = new AnswerPanel($("#answer"), { go: visit, recordings: () => recordings.byId });
const recorder = new Recorder($("#record"), {
  seconds: () => SECONDS_TO_SAY[mode()],
  onStart: () => {
    trouble("");
    player.pause();
  },
  onSound: (sound) => go({ mode: mode(), sound, told: "your recording" }),
  onTrouble: trouble,
});

// What to do: the user's choice, or what the text looks like.

function mode() {
  return chosenMode ?? (QUESTION.test(box.value.trim()) ? "ask" : "find");
}

function showMode() {
  form.elements.mode.value = mode();
  const asking = mode() === "ask";
  $("#hint").textContent = asking ? "Brings the passages that may answer it." : "Finds every place where it is said.";
}

const narrow = matchMedia("(width < 480px)");
const showPlaceholder = () => (box.placeholder = narrow.matches ? "Word or question" : box.ariaLabel);
narrow.addEventListener("change", showPlaceholder);
showPlaceholder();
box.addEventListener("input", () => {
  if (!box.value) chosenMode = null;
  showMode();
});
for (const choice of form.elements.mode) {
  choice.addEventListener("change", () => {
    chosenMode = choice.value;
    showMode();
    if (box.value.trim() && wanted) form.requestSubmit();
  });
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const q = box.value.trim();
  if (q) go({ mode: mode(), q });
  else box.focus();
});
$("#choose-example").addEventListener("click", () => $("#example").click());
$("#example").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) go({ mode: mode(), sound: file, told: file.name });
});

// Searching, and the address that stands for a search. Sounds are in no address.

function go(search) {
  const { sound, told, ...named } = search;
  history.pushState(null, "", sound ? "./" : `./?${new URLSearchParams(named)}`);
  return run(search);
}

function fromAddress() {
  const { mode = "find", q, like, start, end } = Object.fromEntries(new URLSearchParams(location.search));
  const asked = mode === "ask" ? "ask" : "find";
  chosenMode = q === undefined ? null : asked;
  box.value = q ?? "";
  if (q) return run({ mode: asked, q });
  if (like) return run({ mode: "find", like: Number(like), start, end });
  searching.abort();
  wanted = null;
  showBusy(false);
  showNothing();
  document.title = "Earshot";
  trouble("");
  showMode();
  showStart();
}

async function run(search) {
  searching.abort();
  searching = new AbortController();
  const { signal } = searching;
  wanted = search;
  if (search.q === undefined) box.value = "";
  showMode();
  trouble("");
  showStart();
  document.title = `${name(search)} – Earshot`;
  showBusy(true);
  try {
    const found = await api.search(search, signal);
    if (recordings.empty || found.some(({ id }) => !recordings.byId.has(id))) await recordings.load();
    if (signal.aborted) return;
    const known = found.filter(({ id }) => recordings.byId.has(id));
    if (recordings.empty) showNothing();
    else show(search, known);
  } catch (error) {
    const none = error.status === 503 && (await recordings.load().then(() => recordings.empty, () => false));
    if (signal.aborted) return;
    showNothing();
    if (!none) trouble(error.message); // else the page invites to add some
  }
  showBusy(false);
}

function showBusy(busy) {
  clearTimeout(slow);
  $("#searching").textContent = "";
  if (busy) slow = setTimeout(() => ($("#searching").textContent = "Searching…"), SOON);
  document.body.classList.toggle("busy", busy);
  $("#results").ariaBusy = String(busy);
}

function name({ q, like, start, end, told }) {
  if (q !== undefined) return q;
  if (told) return told;
  const recording = recordings.byId.get(Number(like));
  return `${recording ? nameOf(recording.recording).name : "a recording"} ${clock(start, 2)}–${clock(end, 2)}`;
}

function show(search, found) {
  const asked = search.mode === "ask";
  view = asked ? passages : hits;
  current = null;
  view.show(found, recordings.byId);
  $("#results").hidden = false;
  $("#least").hidden = $("#export").hidden = asked || !found.length;
  answerPanel.offer(asked && found.length ? answerable(search) : null);
  if (asked)
    $("#count").textContent = found.length
      ? `${count(found.length, "passage")} that may answer, best first`
      : "No words were heard in any recording.";
  else hits.filter(threshold.value / 100);
  if (!view.best) return player.close();
  visit(view.best, false);
  if (document.activeElement === box) view.best.chip.focus({ preventScroll: true }); // so that keys work at once
}

/** The question as the server's model takes it, if it has one. */
function answerable({ q, sound }) {
  return (model.answers && q) || (model.hears && sound) || null;
}

function showNothing() {
  view = current = null;
  $("#results").hidden = true;
  answerPanel.offer(null);
  player.close();
}

function showCount(shown, all, groups) {
  const what = wanted.q === undefined ? `like ${name(wanted)}` : `for “${wanted.q}”`;
  const less = all - shown;
  $("#export").hidden = !shown;
  if (shown) $("#count").textContent = `${count(shown, "hit")} ${what} in ${count(groups, "recording")}`;
  else if (all)
    $("#count").textContent = `No hit ${what} with this probability; ${less} with a lower one: move the slider.`;
  else $("#count").textContent = `No hit ${what}.`;
}

threshold.addEventListener("input", () => {
  $("#least-shown").textContent = threshold.ariaValueText = `${threshold.value} %`;
  hits.filter(threshold.value / 100);
  if (player.recording) player.mark(hits.marksOf(player.recording.id));
});
for (const button of $("#export").querySelectorAll("button")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    await save(button.dataset.format, hits.shown).catch((error) => trouble(error.message));
    button.disabled = false;
  });
}

// Going to a hit, and from one to the next.

const whole = (recording) => ({ recording, start: 0, end: Math.min(1, recording.seconds), from: 0 });

function visit(stop, play) {
  current?.chip?.removeAttribute("aria-current");
  current?.mark?.classList.remove("current");
  current = stop;
  stop.chip?.setAttribute("aria-current", "true");
  stop.mark?.classList.add("current");
  player.show(stop.recording, stop, view?.marksOf(stop.recording.id) ?? [], play);
}

function step(by) {
  const stops = view?.shown ?? [];
  if (!stops.length) return;
  const at = stops.findIndex((stop) => stop.chip === current?.chip);
  const next = stops[at < 0 ? 0 : (at + by + stops.length) % stops.length];
  visit(next, true);
  next.chip.focus({ preventScroll: true });
  next.chip.scrollIntoView({ block: "nearest" });
}

/** A line on the time lines of the recording that plays, where it plays, and what the player shows of it. */
function showPlayhead({ recording, time, window }) {
  for (const line of document.querySelectorAll(".timeline")) {
    const on = recording && line.closest("[data-recording]").dataset.recording === String(recording.id);
    line.classList.toggle("open", Boolean(on));
    if (!on) continue;
    line.style.setProperty("--at", time / recording.seconds);
    line.style.setProperty("--from", window.start / recording.seconds);
    line.style.setProperty("--to", window.end / recording.seconds);
  }
}

// Troubles, the start, keys and drops.

function trouble(line) {
  $("#trouble").textContent = line;
  $("#trouble").hidden = !line;
}

function showStart() {
  document.body.classList.toggle("start", !wanted);
  $("#start").hidden = Boolean(wanted);
  $("#empty").hidden = !recordings.empty;
}

const KEYS = {
  n: () => step(1),
  j: () => step(1),
  p: () => step(-1),
  k: () => step(-1),
  m: () => player.more(),
  "[": () => player.selectHere("start"),
  "]": () => player.selectHere("end"),
  "/": () => box.select(),
  "?": () => $("#keys").showModal(),
  ArrowLeft: () => player.recording && player.seek(player.time - 1),
  ArrowRight: () => player.recording && player.seek(player.time + 1),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return recorder.cancel();
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.target.matches("input, textarea, select")) return;
  if (event.key === " ") {
    if (!player.recording || event.target.closest("button:not([aria-current]), a")) return;
    event.preventDefault();
    player.toggle();
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.matches("[aria-current]")) event.preventDefault(); // it was play or pause
});
$("#open-keys").addEventListener("click", () => $("#keys").showModal());
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

const drop = $("#drop");
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => hasFiles(event) && (drop.hidden = false));
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  for (const target of drop.children) target.classList.toggle("over", target.contains(event.target));
});
document.addEventListener("dragleave", (event) => !event.relatedTarget && (drop.hidden = true));
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.hidden = true;
  const files = [...event.dataTransfer.files];
  if (event.target.closest("[data-for=add]")) recordings.add(files);
  else if (files.length === 1) go({ mode: mode(), sound: files[0], told: files[0].name });
  else trouble("Search with one sound at a time; drop several only to add them.");
});

window.addEventListener("popstate", fromAddress);

try {
  model = await api.status();
  await recordings.load();
  await fromAddress();
  await recordings.resume();
} catch (error) {
  trouble(error.message);
}

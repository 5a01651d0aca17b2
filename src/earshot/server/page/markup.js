// Makes elements, and writes times and chances. What comes from outside only ever goes in as text.

export const $ = (selector, within = document) => within.querySelector(selector);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Seconds as 0:43.4, or 1:02:03.4. */
export function clock(seconds, digits = 1) {
  const unit = 10 ** digits;
  const units = Math.max(0, Math.round(seconds * unit));
  const minutes = Math.floor(units / unit / 60);
  const rest = (units / unit - minutes * 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

/** A length for people: 27 s, 5.2 min, 10.4 h. */
export function length(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const [amount, unit] = seconds < 3600 ? [seconds / 60, "min"] : [seconds / 3600, "h"];
  return `${amount < 10 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}

export const percent = (probability) => `${Math.min(99, Math.round(probability * 100))} %`;

export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** The last part of a path, and what comes before it. */
export function nameOf(path) {
  const at = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1;
  return { name: path.slice(at), folder: path.slice(0, at) };
}

/** A time line of a whole recording; `pick(seconds)` is called with where it is clicked. */
export function timeline(seconds, pick) {
  const line = element("div", { className: "timeline", ariaHidden: "true" });
  line.addEventListener("click", (event) => {
    const box = line.getBoundingClientRect();
    pick(((event.clientX - box.left) / box.width) * seconds, seconds / box.width);
  });
  return line;
}

/** Puts `made` on a time line, from `start` to `end`. */
export function place(line, made, start, end, seconds) {
  made.style.left = `${(100 * start) / seconds}%`;
  made.style.width = `${(100 * (end - start)) / seconds}%`;
  line.append(made);
  return made;
}

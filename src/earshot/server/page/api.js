// The calls to the server. Whatever goes wrong is an Error whose message is one line for people; `status`: of an answer.

const LEAST_PROBABILITY = 0.02; // what has less is never shown
const MOST_HITS = 200;
const PASSAGES = 6;
const OFTEN = 500; // ms

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; see whether earshot serve still runs.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw Object.assign(new Error(detail(told, response.status)), { status: response.status });
}

function detail(told, status) {
  return typeof told.detail === "string" ? told.detail : `The server refused it (${status}).`;
}

const json = async (path, options) => (await request(path, options)).json();
const query = (values) => new URLSearchParams(values).toString();

/** Hits or passages. `wanted`: {mode} and q, or like, start and end, or sound (a Blob). */
export function search({ mode, q, like, start, end, sound }, signal) {
  const limits = mode === "ask" ? { top: PASSAGES } : { top: MOST_HITS, threshold: LEAST_PROBABILITY };
  if (sound) return json(`api/${mode}?${query(limits)}`, { method: "POST", body: sound, signal });
  const wanted = like === undefined ? { q } : { like, start, end };
  return json(`api/${mode}?${query({ ...wanted, ...limits })}`, { signal });
}

/** The answer to a question, typed or a Blob, {answer, citations}; `onText(piece)` is told of it as it is written. */
export async function answer(question, onText, signal) {
  const spoken = question instanceof Blob;
  const values = spoken ? { top: PASSAGES } : { q: question, top: PASSAGES };
  const response = await request(`api/answer?${query(values)}`, {
    signal,
    ...(spoken && { method: "POST", body: question }),
  });
  for await (const { name, data } of events(response)) {
    if (name === "text") onText(data);
    if (name === "answer") return data;
    if (name === "error") throw new Error(data.detail);
  }
  signal.throwIfAborted();
  throw new Error("The answer broke off; ask again.");
}

/** Server-sent events, {name, data}, until the stream ends or breaks. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const next = () => reader.read().catch(() => ({ done: true }));
  let rest = "";
  for (let read = await next(); !read.done; read = await next()) {
    const whole = (rest + read.value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event);
      yield { name, data: JSON.parse(data) };
    }
  }
}

export const status = () => json("api/status");
export const recordings = () => json("api/recordings");
export const remove = (id) => request(`api/recordings/${id}`, { method: "DELETE" });
export const peaks = (id, start, end, n, signal) => json(`api/peaks/${id}?${query({ start, end, n })}`, { signal });
export const audioAddress = (id) => `api/audio/${id}`;
export const clipAddress = (id, start, end) =>
  `api/clip/${id}?${query({ start: start.toFixed(3), end: end.toFixed(3) })}`;

/** Hits as a file: {blob, name}. */
export async function exported(format, hits) {
  const body = JSON.stringify({ format, hits });
  const response = await request("api/export", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
  });
  const named = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "");
  return { blob: await response.blob(), name: named?.[1] ?? `hits.${format}` };
}

/** Sends a recording to be indexed; `onSent(share)` is told how much of it is there. */
export function upload(file, onSent) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest(); // fetch does not tell how much is sent
    sending.open("POST", `api/recordings?${query({ name: file.name })}`);
    sending.responseType = "json";
    sending.upload.onprogress = (event) => onSent(event.loaded / event.total);
    sending.onload = () =>
      sending.status < 300
        ? resolve(sending.response)
        : reject(new Error(detail(sending.response ?? {}, sending.status)));
    sending.onerror = () => reject(new Error("it could not be sent: the server broke off or does not answer"));
    sending.send(file);
  });
}

export const indexing = () => json("api/indexing");

/** Calls `onState` now and then while something is indexed; resolves with the last state. */
export async function watchIndexing(onState) {
  for (;;) {
    const state = await indexing();
    onState(state);
    if (!state.running) return state;
    await new Promise((resolve) => setTimeout(resolve, OFTEN));
  }
}

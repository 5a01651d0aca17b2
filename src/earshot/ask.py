"""The read path of `ask`: a question, typed or spoken -> the passages in a library that may answer it, best first.

In: an open store, the passage encoder that heard its recordings, a question. Out: passages with times and the seconds
in them that are most like the question. Knows nothing of how recordings were heard, or of printing.

A passage is like a question by its vector (paper B, arXiv 2511.09282) and by the words that they share, where a word
counts by the chance that it was said. Ours: names, which vectors blur, are found by the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.audio import load
from earshot.bm25 import Index
from earshot.captions import Caption
from earshot.encoders.passage import PassageEncoder
from earshot.features import Floats
from earshot.heard import BLANK, Heard
from earshot.library import Source, Store
from earshot.search import matches
from earshot.types import Clip, LibraryError, Passage, QueryError, Recording, Seconds, Span

LONGEST_QUESTION: Seconds = 40.0
SHARED = 0.5
"""A passage that shares so much of its time with a better one says the same."""
WORDS: dict[Source, float] = {"heard": 6.0, "transcript": 1.5}
"""Weight of the words that are shared; that of the cosine is 1. What is misheard blurs a vector more than words."""
WRITTEN = 0.8
"""Weight of what a transcript says of a passage where there is one; the rest is that of what was heard."""
Ints = NDArray[np.int64]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shelf:
    """All passages (p,) of one source: number in `recordings` and in the passages of that, time, vectors, words."""

    source: Source
    recordings: tuple[Recording, ...]
    heard: tuple[Heard, ...]
    of: Ints
    number: Ints
    starts: Times
    stops: Times
    vectors: Floats
    words: Index

    def scores(self, vector: Floats, tokens: Sequence[int]) -> Floats:
        """(p,) how like a question they are."""
        return similarity(self.vectors @ vector, self.words.scores(tokens), self.source)

    def places(self) -> list[tuple[int, Seconds, Seconds]]:
        """What tells the passages apart: recording, start, stop."""
        ids = [recording.id for recording in self.recordings]
        return [(ids[k], *times) for k, *times in zip(self.of, self.starts.tolist(), self.stops.tolist(), strict=True)]


def similarity(cosines: Floats, shared: Floats, source: Source) -> Floats:
    """How like a question passages are: cosines of their vectors, and what of its words they hold (`bm25`)."""
    weight = WORDS[source]
    return ((cosines + weight * shared) / (1 + weight)).astype(np.float32)


class Asker:
    """Asks one library; keeps its passages in memory between questions and notices when the library has changed."""

    def __init__(self, store: Store, encoder: PassageEncoder) -> None:
        self.store, self.encoder = store, encoder
        self._shelves: tuple[_Shelf, _Shelf] | None = None
        self._captions: dict[int, list[Caption]] = {}
        self._twins: Ints = np.zeros(0, np.int64)
        self._version = -1

    def ask(self, question: str | Clip, *, top: int | None = 10, within: str | None = None) -> list[Passage]:
        """Passages that may answer `question`, best first, at most `top`; only in recordings that match `within`.

        QueryError for an empty question and a spoken one that is too long or holds no word; AudioError for one that
        cannot be read; LibraryError where the library has no passages, or another encoder's.
        """
        tokens = self._tokens(question)
        (vector,) = self.encoder.embed_tokens([tokens])
        shelves = self._read()
        heard, written = (shelf.scores(vector, tokens.tolist()) for shelf in shelves)
        twins = self._twins >= 0
        written[twins] = WRITTEN * written[twins] + (1 - WRITTEN) * heard[self._twins[twins]]
        heard[self._twins[twins]] = -np.inf
        found: list[Passage] = []
        scores = np.concatenate([heard, written])
        for k in np.argsort(-scores, kind="stable"):
            if len(found) == top or scores[k] == -np.inf:
                break
            shelf, row = (shelves[0], int(k)) if k < len(heard) else (shelves[1], int(k) - len(heard))
            recording = shelf.recordings[shelf.of[row]]
            if within is not None and not matches(recording, within):
                continue
            start, stop = float(shelf.starts[row]), float(shelf.stops[row])
            if any(one.recording == recording and _shared(one, start, stop) >= SHARED for one in found):
                continue
            found.append(self._passage(shelf, row, float(scores[k])))
        return found

    def _tokens(self, question: str | Clip) -> Ints:
        """The word pieces of a question."""
        if isinstance(question, str):
            tokens = np.array(self.encoder.text.pieces.ids(question), np.int64)
            if not len(tokens):
                raise QueryError("the question is empty; type one, as in earshot ask 'who paid for it?'")
            if len(tokens) > self.encoder.text.limit - 2:
                raise QueryError(f"the question has {len(question.split())} words; ask in two sentences or so")
            return tokens
        heard = self.encoder.listen(load(question, max_seconds=LONGEST_QUESTION))
        said: Ints = heard.tokens[heard.tokens[:, 0] != BLANK, 0]
        if not len(said):
            raise QueryError(f"{question}: no words are heard in it; give a clip of a spoken question")
        return said

    def _read(self) -> tuple[_Shelf, _Shelf]:
        """What was heard and what is written, as the library has it now."""
        version = self.store.version()
        if self._shelves is None or version != self._version:
            identity = self.store.passage_encoder()
            if identity is None or identity.digest != self.encoder.digest:
                whose = "no passages to ask" if identity is None else f"passages by another encoder ({identity})"
                raise LibraryError(
                    f"the library at {self.store.path} has {whose}; make them: run `earshot index` again"
                )
            recordings = {recording.id: recording for recording in self.store.recordings()}
            heard, written = (_shelf(self.store, source, recordings, identity.dim) for source in WORDS)
            places = {key: k for k, key in enumerate(heard.places())}
            self._twins = np.array([places.get(key, -1) for key in written.places()], np.int64)
            self._captions = self.store.transcripts()
            self._shelves, self._version = (heard, written), version
        return self._shelves

    def _passage(self, shelf: _Shelf, row: int, score: float) -> Passage:
        """A passage, told as the longest one around it."""
        recording, start, stop = shelf.recordings[shelf.of[row]], shelf.starts[row], shelf.stops[row]
        around = np.flatnonzero((shelf.of == shelf.of[row]) & (shelf.starts <= start) & (shelf.stops >= stop))
        home = around[np.argmax(shelf.stops[around] - shelf.starts[around])]
        whole, best = (Span(float(shelf.starts[k]), float(shelf.stops[k])) for k in (home, row))
        text, best_text = (self._text(shelf, k, span) for k, span in ((int(home), whole), (row, best)))
        return Passage(recording, whole.start, whole.end, score, text, best, best_text, shelf.source == "heard")

    def _text(self, shelf: _Shelf, row: int, span: Span) -> str:
        """The words of a passage, as they were heard or as its transcript has them."""
        if shelf.source == "transcript":
            captions = self._captions.get(shelf.recordings[shelf.of[row]].id, [])
            return " ".join(c.text for c in captions if span.start <= (c.start + c.end) / 2 <= span.end)
        told, number = shelf.heard[shelf.of[row]], shelf.number[row]
        return self.encoder.read(told.tokens[told.first[number] : told.last[number], 0])


def _shelf(store: Store, source: Source, recordings: dict[int, Recording], dim: int) -> _Shelf:
    found = [(recordings[id], of) for id, of in store.passages(source) if id in recordings]
    counts = [len(heard.first) for _, heard in found]
    vectors: list[NDArray[Any]] = [np.zeros((0, dim), np.float32), *(heard.vectors for _, heard in found)]
    texts = [(h.tokens[a:b], h.sure[a:b]) for _, h in found for a, b in zip(h.first, h.last, strict=True)]
    return _Shelf(
        source,
        tuple(recording for recording, _ in found),
        tuple(heard for _, heard in found),
        np.repeat(np.arange(len(found)), counts),
        np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)]),
        np.concatenate([np.zeros(0), *(heard.starts for _, heard in found)]),
        np.concatenate([np.zeros(0), *(heard.stops for _, heard in found)]),
        np.concatenate(vectors, dtype=np.float32),
        Index(texts),
    )


def _shared(passage: Passage, start: Seconds, stop: Seconds) -> float:
    """How much of the time from `start` to `stop` is in the passage."""
    return (min(passage.end, stop) - max(passage.start, start)) / max(stop - start, 1e-9)

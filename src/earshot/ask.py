"""The read path of `ask`: a question, typed or spoken -> the passages in a library that may answer it, best first.

In: an open store, the passage encoder that heard its recordings, a question. Out: passages with times and the seconds
in them that are most like the question. Knows nothing of how recordings were heard, or of printing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.audio import load
from earshot.encoders.passage import PassageEncoder
from earshot.features import Floats
from earshot.heard import Heard
from earshot.library import Store
from earshot.search import matches
from earshot.types import Clip, Passage, QueryError, Recording, Seconds, Span

LONGEST_QUESTION: Seconds = 40.0
SHARED = 0.5
"""A passage that shares so much of its time with a better one says the same."""
Ints = NDArray[np.int64]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shelf:
    """All passages (p,): vectors (p, dim), number in `recordings` and in the passages of that, time."""

    recordings: tuple[Recording, ...]
    heard: tuple[Heard, ...]
    vectors: Floats
    of: Ints
    number: Ints
    starts: Times
    stops: Times


class Asker:
    """Asks one library; keeps its passages in memory between questions and notices when the library has changed."""

    def __init__(self, store: Store, encoder: PassageEncoder) -> None:
        self.store, self.encoder = store, encoder
        self._shelf: _Shelf | None = None
        self._version = -1

    def ask(self, question: str | Clip, *, top: int | None = 10, within: str | None = None) -> list[Passage]:
        """Passages that may answer `question`, best first, at most `top`; only in recordings that match `within`.

        QueryError for an empty question and a spoken one that is too long; AudioError for one that cannot be read.
        """
        vector = self._vector(question)
        shelf = self._passages()
        scores = shelf.vectors @ vector
        if within is not None:
            inside = np.array([matches(recording, within) for recording in shelf.recordings], bool)
            scores = np.where(inside[shelf.of], scores, -np.inf)
        return self._best(shelf, scores, len(scores) if top is None else top)

    def _vector(self, question: str | Clip) -> Floats:
        if isinstance(question, str):
            if not question.strip():
                raise QueryError("the question is empty; type one, as in earshot ask 'who paid for it?'")
            (vector,) = self.encoder.embed_text([question])
        else:
            (vector,) = self.encoder.embed_speech([load(question, max_seconds=LONGEST_QUESTION)])
        return np.asarray(vector, np.float32)

    def _passages(self) -> _Shelf:
        version = self.store.version()
        if self._shelf is None or version != self._version:
            recordings = {recording.id: recording for recording in self.store.recordings()}
            found = [(recordings[id], heard) for id, heard in self.store.passages() if id in recordings]
            self._shelf = _shelf(found, self.encoder.dim)
            self._version = version
        return self._shelf

    def _best(self, shelf: _Shelf, scores: Floats, top: int) -> list[Passage]:
        """The best passage of any length, told as the longest one around it; then the best that is not the same."""
        found: list[Passage] = []
        for k in np.argsort(-scores):
            if len(found) == top or scores[k] == -np.inf:
                break
            recording, start, stop = shelf.recordings[shelf.of[k]], shelf.starts[k], shelf.stops[k]
            if any(one.recording == recording and _shared(one, start, stop) >= SHARED for one in found):
                continue
            around = np.flatnonzero((shelf.of == shelf.of[k]) & (shelf.starts <= start) & (shelf.stops >= stop))
            home = around[np.argmax(shelf.stops[around] - shelf.starts[around])]
            heard, number = shelf.heard[shelf.of[k]], shelf.number[home]
            text = self.encoder.read(heard.tokens[heard.first[number] : heard.last[number]])
            times = (float(shelf.starts[home]), float(shelf.stops[home]))
            found.append(Passage(recording, *times, float(scores[k]), text, Span(float(start), float(stop))))
        return found


def _shelf(found: Sequence[tuple[Recording, Heard]], dim: int) -> _Shelf:
    counts = [len(heard.first) for _, heard in found]
    vectors: list[NDArray[Any]] = [np.zeros((0, dim), np.float32), *(heard.vectors for _, heard in found)]
    return _Shelf(
        tuple(recording for recording, _ in found),
        tuple(heard for _, heard in found),
        np.concatenate(vectors, dtype=np.float32),
        np.repeat(np.arange(len(found)), counts),
        np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)]),
        np.concatenate([np.zeros(0), *(heard.starts for _, heard in found)]),
        np.concatenate([np.zeros(0), *(heard.stops for _, heard in found)]),
    )


def _shared(passage: Passage, start: Seconds, stop: Seconds) -> float:
    """How much of the time from `start` to `stop` is in the passage."""
    return (min(passage.end, stop) - max(passage.start, start)) / max(stop - start, 1e-9)

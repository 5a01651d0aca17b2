"""The read path of `ask`: a question, typed or spoken -> the passages in a library that may answer it, best first.

In: an open store, the passage encoder that heard its recordings, what finds words in them, a question. Out: passages
with times and the seconds in them that are most like the question. Knows nothing of how recordings were heard, or of
printing.

A passage is like a question by its vector (paper B, arXiv 2511.09282) and by the question's words that are said in it.
Ours: these words are sought in the sound, as `find` does it, and count by their chances, for what was misheard, names
above all, is neither in the vector nor in the words that were heard. Those of a spoken question are sought as spoken
examples, so by their sound and by all the words that they may be: that they are misheard matters little.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earshot import bm25
from earshot.audio import load
from earshot.captions import Caption, excerpt
from earshot.encoders.clock import FRAME_SECONDS, frame_range
from earshot.encoders.lexicon import Lexicon
from earshot.encoders.passage import PassageEncoder
from earshot.encoders.towers import phone_ids
from earshot.encoders.word import WordEncoder
from earshot.features import Floats
from earshot.heard import Heard
from earshot.library import Source
from earshot.passages import SHORT
from earshot.pronounce import PHONES, read_out, spelled
from earshot.query import SHORTEST_EXAMPLE, Likely, Query, example_queries, likely_words, typed_queries
from earshot.search import Searcher, matches
from earshot.types import Clip, Hit, LibraryError, Passage, QueryError, Recording, Seconds, Span

LONGEST_QUESTION: Seconds = 40.0
SHARED = 0.5
"""A passage that shares so much of its time with a better one says the same."""
WORDS = 4.0
"""Weight of the words that are shared; that of the cosine is 1."""
COMMON = math.log(1e-3)
"""Words as likely as this at any place tell nothing of a passage, and take time to find."""
ASKING = frozenset("who whom whose what what's which when where why how does did didn't many much".split())
"""Nor do these: they say what kind of answer is wanted."""
SIGNS = '?!,;:"()[]{}\u201c\u201d\u2026'
MOST_WORDS = 16
"""Words of a question that are sought, the rarest of it."""
FAINT = 0.02
"""Places where a word is less likely do not count."""
TOLD = 0.1
"""Places where a word of the question is at least so likely are told with a passage; the threshold of `find`."""
WRITTEN = 0.8
"""Weight of what a transcript says of a passage where there is one; the rest is that of what was heard."""
Ints = NDArray[np.int64]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shelf:
    """All passages (p,) of one source, recording after recording, each from its first on: number in `recordings` and in
    the passages of that, time, vectors."""

    source: Source
    recordings: tuple[Recording, ...]
    heard: tuple[Heard, ...]
    of: Ints
    number: Ints
    starts: Times
    stops: Times
    vectors: Floats

    def scores(self, vector: Floats, counts: Times, within: str | None) -> Floats:
        """(p,) how like a question they are: its vector, and how often each of its words is expected in them (w, p);
        -inf for those in recordings that do not match."""
        lengths = self.stops - self.starts
        if within is None:
            return similarity(self.vectors @ vector, bm25.scores(counts, lengths))
        of = np.array([matches(recording, within) for recording in self.recordings], bool)
        rows = np.flatnonzero(of[self.of])
        scores = np.full(len(self.of), -np.inf, np.float32)
        shared = bm25.scores(counts[:, rows], lengths[rows])
        scores[rows] = similarity(self.vectors[rows] @ vector, shared)
        return scores

    @property
    def spans(self) -> tuple[tuple[Recording, ...], Ints, Times, Times]:
        """What `expected_counts` wants to know."""
        return self.recordings, self.of, self.starts, self.stops

    def texts(self) -> list[Ints]:
        """The word pieces of each passage."""
        told = ((self.heard[k], n) for k, n in zip(self.of, self.number, strict=True))
        return [heard.tokens[heard.first[n] : heard.last[n]] for heard, n in told]

    def places(self) -> list[tuple[int, Seconds, Seconds]]:
        """What tells the passages apart: recording, start, stop."""
        ids = [recording.id for recording in self.recordings]
        return [(ids[k], *times) for k, *times in zip(self.of, self.starts.tolist(), self.stops.tolist(), strict=True)]


def similarity(cosines: Floats, shared: Floats) -> Floats:
    """How like a question passages are: cosines of their vectors, and what of its words they hold (`bm25`)."""
    return ((cosines + WORDS * shared) / (1 + WORDS)).astype(np.float32)


def expected_counts(
    words: Sequence[Sequence[Hit]], recordings: Sequence[Recording], of: Ints, starts: Times, stops: Times
) -> Times:
    """(w, p): how often each of some words, which were sought, is expected to be said in each passage.

    Passages (p,) are of recording number `of`, ascending, from `starts` to `stops`.
    """
    places = {recording.id: k for k, recording in enumerate(recordings)}
    found = np.zeros((len(words), len(of)))
    for counts, hits in zip(found, words, strict=True):
        for hit in hits:
            if hit.probability >= FAINT and (number := places.get(hit.recording.id)) is not None:
                first, last = np.searchsorted(of, [number, number + 1])
                middle = (hit.start + hit.end) / 2
                inside = (starts[first:last] <= middle) & (middle < stops[first:last])
                counts[first:last][inside] += hit.probability
    return found


class Asker:
    """Asks one library; keeps its passages in memory between questions and notices when the library has changed."""

    def __init__(self, encoder: PassageEncoder, searcher: Searcher) -> None:
        """`searcher`: of the library that is asked."""
        self.store, self.encoder, self.searcher = searcher.store, encoder, searcher
        self._shelves: tuple[_Shelf, _Shelf] | None = None
        self._heard: dict[int, Heard] = {}  # by recording; what was heard in one stays as it is
        self._captions: dict[int, list[Caption]] = {}
        self._written = bm25.Index([])
        self._twins: Ints = np.zeros(0, np.int64)
        self._version = -1
        self._turn = Lock()

    def ask(self, question: str | Clip, *, top: int | None = 10, within: str | None = None) -> list[Passage]:
        """Passages that may answer `question`, best first, at most `top`; only in recordings that match `within`.

        QueryError for an empty question and a spoken one that is too long or holds no word; AudioError for one that
        cannot be read; LibraryError where the library has no passages, or another encoder's.
        """
        tokens, sought = self._typed(question) if isinstance(question, str) else self._spoken(question)
        with self._turn:
            return self._ranked(tokens, sought, top, within)

    def _ranked(
        self, tokens: Ints, sought: Sequence[Sequence[Query]], top: int | None, within: str | None
    ) -> list[Passage]:
        """Passages that may answer a question of these word pieces, and of words that are sought; best first."""
        (vector,) = self.encoder.embed_tokens([tokens])
        shelves = self._read()
        said = self.searcher.spot(sought, within)
        counts = expected_counts(said, *shelves[0].spans), self._written.counts(np.unique(tokens).tolist())
        heard, written = (shelf.scores(vector, of, within) for shelf, of in zip(shelves, counts, strict=True))
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
            start, stop = float(shelf.starts[row]), float(shelf.stops[row])
            told = [one for one in found if one.recording == recording]
            if any(_shared(one, start, stop) >= SHARED for one in told):
                continue
            passage = self._passage(shelf, row, heard if shelf is shelves[0] else written, told)
            found.append(replace(passage, words=tuple(_within(passage, said))))
        return found

    def _typed(self, question: str) -> tuple[Ints, list[list[Query]]]:
        """The word pieces of a question, and its telling words."""
        tokens = np.array(self.encoder.text.pieces.ids(question), np.int64)
        if not len(tokens) or not any(map(str.isalnum, question)):
            raise QueryError("the question is empty; type one, as in 'who paid for it?'")
        if len(tokens) > self.encoder.text.limit - 2:
            raise QueryError(f"the question has {len(question.split())} words; ask in two sentences or so")
        encoder = self.searcher.encoder
        return tokens, typed_queries(telling_words(question, encoder.lexicon), encoder)

    def _spoken(self, question: Clip) -> tuple[Ints, list[list[Query]]]:
        """The same of a spoken one, as it is heard."""
        frames = self.encoder.speech_frames(load(question, max_seconds=LONGEST_QUESTION))
        heard = self.encoder.hear(frames)
        if not len(heard.tokens):
            raise QueryError(f"{question}: no words are heard in it; give a clip of a spoken question")
        return heard.tokens, telling_examples(frames, self.encoder.words(heard), self.searcher.encoder)

    def _read(self) -> tuple[_Shelf, _Shelf]:
        """What was heard and what is written, as the library has it now."""
        version = self.searcher.version()
        if self._shelves is None or version != self._version:
            identity = self.store.passage_encoder()
            if identity is None or identity.digest != self.encoder.digest:
                whose = "no passages to ask" if identity is None else f"passages by another encoder ({identity})"
                raise LibraryError(
                    f"the library at {self.store.path} has {whose}; make them: run `earshot index` again"
                )
            recordings = {recording.id: recording for recording in self.store.recordings()}
            known = {id: of for id, of in self._heard.items() if id in recordings}
            self._heard = known | dict(self.store.passages("heard", recordings.keys() - known.keys()))
            of_source: dict[Source, dict[int, Heard]] = {
                "heard": self._heard,
                "transcript": dict(self.store.passages("transcript")),
            }
            heard, written = (_shelf(source, of, recordings, identity.dim) for source, of in of_source.items())
            places = {key: k for k, key in enumerate(heard.places())} if len(written.of) else {}
            self._twins = np.array([places.get(key, -1) for key in written.places()], np.int64)
            self._captions = self.store.transcripts()
            self._written = bm25.Index(written.texts())
            self._shelves, self._version = (heard, written), version
        return self._shelves

    def _passage(self, shelf: _Shelf, row: int, scores: Floats, told: Sequence[Passage]) -> Passage:
        """A passage, told as the longest one around it that says something new, with the best short one in that."""
        recording, start, stop = shelf.recordings[shelf.of[row]], shelf.starts[row], shelf.stops[row]
        lengths, same = shelf.stops - shelf.starts, shelf.of == shelf.of[row]
        around = np.flatnonzero(same & (shelf.starts <= start) & (shelf.stops >= stop))
        shared = [max((_shared(p, shelf.starts[k], shelf.stops[k]) for p in told), default=0.0) for k in around]
        home = around[np.argmax(np.where(np.array(shared) < SHARED, lengths[around], 0))]
        inside = np.flatnonzero(same & (shelf.starts >= shelf.starts[home]) & (shelf.stops <= shelf.stops[home]))
        short = inside[lengths[inside] <= max(SHORT, float(lengths[inside].min()))]
        best_row = short[np.argmax(scores[short])]
        whole, best = (Span(float(shelf.starts[k]), float(shelf.stops[k])) for k in (home, best_row))
        text, best_text = (self._text(shelf, int(k), span) for k, span in ((home, whole), (best_row, best)))
        score = float(scores[row])
        return Passage(recording, whole.start, whole.end, score, text, best, best_text, shelf.source == "heard")

    def _text(self, shelf: _Shelf, row: int, span: Span) -> str:
        """The words of a passage, as they were heard or as its transcript has them."""
        if shelf.source == "transcript":
            captions = self._captions.get(shelf.recordings[shelf.of[row]].id, [])
            if text := excerpt(captions, span.start, span.end):
                return text  # else its words are said in the pause after it
        told, number = shelf.heard[shelf.of[row]], shelf.number[row]
        return self.encoder.read(told.tokens[told.first[number] : told.last[number]])


def telling_words(question: str, lexicon: Lexicon) -> list[str]:
    """The words of a question that tell its passages from others, as they are written, the rarest first.

    A number is one word here. What is in another script is left out.
    """
    priors: dict[tuple[str, ...], tuple[float, str]] = {}
    for piece in question.split():
        word = piece.strip(SIGNS)
        word = word.rstrip(".") if word.count(".") == 1 else word
        try:
            said = read_out(word)
        except QueryError:
            continue
        prior = sum(lexicon.prior(phone_ids(phones)) for _, phones in said)
        if said and prior < COMMON and word.lower() not in ASKING:
            priors.setdefault(tuple(of for of, _ in said), (prior, word))
    return [word for _, word in sorted(priors.values())[:MOST_WORDS]]


def telling_examples(
    frames: NDArray[np.int8], words: Sequence[tuple[str, Span]], encoder: WordEncoder
) -> list[list[Query]]:
    """The words of a spoken question, of these frames, that tell its passages from others; the rarest first.

    Each is sought by its sound and as the words that it may be, whose priors tell how rare it is. One that is said
    again is sought once.
    """

    def hear(said_at: tuple[str, Span]) -> _Example | None:
        word, span = said_at
        said = encoder.trim(frames[slice(*frame_range(span.start, span.end, len(frames)))])
        if word in ASKING or len(said) * FRAME_SECONDS < SHORTEST_EXAMPLE or not encoder.speech(said).any():
            return None
        likely = likely_words(said, encoder)
        chances = likely.chances[:-1].astype(np.float64) + 1e-12
        prior = float(np.exp(encoder.lexicon.log_prior[likely.rows]) @ (chances / chances.sum()))
        row = int(likely.rows[chances.argmax()])
        phones = tuple(PHONES[k] for k in encoder.lexicon.ids(row))
        names = spelled(phones) if chances.max() > likely.chances[-1] else []  # else it may be no word that is known
        return _Example(prior, row, word if word in names or not names else names[0], said, likely)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [example for example in pool.map(hear, words) if example and example.prior < math.exp(COMMON)]
        telling = {example.row: example for example in reversed(found)}  # the first of each
        rarest = sorted(telling.values(), key=lambda example: example.prior)[:MOST_WORDS]
        return list(pool.map(lambda of: example_queries(of.word, of.said, encoder, of.likely), rarest))


class _Example(NamedTuple):
    """A word of a spoken question: how common it is, the row of what it likeliest is, what it is called, its frames."""

    prior: float
    row: int
    word: str
    said: NDArray[np.int8]
    likely: Likely


def _within(passage: Passage, words: Iterable[Iterable[Hit]]) -> list[Hit]:
    """The likely ones of some hits that lie in a passage, in order of time."""
    hits = (hit for of in words for hit in of if hit.probability >= TOLD and hit.recording == passage.recording)
    inside = [hit for hit in hits if passage.start <= (hit.start + hit.end) / 2 < passage.end]
    return sorted(inside, key=lambda hit: hit.start)


def _shelf(source: Source, of: dict[int, Heard], recordings: dict[int, Recording], dim: int) -> _Shelf:
    found = [(recordings[id], of[id]) for id in sorted(of.keys() & recordings.keys())]
    counts = [len(heard.first) for _, heard in found]
    vectors: list[NDArray[Any]] = [np.zeros((0, dim), np.float32), *(heard.vectors for _, heard in found)]
    return _Shelf(
        source,
        tuple(recording for recording, _ in found),
        tuple(heard for _, heard in found),
        np.repeat(np.arange(len(found)), counts),
        np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)]),
        np.concatenate([np.zeros(0), *(heard.starts for _, heard in found)]),
        np.concatenate([np.zeros(0), *(heard.stops for _, heard in found)]),
        np.concatenate(vectors, dtype=np.float32),
    )


def _shared(passage: Passage, start: Seconds, stop: Seconds) -> float:
    """How much of the time from `start` to `stop` is in the passage."""
    return (min(passage.end, stop) - max(passage.start, start)) / max(stop - start, 1e-9)

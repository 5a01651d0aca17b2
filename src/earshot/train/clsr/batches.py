"""Batches for the passage model: stretches of frames, the word pieces said in them, and questions that they answer.

In: takes of aligned speech, and texts. Out: `Batch`, made from (seed, step) alone, so that a run resumes exactly. Knows
nothing of networks or losses.

Rows of one batch are about equally long, so that little is padding. A row is read speech, utterance after utterance of
one speaker; or a text that nobody read, sentence after sentence, spliced from what others said (`splice`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from earshot.encoders.clock import FRAME_SECONDS, SILENCE
from earshot.encoders.passage import STACKED, stacked
from earshot.encoders.towers import phone_ids
from earshot.encoders.wordpiece import WordPiece
from earshot.pronounce import read_out
from earshot.train.clsr.frames import Take
from earshot.train.clsr.splice import Bank, frame_before
from earshot.train.transcripts import CorpusError
from earshot.types import QueryError, Seconds

Ints = NDArray[np.int64]
PHONES_PER_SECOND = 11.0
LONGEST_QUESTION = 48
"""Word pieces."""


@dataclass(frozen=True, slots=True)
class PassageOptions:
    """How batches are made."""

    seconds: Seconds = 120.0
    """Of speech in a batch."""
    shortest: Seconds = 3.0
    longest: Seconds = 40.0
    """The lengths that rows have; half of the batches are of less than a third of it."""
    spliced: float = 0.5
    """Share of the rows that are texts nobody read."""
    pause: float = 0.15
    """Chance of a pause between two words of a spliced row; after a sentence there always is one."""
    masks: float = 0.0
    """Stretches that are hidden in each second of speech, so that the words around tell what is said in them."""
    longest_mask: Seconds = 0.3
    weights: dict[str, float] = field(default_factory=dict)
    """How often each corpus, and each text, is drawn."""


@dataclass(frozen=True, slots=True)
class PassageBatch:
    """features (b, t, STACKED * frame_dim) int8, lengths (b,); tokens (b, n) padded with 0, counts (b,); ends (b, n):
    where each token ends, in frames of `features`; questions (q, m) word pieces padded with 0, question_lengths (q,),
    asked (q,): the row that answers each; labels: all tokens in a row, to count them."""

    features: NDArray[np.int8]
    lengths: Ints
    tokens: Ints
    counts: Ints
    ends: NDArray[np.float32]
    questions: Ints
    question_lengths: Ints
    asked: Ints
    labels: Ints


@dataclass(frozen=True, slots=True)
class Text:
    """Sentences of one source, in order, each with the questions that it answers."""

    name: str
    sentences: tuple[tuple[str, ...], ...]
    """A sentence, then its questions."""


class _Row(NamedTuple):
    frames: NDArray[np.int8]
    tokens: list[int]
    ends: list[float]
    questions: list[list[int]]


def read_text(path: Path) -> Text:
    """A file with a sentence on each line, and after tabs the questions that it answers."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: no readable sentences ({error}); make them with recipes/sentences.py") from None
    return Text(path.stem, tuple(tuple(line.split("\t")) for line in lines if line))


class PassageBatcher:
    """Makes batch number `step` of a run. CorpusError where there is neither aligned speech nor a text."""

    priors = None

    def __init__(
        self,
        takes: Sequence[Take],
        texts: Sequence[Text],
        pieces: WordPiece,
        options: PassageOptions,
        questions: dict[str, list[str]] | None = None,
        seed: int = 0,
    ) -> None:
        """`questions`: those that utterances answer, by id."""
        self.texts = [text for text in texts if text.sentences]
        timed = [take for take in takes if take.utterance.words]
        self.takes = [take for take in timed if take.utterance.phones] if self.texts else timed
        if not self.takes:
            raise CorpusError(f"no take has times of its words{' and phones' if self.texts else ''}")
        self.pieces, self.options, self.seed = pieces, options, seed
        self.questions = questions or {}
        self.bank = Bank(self.takes)
        self._spoken = _chances(
            [t.utterance.corpus for t in self.takes], [t.seconds for t in self.takes], options.weights
        )
        lengths = [float(len(text.sentences)) for text in self.texts]
        self._written = _chances([text.name for text in self.texts], lengths, options.weights)
        self._of_speaker: dict[tuple[str, str], list[int]] = defaultdict(list)
        for k, take in enumerate(self.takes):
            self._of_speaker[take.utterance.corpus, take.utterance.speaker].append(k)
        self._ids = lru_cache(maxsize=100_000)(pieces.ids)

    def batch(self, step: int, rank: int = 0) -> PassageBatch:
        """The batch of this step; the same for the same seed, step and rank."""
        rng = np.random.default_rng((self.seed, step, rank))
        options = self.options
        longest = options.longest if rng.random() < 0.5 else max(options.longest / 3, options.shortest)
        length = float(rng.uniform(options.shortest, longest))
        rows = []
        for _ in range(max(2, round(options.seconds / length))):
            spliced = self.texts and rng.random() < options.spliced
            row = self._spliced(length, rng) if spliced else self._read(length, rng)
            self._mask(row.frames, rng)
            rows.append(row)
        return collate(rows)

    def _mask(self, frames: NDArray[np.int8], rng: Generator) -> None:
        """Hide stretches of frames, in place."""
        longest = round(self.options.longest_mask / FRAME_SECONDS)
        for _ in range(rng.poisson(self.options.masks * len(frames) * FRAME_SECONDS)):
            begin = int(rng.integers(len(frames)))
            frames[begin : begin + int(rng.integers(1, longest + 1))] = 0

    def _read(self, length: Seconds, rng: Generator) -> _Row:
        """What one speaker says, utterance after utterance, as they come, until there is enough; whole words of it."""
        take = self.takes[int(rng.choice(len(self.takes), p=self._spoken))]
        others = self._of_speaker[take.utterance.corpus, take.utterance.speaker]
        frames, words, questions, total = [], [], [], 0
        while True:
            begin, end, said = self._window(take, length - total * FRAME_SECONDS, rng)
            frames.append(take.frames[begin:end])
            words += [(word, total + at - begin) for word, at in said]
            total += end - begin
            questions += self._asked(self.questions.get(take.utterance.id, []))
            if total * FRAME_SECONDS > length - self.options.shortest:
                break
            take = self.takes[others[int(rng.integers(len(others)))]]
        return _Row(np.concatenate(frames), *self._told(words), questions)

    def _window(self, take: Take, length: Seconds, rng: Generator) -> tuple[int, int, list[tuple[str, int]]]:
        """Frames from and to, about `length` of a take, and the words in it with the frame before which each ends."""
        words, n = take.utterance.words, len(take.frames)
        starts, ends = (
            [frame_before(getattr(word, edge) / take.factor, n) for word in words] for edge in ("start", "end")
        )
        wanted = round(length / FRAME_SECONDS)
        if n <= wanted * 1.3:
            return 0, n, [(word.label, end) for word, end in zip(words, ends, strict=True)]
        first = int(rng.integers(len(words)))
        while first and n - starts[first] < wanted:
            first -= 1
        last = first
        while last + 1 < len(words) and ends[last + 1] - starts[first] <= wanted:
            last += 1
        chosen = range(first, last + 1)
        return starts[first], max(ends[last], starts[first] + 1), [(words[k].label, ends[k]) for k in chosen]

    def _spliced(self, length: Seconds, rng: Generator) -> _Row:
        """Sentences of a text, one after the other from anywhere on, until there is enough; whole words of them."""
        text = self.texts[int(rng.choice(len(self.texts), p=self._written))]
        at = int(rng.integers(len(text.sentences)))
        most = max(4, round(length * PHONES_PER_SECOND))
        phones, words = [SILENCE], list[tuple[str, int]]()
        questions: list[list[int]] = []
        for sentence, *asked in (*text.sentences[at:], *text.sentences[:at]):
            for word, ids in _said(sentence):
                if not self.bank.known.issuperset(ids):
                    continue
                if len(phones) + len(ids) > most * 1.1 and words:
                    asked = []
                    break
                phones += ids
                words.append((word, len(phones) - 1))
                if rng.random() < self.options.pause:
                    phones.append(SILENCE)
            if phones[-1] != SILENCE:
                phones.append(SILENCE)
            questions += self._asked(asked)
            if len(phones) > most * 0.9:
                break
        frames, ends = self.bank.say(phones, rng)
        return _Row(frames, *self._told([(word, int(ends[k])) for word, k in words]), questions)

    def _told(self, words: Sequence[tuple[str, int]]) -> tuple[list[int], list[float]]:
        """Word pieces of words that each end before a frame, and where each of those ends: by its letters."""
        tokens: list[int] = []
        ends: list[float] = []
        last = 0
        for word, end in words:
            ids = self._ids(word)
            letters = np.cumsum([len(self.pieces.pieces[k].removeprefix("##")) for k in ids])
            begin = max(last, end - 25)  # a second: what was before may be a pause
            ends += [begin + (end - begin) * float(x) / float(letters[-1]) for x in letters]
            tokens += ids
            last = end
        return tokens, ends

    def _asked(self, questions: Sequence[str]) -> list[list[int]]:
        return [self.pieces.ids(question)[:LONGEST_QUESTION] for question in questions]


def _said(sentence: str) -> Iterator[tuple[str, list[int]]]:
    """Words of a sentence with their phones; none where it is in another script."""
    try:
        for word, said in read_out(sentence):
            yield word, phone_ids(said)
    except QueryError:
        return


def _chances(names: Sequence[str], amounts: Sequence[float], weights: dict[str, float]) -> NDArray[np.float64]:
    """(n,): by its amount within all of its name, which weighs what `weights` says, 1 where that says nothing."""
    totals: dict[str, float] = defaultdict(float)
    for name, amount in zip(names, amounts, strict=True):
        totals[name] += amount
    chances = np.array([weights.get(n, 1.0) * a / totals[n] for n, a in zip(names, amounts, strict=True)])
    return chances / chances.sum() if len(chances) else chances


def collate(rows: Sequence[_Row]) -> PassageBatch:
    """Pad rows to one length."""
    features = [stacked(row.frames) for row in rows]
    lengths, counts = (np.array([len(x) for x in of]) for of in (features, [row.tokens for row in rows]))
    questions = [(k, question) for k, row in enumerate(rows) for question in row.questions if question]
    return PassageBatch(
        _padded(features, np.int8),
        lengths,
        _padded([np.array(row.tokens, np.int64) for row in rows], np.int64),
        counts,
        _padded([np.array(row.ends, np.float32) / STACKED for row in rows], np.float32),
        _padded([np.array(question) for _, question in questions], np.int64),
        np.array([len(question) for _, question in questions], np.int64),
        np.array([k for k, _ in questions], np.int64),
        np.concatenate([np.array(row.tokens, np.int64) for row in rows]),
    )


def _padded(rows: Sequence[NDArray], kind: type) -> NDArray:  # type: ignore[type-arg]
    """Rows (n, ...) of several lengths as one array (rows, longest, ...), zeros after each."""
    shape = (len(rows), max((len(row) for row in rows), default=0), *(rows[0].shape[1:] if rows else ()))
    out = np.zeros(shape, kind)
    for k, row in enumerate(rows):
        out[k, : len(row)] = row
    return out

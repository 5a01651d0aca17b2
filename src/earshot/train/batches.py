"""Batches for the word encoder: chunks of running speech, and the spans inside them that have a known text.

In: corpora with word and phone times. Out: `Batch`, made from (seed, step) alone, so that a run resumes exactly.
Knows nothing of networks or losses.

A span is a word, a few words in a row, or any run of phones: a run of phones that is no word teaches queries outside
every dictionary, and, overlapping the words, is what a detector must tell apart from them. The text of a span has a
BORDER at an end where a word begins or ends, so that "sight" is not what is said inside "beside".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from earshot.encoders.clock import BORDER, FRAME_SECONDS, HALVES, SILENCE, frame_count, frame_range, half_centres
from earshot.features import HOP, SAMPLE_RATE, Floats, log_mel, normalise
from earshot.pronounce import PHONES, pronounce_word
from earshot.train import augment
from earshot.train.augment import Augmentation
from earshot.train.corpus import Corpus
from earshot.train.priors import Priors
from earshot.train.transcripts import CorpusError
from earshot.types import Seconds

PHONE_ID = {phone: k for k, phone in enumerate(PHONES)}
Ints = NDArray[np.int64]
CUT: Seconds = 0.02
"""A word counts as inside a chunk when no more than this is cut off."""
SHORTEST: Seconds = 0.2
"""No chunk is shorter."""
VOICES = 4
"""Utterances that babble is made of."""
NEAR: Seconds = 0.025
"""A half frame is at a border when its middle is no further from it."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a batch holds. `weights`: how often each corpus is drawn, by name."""

    chunks: int = 32
    chunk: Seconds = 5.0
    jitter: Seconds = 0.03
    phrase_probability: float = 0.25
    phone_runs: int = 5
    """Runs of phones for each chunk."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    weights: dict[str, float] = field(default_factory=dict)
    unwritten: int = 0
    """Words known by sound alone, in any language, beside the chunks: so many of each batch."""
    unwritten_instances: int = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """mel (b, t, N_MELS), lengths (b,); for each half frame (b, HALVES * ceil(t/4)) targets, phone ids or -1, and
    borders, whether a word begins or ends there, or -1; spans: row, start, end, label (s,);
    texts (u, n) phone ids padded with SILENCE, text_lengths (u,). Label k is row k of texts; labels from u on
    are words known by sound alone.
    said (4, m): row, start, end and label of every place where the phones of a text are said, chosen or not."""

    mel: Floats
    lengths: Ints
    targets: Ints
    borders: Ints
    rows: Ints
    starts: Ints
    ends: Ints
    labels: Ints
    texts: Ints
    text_lengths: Ints
    said: Ints


@dataclass(frozen=True, slots=True)
class _Speech:
    """One aligned utterance as arrays; phones and words share the clock of the samples."""

    corpus: int
    index: int
    speaker: str
    words: tuple[str, ...]
    heard: tuple[tuple[int, ...], ...]
    """The phones of each word as the aligner heard them: its pronunciations differ."""
    word_times: Floats
    phones: Ints
    phone_times: Floats
    outer: NDArray[np.bool_]
    """(2, phones): whether a word begins with the phone, and whether one ends with it."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk of log-mels and, in seconds from its start, what is said in it: whole words as phones, and all phones."""

    mel: Floats
    words: tuple[tuple[int, ...], ...]
    word_times: Floats
    phones: Ints
    phone_times: Floats
    outer: NDArray[np.bool_]
    borders: Floats
    """Where words begin and end, those that are not whole among them."""
    sound: int | None = None
    """The number of the word that the chunk is, of those known by sound alone."""


class Batcher:
    """Makes batch number `step` of a run: half of the chunks are drawn at random, each other one shares a word
    with one of them, though not always its pronunciation. Words of utterances without phones are known by sound
    alone: their labels are names, and only such as are said often enough are drawn. CorpusError where no utterance
    has phones."""

    def __init__(self, corpora: Sequence[Corpus], options: BatchOptions, priors: Priors, seed: int = 0):
        self.corpora, self.options, self.priors, self.seed = corpora, options, priors, seed
        aligned = [_speech(k, i, c) for k, c in enumerate(corpora) for i in range(len(c.utterances))]
        self._speech = [s for s in aligned if len(s.words) and len(s.phones) and s.word_times[-1, 1] > 2 * SHORTEST]
        if not self._speech:
            raise CorpusError("no training utterance has times of its words and phones; align the corpora with phones")
        self._sounds = _by_name([s for s in aligned if len(s.words) and not len(s.phones)], options)
        names = np.array([corpora[s.corpus].utterances[s.index].corpus for s in self._speech])
        seconds = np.array([s.word_times[-1, 1] - s.word_times[0, 0] for s in self._speech])
        self._chance = np.zeros(len(names))
        for name in np.unique(names):
            of = names == name
            self._chance[of] = options.weights.get(str(name), 1.0) * seconds[of] / seconds[of].sum()
        self._chance /= self._chance.sum()
        self._said: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, speech in enumerate(self._speech):
            for k, word in enumerate(speech.words):
                if len(word) >= 3:
                    self._said[word].append((i, k))

    def __len__(self) -> int:
        return len(self._speech)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """The batch of this step; the same for the same seed, step and rank."""
        rng = np.random.default_rng((self.seed, step, rank))
        chunks: list[_Chunk] = []
        while len(chunks) < self.options.chunks or not any(chunk.words for chunk in chunks):
            i = int(rng.choice(len(self._speech), p=self._chance))
            k = int(rng.choice(len(self._speech[i].words), p=_interest(self._speech[i].heard)))
            chunks.append(self._chunk(i, k, rng))
            partner = self._partner(i, k, rng)
            if partner is not None and len(chunks) < self.options.chunks:
                chunks.append(self._chunk(*partner, rng))
        n_sounds = min(self.options.unwritten, len(self._sounds))
        for sound in rng.choice(len(self._sounds), n_sounds, replace=False) if n_sounds else ():
            places = self._sounds[int(sound)]
            for place in rng.choice(len(places), self.options.unwritten_instances, replace=False):
                chunks.append(self._alone(places[int(place)], int(sound), rng))
        return collate(chunks, rng, self.options)

    def _partner(self, i: int, k: int, rng: Generator) -> tuple[int, int] | None:
        """Another place where the word is said, by another speaker where there is one."""
        places = self._said.get(self._speech[i].words[k], [])
        others = [p for p in places if self._speech[p[0]].speaker != self._speech[i].speaker]
        others = others or [p for p in places if p[0] != i]
        if not others:
            return None
        chances = np.array([self._chance[p[0]] for p in others])
        return others[int(rng.choice(len(others), p=chances / chances.sum()))]

    def _chunk(self, i: int, k: int, rng: Generator) -> _Chunk:
        """About `options.chunk` seconds around word k of utterance i, augmented."""
        speech = self._speech[i]
        utterance = self.corpora[speech.corpus].utterances[speech.index]
        factor = self._speed(rng)
        begin, end = self._window(speech.word_times[k], utterance.seconds, factor, rng)
        samples = self.corpora[speech.corpus].read(utterance)[int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        mel = self._mel(samples, factor, speech, rng)
        word_times, phone_times = (speech.word_times - begin) / factor, (speech.phone_times - begin) / factor
        whole = (word_times[:, 0] >= -CUT) & (word_times[:, 1] <= (end - begin) / factor + CUT)
        words = tuple(w for w, inside in zip(speech.heard, whole, strict=True) if inside)
        return _Chunk(mel, words, word_times[whole], speech.phones, phone_times, speech.outer, np.unique(word_times))

    def _speed(self, rng: Generator) -> float:
        options = self.options.augmentation
        return rng.uniform(*options.speed) if rng.random() < options.speed_probability else 1.0

    def _mel(self, samples: Floats, factor: float, speech: _Speech, rng: Generator) -> Floats:
        """Normalised log-mels of samples of `speech`, said `factor` times as fast, augmented."""
        options = self.options.augmentation
        if factor != 1.0:
            samples = augment.change_speed(samples, factor)
        mel = log_mel(augment.degrade(samples, rng, options, lambda: self._babble(speech.speaker, rng)))
        if rng.random() < options.warp_probability:
            mel = augment.warp_mels(mel, rng.uniform(*options.warp))
        mel = normalise(mel, self.priors.mean, self.priors.std)
        return augment.mask_mels(mel, rng, options) if rng.random() < options.mask_probability else mel

    def _babble(self, speaker: str, rng: Generator) -> Floats:
        drawn = [self._speech[int(k)] for k in rng.integers(len(self._speech), size=2 * VOICES)]
        return other_speech([(self.corpora[s.corpus], s.index) for s in drawn], speaker)

    def _alone(self, place: tuple[_Speech, int], sound: int, rng: Generator) -> _Chunk:
        """A word known by sound alone, with what is around it, augmented."""
        speech, k = place
        utterance = self.corpora[speech.corpus].utterances[speech.index]
        samples = self.corpora[speech.corpus].read(utterance)
        begin = max(0.0, speech.word_times[k, 0] - rng.uniform(0, 0.2))
        end = min(utterance.seconds, max(speech.word_times[k, 1] + rng.uniform(0, 0.2), begin + SHORTEST))
        factor = self._speed(rng)
        mel = self._mel(samples[int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)], factor, speech, rng)
        times, none = (speech.word_times[k : k + 1] - begin) / factor, np.zeros((0, 2), np.float32)
        return _Chunk(mel, (), times, np.zeros(0, np.int64), none, np.zeros((2, 0), bool), none[0:0, 0], sound)

    def _window(self, word: Floats, longest: Seconds, factor: float, rng: Generator) -> tuple[Seconds, Seconds]:
        """Where to cut around a word: now and then the word alone, as a spoken example may be."""
        share = rng.choice([1.0, 1.0, 0.6, 0.3, 0.0])
        if share == 0.0:
            begin = min(max(0.0, word[0] - rng.uniform(-CUT, 0.1)), longest - SHORTEST)
            return begin, min(longest, max(word[1] + rng.uniform(-CUT, 0.1), begin + SHORTEST))
        length = self.options.chunk * factor * share
        begin = float(np.clip(word.mean() - length * rng.random(), 0, max(0, longest - length)))
        return begin, min(begin + length, longest)


def other_speech(drawn: Sequence[tuple[Corpus, int]], speaker: str) -> Floats:
    """Samples of the first VOICES of these utterances, by number, that `speaker` does not say, one after the other."""
    others = [(corpus, corpus.utterances[k]) for corpus, k in drawn if corpus.utterances[k].speaker != speaker]
    return np.concatenate([np.zeros(0, np.float32), *(corpus.read(u) for corpus, u in others[:VOICES])])


def collate(chunks: Sequence[_Chunk], rng: Generator, options: BatchOptions) -> Batch:
    """Pad chunks to one length and choose the spans."""
    lengths = np.array([len(c.mel) for c in chunks])
    mel = np.zeros((len(chunks), lengths.max(), chunks[0].mel.shape[1]), np.float32)
    targets = np.full((len(chunks), HALVES * frame_count(int(lengths.max()))), -1)
    borders = targets.copy()
    spans: list[tuple[int, int, int, tuple[int, ...]]] = []
    sounds: list[tuple[int, int, int, int]] = []
    for row, chunk in enumerate(chunks):
        mel[row, : len(chunk.mel)] = chunk.mel
        n = frame_count(len(chunk.mel))
        if chunk.sound is not None:
            start, end = chunk.word_times[0]
            sounds.append((row, *frame_range(start, end, n), chunk.sound))
            continue
        targets[row, : HALVES * n] = half_phones(chunk.phones, chunk.phone_times, n)
        borders[row, : HALVES * n] = half_borders(chunk.borders, n)
        for start, end, phones in _spans(chunk, rng, options):
            first, last = frame_range(start, end, n)
            spans.append((row, first, last, phones))
    names = sorted({s[3] for s in spans})
    number = {name: k for k, name in enumerate(names)}
    said = _said(chunks, names)
    texts = np.full((len(names), max(map(len, names))), SILENCE)
    for k, name in enumerate(names):
        texts[k, : len(name)] = name
    heard = np.array([(*s[:3], number[s[3]]) for s in spans], np.int64).reshape(-1, 4)
    alone = np.array(sounds, np.int64).reshape(-1, 4)
    alone[:, 3] = len(names) + np.unique(alone[:, 3], return_inverse=True)[1]
    rows, starts, ends, labels = np.concatenate([heard, alone]).T
    said = np.concatenate([np.stack([rows, starts, ends, labels]), said], 1)
    return Batch(
        mel, lengths, targets, borders, rows, starts, ends, labels, texts, np.array([len(n) for n in names]), said
    )


def _said(chunks: Sequence[_Chunk], names: Sequence[tuple[int, ...]]) -> Ints:
    """(4, m): row, start, end, label of every place where the aligned phones of a chunk are those of a text, and so are
    the borders at both ends."""
    found = []
    patterns = [(bytes(p for p in name if p != BORDER), name[0] == BORDER, name[-1] == BORDER) for name in names]
    for row, chunk in enumerate(chunks):
        n = frame_count(len(chunk.mel))
        phones = bytes(chunk.phones.astype(np.uint8))
        begins, ends = chunk.outer
        for label, (pattern, begun, ended) in enumerate(patterns):
            k = phones.find(pattern)
            while k >= 0:
                last = k + len(pattern) - 1
                start, end = chunk.phone_times[k, 0], chunk.phone_times[last, 1]
                if (begins[k], ends[last]) == (begun, ended) and end > 0 and start < n * FRAME_SECONDS:
                    found.append((row, *frame_range(start, end, n), label))
                k = phones.find(pattern, k + 1)
    return np.array(found, np.int64).reshape(-1, 4).T


def half_borders(borders: Floats, n_frames: int) -> Ints:
    """1 for each half frame (HALVES * n_frames,) whose middle is within NEAR of one of `borders`, in order; else 0."""
    middles = half_centres(n_frames)
    after = np.append(borders, np.inf)[np.searchsorted(borders, middles)]
    before = np.append(-np.inf, borders)[np.searchsorted(borders, middles)]
    near: Ints = (np.minimum(after - middles, middles - before) <= NEAR).astype(np.int64)
    return near


def half_phones(phones: Ints, times: Floats, n_frames: int) -> Ints:
    """Phone id at the middle of each half frame (HALVES * n_frames,); SILENCE where no phone is."""
    middles = half_centres(n_frames)
    k = np.searchsorted(times[:, 0], middles, side="right") - 1
    inside = (k >= 0) & (middles < times[np.maximum(k, 0), 1])
    return np.where(inside, phones[np.maximum(k, 0)], SILENCE)


def _spans(chunk: _Chunk, rng: Generator, options: BatchOptions) -> list[tuple[float, float, tuple[int, ...]]]:
    """(start, end, phone ids) of words, phrases and runs of phones, boundaries jittered."""
    found = []
    for k, word in enumerate(chunk.words):
        n = 1
        if rng.random() < options.phrase_probability:
            n = int(rng.integers(2, 4))
        stretch = chunk.words[k : k + n]
        phones = (BORDER, *(p for w in stretch for p in w), BORDER)
        found.append((chunk.word_times[k, 0], chunk.word_times[k + len(stretch) - 1, 1], phones))
        if len(stretch) > 1:
            found.append((chunk.word_times[k, 0], chunk.word_times[k, 1], (BORDER, *word, BORDER)))
    length = len(chunk.mel) * HOP / SAMPLE_RATE
    inside = np.flatnonzero((chunk.phone_times[:, 0] >= 0) & (chunk.phone_times[:, 1] <= length))
    for _ in range(options.phone_runs if len(inside) > 4 else 0):
        n = int(rng.integers(3, 13))
        first = inside[int(rng.integers(max(1, len(inside) - n)))]
        last = min(first + n - 1, inside[-1])
        gaps = chunk.phone_times[first + 1 : last + 1, 0] - chunk.phone_times[first:last, 1]
        if len(gaps) and gaps.max() < 0.1:
            left, right = (BORDER,) * int(chunk.outer[0, first]), (BORDER,) * int(chunk.outer[1, last])
            ids = (*left, *(int(p) for p in chunk.phones[first : last + 1]), *right)
            found.append((chunk.phone_times[first, 0], chunk.phone_times[last, 1], ids))
    jitter = rng.uniform(-options.jitter, options.jitter, (len(found), 2))
    return [(s + a, e + b, ids) for (s, e, ids), (a, b) in zip(found, jitter, strict=True)]


_CACHE: dict[str, tuple[int, ...]] = {}


def pronunciation(word: str) -> tuple[int, ...]:
    """Phone ids of the word's first pronunciation."""
    if word not in _CACHE:
        _CACHE[word] = tuple(PHONE_ID[p] for p in pronounce_word(word)[0])
    return _CACHE[word]


def _speech(k: int, i: int, corpus: Corpus) -> _Speech:
    u = corpus.utterances[i]
    words = np.array([(w.start, w.end) for w in u.words], np.float32).reshape(-1, 2)
    phones = np.array([(p.start, p.end) for p in u.phones], np.float32).reshape(-1, 2)
    outer = np.stack([np.isin(phones[:, side], words[:, side]) for side in (0, 1)])
    labels, ids = tuple(w.label for w in u.words), np.array([PHONE_ID[p.label] for p in u.phones], np.int64)
    edges = np.searchsorted(phones[:, 0], [*words[:, 0], np.inf])
    heard = tuple(tuple(int(p) for p in ids[a:b]) for a, b in pairwise(edges))
    if len(ids):  # a word whose phones the aligner did not tell is not drawn
        kept = [n for n, word in enumerate(heard) if word]
        labels, heard, words = tuple(labels[n] for n in kept), tuple(heard[n] for n in kept), words[kept]
    return _Speech(k, i, u.speaker, labels, heard, words, ids, phones, outer)


def _by_name(speech: Sequence[_Speech], options: BatchOptions) -> list[list[tuple[_Speech, int]]]:
    """The places of each word of a corpus known by sound alone that is said often enough there."""
    said: dict[tuple[int, str], list[tuple[_Speech, int]]] = defaultdict(list)
    for one in speech:
        for k, word in enumerate(one.words):
            said[one.corpus, word].append((one, k))
    return [places for _, places in sorted(said.items()) if len(places) >= options.unwritten_instances]


def _interest(words: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """How likely each word is the one that a chunk is cut around: long words are sought, short ones come anyway."""
    lengths = np.array([max(len(phones) - 1, 0.1) for phones in words])
    interest: NDArray[np.float64] = lengths / lengths.sum()
    return interest

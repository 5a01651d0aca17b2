"""Batches of isolated words: N different words, M spoken instances of each, cut at their times.

In: corpora with word times. Out: `Batch`, made from (seed, step) alone, so that a run resumes exactly.
arXiv 2512.14115, sections on the losses and the training. Knows nothing of networks or losses.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not there on Windows
    fcntl = None  # type: ignore[assignment]

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from earshot.encoders.clock import SILENCE
from earshot.encoders.isolated import LOG_MEL, Front
from earshot.encoders.towers import SHORTEST
from earshot.features import SAMPLE_RATE, Floats, frame_count
from earshot.train import augment
from earshot.train.augment import Augmentation
from earshot.train.batches import VOICES, Batch, other_speech, pronunciation
from earshot.train.corpus import Corpus
from earshot.train.priors import Priors
from earshot.train.transcripts import CorpusError
from earshot.types import QueryError, Seconds

Place = tuple[int, int, int]
"""A spoken word: its corpus, its utterance there, its place in the utterance."""


@dataclass(frozen=True, slots=True)
class IsolatedOptions:
    """Batches of `words` different words; which spoken words are taken. The paper augments nothing.

    Each word counts alike, whatever corpus it is of and however often it is said.
    """

    words: int = 128
    instances: int = 4
    shortest: Seconds = 0.5
    longest: Seconds = 2.0
    augmentation: Augmentation | None = None
    store: bool = True
    """Keep the features of words that are not augmented in one memory-mapped file, made once."""


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Processes that start together do this after each other, where the system has such locks."""
    with open(lock, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class IsolatedBatcher:
    """Makes batch number `step`: words drawn at random, as many instances of each.

    Words are told apart by their pronunciation; `unpronounceable` are those left out for want of one. `folder` takes
    the stored features; without one they are made anew for each batch. CorpusError where fewer than two words are said
    often enough.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        front: Front,
        options: IsolatedOptions,
        priors: Priors | None = None,
        seed: int = 0,
        folder: Path | None = None,
    ):
        self.corpora, self.front, self.options, self.priors, self.seed = corpora, front, options, priors, seed
        said: dict[tuple[int, ...], list[Place]] = defaultdict(list)
        unknown: set[str] = set()
        for c, corpus in enumerate(corpora):
            for u, utterance in enumerate(corpus.utterances):
                for w, word in enumerate(utterance.words):
                    if options.shortest <= word.end - word.start <= options.longest:
                        try:
                            said[pronunciation(word.label)].append((c, u, w))
                        except QueryError:
                            unknown.add(word.label)
        self.unpronounceable = tuple(sorted(unknown))
        self._said = {phones: places for phones, places in sorted(said.items()) if len(places) >= options.instances}
        if len(self._said) < 2:
            times = f"at least {options.instances} times, each for {options.shortest:g} to {options.longest:g} s"
            way = "add speech, or lower `instances` or `shortest`"
            raise CorpusError(f"{len(self._said)} words are said {times}; training needs two or more: {way}")
        self._stored: dict[Place, NDArray[np.floating[Any]]] = {}
        if folder is not None and options.store and options.augmentation is None:
            self._stored = self._store(folder)

    @property
    def n_words(self) -> int:
        """Different words to draw from."""
        return len(self._said)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """The batch of this step; the same for the same seed, step and rank."""
        rng = np.random.default_rng((self.seed, step, rank))
        words = list(self._said)
        chosen = rng.choice(len(words), min(self.options.words, len(words)), replace=False)
        names = sorted(words[int(k)] for k in chosen)
        rows = [self._rows(place, rng) for name in names for place in self._instances(name, rng)]
        lengths = np.array([len(row) for row in rows])
        mel = np.zeros((len(rows), lengths.max(), self.front.inputs), np.float32)
        for k, row in enumerate(rows):
            mel[k, : len(row)] = row
        texts = np.full((len(names), max(map(len, names))), SILENCE)
        for k, name in enumerate(names):
            texts[k, : len(name)] = name
        number, none = np.arange(len(rows)), np.zeros(0, np.int64)
        labels = np.repeat(np.arange(len(names)), self.options.instances)
        text_lengths = np.array([len(name) for name in names])
        said = none.reshape(4, 0)
        return Batch(mel, lengths, none, none, number, 0 * number, lengths, labels, texts, text_lengths, said)

    def _instances(self, name: tuple[int, ...], rng: Generator) -> list[Place]:
        places = self._said[name]
        return [places[int(k)] for k in rng.choice(len(places), self.options.instances, replace=False)]

    def _store(self, folder: Path) -> dict[Place, NDArray[np.floating[Any]]]:
        """Views of one memory-mapped file with the rows of all words, made when it is not there."""
        places = [place for of in self._said.values() for place in of]
        front = self.front
        prior = (front.prior_mean.tobytes(), front.prior_std.tobytes())
        what = ([self._span(place) for place in places], front.features, front.n_mels, front.stack, *prior)
        dtype = np.float16 if self.front.features == LOG_MEL else np.float32  # energies have a wider range
        path = folder / f"words-{hashlib.sha256(repr(what).encode()).hexdigest()[:12]}.features"
        counts = [-(-frame_count(self._n_samples(place)) // self.front.stack) for place in places]
        ends = np.cumsum(counts)
        with _one_at_a_time(path.with_suffix(".lock")):
            if not path.exists():
                whole = path.with_suffix(".part")
                with open(whole, "wb") as file:
                    for place in places:
                        file.write(self.front.rows(self._samples(place)).astype(dtype).tobytes())
                os.replace(whole, path)
        rows = np.memmap(path, dtype, mode="r", shape=(int(ends[-1]), self.front.inputs))
        return {place: rows[end - n : end] for place, n, end in zip(places, counts, ends, strict=True)}

    def _span(self, place: Place) -> tuple[str, str, int, int]:
        """Corpus, utterance, and samples [start, end) of it."""
        c, u, w = place
        utterance = self.corpora[c].utterances[u]
        word = utterance.words[w]
        start, end = round(word.start * SAMPLE_RATE), min(round(word.end * SAMPLE_RATE), utterance.length)
        return utterance.corpus, utterance.id, start, end

    def _samples(self, place: Place) -> Floats:
        c, u, _ = place
        *_, start, end = self._span(place)
        return self.corpora[c].read(self.corpora[c].utterances[u])[start:end]

    def _n_samples(self, place: Place) -> int:
        *_, start, end = self._span(place)
        return max(SHORTEST, end - start)

    def _rows(self, place: Place, rng: Generator) -> NDArray[np.floating[Any]]:
        if place in self._stored:
            return self._stored[place]
        samples = self._samples(place)
        options = self.options.augmentation
        if options is not None:
            if rng.random() < options.speed_probability:
                samples = augment.change_speed(samples, rng.uniform(*options.speed))
            samples = augment.degrade(samples, rng, options, lambda: self._babble(place, rng))
        return self.front.rows(samples)

    def _babble(self, place: Place, rng: Generator) -> Floats:
        corpus = self.corpora[place[0]]
        drawn = rng.integers(len(corpus.utterances), size=2 * VOICES)
        return other_speech([(corpus, int(k)) for k in drawn], corpus.utterances[place[1]].speaker)

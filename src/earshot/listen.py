"""Live keyword spotting: blocks of sound -> a hit as soon as a keyword has been said.

In: words, phrases or spoken examples, and 16 kHz samples as they come. Out: hits, each place once. The word encoder
runs over the last seconds again and again; a place counts once enough is heard after it. Knows nothing of where the
sound comes from, or of printing.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from earshot import blas, encoders, scores, speech
from earshot.encoders.clock import FRAME_SECONDS
from earshot.encoders.word import WordEncoder
from earshot.features import HOP, SAMPLE_RATE, Floats, log_mel
from earshot.frames import FrameTable
from earshot.live import Block, Feed
from earshot.places import CANDIDATES, Haystack, find_each
from earshot.query import LONGER, spoken_query, typed_query
from earshot.types import LISTEN_THRESHOLD, Clip, EarshotError, QueryError, Seconds

STEP: Seconds = 0.25
"""The last seconds are looked at so often."""
LOOKED_AT: Seconds = 2.5
"""How many seconds are looked at, and more where a query takes longer."""
AFTER: Seconds = 0.1
"""What must be heard after the end of a place; on development data more only came later."""
CUT: Seconds = 0.1
"""A place that begins so soon after what is looked at may be a part of a longer word; an earlier look saw it whole."""
LEVEL_OF: Seconds = 10.0
"""What tells how loud speech is here."""
LEAST = 0.4
"""Spans of a lower cosine are not aligned: that leaves 99 of 100 hits of a probability of 0.05 on development data."""
AT_ONCE: Seconds = 10.0
"""So much sound is listened to at once where it comes faster: a few times quicker than look by look."""


@dataclass(frozen=True, slots=True)
class Spotted:
    """A query is said from `start` to `end`, in seconds since the stream began; score and probability as of a Hit.

    heard: how much of the stream had to be heard to tell.
    """

    query: str
    start: Seconds
    end: Seconds
    score: float
    probability: float
    heard: Seconds


class Once:
    """Tells what was not told before: of the hits of a query that are one place, as `find` sees it, only the first."""

    def __init__(self) -> None:
        self._told: dict[str, deque[Spotted]] = defaultdict(lambda: deque(maxlen=32))

    def new(self, hits: Iterable[Spotted]) -> list[Spotted]:
        """Those of some hits that are new."""
        fresh = []
        for hit in hits:
            told = self._told[hit.query]
            if not any(_one_place(hit, other) for other in told):
                told.append(hit)
                fresh.append(hit)
        return fresh


def _one_place(a: Spotted, b: Spotted) -> bool:
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared >= scores.OVERLAP * min(a.end - a.start, b.end - b.start)


class Spotter:
    """Hears queries in sound that comes block by block; memory does not grow.

    queries: words or phrases, or Clips of spoken examples. QueryError or AudioError, as from `Library.find`, for what
    cannot be listened for. encoder: in place of the one that Earshot ships.
    """

    def __init__(
        self, queries: Sequence[str | Clip], *, threshold: float = LISTEN_THRESHOLD, encoder: WordEncoder | None = None
    ) -> None:
        if not queries:
            raise QueryError("nothing to listen for: name a word or give an example")
        self.encoder = encoder or encoders.load("word")
        self.threshold = threshold
        self._ways = [
            typed_query(query, self.encoder) if isinstance(query, str) else spoken_query(query, self.encoder)
            for query in dict.fromkeys(queries)
        ]
        longest = max(way.expected for ways in self._ways for way in ways) * FRAME_SECONDS
        self._looked_at = _frames(max(LOOKED_AT, LONGER * longest + 1))
        self._once = Once()
        self._start(0)

    def _start(self, offset: int) -> None:
        """Hear from sample `offset` of the stream on, knowing of nothing before it."""
        self._offset = offset
        self._rest = np.zeros(0, np.float32)
        """Samples that wait for more to become a feature frame."""
        self._mel = log_mel(self._rest)
        """The last feature frames; numbers count from `offset`."""
        self._first = self._looked = 0
        """The number of the first frame that is kept, and of that up to which all was looked at."""

    @property
    def clock(self) -> Seconds:
        """How much of the stream has been heard or skipped."""
        return (self._offset + (self._first + len(self._mel)) * HOP + len(self._rest)) / SAMPLE_RATE

    def hear(self, samples: Floats) -> list[Spotted]:
        """What has been said, now that these samples (n,) have come; each place once, in order of time."""
        return self._once.new(self.places(samples))

    def places(self, samples: Floats) -> list[Spotted]:
        """The same, with places that were told before: each as often as it is looked at."""
        size = round(AT_ONCE * SAMPLE_RATE)
        return [hit for k in range(0, len(samples), size) for hit in self._places(samples[k : k + size])]

    def _places(self, samples: Floats) -> list[Spotted]:
        samples = np.concatenate([self._rest, samples])
        new = log_mel(samples)
        self._rest = samples[len(new) * HOP :]
        self._mel = np.concatenate([self._mel, new])
        step = _frames(STEP)
        edges = range(self._looked + step, self._first + len(self._mel) + 1, step)
        found = self._look(edges, AFTER) if edges else []
        self._looked += step * len(edges)
        kept = self._mel[-max(_frames(LEVEL_OF), self._looked_at) - step :]
        self._first += len(self._mel) - len(kept)
        self._mel = kept.copy()  # not the whole of a long block
        return found

    def finish(self) -> list[Spotted]:
        """What was said up to the end of the stream, or up to a gap."""
        return self._once.new(self._look([self._first + len(self._mel)], after=-1.0))

    def skip(self, n_samples: int) -> list[Spotted]:
        """Go on after a gap of so many samples; what was said up to it."""
        found = self.finish()
        self._start(round(self.clock * SAMPLE_RATE) + n_samples)
        return found

    def _look(self, edges: Sequence[int], after: Seconds) -> list[Spotted]:
        """Look at the seconds before each of some feature frames, for places that end at least `after` before it."""
        likely = speech.detect(self._mel) > speech.SPEECH
        bounds = [(max(0, edge - self._first - self._looked_at), edge - self._first) for edge in edges]
        spoken = [likely[a // speech.STEP : b // speech.STEP].sum() * speech.FRAME_SECONDS for a, b in bounds]
        bounds = [bound for bound, seconds in zip(bounds, spoken, strict=True) if seconds >= speech.SHORTEST]
        if not bounds:
            return []
        begin, heard = (self._offset / SAMPLE_RATE + (self._first + np.array(bounds).T) * HOP / SAMPLE_RATE).tolist()
        least = [start + CUT if self._first + a else start for start, (a, _) in zip(begin, bounds, strict=True)]
        frames = self.encoder.frames([self._mel[a:b] for a, b in bounds])
        offsets = np.concatenate([[0], np.cumsum([len(of) for of in frames])])
        table = FrameTable(np.concatenate(frames), offsets, np.array(begin), np.arange(len(bounds)), version=0)
        haystack = Haystack.of(table, self.encoder)
        with blas.one_thread():
            places = find_each(haystack, self._ways, self.encoder, CANDIDATES * len(bounds), LEAST)
        found = []
        for ways, of in zip(self._ways, places, strict=True):
            measured = (*haystack.located(of), of.cosines, of.chances)
            for look, start, end, score, probability in zip(*(each.tolist() for each in measured), strict=True):
                if probability >= self.threshold and start >= least[look] and end <= heard[look] - after:
                    found.append(Spotted(ways[0].label, start, end, score, probability, heard[look]))
        return sorted(found, key=lambda hit: (hit.heard, -hit.probability))


@dataclass(frozen=True, slots=True)
class Told:
    """A hit on its way out: `latency` seconds after its end had come; `said`, of time.time(), is when it began.

    Both are None where the source does not come as it is said.
    """

    hit: Spotted
    latency: Seconds | None
    said: Seconds | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Sound was dropped, `seconds` up to `end`, as it came faster than it could be listened to."""

    end: Seconds
    seconds: Seconds


def listen(feed: Feed, spotter: Spotter, *, timed: bool = True) -> Iterator[Told | Lost]:
    """Hits as soon as they are certain, until the source ends. What reading it raises comes after the last hit.

    timed: the source comes as it is said; a file that is read does not.
    """
    arrivals: deque[tuple[Seconds, Seconds]] = deque(maxlen=1000)

    def told(hits: Iterable[Spotted]) -> Iterator[Told]:
        for hit in hits:
            if not timed:
                yield Told(hit, None, None)
                continue
            now = time.monotonic()
            latency = now - next((at - (clock - hit.end) for clock, at in arrivals if clock >= hit.end), now)
            yield Told(hit, latency, time.time() - latency - (hit.end - hit.start))

    broken: EarshotError | None = None
    blocks = [Block(np.zeros(0, np.float32), time.monotonic())]
    while blocks:
        waiting: list[Floats] = []
        for block in blocks:
            if block.lost:
                yield from told(spotter.hear(np.concatenate([*waiting, _NOTHING])))
                yield from told(spotter.skip(block.lost))
                yield Lost(spotter.clock, block.lost / SAMPLE_RATE)
                waiting = []
            waiting.append(block.samples)
            arrivals.append((spotter.clock + sum(map(len, waiting)) / SAMPLE_RATE, block.arrived))
        yield from told(spotter.hear(np.concatenate(waiting)))
        try:
            blocks = feed.take(AT_ONCE)
        except EarshotError as error:
            broken, blocks = error, []
    yield from told(spotter.finish())
    if broken is not None:
        raise broken


_NOTHING = np.zeros(0, np.float32)


def _frames(seconds: Seconds) -> int:
    """Feature frames in so many seconds."""
    return round(seconds * SAMPLE_RATE / HOP)

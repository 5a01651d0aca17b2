"""Where what is sought is said in some frames: queries -> places, each with a cosine and a probability.

In: frames of recordings, or of the last seconds of a stream, and queries. Out: places by half frames. Three steps:
every span is ranked by its pooled embedding; the best few hundred are aligned with the query frame by frame and
compared with similar words of the language; all of it makes the probability. Knows nothing of libraries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from earshot import blas, scores
from earshot.encoders.clock import HALF_SECONDS, HALVES, half_centres
from earshot.encoders.word import WordEncoder
from earshot.features import Floats
from earshot.frames import FrameTable
from earshot.query import COSINE_WEIGHT, PRIOR_WEIGHT, WORST, Query, bounded
from earshot.types import Seconds

T = TypeVar("T")
CANDIDATES = 400
"""Spans of each pronunciation that are aligned."""
CELLS = 1 << 25
"""Half frames times phones that are aligned for a query: of a long one fewer spans than CANDIDATES are."""
COMPARED, LIKELY = 100, 0.2
"""How many of them are compared with other words, the likeliest before that, and how likely the others must be."""
MARGIN = 8
"""Frames on each side of a candidate in which its borders are sought: 0.3 s."""
EDGE: Seconds = float(half_centres(1)[0]) - HALF_SECONDS / 2
"""Where the first half frame of a stretch begins, from the start of the stretch."""
OUTSIDE = -1e4
"""What a half frame beyond the end of a stretch costs."""
MARGIN_FEATURE = 5
"""Which of the features tells what other words say of a place; UNASKED where they were not asked."""
SAME = 0.96
"""Cosines beyond it are of an example and a copy of it. Of 250 words of the held-out speakers 99 % of those that come
with what is around them have .986 or more where they come from; none has more than .94 where something else is said."""
FAR, NEAR = 20.0, 8.0
"""Bounds of what rivals can say against a place and for it: where none is like what is sought, that says little."""
UNASKED = -FAR - 0.001
"""Lies just beyond, and tells a place whose rivals were not asked."""
LONG = 0.3
"""Size of an example of half a second. Phrases are said less often than their places seem to tell, most of all spoken
ones; a weight for all sizes would put long words behind short ones."""
TOGETHER = 8
"""Ways to say what is sought that frames are compared with at once."""
FEW = 1000
"""Frames that are searched without threads: the last seconds of a stream."""


@dataclass(frozen=True, slots=True)
class Haystack:
    """Frames of a library, or of a piece of one, and what is worked out of them once for all queries."""

    table: FrameTable
    firsts: NDArray[np.int64]
    """(p,): the frame that each pair of frames begins with."""
    pairs: NDArray[np.int8]
    inverse_norms: dict[int, Floats]
    edges: NDArray[np.int64]
    """(m + 1,): the first pair of each stretch, and last how many there are."""

    @classmethod
    def of(cls, table: FrameTable, encoder: WordEncoder) -> Haystack:
        """The table with what searching needs."""
        pairs = scores.pairs_of(table.stretch_offsets)
        norms = encoder.inverse_norms(table.vectors[np.minimum(pairs.firsts, len(table.vectors) - 1)])
        for length, inverse in norms.items():
            inverse[pairs.left < length] = 0
        means = scores.means(table.vectors[:, : encoder.frame_dim], pairs)
        return cls(table, pairs.firsts, means, norms, pairs.edges)

    def joined(self, more: Haystack) -> Haystack:
        """The same as `of` the tables of both, one after the other, without working anything out again."""
        one, two, n = self.table, more.table, len(self.table.vectors)
        table = FrameTable(
            np.concatenate([one.vectors, two.vectors]),
            np.concatenate([one.stretch_offsets, two.stretch_offsets[1:] + n]),
            np.concatenate([one.stretch_start, two.stretch_start]),
            np.concatenate([one.stretch_recording, two.stretch_recording]),
            two.version,
        )
        norms = {length: np.concatenate([of, more.inverse_norms[length]]) for length, of in self.inverse_norms.items()}
        pairs = np.concatenate([self.pairs, more.pairs])
        edges = np.concatenate([self.edges, more.edges[1:] + self.edges[-1]])
        return Haystack(table, np.concatenate([self.firsts, more.firsts + n]), pairs, norms, edges)

    @property
    def parts(self) -> list[slice]:
        """Pairs that are scanned side by side: whole stretches."""
        shares = np.linspace(0, len(self.pairs), (os.cpu_count() or 1) + 1)
        edges = np.unique(self.edges[np.searchsorted(self.edges, shares)]).tolist()
        return [slice(a, b) for a, b in pairwise(edges)]

    def scan(
        self, ways: Sequence[Query], encoder: WordEncoder, pool: Executor, most: int, least: float = 0.0
    ) -> list[scores.Spans]:
        """The spans of greatest cosine with each query, so many at most, all above `least`."""
        directions = scores.STRIDE * np.stack([way.vector for way in ways]) @ encoder.projection

        def scan_part(part: slice) -> list[scores.Spans]:
            similarity = scores.frame_scores(self.pairs[part], directions)
            norms = [{length: self.inverse_norms[length][part] for length in way.lengths} for way in ways]
            return [scores.candidates(row, norm, most, least) for row, norm in zip(similarity, norms, strict=True)]

        found = list(pool.map(scan_part, parts := self.parts))
        before = [part.start for part in parts]
        return [scores.merged([one[k] for one in found], before, most) for k in range(len(ways))]

    def located(self, places: Places) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Ids of the recordings (n,) that places are in, and when each begins and ends there."""
        stretch = self.stretch_of(places.starts // HALVES)
        first, edge = HALVES * self.table.stretch_offsets[stretch], self.table.stretch_start[stretch] + EDGE
        start, end = (np.maximum(0.0, edge + (half - first) * HALF_SECONDS) for half in (places.starts, places.ends))
        return self.table.stretch_recording[stretch], start, end

    def stretch_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the stretch that each frame is in."""
        return np.searchsorted(self.table.stretch_offsets, frames, side="right") - 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """Spans found for one query: half frames [start, end) of the table, and what was measured of them (n, f)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cosines: Floats
    features: Floats


@dataclass(frozen=True, slots=True)
class Places:
    """Where something may be said: half frames [start, end) of the table, cosine and probability of each; each (n,)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cosines: Floats
    chances: Floats


def find_places(haystack: Haystack, ways: Sequence[Query], encoder: WordEncoder) -> Places:
    """The places where what is sought may be said, one way or another; one for all that overlap."""
    (places,) = find_each(haystack, [ways], encoder, CANDIDATES)
    return places


def find_each(
    haystack: Haystack, sought: Sequence[Sequence[Query]], encoder: WordEncoder, most: int, least: float = 0.0
) -> list[Places]:
    """The places of each of several things that are sought, from at most so many spans of each way to say it, all with
    a cosine above `least`."""
    if not len(haystack.table.vectors):
        nothing, none = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return [Places(nothing, nothing, none, none) for _ in sought]
    all_ways = [way for ways in sought for way in ways]
    with blas.one_thread(), _pool(haystack) as pool:
        groups = (all_ways[k : k + TOGETHER] for k in range(0, len(all_ways), TOGETHER))
        spans = [of for group in groups for of in haystack.scan(group, encoder, pool, most, least)]
        found = iter(list(pool.map(lambda some, way: measure(haystack, some, way, encoder), spans, all_ways)))
        each = [[next(found) for _ in ways] for ways in sought]
        return list(pool.map(lambda ways, some: _places(haystack, ways, some, encoder), sought, each))


def _pool(haystack: Haystack) -> Executor:
    """Threads; none for so few frames that they would cost more than they save."""
    return _InPlace() if len(haystack.table.vectors) < FEW else ThreadPoolExecutor(os.cpu_count())


class _InPlace(Executor):
    """Does at once what it is given."""

    def map(self, fn: Callable[..., T], *iterables: Iterable[Any], **_: Any) -> Iterator[T]:
        return map(fn, *iterables)


def _places(haystack: Haystack, ways: Sequence[Query], found: Sequence[Candidates], encoder: WordEncoder) -> Places:
    """One place for all candidates that overlap, of the ways to say one thing.

    The ways of a typed query are its pronunciations, and the likeliest counts. Those of an example are its sound and
    the words that it may be, of which one at most is right: their probabilities add up. A copy of the example is what
    is sought, whatever word it is.
    """
    starts, ends, cosines = (
        np.concatenate([getattr(c, name) for c in found]) for name in ("starts", "ends", "cosines")
    )
    chances = np.concatenate([probability(c, way, encoder) for c, way in zip(found, ways, strict=True)])
    stretch = haystack.stretch_of(starts // HALVES)
    kept = scores.suppress(starts, ends, stretch, chances)
    together = chances[kept]
    if ways[0].spoken:
        number = np.repeat(np.arange(len(ways)), [len(c.starts) for c in found])
        shares = np.ones(len(ways), np.float32)
        shares[0] -= sum(way.chance for way in ways[1:])
        for n, k in enumerate(kept):
            shared = np.minimum(ends, ends[k]) - np.maximum(starts, starts[k])
            here = (stretch == stretch[k]) & (shared >= scores.OVERLAP * np.minimum(ends - starts, ends[k] - starts[k]))
            best = np.zeros(len(ways), np.float32)
            np.maximum.at(best, number[here], chances[here])
            copies = here & (number == 0) & (cosines > SAME)
            together[n] = max(float(best @ shares), float(chances[copies].max(initial=0)))
    told = scores.logistic(outcome_features(together, ways[0]), encoder.outcome(ways[0].spoken))
    return Places(starts[kept], ends[kept], cosines[kept], told)


def outcome_features(chances: Floats, query: Query) -> Floats:
    """(n, 2): log odds of chances (n,), and how much longer than a word the query is.

    That is 1 for a typed phrase, and for an example its size above LONG: nobody tells how many words it has.
    """
    inside = np.clip(chances.astype(np.float64), 1e-6, 1 - 1e-6)
    log_odds = np.log(inside / (1 - inside))
    longer = max(0.0, size(query) - LONG) if query.spoken else float(len(query.label.split()) > 1)
    return np.stack([log_odds, np.full(len(chances), longer)], axis=1).astype(np.float32)


def size(query: Query) -> float:
    """How long the query is: log of its phones over six, of an example of its half frames over twenty."""
    return float(np.log(len(query.states) / (20 if query.spoken else 6)))


def measure(haystack: Haystack, spans: scores.Spans, query: Query, encoder: WordEncoder) -> Candidates:
    """The candidates for one query near these spans: span by alignment, cosine, and features for the probability."""
    if not len(spans.pairs):
        nothing, none = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return Candidates(nothing, nothing, none, np.zeros((0, len(encoder.calibration(query.spoken)) - 1), np.float32))
    table = haystack.table
    reach = MARGIN + max(0, round(query.expected * 1.3) - max(query.lengths))
    width = max(query.lengths) + 2 * reach
    affordable = np.sort(np.argsort(-spans.cosines)[: max(1, CELLS // (HALVES * width * len(query.states)))])
    starts, lengths = haystack.firsts[spans.pairs[affordable]], spans.lengths[affordable]
    stretch = haystack.stretch_of(starts)
    lowest, highest = table.stretch_offsets[stretch], table.stretch_offsets[stretch + 1]
    begin = np.maximum(starts - reach, lowest)
    columns = begin[:, None] + np.arange(width)
    outside = columns >= np.minimum(starts + lengths + reach, highest)[:, None]
    windows = table.vectors[np.minimum(columns, len(table.vectors) - 1), : encoder.frame_dim].astype(np.float32)
    windows[outside] = 0
    flat = windows.reshape(-1, encoder.frame_dim)
    local = _local_scores(encoder.phone_scores(flat), outside, query)
    aligned = scores.align(local)
    borders = encoder.border_log_odds(flat).reshape(len(starts), HALVES * width)
    first = aligned.start // HALVES
    last = np.maximum(aligned.end // HALVES, first + 1)
    tried = [(starts - begin, starts - begin + lengths), (first, last)]
    cosine = scores.span_cosines(windows, encoder.projection, query.vector, tried)
    taken = aligned.end - aligned.start
    features = [
        cosine,
        aligned.total / taken,
        scores.state_means(local, aligned.states, WORST).mean(axis=1),
        np.abs(np.log(taken / (HALVES * query.expected))),
        _border(borders, aligned.start) + _border(borders, aligned.end),
        np.zeros(len(starts)),
    ]
    long = size(query)
    features += [features[0] * long, features[2] * long, np.full(len(starts), long)]
    features.append(np.maximum(0, (cosine - SAME) / (1 - SAME)))
    measured = np.stack(features, axis=1).astype(np.float32)
    near = _likeliest(scores.logistic(measured, encoder.calibration(query.spoken)))
    measured[:, MARGIN_FEATURE] = UNASKED
    n_frames = (~outside[near]).sum(axis=1)
    projected = windows[near] @ encoder.projection.T
    measured[near, MARGIN_FEATURE] = _margin(projected, n_frames, first[near], last[near], query)
    edge, inside = HALVES * begin, aligned.total > OUTSIDE / 2
    starts, ends = (edge + aligned.start)[inside], (edge + aligned.end)[inside]
    return Candidates(starts, ends, cosine[inside], measured[inside])


def _likeliest(chance: Floats) -> NDArray[np.int64]:
    """The COMPARED likeliest places, and all that are LIKELY."""
    n = max(COMPARED, int((chance >= LIKELY).sum()))
    return np.argsort(-chance, kind="stable")[:n]


def probability(found: Candidates, query: Query, encoder: WordEncoder) -> Floats:
    """(n,): that what is sought is said at each candidate."""
    chance = scores.logistic(found.features, encoder.calibration(query.spoken))
    return chance * np.float32(query.chance)


def _margin(
    projected: Floats, n_frames: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], query: Query
) -> Floats:
    """(k,): the log odds that a place holds what is sought, by the words that it may hold."""
    words = query.words
    cosines = scores.overlapping_cosines(projected, n_frames, (first, last), words.vectors, words.lengths)
    evidence = COSINE_WEIGHT * cosines + PRIOR_WEIGHT * words.log_prior
    wanted, other = (np.logaddexp.reduce(evidence + log, axis=1) for log in (words.log_for, words.log_against))
    margin: Floats = np.clip(wanted - other, -FAR, NEAR).astype(np.float32)
    return margin


def _border(log_odds: Floats, edges: NDArray[np.int64]) -> Floats:
    """(k,): the greatest log probability of a word border in the half frames beside an edge of each window."""
    rows, last = np.arange(len(edges)), log_odds.shape[1] - 1
    best = np.maximum(log_odds[rows, np.maximum(edges - 1, 0)], log_odds[rows, np.minimum(edges, last)])
    log_probability: Floats = -np.logaddexp(0, -best).astype(np.float32)
    return log_probability


def _local_scores(phones: Floats, outside: NDArray[np.bool_], query: Query) -> Floats:
    """(HALVES * w, m, k): what half frame and state earn for being the same phone.

    phones (HALVES, N_CLASSES, k * w): log posteriors; outside (k, w): where a window has no frame.
    """
    if query.spoken:
        same = np.log(query.states @ np.exp(phones) + np.float32(1e-6))
    else:
        same = phones[:, query.states.argmax(axis=1)]
    earned = bounded(same).reshape(HALVES, len(query.states), *outside.shape)
    earned = np.where(outside, np.float32(OUTSIDE), earned)
    k, w = outside.shape
    return np.ascontiguousarray(earned.transpose(3, 0, 1, 2)).reshape(HALVES * w, len(query.states), k)

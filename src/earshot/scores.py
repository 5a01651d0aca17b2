"""Scores of a query against frames: which spans are like it, how well its phones fit, how likely it is said there.

In and out: NumPy arrays. Pure functions; knows nothing of encoders, libraries or audio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_ROWS = 2_048
"""Frames that are turned into floats at a time: they fit the cache of a core, and BLAS starts no threads for them."""
_PAIRS = 16_384
"""Pairs of frames whose spans are compared at a time, for the same reason."""
STRIDE = 2
"""A span that is sought begins at every such frame; alignment finds where exactly."""
_BLOCK = 4
"""At most one candidate begins in so many pairs of frames."""
OVERLAP = 0.3
"""Spans that share so much of the shorter of them are one place."""


class Aligned(NamedTuple):
    """Best paths of a query's states through windows: the sum of what they earn (k,), the frames [start, end) they
    cover, and the state they are in at each frame (k, w), -1 outside."""

    total: Floats
    start: Ints
    end: Ints
    states: Ints


def frame_scores(frames: NDArray[np.int8], queries: Floats) -> Floats:
    """Inner products (q, n) of queries (q, d) with frames (n, d), turned into floats piece by piece."""
    out = np.empty((len(queries), len(frames)), np.float32)
    columns = np.ascontiguousarray(queries.T)
    for k in range(0, len(frames), _ROWS):
        out[:, k : k + _ROWS] = (frames[k : k + _ROWS].astype(np.float32) @ columns).T
    return out


class Pairs(NamedTuple):
    """Pairs of frames, each stretch's from its first frame on and filled up to whole blocks of candidates, so that
    what is found in a stretch does not depend on those before it. firsts (p,): the first frame of each pair; left (p,):
    how many frames there are from it to the end of its stretch, 0 or less where the pair only fills up; edges (m + 1,):
    the first pair of each stretch, and last how many there are."""

    firsts: Ints
    left: Ints
    edges: Ints


def pairs_of(stretch_offsets: Ints) -> Pairs:
    """The pairs of stretches of which number k is frames [offsets[k], offsets[k + 1])."""
    counts = _BLOCK * -(-np.diff(stretch_offsets) // (STRIDE * _BLOCK))
    edges = np.concatenate([[0], np.cumsum(counts)])
    firsts = np.repeat(stretch_offsets[:-1] - STRIDE * edges[:-1], counts) + STRIDE * np.arange(edges[-1])
    return Pairs(firsts, np.repeat(stretch_offsets[1:], counts) - firsts, edges)


def means(frames: NDArray[np.int8], pairs: Pairs) -> NDArray[np.int8]:
    """(p, d): means of the two frames of each pair, rounded down, of (n, d): half as much to scan."""
    out = np.empty((len(pairs.firsts), frames.shape[1]), np.int8)
    last = len(frames) - 1
    for k in range(0, len(out), _ROWS):
        firsts, left = pairs.firsts[k : k + _ROWS], pairs.left[k : k + _ROWS]
        one, two = frames[np.minimum(firsts, last)], frames[np.minimum(firsts + 1, last)]
        one[left < 1] = 0
        two[left < 2] = one[left < 2]  # an odd frame at the end counts by half, so it is there twice
        out[k : k + _ROWS] = np.add(one, two, dtype=np.int16) >> 1
    return out


class Spans(NamedTuple):
    """Spans of frames: the pair that each begins with, its length in frames, its cosine with the query; each (k,)."""

    pairs: Ints
    lengths: Ints
    cosines: Floats


def candidates(scores: Floats, inverse_norms: Mapping[int, Floats], top: int, least: float = 0.0) -> Spans:
    """The `top` spans of greatest cosine, one of a block at most.

    scores (p,): inner products of one query with the sums of pairs of projected frames; where a span ends amid a pair,
    half of that counts. inverse_norms: for each length to try, one over the norm of the sum of that many projected
    frames from the first of each pair on; 0 where the stretch ends before. Spans of a cosine up to `least` (0 or more)
    are left out.
    """
    lengths = [length for length in inverse_norms if length <= STRIDE * len(scores)]
    reach = -(-max(lengths, default=0) // STRIDE)
    best, cosines = np.zeros(len(scores), np.float32), np.empty(_PAIRS, np.float32)
    for k in range(0, len(scores), _PAIRS):
        total = np.cumsum(np.append(np.float32(0), scores[k : k + _PAIRS + reach]))
        amid = (total[:-1] + total[1:]) / 2
        for length in lengths:
            whole, half = divmod(length, STRIDE)
            ends = (amid if half else total)[whole:][:_PAIRS]
            cosine = np.subtract(ends, total[: len(ends)], out=cosines[: len(ends)])
            here = slice(k, k + len(ends))
            cosine *= inverse_norms[length][here]
            np.maximum(best[here], cosine, out=best[here])
    blocks = best.reshape(-1, _BLOCK)
    peak = np.maximum.reduce([blocks[:, k] for k in range(_BLOCK)])
    keep = np.flatnonzero(peak > least)
    if len(keep) > top:
        keep = keep[np.argpartition(-peak[keep], top)[:top]]
    pairs = keep * _BLOCK + blocks[keep].argmax(axis=1)
    after = np.minimum(pairs[:, None] + np.arange(reach), len(scores) - 1)
    sums = np.pad(np.cumsum(scores[after], axis=1), ((0, 0), (1, 0)))
    tried = np.full((len(lengths), len(pairs)), -1.0)
    for row, length in enumerate(lengths):
        cosine = (sums[:, length // STRIDE] + sums[:, -(-length // STRIDE)]) / 2 * inverse_norms[length][pairs]
        tried[row] = np.where(pairs + length / STRIDE <= len(scores), cosine, -1.0)
    longest = np.array(lengths, np.int64)[tried.argmax(axis=0)] if len(pairs) else pairs
    return Spans(pairs, longest, best[pairs])


def merged(parts: Sequence[Spans], before: Sequence[int], top: int) -> Spans:
    """The `top` of the spans of several parts of a table, each of which begins `before` pairs after its start."""
    pairs = np.concatenate([part.pairs + first for part, first in zip(parts, before, strict=True)])
    lengths, cosines = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
    keep = np.argsort(-cosines, kind="stable")[:top]
    return Spans(pairs[keep], lengths[keep], cosines[keep])


def span_cosines(frames: Floats, projection: Floats, query: Floats, spans: Sequence[tuple[Ints, Ints]]) -> Floats:
    """Best cosine (k,) of `query` (d,) with any of the `spans` of each window, their borders moved by up to one frame.

    frames (k, w, f): windows; projection (d, f): the embedding of a span is its projected sum, normalised. Each of
    `spans` is (first frames (k,), last frames + 1 (k,)).
    """
    w = frames.shape[1]
    frame = np.arange(w)
    masks = []
    for starts, ends in spans:
        for first in (-1, 0, 1):
            for last in (-1, 0, 1):
                begin = np.clip(starts + first, 0, w - 1)
                end = np.clip(ends + last, begin + 1, w)
                masks.append((frame >= begin[:, None]) & (frame < end[:, None]))
    sums = np.matmul(np.stack(masks, axis=1).astype(np.float32), frames)
    sums = (sums.reshape(-1, frames.shape[2]) @ projection.T).reshape(*sums.shape[:2], len(projection))
    cosines = sums @ query / np.maximum(np.linalg.norm(sums, axis=2), 1e-9)
    best: Floats = cosines.max(axis=1, initial=-1.0).astype(np.float32)
    return best


def align(local: Floats, skip: float = 1.0) -> Aligned:
    """Best path of m states through each window, from any frame to any later one (Viterbi, in the log domain).

    local (w, m, k): what state j earns in frame t of window k. From one frame to the next a path stays, moves on a
    state, or skips one for `skip`. Paths begin in state 0 and end in state m - 1.
    """
    w, m, k = local.shape
    path, began = np.full((m, k), -np.inf, np.float32), np.zeros((m, k), np.int32)
    best = np.full(k, -np.inf, np.float32)
    start, end = np.zeros(k, np.int64), np.ones(k, np.int64)
    moves = np.zeros((w, m, k), np.int8)
    for t in range(w):
        before, origin = path.copy(), began.copy()
        for back, cost in ((1, 0.0), (2, skip)):
            moved = before[:-back] - np.float32(cost)
            better = moved > path[back:]
            np.copyto(path[back:], moved, where=better)
            np.copyto(began[back:], origin[:-back], where=better)
            np.copyto(moves[t, back:], np.int8(back), where=better)
        fresh = path[0] < 0
        path[0, fresh], began[0, fresh] = 0, t
        path += local[t]
        better = path[-1] > best
        best[better], start[better], end[better] = path[-1, better], began[-1, better], t + 1
    return Aligned(best, start, end, _trace(moves, start, end))


def _trace(moves: NDArray[np.int8], start: Ints, end: Ints) -> Ints:
    """(k, w): the state of each path in each frame, -1 outside [start, end), from the moves (w, m, k) into states."""
    w, m, k = moves.shape
    states = np.full((k, w), -1)
    state, rows = np.full(k, m - 1), np.arange(k)
    for t in reversed(range(w)):
        on = (start <= t) & (t < end)
        states[on, t] = state[on]
        state = np.where(on, state - moves[t, state, rows], state)
    return states


def state_means(local: Floats, states: Ints, skipped: float) -> Floats:
    """(k, m): what each state of a path earns in the mean of its frames; `skipped` where the path left it out.

    local (w, m, k), as for `align`; states (k, w).
    """
    _, m, k = local.shape
    row, frame = np.nonzero(states >= 0)
    state = states[row, frame]
    visited = row * m + state
    counts = np.bincount(visited, minlength=k * m)
    totals = np.bincount(visited, local[frame, state, row], k * m)
    means: Floats = np.full(k * m, skipped, np.float32)
    np.divide(totals, counts, out=means, where=counts > 0, casting="same_kind")
    return means.reshape(k, m)


def overlapping_cosines(
    projected: Floats, n_frames: Ints, spans: tuple[Ints, Ints], vectors: Floats, lengths: Mapping[int, Ints]
) -> Floats:
    """(k, r): best cosine of each vector with any span that holds at least half of each window's own span.

    projected (k, w, d): frames of windows, of which the first n_frames (k,) count; spans: first frame and last + 1 of
    each; vectors (r, d); lengths: for each length of a span the vectors that are tried on it. -1 where no span fits.
    """
    k, w, d = projected.shape
    sums = np.concatenate([np.zeros((k, 1, d), np.float32), projected.cumsum(axis=1)], axis=1)
    best = np.full((k, len(vectors)), -1.0, np.float32)
    first, last = (edge[:, None] for edge in spans)
    for length, alike in lengths.items():
        if length > w:
            continue
        span = sums[:, length:] - sums[:, :-length]
        cosine = span @ vectors[alike].T / np.maximum(np.linalg.norm(span, axis=2, keepdims=True), 1e-9)
        begin = np.arange(span.shape[1])
        overlap = np.minimum(begin + length, last) - np.maximum(begin, first)
        fits = (overlap >= 0.5 * (last - first)) & (begin + length <= n_frames[:, None])
        cosine[~fits] = -1
        best[:, alike] = np.maximum(best[:, alike], cosine.max(axis=1))
    return best


def suppress(starts: Ints | Floats, ends: Ints | Floats, groups: Ints, ranking: Floats) -> Ints:
    """Indices of spans to keep, best first: a span gives way to a better one of its group that it overlaps by OVERLAP.

    Overlap is measured against the shorter of the two.
    """
    kept: list[int] = []
    by_group: dict[int, list[int]] = {}
    for k in np.argsort(-ranking, kind="stable"):
        rivals = by_group.setdefault(int(groups[k]), [])
        mine = ends[k] - starts[k]
        if all(
            min(ends[k], ends[r]) - max(starts[k], starts[r]) < OVERLAP * min(mine, ends[r] - starts[r]) for r in rivals
        ):
            rivals.append(int(k))
            kept.append(int(k))
    return np.array(kept, np.int64)


class Reliability(NamedTuple):
    """Of the probabilities in each bin: their mean, the share that was right, and their number; each (b,)."""

    mean: Floats
    right: Floats
    number: Ints


def reliability(probabilities: Floats, right: NDArray[np.bool_], edges: Sequence[float]) -> Reliability:
    """How often what had a probability (n,) between two `edges` was right (n,); empty bins are left out."""
    number = np.clip(np.searchsorted(np.asarray(edges), probabilities, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(number, minlength=len(edges) - 1)
    full = count > 0
    mean, share = (np.bincount(number, v, len(edges) - 1)[full] / count[full] for v in (probabilities, right))
    return Reliability(mean.astype(np.float32), share.astype(np.float32), count[full])


def expected_calibration_error(found: Reliability) -> float:
    """Mean over what was found of the distance between a bin's probability and share right (Guo et al., ICML 2017)."""
    return float((np.abs(found.mean - found.right) * found.number).sum() / max(1, found.number.sum()))


def logistic(features: Floats, weights: Floats) -> Floats:
    """Probabilities (n,) of features (n, f) under weights (f + 1,), the last of which is the bias."""
    probability: Floats = np.exp(-np.logaddexp(0, -(features @ weights[:-1] + weights[-1]))).astype(np.float32)
    return probability

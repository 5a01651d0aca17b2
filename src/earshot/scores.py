"""Scores of a query against frames: which spans are like it, how well its phones fit, how likely it is said there.

In and out: NumPy arrays. Pure functions; knows nothing of encoders, libraries or audio.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_ROWS = 16_384
"""Frames that are turned into floats at a time: they fit the cache of a core."""
_BLOCK = 8
"""At most one candidate starts in so many frames."""


class Aligned(NamedTuple):
    """Best paths of a query's states through windows: score per frame (k,), and the frames [start, end) they cover."""

    score: Floats
    start: Ints
    end: Ints


def frame_scores(frames: NDArray[np.int8], queries: Floats, threads: int = 2) -> Floats:
    """Inner products (q, n) of queries (q, d) with frames (n, d), turned into floats piece by piece."""
    out = np.empty((len(queries), len(frames)), np.float32)
    columns = np.ascontiguousarray(queries.T)

    def run(begin: int, end: int) -> None:
        for k in range(begin, end, _ROWS):
            piece = frames[k : min(k + _ROWS, end)].astype(np.float32) @ columns
            out[:, k : k + len(piece)] = piece.T

    cuts = np.linspace(0, len(frames), threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, cuts[:-1], cuts[1:]))
    return out


def frames_left(stretch_offsets: Ints) -> NDArray[np.int32]:
    """For each frame how many there are from it to the end of its stretch; stretch k is [offsets[k], offsets[k+1])."""
    ends = np.repeat(stretch_offsets[1:], np.diff(stretch_offsets))
    return (ends - np.arange(len(ends))).astype(np.int32)


def candidates(
    scores: Floats, left: NDArray[np.int32], inverse_norms: Mapping[int, Floats], top: int
) -> tuple[Ints, Ints]:
    """The `top` spans of greatest cosine: (start frame, length), at most one start every 8 frames.

    scores (n,): inner products of one query with each projected frame. inverse_norms: for each length to try, one over
    the norm of the sum of that many projected frames from each frame on, (n,).
    """
    n = len(scores)
    total = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    best = np.full(-(-n // _BLOCK) * _BLOCK, -np.inf, np.float32)
    which = np.zeros(len(best), np.int16)
    for length, inverse in inverse_norms.items():
        if length > n:
            continue
        cosine = (total[length:] - total[:-length]).astype(np.float32)
        cosine *= inverse[: len(cosine)]
        cosine[left[: len(cosine)] < length] = -np.inf
        better = cosine > best[: len(cosine)]
        best[: len(cosine)][better] = cosine[better]
        which[: len(cosine)][better] = length
    blocks = best.reshape(-1, _BLOCK)
    peak = blocks.max(axis=1)
    keep = np.flatnonzero(peak > -np.inf)
    if len(keep) > top:
        keep = keep[np.argpartition(-peak[keep], top)[:top]]
    starts = keep * _BLOCK + blocks[keep].argmax(axis=1)
    return starts, which[starts].astype(np.int64)


def span_cosines(windows: NDArray[np.int8], query: Floats, projection: Floats, starts: Ints, ends: Ints) -> Floats:
    """Best cosine (k,) of `query` (d,) with the span [start, end) of each window, its borders moved by up to one frame.

    windows (k, w, f) int8 frames, projection (d, f): the embedding of a span is its projected sum, normalised.
    """
    sums = np.zeros((len(windows), windows.shape[1] + 1, windows.shape[2]), np.float32)
    np.cumsum(windows, axis=1, dtype=np.float32, out=sums[:, 1:])
    rows = np.arange(len(windows))
    best = np.full(len(windows), -1.0, np.float32)
    for first in (-1, 0, 1):
        for last in (-1, 0, 1):
            begin = np.clip(starts + first, 0, windows.shape[1] - 1)
            end = np.clip(ends + last, begin + 1, windows.shape[1])
            spans = (sums[rows, end] - sums[rows, begin]) @ projection.T
            cosine = spans @ query / np.maximum(np.linalg.norm(spans, axis=1), 1e-9)
            best = np.maximum(best, cosine)
    return best


def align(local: Floats, skip: float = 1.0) -> Aligned:
    """Best path of m states through each window, from any frame to any later one (Viterbi, in the log domain).

    local (k, w, m): what state j earns in frame t of window k. From one frame to the next a path stays, moves on a
    state, or skips one for `skip`. Paths begin in state 0 and end in state m - 1; the score is the mean over frames.
    """
    k, w, m = local.shape
    path = np.full((k, m), -np.inf, np.float32)
    began = np.zeros((k, m), np.int64)
    best = np.full(k, -np.inf, np.float32)
    start, end = np.zeros(k, np.int64), np.ones(k, np.int64)
    rows = np.arange(k)
    for t in range(w):
        options = np.full((3, k, m), -np.inf, np.float32)
        options[0] = path
        options[1, :, 1:] = path[:, :-1]
        options[2, :, 2:] = path[:, :-2] - skip
        origins = np.zeros((3, k, m), np.int64)
        origins[0], origins[1, :, 1:], origins[2, :, 2:] = began, began[:, :-1], began[:, :-2]
        choice = options.argmax(axis=0)
        path = np.take_along_axis(options, choice[None], 0)[0]
        began = np.take_along_axis(origins, choice[None], 0)[0]
        fresh = path[:, 0] < 0
        path[fresh, 0], began[fresh, 0] = 0, t
        path = path + local[:, t]
        better = path[:, -1] > best
        best[better], start[better], end[better] = path[better, -1], began[rows[better], -1], t + 1
    return Aligned(best / (end - start), start, end)


def suppress(starts: Floats, ends: Floats, groups: Ints, ranking: Floats) -> Ints:
    """Indices of spans to keep, best first: a span gives way to a better one of its group that it overlaps by half.

    Overlap is measured against the shorter of the two.
    """
    kept: list[int] = []
    by_group: dict[int, list[int]] = {}
    for k in np.argsort(-ranking, kind="stable"):
        rivals = by_group.setdefault(int(groups[k]), [])
        mine = ends[k] - starts[k]
        if all(
            min(ends[k], ends[r]) - max(starts[k], starts[r]) < 0.5 * min(mine, ends[r] - starts[r]) for r in rivals
        ):
            rivals.append(int(k))
            kept.append(int(k))
    return np.array(kept, np.int64)


def logistic(features: Floats, weights: Floats) -> Floats:
    """Probabilities (n,) of features (n, f) under weights (f + 1,), the last of which is the bias."""
    probability: Floats = (1 / (1 + np.exp(-(features @ weights[:-1] + weights[-1])))).astype(np.float32)
    return probability

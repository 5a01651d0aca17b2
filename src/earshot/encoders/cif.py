"""Continuous integrate-and-fire: weighed frames -> token vectors, in numpy, for running a trained speech branch.

In: frames of one stretch and their weights. Out: a vector for each token and the frame at which it is complete. Knows
nothing of networks; `earshot.train.clsr.cif` does the same to batches, with gradients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earshot.features import Floats

TAIL = 0.45
"""Weight of a silent frame after the last, so that a last token which is more than half there is told (FunASR)."""
ROUNDING = 1e-6
"""How far a sum of weights may stay under a whole number and still count as that."""


BLANK = 0
"""The token of a piece of speech that is none; BERT's own padding."""
HALVES = 2
"""Parts of a frame in which a token may end, where that is told."""
OFF = 1.0
"""What it costs in log odds that a token's weights are one off, times its square."""
EAGER = 1.0
"""Added to the log odds of each end: better too many, as the decoder can tell that one of them is none (BLANK)."""
ALONE = 1.5
"""What it costs, in log odds, that a piece between two ends is of no token."""
LONGEST = 100
"""Halves of frames between the ends of two tokens: pauses are in there."""


def find_ends(log_odds: Floats, alphas: Floats) -> NDArray[np.int64]:
    """Ends (n,), in halves of frames, of the tokens of a stretch: the likeliest ones of which each weighs about one.

    log_odds (HALVES * t,) that a token ends in each half; alphas (t,) as for `integrate_and_fire`, which cannot mend
    what it has miscounted: here an end that is sure sets the count right. Dynamic programming over the halves. Ours.
    """
    n = len(log_odds)
    earned = np.asarray(log_odds, np.float64) + EAGER
    line = np.concatenate([[0.0], np.cumsum(np.repeat(np.asarray(alphas, np.float64) / HALVES, HALVES))])
    best, before = np.zeros(n + 1), np.zeros(n + 1, np.int64)
    for end in range(1, n + 1):
        first = max(0, end - LONGEST)
        scores = best[first:end] - OFF * (line[end] - line[first:end] - 1) ** 2
        k = int(scores.argmax())
        best[end], before[end] = scores[k] + earned[end - 1], first + k
    end = int((best - OFF * (line[-1] - line) ** 2).argmax())
    ends = []
    while end > 0:
        ends.append(end)
        end = int(before[end])
    return np.array(ends[::-1], np.int64)


def told(blank: Floats, spans: Floats) -> NDArray[np.bool_]:
    """(n,) which of the found ends end a token, so that each piece is of one token at most: the likeliest way.

    blank (n,): the probability that no token ends there; spans (n, k): log probabilities that it is of one piece, of
    two, to k, which are then no tokens of their own. A piece that is of no token costs ALONE. Ours: each end by itself
    would have a word twice where it cannot tell which of two ends is the right one.
    """
    silent, loud = (np.log(np.maximum(chance, 1e-9)) for chance in (blank, 1 - blank))
    best, taken = np.zeros(len(blank) + 1), np.zeros(len(blank) + 1, np.int64)
    for end in range(1, len(best)):
        best[end], inside = best[end - 1] + silent[end - 1] - ALONE, 0.0
        for k in range(1, min(spans.shape[1], end) + 1):
            score = best[end - k] + loud[end - 1] + spans[end - 1, k - 1] + inside
            if score > best[end]:
                best[end], taken[end] = score, k
            inside += silent[end - k - 1]
    out = np.zeros(len(blank), bool)
    end = len(blank)
    while end:
        out[end - 1] = taken[end] > 0
        end -= max(int(taken[end]), 1)
    return out


def pool(hidden: Floats, alphas: Floats, ends: NDArray[np.int64]) -> Floats:
    """Vectors (n, d) of the tokens that end there, in halves of frames: sums of `hidden` (t, d) times `alphas` (t,).

    A token is what lies between its end and that of the one before.
    """
    halves = np.arange(HALVES * len(alphas))
    inside = (halves < ends[:, None]) & (halves >= np.concatenate([[0], ends])[:-1, None])
    shares = inside.reshape(len(ends), len(alphas), HALVES).mean(axis=2) * alphas
    vectors: Floats = shares.astype(np.float32) @ hidden
    return vectors


def integrate_and_fire(hidden: Floats, alphas: Floats, tail: float = TAIL) -> tuple[Floats, NDArray[np.int64]]:
    """Vectors (n, d) and fires (n,) of the tokens in frames `hidden` (t, d) with weights `alphas` (t,), none negative.

    The weights laid end to end make a line. Token k is its stretch from k to k + 1: the sum of the frames, each times
    what of its weight lies there; it fires in the frame where the line reaches k + 1, and t stands for the tail. A
    weight above 1 can end several tokens in one frame. Dong and Xu, arXiv 1905.11235, without their loop.
    """
    line = np.concatenate([[0.0], np.cumsum(np.append(alphas, tail), dtype=np.float64)])
    token = np.arange(int(line[-1] + ROUNDING))
    until = np.minimum(line[1:-1], token[:, None] + 1)
    since = np.maximum(line[:-2], token[:, None])
    shares = np.maximum(until - since, 0).astype(np.float32)
    return shares @ hidden, np.searchsorted(line[1:], token + 1 - ROUNDING)

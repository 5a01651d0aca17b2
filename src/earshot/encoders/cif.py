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

"""One detection for each place: the best of overlapping candidate spans.

In: candidate spans of one query in one recording, with scores. Out: the indices of those that no better one overlaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def peaks(starts: Floats, ends: Floats, scores: Floats, limit: int) -> list[int]:
    """At most `limit` indices, best score first, such that the midpoint of none lies inside another that was taken.

    `starts`, `ends` (n,) in seconds, `scores` (n,). Only the `20 * limit` best candidates are looked at.
    """
    order = np.argsort(-scores, kind="stable")[: 20 * limit]
    starts, ends = starts[order], ends[order]
    middles, free = (starts + ends) / 2, np.ones(len(order), dtype=bool)
    taken: list[int] = []
    while len(taken) < limit and free.any():
        i = int(np.argmax(free))
        taken.append(int(order[i]))
        inside = (middles >= starts[i]) & (middles <= ends[i])
        around = (starts <= middles[i]) & (middles[i] <= ends)
        free &= ~(inside | around)
        free[i] = False
    return taken

"""The clock and the classes of the word encoder's frames: which seconds frame k stands for, which phone class c is.

In: seconds or frame numbers. Out: the other. Training and search share it; knows nothing of networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earshot.features import HOP, SAMPLE_RATE, WINDOW
from earshot.pronounce import PHONES
from earshot.types import Seconds

SUBSAMPLING = 4
"""Feature frames to one encoder frame."""
FRAME_SECONDS: Seconds = SUBSAMPLING * HOP / SAMPLE_RATE
FIRST_CENTRE: Seconds = WINDOW / 2 / SAMPLE_RATE
"""Frame k stands for the time around FIRST_CENTRE + k * FRAME_SECONDS."""
GRID = (4, 6, 8, 11, 15, 20, 27, 36)
"""Lengths of spans, in frames, that are searched: 0.16 to 1.44 s."""
SILENCE = len(PHONES)
"""Class of frames without a phone; in the phone tower the same id pads."""
N_CLASSES = len(PHONES) + 1
BORDER = N_CLASSES
"""In the phone tower: a word begins or ends here. Phones without it beside them go on within a word."""
HALVES = 2
"""Phone scores for each frame: of its first and of its second 20 ms."""
HALF_SECONDS: Seconds = FRAME_SECONDS / HALVES


def half_centres(n_frames: int) -> NDArray[np.float64]:
    """Seconds of the middle of each half frame, (HALVES * n_frames,)."""
    return FIRST_CENTRE - HALF_SECONDS / 2 + np.arange(HALVES * n_frames, dtype=np.float64) * HALF_SECONDS


def frame_range(start: Seconds, end: Seconds, n_frames: int) -> tuple[int, int]:
    """Frames [first, last) whose centres lie in [start, end); at least one frame of the n_frames."""
    first = int(np.clip(np.ceil((start - FIRST_CENTRE) / FRAME_SECONDS), 0, n_frames - 1))
    last = int(np.clip(np.ceil((end - FIRST_CENTRE) / FRAME_SECONDS), first + 1, n_frames))
    return first, last


def frame_count(n_feature_frames: int) -> int:
    """Encoder frames made of `n_feature_frames` feature frames."""
    return -(-n_feature_frames // SUBSAMPLING)

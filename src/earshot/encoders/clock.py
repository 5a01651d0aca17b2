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
SILENCE = len(PHONES)
"""Class of frames without a phone; in the phone tower the same id pads."""
N_CLASSES = len(PHONES) + 1


def centres(n_frames: int) -> NDArray[np.float64]:
    """Seconds of the middle of each frame, (n_frames,)."""
    return FIRST_CENTRE + np.arange(n_frames, dtype=np.float64) * FRAME_SECONDS


def frame_range(start: Seconds, end: Seconds, n_frames: int) -> tuple[int, int]:
    """Frames [first, last) whose centres lie in [start, end); at least one frame of the n_frames."""
    first = int(np.clip(np.ceil((start - FIRST_CENTRE) / FRAME_SECONDS), 0, n_frames - 1))
    last = int(np.clip(np.ceil((end - FIRST_CENTRE) / FRAME_SECONDS), first + 1, n_frames))
    return first, last


def frame_count(n_feature_frames: int) -> int:
    """Encoder frames made of `n_feature_frames` feature frames."""
    return -(-n_feature_frames // SUBSAMPLING)

"""Anchor for the task "words": ten equally spaced MFCC frames in a row as the vector of a word; nothing is learned.

In: clips. Out: unit vectors. The usual floor for acoustic word embeddings (Levin et al. 2013). It takes no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.dtw_mfcc import mfcc, normalised
from benchmarks.contract import Audio, Setup

FRAMES = 10


class DownsampledMfcc:
    def embed_speech(self, clips: Sequence[Audio]) -> NDArray[np.float32]:
        frames = [mfcc(clip) for clip in clips]
        mean, deviation = np.concatenate(frames).mean(axis=0), np.concatenate(frames).std(axis=0)
        vectors = np.array([_sampled(normalised(one, mean, deviation)) for one in frames], dtype=np.float32)
        unit: NDArray[np.float32] = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-8)
        return unit


def _sampled(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear interpolation at FRAMES equally spaced places, in one row."""
    at = np.linspace(0, len(frames) - 1, FRAMES)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(frames) - 1)
    between: NDArray[np.float32] = frames[low] + (at - low)[:, None] * (frames[high] - frames[low])
    return between.ravel()


def build(setup: Setup) -> DownsampledMfcc:
    return DownsampledMfcc()

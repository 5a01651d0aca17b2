"""Rival: subsequence dynamic time warping over MFCCs, the classic search by spoken example; nothing is learned.

In: recordings and spoken examples (the cut clip alone). Out: detections scored by minus the warping cost, brought to
zero mean and unit variance over the places searched for each query. It takes no typed words.

What was tried on every sixth example, mean average precision: frames normalised by the clip's own mean and deviation
.121, by those of all recordings .151, by the deviation of all recordings and the mean half-way between .158 (taken);
by those of the whole utterance around the example, which a clip does not have, .179.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.contract import DETECTIONS_PER_QUERY, SAMPLE_RATE, Audio, Query, Setup, Source
from benchmarks.peaks import peaks
from benchmarks.tasks import read
from earshot.metrics import Detection
from earshot.types import Seconds

WINDOW: Seconds = 0.025
HOP: Seconds = 0.010
N_FFT = 512
N_MELS = 26
N_CEPSTRA = 13

Frames = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


def mfcc(samples: Audio) -> Frames:
    """(n_frames, 39) cepstra with first and second differences, 100 frames a second."""
    width, hop = round(WINDOW * SAMPLE_RATE), round(HOP * SAMPLE_RATE)
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    emphasised = np.pad(emphasised, (0, max(0, width - len(emphasised))))
    framed = np.lib.stride_tricks.sliding_window_view(emphasised, width)[::hop] * np.hamming(width)
    power = np.abs(np.fft.rfft(framed, N_FFT)) ** 2
    cepstra = np.log(power @ _mel_filters().T + 1e-10) @ _cosines().T
    slope = _slope(cepstra)
    return np.hstack([cepstra, slope, _slope(slope)]).astype(np.float32)


def normalised(frames: Frames, mean: Frames, deviation: Frames) -> Frames:
    return (frames - mean) / (deviation + 1e-8)


def _slope(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares slope over five frames."""
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    return (2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / 10


def _mel_filters() -> NDArray[np.float64]:
    """(n_mels, n_bins) triangles, equally spaced in mel from 20 Hz to 8 kHz."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (20, SAMPLE_RATE / 2))
    corners = 700 * (10 ** (np.linspace(low, high, N_MELS + 2) / 2595) - 1)
    bins = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def _cosines() -> NDArray[np.float64]:
    """(n_cepstra, n_mels) orthonormal DCT-II."""
    angles = np.pi / N_MELS * np.outer(np.arange(N_CEPSTRA), np.arange(N_MELS) + 0.5)
    return np.cos(angles) * np.sqrt(np.where(np.arange(N_CEPSTRA) == 0, 1, 2) / N_MELS)[:, None]


def warp(query: Frames, frames: Frames) -> tuple[Frames, NDArray[np.int64]]:
    """(n_frames,) mean cosine distance of the best match that ends at each frame, and the frame it begins at.

    Steps (query, recording): (1, 1), (1, 2), (2, 1), the slope limits of Sakoe and Chiba (1978): a match takes half to
    twice the query's length. Each query frame weighs the same, so costs of one query compare without a path length.
    """
    distance: Frames = 1 - _unit(query) @ _unit(frames).T
    n = distance.shape[1]
    begins = np.arange(n)
    cost, before = distance[0], np.full(n, np.inf, dtype=np.float32)
    begin, begin_before = begins, begins
    for i in range(1, len(query)):
        slow = _shift(cost, 2, np.inf) + (distance[i] + _shift(distance[i], 1, 0)) / 2
        fast = _shift(before, 1, np.inf) + distance[i - 1] + distance[i]
        new, new_begin = _shift(cost, 1, np.inf) + distance[i], _shift(begin, 1, 0)
        new_begin = np.where(slow < new, _shift(begin, 2, 0), new_begin)
        new = np.minimum(new, slow)
        new_begin = np.where(fast < new, _shift(begin_before, 1, 0), new_begin)
        before, begin_before = cost, begin
        cost, begin = np.minimum(new, fast), new_begin
    return cost / len(query), begin


def _shift(row: NDArray[Number], by: int, fill: float) -> NDArray[Number]:
    shifted = np.empty_like(row)
    shifted[:by], shifted[by:] = fill, row[:-by]
    return shifted


def _unit(frames: Frames) -> Frames:
    unit: Frames = frames / (np.linalg.norm(frames, axis=1, keepdims=True) + 1e-8)
    return unit


class DtwMfcc:
    kinds = ("spoken",)

    def prepare(self, recordings: Sequence[Source]) -> None:
        raw = [mfcc(read(recording.path)) for recording in recordings]
        self._mean, self._deviation = np.concatenate(raw).mean(axis=0), np.concatenate(raw).std(axis=0)
        self._recordings = [
            (recording.name, normalised(frames, frames.mean(axis=0), frames.std(axis=0)))
            for recording, frames in zip(recordings, raw, strict=True)
        ]

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        return [detection for query in queries for detection in self._find(query)]

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        return []

    def _find(self, query: Query) -> list[Detection]:
        assert query.clip is not None
        frames = mfcc(read(query.clip))
        example = normalised(frames, (frames.mean(axis=0) + self._mean) / 2, self._deviation)
        found, costs = [], []
        for name, searched in self._recordings:
            cost, begin = warp(example, searched)
            reached = np.flatnonzero(np.isfinite(cost))
            costs.append(cost[reached])
            starts, ends = begin[reached] * HOP, (reached + 1) * HOP
            for i in peaks(starts, ends, -cost[reached], DETECTIONS_PER_QUERY):
                found.append((float(cost[reached][i]), name, float(starts[i]), float(ends[i])))
        mean, deviation = np.concatenate(costs).mean(), np.concatenate(costs).std()
        best = sorted(found)[:DETECTIONS_PER_QUERY]
        return [Detection(query.word, name, s, e, float((mean - cost) / deviation)) for cost, name, s, e in best]


def build(setup: Setup) -> DtwMfcc:
    return DtwMfcc()

"""The paper's own way to search (JMCL, section 4): a word encoder over a fixed grid of short windows.

In: recordings, typed words and spoken examples. Out: the windows nearest to the query, scored by cosine. It works over
any word encoder that embeds isolated clips and typed words in one space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.word_encoder import load
from benchmarks.contract import DETECTIONS_PER_QUERY, SAMPLE_RATE, Query, Setup, Source, WordEncoder
from benchmarks.peaks import peaks
from benchmarks.tasks import read
from earshot.metrics import Detection
from earshot.types import Seconds

WINDOWS: tuple[Seconds, ...] = (0.2, 0.3, 0.4, 0.6)
HOP: Seconds = 0.15
BATCH = 256


class FixedWindows:
    kinds = ("typed", "spoken")

    def __init__(self, encoder: WordEncoder) -> None:
        self.encoder = encoder

    def prepare(self, recordings: Sequence[Source]) -> None:
        self._grids = [(recording.name, *self._grid(recording)) for recording in recordings]

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        if any(query.clip is None for query in queries):
            vectors = self.encoder.embed_text([query.word for query in queries])
        else:
            vectors = self.encoder.embed_speech([read(query.clip) for query in queries if query.clip])
        return [d for query, vector in zip(queries, vectors, strict=True) for d in self._find(query.word, vector)]

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        return []

    def _grid(self, recording: Source) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """(n,) starts, (n,) ends and (n, d) unit vectors of every window of a recording."""
        samples, hop = read(recording.path), round(HOP * SAMPLE_RATE)
        starts, ends, vectors = [], [], []
        for window in WINDOWS:
            width = round(window * SAMPLE_RATE)
            if width > len(samples):
                continue
            framed = np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]
            starts.append(np.arange(len(framed)) * HOP)
            ends.append(starts[-1] + window)
            vectors += [self.encoder.embed_speech(list(framed[i : i + BATCH])) for i in range(0, len(framed), BATCH)]
        return np.concatenate(starts), np.concatenate(ends), np.concatenate(vectors)

    def _find(self, word: str, vector: NDArray[np.float32]) -> list[Detection]:
        found = []
        for name, starts, ends, vectors in self._grids:
            scores = vectors @ vector
            for i in peaks(starts, ends, scores, DETECTIONS_PER_QUERY):
                found.append(Detection(word, name, float(starts[i]), float(ends[i]), float(scores[i])))
        return sorted(found, key=lambda d: -d.score)[:DETECTIONS_PER_QUERY]


def build(setup: Setup) -> FixedWindows:
    return FixedWindows(load(setup.encoder))

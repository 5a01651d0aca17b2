"""Earshot itself, as a user runs it: `Library.index`, then `Library.find`.

In: recordings, typed words and spoken examples (each a file of its own; its surroundings are not used). Out: hits,
scored by probability.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import earshot
from benchmarks.contract import DETECTIONS_PER_QUERY, Query, Setup, Source
from earshot import encoders
from earshot.metrics import Detection


class Earshot:
    kinds = ("typed", "spoken")
    probabilities = True

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder, self.encoder = folder, encoder

    def prepare(self, recordings: Sequence[Source]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.names = {str(recording.path.resolve()): recording.name for recording in recordings}
        self.library = earshot.open(str(self.folder), encoder=encoders.load(self.encoder))
        self.library.index([recording.path for recording in recordings])

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        return [detection for query in queries for detection in self._find(query)]

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        return []

    def _find(self, query: Query) -> list[Detection]:
        sought = query.word if query.clip is None else earshot.Clip(str(query.clip))
        hits = self.library.find(sought, top=DETECTIONS_PER_QUERY)
        return [
            Detection(query.word, self._name(hit.recording.path), hit.start, hit.end, hit.probability) for hit in hits
        ]

    def _name(self, path: str) -> str:
        return self.names[str(Path(path).resolve())]


def build(setup: Setup) -> Earshot:
    return Earshot(setup.work / "earshot-library", setup.encoder)

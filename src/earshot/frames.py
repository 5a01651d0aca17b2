"""Frame vectors on their way to and from the library: stretches of speech <-> blocks of bytes <-> one array.

In: stretches, each its start and its (n_frames, dim) int8 frames. Out: blocks as docs/format.md describes them, and
blocks put back together as a FrameTable. Knows nothing of SQLite, of encoders or of what a vector means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earshot.types import Seconds

BLOCK_BYTES = 4 << 20  # a block holds whole stretches, of about this many bytes at most

_ENTRY = np.dtype([("start", "<f8"), ("n_frames", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Contiguous speech: frame k of `frames`, (n_frames, dim) int8, is at `start + k * frame_seconds`."""

    start: Seconds
    frames: NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """Frames of many recordings in one array, as they were when the library was at `version`.

    vectors: (n_frames, dim) int8, C-contiguous. stretch_offsets: (m + 1,) int64; stretch i is
    `vectors[stretch_offsets[i]:stretch_offsets[i + 1]]`. stretch_start: (m,) float64 seconds from the start of its
    recording. stretch_recording: (m,) int64 recording ids, ascending.
    """

    vectors: NDArray[np.int8]
    stretch_offsets: NDArray[np.int64]
    stretch_start: NDArray[np.float64]
    stretch_recording: NDArray[np.int64]
    version: int


def pack(stretches: Sequence[Stretch]) -> Iterator[tuple[bytes, memoryview]]:
    """Stretches -> the two byte strings of each block: its stretch entries and its vectors."""
    first = 0
    while first < len(stretches):
        last, size = first + 1, stretches[first].frames.nbytes
        while last < len(stretches) and size + stretches[last].frames.nbytes <= BLOCK_BYTES:
            size += stretches[last].frames.nbytes
            last += 1
        block = stretches[first:last]
        entries = np.array([(stretch.start, len(stretch.frames)) for stretch in block], dtype=_ENTRY)
        yield entries.tobytes(), np.concatenate([stretch.frames for stretch in block]).data
        first = last


class TableBuilder:
    """Copies blocks, one after another, into one array with room for `n_frames`."""

    def __init__(self, n_frames: int, dim: int) -> None:
        self._vectors = np.empty((n_frames, dim), dtype=np.int8)
        self._bytes = self._vectors.reshape(-1).view(np.uint8).data
        self._entries: list[bytes] = []
        self._recordings: list[int] = []
        self._ends: list[int] = []  # bytes filled after each block
        self.filled = 0  # bytes of vectors so far

    def has_room(self, vectors: bytes) -> bool:
        return self.filled + len(vectors) <= len(self._bytes)

    def append(self, recording: int, entries: bytes, vectors: bytes) -> None:
        end = self.filled + len(vectors)
        self._bytes[self.filled : end] = vectors
        self._entries.append(entries)
        self._recordings.append(recording)
        self._ends.append(end)
        self.filled = end

    def build(self, version: int) -> FrameTable:
        """The table. Raises ValueError where the entries of a block do not describe its vectors."""
        dim = self._vectors.shape[1]
        entry_bytes = np.array([len(entries) for entries in self._entries], dtype=np.int64)
        if np.any(entry_bytes % _ENTRY.itemsize):
            raise ValueError("stretch entries cut short")
        counts = entry_bytes // _ENTRY.itemsize
        entries = np.frombuffer(b"".join(self._entries), _ENTRY)
        offsets = np.zeros(len(entries) + 1, dtype=np.int64)
        np.cumsum(entries["n_frames"], out=offsets[1:])
        if not np.array_equal(offsets[np.cumsum(counts)] * dim, self._ends):
            raise ValueError("stretch entries that do not match the vectors")
        return FrameTable(
            vectors=self._vectors[: self.filled // dim],
            stretch_offsets=offsets,
            stretch_start=entries["start"].astype(np.float64),
            stretch_recording=np.repeat(np.array(self._recordings, dtype=np.int64), counts),
            version=version,
        )

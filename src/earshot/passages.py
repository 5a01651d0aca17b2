"""What was heard in a recording -> passages that a question can be about, each with a vector.

In: the stretches of speech of a recording, as stored frames, and a passage encoder. Out: word pieces with their times,
and runs of stretches, each at most so long, beginning and ending in pauses. Knows nothing of files or libraries.

Passages are of two lengths: some forty seconds, which overlap (arXiv 2511.09282 cuts long recordings so), and a
sentence or two, which tell where in them the answer is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earshot.encoders.clock import FRAME_SECONDS
from earshot.encoders.passage import PassageEncoder
from earshot.frames import Stretch
from earshot.heard import Heard
from earshot.types import Seconds

LENGTHS: tuple[tuple[Seconds, Seconds], ...] = ((40.0, 10.0), (12.0, 0.0))
"""How long passages are at most, and how much of each the next repeats at most."""
AT_ONCE: Seconds = 30.0
"""Speech that is heard together."""
Ints = NDArray[np.int64]


class Words(NamedTuple):
    """Word pieces (n,) of a recording in order, and the stretch that each is in and the second at which each ends."""

    tokens: Ints
    stretches: Ints
    ends: NDArray[np.float64]


def listen(stretches: Sequence[Stretch], encoder: PassageEncoder) -> Heard:
    """What is heard in the stretches of a recording, and its passages: those of LENGTHS together, each once.

    There is no passage without a word.
    """
    words = hear(stretches, encoder)
    starts = np.array([s.start for s in stretches])
    stops = starts + np.array([len(s.frames) * FRAME_SECONDS for s in stretches])
    runs = np.array(list(dict.fromkeys(run for of in LENGTHS for run in windows(starts, stops, *of))), np.int64)
    runs = runs.reshape(-1, 2)
    first, last = np.searchsorted(words.stretches, runs.T, side="left")
    told = last > first
    runs, first, last = runs[told], first[told], last[told]
    vectors = encoder.embed_tokens([words.tokens[a:b] for a, b in zip(first, last, strict=True)])
    times = starts[runs[:, 0]], stops[runs[:, 1] - 1]
    return Heard(words.tokens, words.ends, first, last, *times, vectors.astype(np.float16))


def hear(stretches: Sequence[Stretch], encoder: PassageEncoder) -> Words:
    """The word pieces in the stretches of a recording."""
    found = [Words(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for first, last in _groups([len(s.frames) * FRAME_SECONDS for s in stretches]):
        group = stretches[first:last]
        heard = encoder.hear(np.concatenate([s.frames for s in group]))
        edges = np.cumsum([0, *(len(s.frames) for s in group)]) * FRAME_SECONDS
        of = np.clip(np.searchsorted(edges, heard.ends, side="left") - 1, 0, len(group) - 1)
        starts = np.array([s.start for s in group])
        found.append(Words(heard.tokens, first + of, starts[of] + heard.ends - edges[of]))
    return Words(*(np.concatenate([getattr(words, name) for words in found]) for name in Words._fields))


def _groups(seconds: Sequence[Seconds]) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of stretches of at most AT_ONCE together."""
    edges, total = [0], 0.0
    for k, length in enumerate(seconds):
        if total + length > AT_ONCE and k > edges[-1]:
            edges.append(k)
            total = 0.0
        total += length
    yield from pairwise([*edges, len(seconds)] if seconds else [0])


def windows(
    starts: NDArray[np.float64], ends: NDArray[np.float64], longest: Seconds, overlap: Seconds
) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of stretches, each from its first one's start to its last one's end at most `longest`.

    The next begins no more than `overlap` before the end of the one before. A stretch longer than that is a run.
    """
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + longest, side="right")))
        yield first, last
        if last == len(starts):
            return
        first = max(first + 1, min(last, int(np.searchsorted(starts, ends[last - 1] - overlap, side="left"))))

"""What was heard in a recording, or is in its transcript -> passages that a question can be about, with vectors.

In: the stretches of speech of a recording, as stored frames, perhaps captions, and a passage encoder. Out: word
pieces with their times, and runs of stretches, each at most so long, beginning and ending in pauses. Knows nothing of
files or libraries.

Passages are of two lengths: some forty seconds, which overlap (arXiv 2511.09282 cuts long recordings so), and a
sentence or two, which tell where in them the answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earshot.captions import Caption
from earshot.encoders import passage
from earshot.encoders.clock import FRAME_SECONDS
from earshot.encoders.passage import PassageEncoder
from earshot.frames import Stretch
from earshot.heard import Heard
from earshot.types import Seconds

SHORT: Seconds = 12.0
LENGTHS: tuple[tuple[Seconds, Seconds], ...] = ((40.0, 10.0), (SHORT, 0.0))
"""How long passages are at most, and how much of each the next repeats at most."""
AT_ONCE: Seconds = 30.0
"""Speech that is heard together."""
Ints = NDArray[np.int64]


def listen(
    recordings: Sequence[Sequence[Stretch]], encoder: PassageEncoder, each: Callable[..., Iterable[Any]] = map
) -> list[Heard]:
    """What is heard in the stretches of each recording, and its passages: those of LENGTHS together, each once.

    There is no passage without a word. `each` may be the `map` of an executor: it is what takes the time.
    """
    groups = [list(_groups([len(s.frames) * FRAME_SECONDS for s in of])) for of in recordings]

    def hear(run: Sequence[Stretch]) -> passage.Heard:
        return encoder.hear(np.concatenate([stretch.frames for stretch in run]))

    runs = [of[first:last] for of, cut in zip(recordings, groups, strict=True) for first, last in cut]
    told = iter(list(each(hear, runs)))
    words = [_words(of, [(run, next(told)) for run in runs]) for of, runs in zip(recordings, groups, strict=True)]
    return _bound(words, recordings, encoder, each)


def _bound(
    words: Sequence[_Words],
    recordings: Sequence[Sequence[Stretch]],
    encoder: PassageEncoder,
    each: Callable[..., Iterable[Any]],
) -> list[Heard]:
    """The words of recordings cut into passages, with the vector of each."""
    cuts = [_cut(said, of) for said, of in zip(words, recordings, strict=True)]
    texts = [
        said.tokens[a:b]
        for said, cut in zip(words, cuts, strict=True)
        for a, b in zip(cut.first, cut.last, strict=True)
    ]
    vectors = np.concatenate([np.zeros((0, encoder.dim)), *each(encoder.embed_tokens, [[text] for text in texts])])
    edges = np.cumsum([0, *(len(cut.first) for cut in cuts)])
    return [
        Heard(said.tokens, said.ends, *cut, vectors[first:last].astype(np.float16))
        for said, cut, (first, last) in zip(words, cuts, pairwise(edges), strict=True)
    ]


def read(
    transcripts: Sequence[tuple[Sequence[Caption], Sequence[Stretch]]],
    encoder: PassageEncoder,
    each: Callable[..., Iterable[Any]] = map,
) -> list[Heard]:
    """The same of recordings that have transcripts: their words are those of the captions."""
    words = [_spelled(captions, stretches, encoder) for captions, stretches in transcripts]
    return _bound(words, [stretches for _, stretches in transcripts], encoder, each)


def _spelled(captions: Sequence[Caption], stretches: Sequence[Stretch], encoder: PassageEncoder) -> _Words:
    """Word pieces of captions, evenly in their time, in the stretch that begins last before each ends."""
    pieces = [encoder.text.pieces.ids(caption.text) for caption in captions]
    ends = [np.linspace(c.start, c.end, len(ids) + 1)[1:] for c, ids in zip(captions, pieces, strict=True)]
    tokens = np.array([k for ids in pieces for k in ids], np.int64)
    times = np.concatenate([np.zeros(0), *ends])
    order = np.argsort(times, kind="stable")
    starts = np.array([stretch.start for stretch in stretches])
    of = np.clip(np.searchsorted(starts, times[order], side="left") - 1, 0, max(len(starts) - 1, 0))
    return _Words(tokens[order], of, times[order])


class _Words(NamedTuple):
    """Word pieces (n,) of a recording in order, the stretch that each is in and the second at which it ends."""

    tokens: Ints
    stretches: Ints
    ends: NDArray[np.float64]


class _Cut(NamedTuple):
    """Passages (p,): from word piece `first` to before `last`, from second `starts` to `stops`."""

    first: Ints
    last: Ints
    starts: NDArray[np.float64]
    stops: NDArray[np.float64]


def _groups(seconds: Sequence[Seconds]) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of stretches of at most AT_ONCE together."""
    edges, total = [0], 0.0
    for k, length in enumerate(seconds):
        if total + length > AT_ONCE and k > edges[-1]:
            edges.append(k)
            total = 0.0
        total += length
    yield from pairwise([*edges, len(seconds)] if seconds else [0])


def _words(stretches: Sequence[Stretch], told: Sequence[tuple[tuple[int, int], passage.Heard]]) -> _Words:
    """The word pieces of a recording, as told of runs of its stretches that were heard together."""
    found = [_Words(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for (first, last), heard in told:
        group = stretches[first:last]
        edges = np.cumsum([0, *(len(s.frames) for s in group)]) * FRAME_SECONDS
        of = np.clip(np.searchsorted(edges, heard.ends, side="left") - 1, 0, len(group) - 1)
        starts = np.array([s.start for s in group])
        found.append(_Words(heard.tokens, first + of, starts[of] + heard.ends - edges[of]))
    return _Words(*(np.concatenate(of) for of in zip(*found, strict=True)))


def _cut(words: _Words, stretches: Sequence[Stretch]) -> _Cut:
    """The passages of a recording that hold a word."""
    starts = np.array([s.start for s in stretches])
    stops = starts + np.array([len(s.frames) * FRAME_SECONDS for s in stretches])
    runs = np.array(list(dict.fromkeys(run for of in LENGTHS for run in windows(starts, stops, *of))), np.int64)
    runs = runs.reshape(-1, 2)
    first, last = np.searchsorted(words.stretches, runs.T, side="left")
    held = last > first
    return _Cut(first[held], last[held], starts[runs[held, 0]], stops[runs[held, 1] - 1])


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

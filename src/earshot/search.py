"""The read path of `find`: a typed or spoken query -> places in a library, best first.

In: an open store, the encoder that wrote it, a query. Out: hits with times, cosine and probability. Three steps:
every span is ranked by its pooled embedding; the best few hundred are aligned with the query frame by frame; both
scores make the probability. Knows nothing of how recordings got into the library, or of printing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earshot import scores
from earshot.audio import SAMPLE_RATE, load
from earshot.encoders.clock import FRAME_SECONDS, GRID, HALF_SECONDS, HALVES, N_CLASSES, frame_range, half_centres
from earshot.encoders.word import WordEncoder, phone_ids
from earshot.features import Floats, log_mel
from earshot.frames import FrameTable
from earshot.library import Store
from earshot.pronounce import pronounce
from earshot.types import AudioError, Clip, Hit, QueryError, Recording, Seconds

SHORTEST_EXAMPLE: Seconds = 0.15
LONGEST_EXAMPLE: Seconds = 10.0
CONTEXT: Seconds = 1.0
"""Speech around a clip cut from a longer recording, encoded with it: words run into each other."""
CANDIDATES = 400
"""Spans of each pronunciation that are aligned."""
MARGIN = 8
"""Frames on each side of a candidate in which its borders are sought: 0.3 s."""
EDGE: Seconds = float(half_centres(1)[0]) - HALF_SECONDS / 2
"""Where the first half frame of a stretch begins, from the start of the stretch."""
CHUNK_BYTES = 2 << 30
"""A library larger than this is searched piece by piece."""
EARN = 2.5
"""What a frame earns for log probability 0 when phones are aligned: frames below exp(-EARN) cost."""
WORST = -4.0
_SHORTER, _LONGER = 0.55, 1.8
"""A match of a typed word may be this much shorter or longer than its phones usually take; of an example, see below."""
_EXAMPLE_SHORTER, _EXAMPLE_LONGER = 0.6, 1.6


@dataclass(frozen=True, slots=True)
class Query:
    """One way to say what is sought.

    vector (dim,): its embedding; states (m, N_CLASSES): the distribution over phones at each step of it;
    expected: frames it usually takes; lengths: those of the encoder's grid that a match may have; spoken: whether it
    comes from an example.
    """

    label: str
    vector: Floats
    states: Floats
    expected: float
    lengths: tuple[int, ...]
    spoken: bool


@dataclass(frozen=True, slots=True)
class Haystack:
    """Frames of a library, or of a piece of one, and what is worked out of them once for all queries."""

    table: FrameTable
    inverse_norms: dict[int, Floats]

    @classmethod
    def of(cls, table: FrameTable, encoder: WordEncoder) -> Haystack:
        """The table with what searching needs."""
        left, norms = scores.frames_left(table.stretch_offsets), encoder.inverse_norms(table.vectors)
        for length, inverse in norms.items():
            inverse[left < length] = 0
        return cls(table, norms)

    def similarity(self, ways: Sequence[Query], encoder: WordEncoder) -> Floats:
        """Inner products (len(ways), n) of queries with projected frames."""
        directions = np.zeros((len(ways), encoder.stored_dim), np.float32)
        directions[:, : encoder.frame_dim] = np.stack([way.vector for way in ways]) @ encoder.projection
        return scores.frame_scores(self.table.vectors, directions)

    def stretch_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the stretch that each frame is in."""
        return np.searchsorted(self.table.stretch_offsets, frames, side="right") - 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """Spans found for one query: half frames [start, end) of the table, and what was measured of them (n, f)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cosines: Floats
    features: Floats


class Searcher:
    """Searches one library; keeps its frames in memory between queries and notices when the library has changed."""

    def __init__(self, store: Store, encoder: WordEncoder) -> None:
        self.store, self.encoder = store, encoder
        self._whole: Haystack | None = None
        self._recordings: dict[int, Recording] = {}
        self._version = -1

    def find(
        self, query: str | Clip, *, top: int | None = 20, threshold: float | None = None, within: str | None = None
    ) -> list[Hit]:
        """Places where `query` is said, best first: one hit a place, at most `top`, none below `threshold`.

        query: a word or phrase, or a spoken example. threshold: of the probability. within: a glob over paths.
        QueryError for a query that cannot be searched for; AudioError for a clip that cannot be read.
        """
        ways = typed_query(query, self.encoder) if isinstance(query, str) else spoken_query(query, self.encoder)
        self._notice_changes()
        recordings = self._recordings
        if within is not None:
            recordings = {key: r for key, r in recordings.items() if _matches(r, within)}
        ids = None if within is None else tuple(sorted(recordings))
        hits = [hit for haystack in self._haystacks(ids) for hit in self._hits(haystack, ways, recordings)]
        hits = [hit for hit in hits if threshold is None or hit.probability >= threshold]
        hits.sort(key=lambda hit: -hit.probability)
        return hits[:top]

    def _notice_changes(self) -> None:
        version = self.store.version()
        if version != self._version:
            self._whole, self._version = None, version
            self._recordings = {recording.id: recording for recording in self.store.recordings()}

    def _haystacks(self, ids: tuple[int, ...] | None) -> Iterator[Haystack]:
        if ids is None and self._whole is not None:
            yield self._whole
            return
        small = self.store.totals().n_frames * self.encoder.stored_dim <= CHUNK_BYTES
        for table in self.store.frame_chunks(CHUNK_BYTES, ids):
            haystack = Haystack.of(table, self.encoder)
            if small and ids is None:
                self._whole = haystack
            yield haystack

    def _hits(self, haystack: Haystack, ways: Sequence[Query], recordings: dict[int, Recording]) -> list[Hit]:
        table = haystack.table
        if not len(table.vectors):
            return []
        similarity = haystack.similarity(ways, self.encoder)
        found = [measure(haystack, similarity[k], way, self.encoder) for k, way in enumerate(ways)]
        starts, ends, cosines = (
            np.concatenate([getattr(c, name) for c in found]) for name in ("starts", "ends", "cosines")
        )
        weights = self.encoder.calibration(spoken=ways[0].spoken)
        chance = scores.logistic(np.concatenate([c.features for c in found]), weights)
        stretch = haystack.stretch_of(starts // HALVES)
        kept = scores.suppress(starts.astype(np.float32), ends.astype(np.float32), stretch, chance)
        hits = []
        for k in kept:
            recording = recordings.get(int(table.stretch_recording[stretch[k]]))
            if recording is None:
                continue
            offset = float(table.stretch_start[stretch[k]]) - table.stretch_offsets[stretch[k]] * FRAME_SECONDS
            start, end = (max(0.0, offset + EDGE + float(half) * HALF_SECONDS) for half in (starts[k], ends[k]))
            hit = Hit(recording, start, min(end, recording.seconds), float(cosines[k]), float(chance[k]), ways[0].label)
            hits.append(hit)
        return hits


def typed_query(text: str, encoder: WordEncoder) -> list[Query]:
    """The pronunciations of a written word or phrase as queries."""
    pronunciations = pronounce(text, most=3)
    vectors = encoder.embed_phones(pronunciations)
    queries = []
    for phones, vector in zip(pronunciations, vectors, strict=True):
        ids = phone_ids(phones)
        expected = encoder.phone_seconds[ids].sum() / FRAME_SECONDS
        states = np.eye(N_CLASSES, dtype=np.float32)[ids]
        queries.append(Query(text, vector, states, expected, _lengths(expected, _SHORTER, _LONGER), False))
    return queries


def spoken_query(clip: Clip, encoder: WordEncoder) -> list[Query]:
    """The one query that a spoken example is. QueryError where it is shorter or longer than a word or phrase can be."""
    frames = example_frames(clip, encoder)
    return [example_query(str(clip), frames, encoder)]


def example_query(label: str, frames: NDArray[np.int8], encoder: WordEncoder) -> Query:
    """The query that the frames (n, frame_dim) of a spoken word are."""
    states = np.exp(encoder.phone_log_probabilities(frames))
    lengths = _lengths(len(frames), _EXAMPLE_SHORTER, _EXAMPLE_LONGER)
    return Query(label, encoder.pool(frames), states, float(len(frames)), lengths, True)


def example_frames(clip: Clip, encoder: WordEncoder) -> NDArray[np.int8]:
    """Frames of the speech in a clip, encoded together with up to a second of what surrounds it in its file."""
    start = clip.start or 0.0
    lead = min(CONTEXT, start)
    if clip.end is not None:
        _check_length(clip, clip.end - start)
    samples = _load_with_context(clip, start - lead)
    length = len(samples) / SAMPLE_RATE - lead if clip.end is None else clip.end - start
    _check_length(clip, length)
    frames = encoder.frames([log_mel(samples)])[0]
    first, last = frame_range(lead, lead + length, len(frames))
    frames = encoder.trim(frames[first:last])
    _check_length(clip, len(frames) * FRAME_SECONDS)
    return frames


def measure(haystack: Haystack, similarity: Floats, query: Query, encoder: WordEncoder) -> Candidates:
    """The best candidates for one query: span by alignment, cosine, and features for the probability."""
    table = haystack.table
    norms = {length: haystack.inverse_norms[length] for length in query.lengths}
    starts, lengths = scores.candidates(similarity, norms, CANDIDATES)
    width = int(max(query.lengths)) + 2 * MARGIN
    stretch = haystack.stretch_of(starts)
    lowest, highest = table.stretch_offsets[stretch], table.stretch_offsets[stretch + 1]
    begin = np.maximum(starts - MARGIN, lowest)
    columns = begin[:, None] + np.arange(width)
    outside = columns >= np.minimum(starts + lengths + MARGIN, highest)[:, None]
    windows = table.vectors[np.minimum(columns, len(table.vectors) - 1), : encoder.frame_dim]
    windows[outside] = 0
    flat = windows.reshape(-1, windows.shape[2])
    local = _local_scores(encoder.phone_log_probabilities(flat).reshape(len(starts), HALVES * width, -1), query)
    local[np.repeat(outside, HALVES, axis=1)] = -1e4
    aligned = scores.align(local)
    borders = encoder.border_log_odds(flat).reshape(len(starts), -1)
    spans = [
        (starts - begin, starts - begin + lengths),
        (aligned.start // HALVES, np.maximum(aligned.end // HALVES, aligned.start // HALVES + 1)),
    ]
    cosine = scores.span_cosines(windows, query.vector, encoder.projection, spans)
    stretch_ratio = np.log((aligned.end - aligned.start) / (HALVES * query.expected))
    ends = _border(borders, aligned.start) + _border(borders, aligned.end)
    features = np.stack([cosine, aligned.score, np.abs(stretch_ratio), ends], 1).astype(np.float32)
    size = np.log(len(query.states) / (20 if query.spoken else 6))
    features = np.concatenate([features, features[:, :2] * size, np.full((len(starts), 1), size)], 1)
    first = HALVES * begin
    return Candidates(first + aligned.start, first + aligned.end, cosine, features.astype(np.float32))


def _border(log_odds: Floats, edges: NDArray[np.int64]) -> Floats:
    """(k,): the greatest log probability of a word border in the half frames beside an edge of each window."""
    rows, last = np.arange(len(edges)), log_odds.shape[1] - 1
    best = np.maximum(log_odds[rows, np.maximum(edges - 1, 0)], log_odds[rows, np.minimum(edges, last)])
    log_probability: Floats = -np.logaddexp(0, -best).astype(np.float32)
    return log_probability


def _local_scores(log_phones: Floats, query: Query) -> Floats:
    """(k, w, m): the log probability that frame and state are the same phone, plus EARN, bounded below."""
    if query.spoken:
        same = np.log(np.exp(log_phones) @ query.states.T + 1e-6)
    else:
        same = log_phones[..., query.states.argmax(axis=1)]
    local: Floats = np.maximum(same + EARN, WORST).astype(np.float32)
    return local


def _lengths(expected: float, shorter: float, longer: float) -> tuple[int, ...]:
    """The lengths of the grid between, or the nearest one."""
    within = tuple(length for length in GRID if shorter * expected <= length <= longer * expected)
    return within or (min(GRID, key=lambda length: abs(length - expected)),)


def _load_with_context(clip: Clip, start: Seconds) -> Floats:
    """Samples from `start` to CONTEXT after the clip, or to its end where the recording ends before that."""
    if clip.end is None:
        return load(Clip(clip.path, start or None), max_seconds=LONGEST_EXAMPLE + (clip.start or 0.0) - start)
    try:
        return load(Clip(clip.path, start, clip.end + CONTEXT))
    except AudioError:
        return load(Clip(clip.path, start, clip.end))


def _check_length(clip: Clip, seconds: Seconds) -> None:
    if seconds > LONGEST_EXAMPLE:
        raise QueryError(
            f"{clip}: {seconds:.1f} s is too long for an example; name a word or phrase in it as FILE@START-END "
            f"(up to {LONGEST_EXAMPLE:g} s)"
        )
    if seconds < SHORTEST_EXAMPLE:
        raise QueryError(
            f"{clip}: {seconds:.2f} s of speech is too short for an example; give a word or phrase of at least "
            f"{SHORTEST_EXAMPLE:g} s"
        )


def _matches(recording: Recording, within: str) -> bool:
    return fnmatch.fnmatch(recording.path, within) or fnmatch.fnmatch(recording.path, f"*/{within}")

"""What is sought: a typed word or phrase, or a spoken example, as vectors and phones that can be searched for.

In: text, or a clip and the encoder. Out: queries, one for each way to say what is sought. An example is sought by its
sound and as the words that it may be: a lexicon knows more of a word's other pronunciations than one recording tells.
Knows nothing of libraries.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from earshot import scores
from earshot.audio import SAMPLE_RATE, load
from earshot.encoders.clock import FRAME_SECONDS, GRID, N_CLASSES, frame_range
from earshot.encoders.lexicon import SCALE
from earshot.encoders.towers import phone_ids
from earshot.encoders.word import WordEncoder
from earshot.features import Floats, log_mel
from earshot.pronounce import pronounce
from earshot.types import AudioError, Clip, QueryError, Seconds

SHORTEST_EXAMPLE: Seconds = 0.15
LONGEST: Seconds = 6.0
"""Words and phrases take no longer: what is beyond the grid is found by a part of it, the worse the longer it is."""
CONTEXT: Seconds = 1.0
"""Speech around a clip cut from a longer recording, encoded with it: words run into each other."""
SOUGHT, VARIANTS = 3, 12
"""Pronunciations of a text that are sought, and that are known not to be other words."""
RIVALS = 24
"""Other words that are tried where a query seems to be said."""
HYPOTHESES = 60
"""Words of the lexicon that an example is compared with phone by phone."""
COSINE_WEIGHT, PRIOR_WEIGHT = 25.0, 0.5
"""Nats of a cosine, and of a log prior, where words are compared by both."""
HEARD, UNLIKELY = 5, 0.02
"""At most so many of them are sought as if typed, none with a smaller chance."""
EARN = 2.5
"""What a half frame earns for log probability 0 when phones are aligned: those below exp(-EARN) cost."""
WORST = -4.0
"""The most that a half frame can cost."""
NEVER = -20.0
"""Logarithm that stands for that of zero."""
NO_FIT = -200.0
"""What a word earns that is too long to be aligned with an example at all."""
SHORTER, LONGER = 0.55, 1.8
"""A word may be this much shorter or longer than its phones usually take."""
_EXAMPLE_SHORTER, _EXAMPLE_LONGER = 0.6, 1.6
"""A match of an example may be this much shorter or longer than it."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words that may be said where a query seems to be, itself the last of them.

    vectors (r, dim); lengths: for each length of GRID the words that may take so many frames; log_prior (r,); log_for
    and log_against (r,): log probability that a word is what is sought, and that it is not.
    """

    vectors: Floats
    lengths: dict[int, NDArray[np.int64]]
    log_prior: Floats
    log_for: Floats
    log_against: Floats


@dataclass(frozen=True, slots=True)
class Query:
    """One way to say what is sought.

    vector (dim,): its embedding; states (m, N_CLASSES): the distribution over phones at each step of it;
    expected: frames it usually takes; lengths: those of the encoder's grid that a match may have; words: what else may
    be said where it seems to be; spoken: whether it is the sound of an example; chance: that this is what is sought.
    """

    label: str
    vector: Floats
    states: Floats
    expected: float
    lengths: tuple[int, ...]
    words: Words
    spoken: bool = False
    chance: float = 1.0


def typed_query(text: str, encoder: WordEncoder) -> list[Query]:
    """The pronunciations of a written word or phrase as queries. QueryError where it has none."""
    ways = [phone_ids(phones) for phones in pronounce(text, most=VARIANTS)]
    if (seconds := _expected(ways[0], encoder) * FRAME_SECONDS) > LONGEST:
        raise QueryError(
            f"the query takes about {seconds:.0f} s to say; Earshot finds words and phrases up to {LONGEST:g} s: "
            "name a part of it"
        )
    return [phone_query(text, ids, encoder, same=ways) for ids in ways[:SOUGHT]]


def typed_queries(words: Sequence[str], encoder: WordEncoder) -> list[list[Query]]:
    """The pronunciations of each of several words as queries; none of a word that cannot be searched for."""

    def ways(word: str) -> list[Query]:
        try:
            return typed_query(word, encoder)
        except QueryError:
            return []

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(ways, words))


def phone_query(
    label: str, ids: list[int], encoder: WordEncoder, *, same: Sequence[list[int]] = (), chance: float = 1.0
) -> Query:
    """The query that a sequence of phones is; `same`: other pronunciations of what is sought."""
    lexicon = encoder.lexicon
    vector = encoder.embed_ids([ids])[0]
    rows = lexicon.rivals(ids, same, RIVALS)
    expected = _expected(ids, encoder)
    lengths = grid_lengths(expected, SHORTER, LONGER)
    words = _words(rows, np.zeros(len(rows), np.float32), encoder, _Own(vector, lengths, lexicon.prior(ids), 1.0))
    return Query(label, vector, np.eye(N_CLASSES, dtype=np.float32)[ids], expected, lengths, words, chance=chance)


class _Own(NamedTuple):
    """A query among other words: vector (dim,), lengths that it may have, log prior, chance that it is meant."""

    vector: Floats
    lengths: tuple[int, ...]
    log_prior: float
    chance: float


def _words(rows: NDArray[np.int64], chances: Floats, encoder: WordEncoder, own: _Own) -> Words:
    """Words of the lexicon, each with the probability that it is what is sought, and the query itself."""
    lexicon = encoder.lexicon
    vectors = np.concatenate([np.divide(lexicon.vectors[rows], SCALE, dtype=np.float32), own.vector[None]])
    takes = [grid_lengths(_expected(lexicon.ids(row), encoder), SHORTER, LONGER) for row in rows]
    takes.append(own.lengths)
    alike = {length: np.array([k for k, some in enumerate(takes) if length in some], np.int64) for length in GRID}
    log_prior = np.append(lexicon.log_prior[rows], np.float32(own.log_prior))
    chances = np.append(chances, np.float32(own.chance))
    log_for, log_against = (np.log(np.maximum(p, np.exp(NEVER))).astype(np.float32) for p in (chances, 1 - chances))
    return Words(
        vectors, {length: some for length, some in alike.items() if len(some)}, log_prior, log_for, log_against
    )


def _expected(ids: list[int], encoder: WordEncoder) -> float:
    """Frames that phones usually take."""
    return float(encoder.phone_seconds[ids].sum() / FRAME_SECONDS)


def spoken_query(clip: Clip, encoder: WordEncoder) -> list[Query]:
    """A spoken example as queries: its sound, and the words that it may be.

    AudioError for a clip that cannot be read; QueryError where it is shorter or longer than a word or phrase can be.
    """
    return example_queries(str(clip), example_frames(clip, encoder), encoder)


class Likely(NamedTuple):
    """Words that an example may be: rows of the lexicon (n,), and chances (n + 1,) of each and, last, of none."""

    rows: NDArray[np.int64]
    chances: Floats


def likely_words(frames: NDArray[np.int8], encoder: WordEncoder) -> Likely:
    """What the frames (n, frame_dim) of a spoken word may be."""
    rows, features = hypotheses(frames, encoder)
    evidence = np.append(features @ encoder.heard_calibration[:-1], encoder.heard_calibration[-1])
    return Likely(rows, np.exp(evidence - np.logaddexp.reduce(evidence)).astype(np.float32))


def example_queries(
    label: str, frames: NDArray[np.int8], encoder: WordEncoder, likely: Likely | None = None
) -> list[Query]:
    """The queries that the frames (n, frame_dim) of a spoken word are: its sound, then words that it may be.

    likely: what `likely_words` makes of them, where that is known.
    """
    rows, chances = likely or likely_words(frames, encoder)
    vector = encoder.pool(frames)
    lengths = grid_lengths(len(frames), _EXAMPLE_SHORTER, _EXAMPLE_LONGER)
    own = _Own(vector, lengths, encoder.lexicon.unknown, float(chances[-1]))
    states = np.exp(encoder.phone_log_probabilities(frames))
    words = _words(rows, chances[:-1], encoder, own)
    sound = Query(label, vector, states, float(len(frames)), lengths, words, spoken=True)
    best = [k for k in np.argsort(-chances[:-1])[:HEARD] if chances[k] >= UNLIKELY]
    ids = encoder.lexicon.ids
    return [sound, *(phone_query(label, ids(rows[k]), encoder, chance=float(chances[k])) for k in best)]


def hypotheses(frames: NDArray[np.int8], encoder: WordEncoder) -> tuple[NDArray[np.int64], Floats]:
    """Rows of the lexicon that a spoken word may be, and features of each (n, 4).

    They are cosine, alignment, log prior, and by how much it usually takes longer or shorter.
    """
    lexicon = encoder.lexicon
    vector = encoder.pool(frames)
    rows = lexicon.nearest(vector, COSINE_WEIGHT, PRIOR_WEIGHT, HYPOTHESES)
    log_phones = encoder.phone_log_probabilities(frames)
    fit = np.zeros(len(rows), np.float32)
    for length in np.unique(lexicon.lengths[rows]):
        same = np.flatnonzero(lexicon.lengths[rows] == length)
        local = log_phones[:, lexicon.phones[rows[same], :length].T]
        fit[same] = np.maximum(scores.align(bounded(local)).total, NO_FIT)  # more phones than half frames do not fit
    cosines = lexicon.vectors[rows] @ vector / SCALE
    usual = np.array([_expected(lexicon.ids(row), encoder) for row in rows])
    tempo = np.abs(np.log(len(frames) / usual))
    return rows, np.stack([cosines, fit / 10, lexicon.log_prior[rows], tempo], axis=1).astype(np.float32)


def bounded(log_probabilities: Floats) -> Floats:
    """What a half frame earns in an alignment: log probabilities plus EARN, bounded below."""
    earned: Floats = np.maximum(log_probabilities + np.float32(EARN), np.float32(WORST))
    return earned


def example_frames(clip: Clip, encoder: WordEncoder) -> NDArray[np.int8]:
    """Frames of the speech in a clip, encoded together with up to a second of what surrounds it in its file."""
    start = clip.start or 0.0
    lead = min(CONTEXT, start)
    if clip.end is not None:
        if clip.end <= start:
            raise QueryError(f"{clip}: ends before it begins; name it as FILE@START-END")
        _check_length(clip, clip.end - start)
    samples = _load_with_context(clip, start - lead)
    length = len(samples) / SAMPLE_RATE - lead if clip.end is None else clip.end - start
    _check_length(clip, length)
    frames = encoder.frames([log_mel(samples)])[0]
    first, last = frame_range(lead, lead + length, len(frames))
    frames = encoder.trim(frames[first:last])
    if not encoder.speech(frames).any():
        raise QueryError(f"{clip}: no speech in it; give a recording of a word or phrase")
    _check_length(clip, len(frames) * FRAME_SECONDS)
    return frames


def grid_lengths(expected: float, shorter: float, longer: float) -> tuple[int, ...]:
    """The lengths of the grid between, or the nearest one."""
    within = tuple(length for length in GRID if shorter * expected <= length <= longer * expected)
    return within or (min(GRID, key=lambda length: abs(length - expected)),)


def _load_with_context(clip: Clip, start: Seconds) -> Floats:
    """Samples from `start` to CONTEXT after the clip, or to its end where the recording ends before that."""
    if clip.end is None:
        return load(Clip(clip.path, start or None), max_seconds=LONGEST + (clip.start or 0.0) - start)
    try:
        return load(Clip(clip.path, start, clip.end + CONTEXT))
    except AudioError:
        pass
    try:
        return load(Clip(clip.path, start, clip.end))
    except AudioError:
        load(clip)  # says what is wrong with the clip as it was asked for
        raise


def _check_length(clip: Clip, seconds: Seconds) -> None:
    if seconds > LONGEST:
        raise QueryError(
            f"{clip}: {seconds:.1f} s is too long for an example; name a word or phrase in it as FILE@START-END "
            f"(up to {LONGEST:g} s)"
        )
    if seconds < SHORTEST_EXAMPLE:
        raise QueryError(
            f"{clip}: {seconds:.2f} s of speech is too short for an example; give a word or phrase of at least "
            f"{SHORTEST_EXAMPLE:g} s"
        )

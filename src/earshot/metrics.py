"""How well words are told apart and found: same-different AP, EER, term-weighted value, MAP, recall at false alarms.

In: scores with truth, embeddings with labels, or detections with references. Out: numbers. Pure numpy; it knows
nothing of audio or models. A higher score always means a better match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earshot.types import Seconds, Span

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

BLOCK_PAIRS = 1 << 22
"""Pairs scored at once: 16 MB of float32 scores."""

TWV_BETA = 999.9
"""NIST's weight of a false alarm against a miss in the term-weighted value."""

HIT_TOLERANCE: Seconds = 0.5
"""A detection is correct when its midpoint lies within this distance of the reference span."""


class Discrimination(NamedTuple):
    """Average precision and equal error rate over `n_pairs` pairs, of which `n_positive` are of the same word."""

    ap: float
    eer: float
    n_pairs: int
    n_positive: int


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the positives of the precision at their score. (n,) scores, (n,) true for a positive.

    Equal scores are one step of the ranking, so their order does not matter: all scores equal give the prevalence.
    """
    values, positive = _checked(scores), np.asarray(labels, dtype=bool)
    if values.shape != positive.shape:
        raise ValueError(f"{values.size} scores but {positive.size} labels")
    return _Ranking.of(values[positive], [values[~positive]]).average_precision()


def eer(positive: ArrayLike, negative: ArrayLike) -> float:
    """Error rate at the threshold where misses and false alarms are equal, interpolated linearly along the ROC."""
    negatives = _checked(negative)
    if not negatives.size:
        raise ValueError("an equal error rate needs negative trials; there are none")
    return _Ranking.of(_checked(positive), [negatives]).eer()


def same_different(
    embeddings: ArrayLike,
    labels: Sequence[object],
    speakers: Sequence[object] | None = None,
    different_speaker: bool = False,
) -> Discrimination:
    """Same-different task over all n(n-1)/2 pairs of spoken words, scored by cosine (JMCL, section 4).

    `embeddings` (n, d) of any norm, n `labels`. With `different_speaker`, pairs of one word by one speaker are left
    out, so that positives are across speakers only. Exact; memory is that of a block of pairs plus the positive scores.
    """
    vectors = _unit(embeddings)
    word = _codes(labels, len(vectors))
    speaker = np.arange(len(vectors))
    if different_speaker:
        if speakers is None:
            raise ValueError("different_speaker needs the speakers")
        speaker = _codes(speakers, len(vectors))
    rows = max(1, BLOCK_PAIRS // max(1, len(vectors)))

    def blocks() -> Iterator[tuple[Floats, Bools, Bools]]:
        for start in range(0, len(vectors), rows):
            stop = min(start + rows, len(vectors))
            scores = vectors[start:stop] @ vectors[start:].T
            same = word[start:stop, None] == word[None, start:]
            pair = np.arange(start, stop)[:, None] < np.arange(start, len(vectors))[None, :]
            yield scores, same & pair & (speaker[start:stop, None] != speaker[None, start:]), ~same & pair

    return discriminate(blocks)


def cross_modal_ap(
    audio: ArrayLike, text: ArrayLike, audio_labels: Sequence[object], text_labels: Sequence[object]
) -> Discrimination:
    """Every spoken word against every written word, by cosine: (n, d) audio, (m, d) text, and their words.

    Give each distinct written word once. Exact, in bounded memory.
    """
    spoken, written = _unit(audio), _unit(text)
    codes = _codes([*audio_labels, *text_labels], len(spoken) + len(written))
    spoken_word, written_word = codes[: len(spoken)], codes[len(spoken) :]
    rows = max(1, BLOCK_PAIRS // max(1, len(written)))

    def blocks() -> Iterator[tuple[Floats, Bools, Bools]]:
        for start in range(0, len(spoken), rows):
            same = spoken_word[start : start + rows, None] == written_word[None, :]
            yield spoken[start : start + rows] @ written.T, same, ~same

    return discriminate(blocks)


def discriminate(blocks: Callable[[], Iterable[tuple[Floats, Bools, Bools]]]) -> Discrimination:
    """Average precision and EER of trials that come in blocks of (scores, positive mask, negative mask), in any shape.

    `blocks` is called twice: for the positives' scores, then for the negatives above each. Exact; memory is that of a
    block plus the positive scores. ValueError where there are no positives.
    """
    positives = np.concatenate([scores[positive] for scores, positive, _ in blocks()] or [np.zeros(0, np.float32)])
    ranking = _Ranking.of(positives, (scores[negative] for scores, _, negative in blocks()))
    pairs = ranking.n_positive + ranking.n_negative
    return Discrimination(ranking.average_precision(), ranking.eer(), pairs, ranking.n_positive)


@dataclass(frozen=True)
class _Ranking:
    """The ROC's corners: at each distinct positive score, best first, how many trials score as much or more."""

    positives: Integers
    negatives: Integers
    negatives_above: Integers
    n_positive: int
    n_negative: int

    @classmethod
    def of(cls, positive: Floats, negative_blocks: Iterable[Floats]) -> _Ranking:
        if not positive.size:
            raise ValueError("there are no positive trials: nothing to rank")
        levels, counts = np.unique(positive, return_counts=True)
        from_level, above_level, total = np.zeros(len(levels), np.int64), np.zeros(len(levels), np.int64), 0
        for block in negative_blocks:
            ordered = np.sort(block)
            total += len(ordered)
            from_level += len(ordered) - np.searchsorted(ordered, levels, side="left")
            above_level += len(ordered) - np.searchsorted(ordered, levels, side="right")
        return cls(counts[::-1].cumsum(), from_level[::-1], above_level[::-1], int(positive.size), total)

    def average_precision(self) -> float:
        found = np.diff(self.positives, prepend=0)
        return float(np.sum(found * (self.positives / (self.positives + self.negatives))) / self.n_positive)

    def eer(self) -> float:
        """Follows the ROC through the corners before and after each positive score, from no alarms to all."""
        before = self.positives - np.diff(self.positives, prepend=0)
        hits = np.column_stack([before, self.positives]).ravel()
        alarms = np.column_stack([self.negatives_above, self.negatives]).ravel()
        hits = np.concatenate([[0], hits, [self.n_positive]])
        alarms = np.concatenate([[0], alarms, [self.n_negative]])
        return _crossing(1 - hits / self.n_positive, alarms / max(1, self.n_negative))


def _crossing(miss: Floats, false_alarm: Floats) -> float:
    """Where the polyline from (miss 1, false alarm 0) to (0, 1) crosses miss = false alarm."""
    after = int(np.argmax(false_alarm >= miss))
    gap_before = miss[after - 1] - false_alarm[after - 1]
    gap_after = miss[after] - false_alarm[after]
    share = gap_before / (gap_before - gap_after)
    return float(false_alarm[after - 1] + share * (false_alarm[after] - false_alarm[after - 1]))


@dataclass(frozen=True, slots=True)
class Reference:
    """A place where a query is said."""

    query: str
    recording: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Detection:
    """A place where a system believes that a query is said. A higher score is a stronger belief."""

    query: str
    recording: str
    start: Seconds
    end: Seconds
    score: float


@dataclass(frozen=True)
class Matching:
    """Detections matched with references, best score first. K keywords that occur, n detections of them.

    `n_true` (K,) references of each keyword; `keyword` (n,) index into `keywords`; `correct` (n,);
    `start_error`, `end_error` (n,) seconds from the reference's start and end, NaN for false alarms;
    `seconds` of speech searched.
    """

    keywords: tuple[str, ...]
    n_true: Integers
    keyword: Integers
    scores: Floats
    correct: Bools
    start_error: Floats
    end_error: Floats
    seconds: Seconds


def match(references: Iterable[Reference], detections: Iterable[Detection], seconds: Seconds) -> Matching:
    """Matches greedily by score. `seconds`: the total length of the recordings.

    A detection takes the reference of its query nearest to its midpoint among those not yet taken whose span, widened
    by HIT_TOLERANCE on both sides, holds the midpoint; it is a false alarm when there is none, so that a second
    detection of one place is a false alarm. Detections of queries that have no reference are left out, as NIST does.
    """
    free: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    n_true: dict[str, int] = defaultdict(int)
    for reference in references:
        free[reference.query, reference.recording].append(reference)
        n_true[reference.query] += 1
    if not n_true:
        raise ValueError("there are no references: nothing to find")
    if seconds <= max(n_true.values()):
        raise ValueError(f"{seconds} s of speech is too short for {max(n_true.values())} references of one keyword")
    keywords = tuple(sorted(n_true))
    index = {keyword: i for i, keyword in enumerate(keywords)}
    known = (d for d in detections if d.query in index)
    ranked = sorted(known, key=lambda d: (-d.score, d.query, d.recording, d.start))
    scores = _checked([d.score for d in ranked])
    found = [_take(free[d.query, d.recording], d) for d in ranked]
    return Matching(
        keywords,
        np.array([n_true[keyword] for keyword in keywords]),
        np.array([index[d.query] for d in ranked], dtype=np.int64),
        scores,
        np.array([reference is not None for reference in found], dtype=bool),
        np.array([abs(d.start - r.start) if r else np.nan for d, r in zip(ranked, found, strict=True)]),
        np.array([abs(d.end - r.end) if r else np.nan for d, r in zip(ranked, found, strict=True)]),
        seconds,
    )


def _take(free: list[Reference], detection: Detection) -> Reference | None:
    middle = Span(detection.start, detection.end).middle
    near = [r for r in free if r.start - HIT_TOLERANCE <= middle <= r.end + HIT_TOLERANCE]
    if not near:
        return None
    nearest = min(near, key=lambda r: abs(Span(r.start, r.end).middle - middle))
    free.remove(nearest)
    return nearest


def atwv(matching: Matching, threshold: float) -> float:
    """Term-weighted value of the detections that score `threshold` or more: 1 - mean of (P_miss + 999.9 P_FA).

    P_miss = 1 - N_correct / N_true, P_FA = N_false / (seconds - N_true), per keyword. 1 is perfect, 0 is silence.
    """
    return float(_values(matching)[matching.scores >= threshold].sum() / len(matching.keywords))


def mtwv(matching: Matching) -> tuple[float, float]:
    """The best term-weighted value of any one threshold for all keywords, and that threshold (infinite for silence)."""
    totals, thresholds = _running_total(_values(matching), matching.scores)
    best = int(np.argmax(totals))
    return float(totals[best] / len(matching.keywords)), float(thresholds[best])


def otwv(matching: Matching) -> float:
    """The term-weighted value when every keyword has its own best threshold."""
    values = _values(matching)
    best = 0.0
    for keyword in range(len(matching.keywords)):
        own = matching.keyword == keyword
        best += float(_running_total(values[own], matching.scores[own])[0].max())
    return best / len(matching.keywords)


def keyword_specific(detections: Iterable[Detection], seconds: Seconds) -> list[Detection]:
    """Detections scored by probability -> scored by log odds above what is worth accepting for their keyword.

    A detection adds to the term-weighted value when p / N outweighs 999.9 (1 - p) / (seconds - N); N, how often the
    keyword is said, is taken to be the sum of its probabilities (keyword-specific thresholds; Miller et al., "Rapid and
    accurate spoken term detection", Interspeech 2007). A score of 0 or more is worth accepting. seconds: the total
    length of the recordings; ValueError where it is none.
    """
    if seconds <= 0:
        raise ValueError(f"{seconds} s of speech is too short")
    detections = list(detections)
    expected: dict[str, float] = defaultdict(float)
    for d in detections:
        expected[d.query] += d.score
    specific = []
    for d in detections:
        n = min(max(expected[d.query], 1e-6), seconds / 2)
        p = min(max(d.score, 1e-9), 1 - 1e-9)
        specific.append(replace(d, score=float(np.log(p / (1 - p)) - np.log(TWV_BETA * n / (seconds - n)))))
    return specific


def _values(matching: Matching) -> Floats:
    """(n,) what each detection adds to its keyword's term-weighted value."""
    n_true = matching.n_true[matching.keyword]
    return np.where(matching.correct, 1 / n_true, -TWV_BETA / (matching.seconds - n_true))


def _running_total(values: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Totals of the values at each distinct score or above, best first, from nothing; and those scores."""
    ends = _level_ends(scores)
    return np.concatenate([[0.0], values.cumsum()[ends]]), np.concatenate([[np.inf], scores[ends]])


def _level_ends(scores: Floats) -> Integers:
    """The index of the last of each run of equal scores."""
    return np.flatnonzero(np.append(np.diff(scores) != 0, True)[: len(scores)])


def mean_average_precision(matching: Matching) -> float:
    """Mean over the keywords of the average precision of their detections; a reference never found counts 0."""
    total = 0.0
    for keyword, n_true in enumerate(matching.n_true):
        own = matching.keyword == keyword
        correct = matching.correct[own]
        if correct.any():
            total += average_precision(matching.scores[own], correct) * correct.sum() / n_true
    return total / len(matching.keywords)


def precision_at(matching: Matching, k: int = 10) -> float:
    """Mean over the keywords of the correct ones among their k best detections, divided by k (`precision_ceiling`)."""
    correct = [matching.correct[matching.keyword == keyword][:k].sum() for keyword in range(len(matching.keywords))]
    return float(np.mean(correct)) / k


def precision_ceiling(matching: Matching, k: int = 10) -> float:
    """What `precision_at` gives a perfect system: keywords with fewer than k references cannot reach 1."""
    return float(np.minimum(matching.n_true, k).mean()) / k


def recall_at_false_alarms(matching: Matching, per_hour: float, per_keyword: bool = True) -> float:
    """Share of all references found at the lowest global threshold with at most `per_hour` false alarms an hour.

    `per_keyword`: false alarms divided by hours of speech and by the number of keywords, that is false alarms per
    keyword-hour, averaged over the keywords. Otherwise divided by hours only: all false alarms of the whole list of
    keywords together, K times stricter.
    """
    allowed = per_hour * matching.seconds / 3600 * (len(matching.keywords) if per_keyword else 1)
    ends = _level_ends(matching.scores)
    hits = matching.correct.cumsum()[ends][(~matching.correct).cumsum()[ends] <= allowed]
    return float(hits[-1] / matching.n_true.sum()) if len(hits) else 0.0


def boundary_error(matching: Matching, threshold: float = -np.inf) -> tuple[Seconds, Seconds]:
    """Mean absolute distance of start and of end from the reference; NaN when there is nothing to measure.

    Over the correct detections that score `threshold` or more.
    """
    chosen = matching.correct & (matching.scores >= threshold)
    if not chosen.any():
        return float("nan"), float("nan")
    return float(matching.start_error[chosen].mean()), float(matching.end_error[chosen].mean())


def span_eer(matching: Matching) -> float:
    """EER over spans: where the share of references missed equals false alarms over one-second non-target trials.

    There are K x seconds - N_true non-target trials, NIST's count; all keywords pooled under one threshold. Beyond the
    last detection the ROC goes straight to (all found, all alarms), as if the rest were guessed.
    """
    n_true = int(matching.n_true.sum())
    n_false = len(matching.keywords) * matching.seconds - n_true
    ends = _level_ends(matching.scores)
    miss = 1 - matching.correct.cumsum()[ends] / n_true
    false_alarm = np.minimum(1.0, (~matching.correct).cumsum()[ends] / n_false)
    return _crossing(np.concatenate([[1.0], miss, [0.0]]), np.concatenate([[0.0], false_alarm, [1.0]]))


def utterance_eer(
    references: Iterable[Reference], detections: Iterable[Detection], utterances: Sequence[Reference]
) -> float:
    """EER over trials of one keyword against one utterance, all pooled under one threshold.

    `utterances`: spans of the recordings (their `query` is not looked at). A trial is positive when a reference's
    midpoint lies in the utterance; its score is that of the keyword's best detection whose midpoint does. Trials
    without a detection all share the lowest rank. Keywords without a reference are left out.
    """
    utterances_of: dict[str, list[tuple[Seconds, Seconds, int]]] = defaultdict(list)
    for i, utterance in enumerate(utterances):
        utterances_of[utterance.recording].append((utterance.start, utterance.end, i))

    def place(item: Reference | Detection) -> int | None:
        middle = Span(item.start, item.end).middle
        return next((i for start, end, i in utterances_of[item.recording] if start <= middle < end), None)

    references = list(references)
    row = {keyword: i for i, keyword in enumerate(sorted({reference.query for reference in references}))}
    positive = np.zeros((len(row), len(utterances)), dtype=bool)
    scores = np.full(positive.shape, -np.inf)
    for reference in references:
        if (column := place(reference)) is not None:
            positive[row[reference.query], column] = True
    for detection in detections:
        if detection.query in row and (column := place(detection)) is not None:
            trial = row[detection.query], column
            scores[trial] = max(scores[trial], detection.score)
    return eer(scores[positive], scores[~positive])


def _checked(scores: ArrayLike) -> Floats:
    """(n,) float scores; ValueError when one is not a number."""
    values = np.asarray(scores)
    values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be one-dimensional; these have shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a score is not a number (NaN)")
    return values


def _unit(embeddings: ArrayLike) -> Floats:
    """(n, d) float32 rows of length 1; ValueError when a row has no direction."""
    vectors = np.asarray(embeddings, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"embeddings must be (n, d); these have shape {vectors.shape}")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise ValueError("an embedding is zero or not finite")
    unit: Floats = vectors / norms
    return unit


def _codes(labels: Sequence[object], n: int) -> Integers:
    """(n,) one integer for each distinct label."""
    if len(labels) != n:
        raise ValueError(f"{n} embeddings but {len(labels)} labels")
    codes: dict[object, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in labels], dtype=np.int64)


def ranks(scores: ArrayLike, relevant: ArrayLike) -> Integers:
    """Rank (q,), 1 the best, of the one relevant passage of each query: scores (q, p), relevant (q,) in [0, p).

    Passages with the same score come before it: equal scores are no merit.
    """
    values, rows = np.asarray(scores), np.asarray(relevant)
    own = values[np.arange(len(values)), rows]
    found: Integers = (values >= own[:, None]).sum(axis=1)
    return found


def recall_at(found: ArrayLike, k: int) -> float:
    """Share of queries whose passage has a rank of at most k (R@k)."""
    return float(np.mean(np.asarray(found) <= k))


def mean_reciprocal_rank(found: ArrayLike) -> float:
    """Mean of one over the rank (MRR)."""
    return float(np.mean(1 / np.asarray(found)))

"""Each metric against values worked out by hand, and the bounded-memory paths against the plain definition."""

from __future__ import annotations

import numpy as np
import pytest

from earshot import metrics
from earshot.metrics import Detection, Reference


def test_average_precision_by_hand() -> None:
    # ranking + - + - : precision 1 at the first positive, 2/3 at the second
    assert metrics.average_precision([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_of_equal_scores_is_the_prevalence_in_any_order() -> None:
    assert metrics.average_precision([1, 1, 1, 1], [1, 0, 0, 0]) == pytest.approx(0.25)
    assert metrics.average_precision([1, 1, 1, 1], [0, 0, 0, 1]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [([1.0], [0], "no positive"), ([1.0, 2.0], [1], "labels"), ([np.nan, 1.0], [1, 0], "NaN"), ([], [], "no positive")],
)
def test_average_precision_refuses(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.average_precision(scores, labels)


def test_eer_by_hand() -> None:
    assert metrics.eer([2, 3], [0, 1]) == 0
    assert metrics.eer([0, 1], [2, 3]) == 1
    # one of four positives below one of four negatives: a threshold between makes both error rates 1/4
    assert metrics.eer([1, 4, 5, 6], [0, 0.5, 0.7, 2]) == pytest.approx(0.25)
    # all equal: the ROC is the diagonal from (miss 1, alarm 0) to (0, 1)
    assert metrics.eer([1, 1], [1, 1, 1]) == pytest.approx(0.5)


def test_eer_interpolates_between_two_corners() -> None:
    # at score 2 both one positive and one negative fall: from (miss 1/2, alarms 0) to (0, 1/3); they meet at t = 0.6
    assert metrics.eer([2, 3], [2, 0, 1]) == pytest.approx(0.2)


def test_eer_takes_trials_that_were_never_scored() -> None:
    # half of the positives found without an alarm, the rest tied with all negatives: from (1/2, 0) straight to (0, 1)
    assert metrics.eer([1, -np.inf], [-np.inf, -np.inf]) == pytest.approx(1 / 3)


def test_eer_refuses_no_negatives() -> None:
    with pytest.raises(ValueError, match="negative"):
        metrics.eer([1.0], [])


def test_same_different_by_hand() -> None:
    embeddings = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 2.0]])  # cosines: 01 .8, 02 0, 12 .6
    assert metrics.same_different(embeddings, ["a", "a", "b"]) == (1.0, 0.0, 3, 1)
    ap, eer, pairs, positives = metrics.same_different(embeddings, ["a", "b", "a"])
    assert (ap, pairs, positives) == (pytest.approx(1 / 3), 3, 1)
    assert eer == 1.0


def test_different_speaker_leaves_out_pairs_of_one_word_by_one_speaker() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.9, 0.5]])
    labels, speakers = ["a", "a", "b", "a"], ["x", "x", "x", "y"]
    assert metrics.same_different(embeddings, labels, speakers).n_pairs == 6
    result = metrics.same_different(embeddings, labels, speakers, different_speaker=True)
    assert (result.n_pairs, result.n_positive) == (5, 2)
    with pytest.raises(ValueError, match="speakers"):
        metrics.same_different(embeddings, labels, different_speaker=True)


def test_same_different_in_blocks_equals_the_plain_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 12, 120)
    embeddings = random.normal(size=(120, 8)) + 1.5 * random.normal(size=(12, 8))[labels]
    unit = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    upper = np.triu_indices(120, 1)
    scores, same = (unit @ unit.T)[upper], (labels[:, None] == labels)[upper]
    monkeypatch.setattr(metrics, "BLOCK_PAIRS", 1000)
    result = metrics.same_different(embeddings, labels.tolist())
    assert result.ap == pytest.approx(metrics.average_precision(scores, same), abs=1e-6)
    assert result.eer == pytest.approx(metrics.eer(scores[same], scores[~same]), abs=1e-6)
    assert 0.3 < result.ap < 0.99


def test_cross_modal_ap_by_hand() -> None:
    audio = np.array([[1.0, 0.0], [0.6, 0.8]])
    text = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    # cosines: a0 with the three texts 1, 0, -1; a1 .6, .8, -.6. Ranking: 1 (+), .8 (+), .6, ...
    assert metrics.cross_modal_ap(audio, text, ["a", "b"], ["a", "b", "c"]) == (1.0, 0.0, 6, 2)
    # a1 is also "a": its .6 comes third, after .8
    assert metrics.cross_modal_ap(audio, text, ["a", "a"], ["a", "b", "c"]).ap == pytest.approx((1 + 2 / 3) / 2)


def test_embeddings_without_direction_or_label_are_refused() -> None:
    with pytest.raises(ValueError, match="zero"):
        metrics.same_different(np.zeros((2, 3)), ["a", "a"])
    with pytest.raises(ValueError, match="labels"):
        metrics.same_different(np.ones((2, 3)), ["a"])
    with pytest.raises(ValueError, match="no positive"):
        metrics.same_different(np.ones((2, 3)), ["a", "b"])


REFERENCES = [
    Reference("one", "r", 10.0, 10.4),
    Reference("one", "r", 20.0, 20.4),
    Reference("two", "r", 30.0, 30.4),
]
DETECTIONS = [
    Detection("one", "r", 10.1, 10.5, 0.9),  # correct, start and end 0.1 late
    Detection("two", "r", 50.0, 50.4, 0.8),  # false
    Detection("one", "r", 10.0, 10.4, 0.7),  # false: that reference is taken
    Detection("two", "r", 30.1, 30.3, 0.6),  # correct, 0.1 late and 0.1 early
    Detection("three", "r", 1.0, 1.4, 0.95),  # a word that is never said: left out
]
MATCHING = metrics.match(REFERENCES, DETECTIONS, 1001.0)


def test_match_takes_each_reference_once_best_first() -> None:
    assert MATCHING.correct.tolist() == [True, False, False, True]
    assert MATCHING.scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert MATCHING.n_true.tolist() == [2, 1]


@pytest.mark.parametrize(("middle", "correct"), [(9.49, False), (9.51, True), (10.89, True), (10.91, False)])
def test_match_allows_half_a_second_around_the_span(middle: float, correct: bool) -> None:
    detection = Detection("one", "r", middle - 0.2, middle + 0.2, 1.0)
    assert metrics.match(REFERENCES, [detection], 1001.0).correct.tolist() == [correct]


def test_match_needs_the_same_recording_and_takes_the_nearest() -> None:
    elsewhere = Detection("one", "q", 10.0, 10.4, 1.0)
    assert not metrics.match(REFERENCES, [elsewhere], 1001.0).correct.any()
    close = [Reference("one", "r", 10.0, 10.2), Reference("one", "r", 10.5, 10.7)]
    both = [Detection("one", "r", 10.5, 10.7, 2.0), Detection("one", "r", 10.0, 10.2, 1.0)]
    assert metrics.boundary_error(metrics.match(close, both, 1001.0)) == (0.0, 0.0)


def test_match_refuses_nothing_to_find_and_nan() -> None:
    with pytest.raises(ValueError, match="no references"):
        metrics.match([], DETECTIONS, 1001.0)
    with pytest.raises(ValueError, match="NaN"):
        metrics.match(REFERENCES, [Detection("one", "r", 0, 1, float("nan"))], 1001.0)


def test_term_weighted_values_by_hand() -> None:
    # thresholds .9: one finds 1/2, two nothing. .8: two has a false alarm, worth 999.9 / (1001 - 1) = .9999
    assert metrics.atwv(MATCHING, 0.9) == pytest.approx((0.5 + 0) / 2)
    assert metrics.atwv(MATCHING, 0.8) == pytest.approx((0.5 - 0.9999) / 2)
    assert metrics.atwv(MATCHING, 1.0) == 0
    assert metrics.mtwv(MATCHING) == (pytest.approx(0.25), 0.9)
    # at its own best threshold two finds its word at the price of the false alarm: 1 - .9999
    assert metrics.otwv(MATCHING) == pytest.approx((0.5 + 0.0001) / 2)


def test_mtwv_of_useless_detections_is_silence() -> None:
    useless = metrics.match(REFERENCES, [Detection("one", "r", 90, 91, 1.0)], 1001.0)
    assert metrics.mtwv(useless) == (0.0, np.inf)
    assert metrics.otwv(useless) == 0
    empty = metrics.match(REFERENCES, [], 1001.0)
    assert metrics.mtwv(empty) == (0.0, np.inf)
    assert metrics.mean_average_precision(empty) == 0
    assert metrics.recall_at_false_alarms(empty, 10) == 0
    assert np.isnan(metrics.boundary_error(empty)).all()


def test_keyword_specific_scores_are_positive_where_a_detection_is_worth_its_risk() -> None:
    """ "one" is expected 1.2 times in 1201.2 s: worth accepting from odds of 999.9 * 1.2 / 1200, that is 1, on."""
    said = [Detection("one", "r", 0, 1, 0.9), Detection("one", "r", 5, 6, 0.3), Detection("two", "r", 5, 6, 0.3)]
    high, low, rare = (d.score for d in metrics.keyword_specific(said, 1201.2))
    assert high == pytest.approx(np.log(9), abs=1e-3)
    assert low == pytest.approx(np.log(3 / 7), abs=1e-3)
    assert rare > low
    certain = metrics.keyword_specific([Detection("one", "r", 0, 1, 1.0), Detection("two", "r", 0, 1, 0.0)], 10.0)
    assert all(np.isfinite(d.score) for d in certain)
    with pytest.raises(ValueError, match="too short"):
        metrics.keyword_specific(said, 0.0)


def test_mean_average_precision_counts_references_never_found() -> None:
    # one: precision 1 at its only hit of two references; two: precision 1/2 at its only reference
    assert metrics.mean_average_precision(MATCHING) == pytest.approx((0.5 + 0.5) / 2)


def test_precision_at_k_and_its_ceiling() -> None:
    assert metrics.precision_at(MATCHING, 1) == pytest.approx(0.5)
    assert metrics.precision_at(MATCHING, 10) == pytest.approx(0.1)
    assert metrics.precision_ceiling(MATCHING, 10) == pytest.approx(0.15)


def test_recall_at_false_alarms_per_keyword_hour_and_per_hour() -> None:
    # two keywords in 1001 s: one false alarm is 1.8 a keyword-hour and 3.6 an hour, and with .7 comes the second
    assert metrics.recall_at_false_alarms(MATCHING, 1.7) == pytest.approx(1 / 3)
    assert metrics.recall_at_false_alarms(MATCHING, 3.6) == pytest.approx(2 / 3)
    assert metrics.recall_at_false_alarms(MATCHING, 3.6, per_keyword=False) == pytest.approx(1 / 3)
    assert metrics.recall_at_false_alarms(MATCHING, 7.2, per_keyword=False) == pytest.approx(2 / 3)


def test_a_threshold_cannot_part_equal_scores() -> None:
    tied = [Detection("two", "r", 30.0, 30.4, 1.0), Detection("two", "r", 90.0, 90.4, 1.0)]
    matching = metrics.match(REFERENCES, tied, 1001.0)
    assert metrics.recall_at_false_alarms(matching, 0) == 0
    assert metrics.mtwv(matching)[0] == pytest.approx(0.0001 / 2)


def test_boundary_error_over_correct_detections() -> None:
    assert metrics.boundary_error(MATCHING) == (pytest.approx(0.1), pytest.approx(0.1))
    exact = metrics.match(REFERENCES, [Detection("two", "r", 30.0, 30.5, 1.0)], 1001.0)
    assert metrics.boundary_error(exact) == (0.0, pytest.approx(0.1))


def test_span_eer_over_one_second_trials() -> None:
    references = [Reference("one", "r", 10.0 * i, 10.0 * i + 0.4) for i in range(1, 5)]
    hits = [Detection("one", "r", r.start, r.end, 5.0) for r in references[:2]]
    # half found without a false alarm, then guessing: from (1/2, 0) to (0, 1) they meet at 1/3
    assert metrics.span_eer(metrics.match(references, hits, 104.0)) == pytest.approx(1 / 3)
    # 25 false alarms in 100 non-target trials, then the third of four: miss 1/4 = false alarms 1/4
    alarms = [Detection("one", "r", 100.0 + i, 100.4 + i, 4.0) for i in range(25)]
    third = Detection("one", "r", references[2].start, references[2].end, 3.0)
    matching = metrics.match(references, [*hits, *alarms, third], 104.0)
    assert metrics.span_eer(matching) == pytest.approx(0.25)


def test_utterance_eer() -> None:
    utterances = [Reference("", "r", 10.0 * i, 10.0 * i + 10) for i in range(4)]
    references = [Reference("one", "r", 1.0, 1.4), Reference("one", "r", 2.0, 2.4), Reference("one", "r", 11.0, 11.4)]
    good = [Detection("one", "r", 5.0, 5.4, 3.0), Detection("one", "r", 11.0, 11.4, 2.0)]
    bad = [Detection("one", "r", 25.0, 25.4, 1.0), Detection("one", "r", 26.0, 26.4, 2.5)]
    assert metrics.utterance_eer(references, good, utterances) == 0
    # scores of the positive utterances 3 and 2, of the negative ones 2.5 and none: miss 1/2 = false alarms 1/2
    assert metrics.utterance_eer(references, [*good, *bad], utterances) == pytest.approx(0.5)

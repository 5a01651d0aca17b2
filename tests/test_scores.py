"""Scores on arrays small enough to check by hand, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from earshot import scores


def test_frame_scores_are_inner_products() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(-127, 128, (40_000, 7), dtype=np.int8)
    queries = rng.standard_normal((3, 7)).astype(np.float32)
    np.testing.assert_allclose(
        scores.frame_scores(frames, queries), queries @ frames.T.astype(np.float32), rtol=1e-4, atol=1e-3
    )


def test_pairs_begin_anew_in_each_stretch() -> None:
    """Stretches of 9, 0 and 2 frames: two blocks of four pairs, then one."""
    firsts, left, edges = scores.pairs_of(np.array([0, 9, 9, 11]))
    assert edges.tolist() == [0, 8, 8, 12]
    assert firsts.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 9, 11, 13, 15]
    assert left.tolist() == [9, 7, 5, 3, 1, -1, -3, -5, 2, 0, -2, -4]


def test_means_of_pairs_are_rounded_down() -> None:
    frames = np.array([[1, -127], [2, -127], [127, 3], [9, 8]], np.int8)
    found = scores.means(frames, scores.pairs_of(np.array([0, 3, 4])))
    assert found.tolist() == [[1, -127], [127, 3], [0, 0], [0, 0], [9, 8], [0, 0], [0, 0], [0, 0]]


def norms(offsets: list[int], *lengths: int) -> dict[int, np.ndarray]:
    """As if frames were orthogonal: the norm of a sum grows with the root of its length."""
    left = scores.pairs_of(np.array(offsets)).left
    return {length: np.where(left < length, 0, length**-0.5).astype(np.float32) for length in lengths}


def test_candidates_find_the_planted_span_with_its_length() -> None:
    similarity = np.full(100, -2.0, np.float32)
    similarity[45:50] = 2.0
    pairs, lengths, _ = scores.candidates(similarity, norms([0, 200], 5, 10, 20), 1)
    assert (pairs.tolist(), lengths.tolist()) == ([45], [10])


def test_candidates_may_be_of_an_odd_length() -> None:
    """A span of five frames whose last is the first half of a pair that is half as like the query."""
    similarity = np.full(100, -2.0, np.float32)
    similarity[45:47], similarity[47] = 2.0, 1.0
    pairs, lengths, _ = scores.candidates(similarity, norms([0, 200], 3, 5, 9), 1)
    assert (pairs.tolist(), lengths.tolist()) == ([45], [5])


def test_the_best_of_parts_are_the_best_of_the_whole() -> None:
    """Three stretches of 16, 4 and 16 pairs; the second part of the table begins with the third."""
    similarity = np.random.default_rng(0).standard_normal(36).astype(np.float32)
    inverse = norms([0, 30, 34, 66], 4, 7)
    whole = scores.candidates(similarity, inverse, 4)
    edges = (slice(0, 20), slice(20, 36))
    parts = [scores.candidates(similarity[e], {k: v[e] for k, v in inverse.items()}, 4) for e in edges]
    found = scores.merged(parts, [0, 20], 4)
    for k in range(2):
        assert sorted(found[k].tolist()) == sorted(whole[k].tolist())
    assert found.cosines.tolist() == sorted(found.cosines.tolist(), reverse=True)


def test_candidates_stay_inside_a_stretch() -> None:
    offsets = np.array([0, 10, 30])
    similarity = np.zeros(20, np.float32)
    similarity[[3, 4, 8, 9]] = 2.0  # across the border of two stretches
    pairs, lengths, _ = scores.candidates(similarity, norms([0, 10, 30], 4, 6), 50)
    starts = scores.pairs_of(offsets).firsts[pairs]
    assert {0, 1} == set(np.searchsorted(offsets, starts, side="right") - 1)
    assert all(start + length <= (10 if start < 10 else 30) for start, length in zip(starts, lengths, strict=True))


def test_no_candidates_where_every_stretch_is_too_short() -> None:
    pairs, _, _ = scores.candidates(np.ones(8, np.float32), norms([0, 2, 4], 3), 5)
    assert len(pairs) == 0
    pairs, _, _ = scores.candidates(np.ones(4, np.float32), norms([0, 2], 30), 5)
    assert len(pairs) == 0


def test_span_cosine_against_the_definition() -> None:
    rng = np.random.default_rng(1)
    frames, projection = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 12, 6), (5, 6)))
    projected = frames @ projection.T
    query = rng.standard_normal(5).astype(np.float32)
    query /= np.linalg.norm(query)
    found = scores.span_cosines(frames, projection, query, [(np.full(4, 3), np.full(4, 8))])
    for k in range(4):
        cosines = []
        for start in (2, 3, 4):
            for end in (7, 8, 9):
                span = projected[k, start:end].sum(axis=0)
                cosines.append(span @ query / np.linalg.norm(span))
        assert abs(found[k] - max(cosines)) < 1e-5


def test_alignment_finds_the_states_in_order() -> None:
    """Three states said in frames 4-6, 7, 8-10 of a window in which everything else costs."""
    local = np.full((1, 15, 3), -2.0, np.float32)
    local[0, 4:7, 0] = local[0, 7, 1] = local[0, 8:11, 2] = 1.0
    aligned = scores.align(local.transpose(1, 2, 0))
    assert (aligned.start[0], aligned.end[0]) == (4, 11)
    assert aligned.total[0] == 7.0
    assert aligned.states[0].tolist() == [-1] * 4 + [0, 0, 0, 1, 2, 2, 2] + [-1] * 4


def test_alignment_may_skip_a_state_at_a_cost() -> None:
    local = np.full((1, 8, 3), -5.0, np.float32)
    local[0, 2:4, 0] = local[0, 4:6, 2] = 1.0
    aligned = scores.align(local.transpose(1, 2, 0), skip=1.0)
    assert (aligned.start[0], aligned.end[0]) == (2, 6)
    np.testing.assert_allclose(aligned.total[0], 4 - 1)
    assert aligned.states[0].tolist() == [-1, -1, 0, 0, 2, 2, -1, -1]
    assert scores.state_means(local.transpose(1, 2, 0), aligned.states, -4.0).tolist() == [[1.0, -4.0, 1.0]]


def test_alignment_does_not_take_states_backwards() -> None:
    local = np.full((1, 6, 2), -3.0, np.float32)
    local[0, 1, 1] = local[0, 3, 0] = 1.0
    assert scores.align(local.transpose(1, 2, 0)).total[0] < 0


@pytest.mark.parametrize("seed", range(3))
def test_alignment_by_trying_every_path(seed: int) -> None:
    """Total, span and states against all ways of staying, moving on and skipping in a small window."""
    local = np.random.default_rng(seed).standard_normal((1, 6, 3)).astype(np.float32)
    best: tuple[float, int, list[int]] = (-np.inf, 0, [])
    for start in range(6):
        paths = [(float(local[0, start, 0]), [0])]
        while paths:
            total, states = paths.pop()
            if states[-1] == 2 and total > best[0]:
                best = (total, start, states)
            if (t := start + len(states)) < 6:
                for move, cost in ((0, 0.0), (1, 0.0), (2, 1.0)):
                    if (state := states[-1] + move) < 3:
                        paths.append((total - cost + float(local[0, t, state]), [*states, state]))
    found = scores.align(local.transpose(1, 2, 0))
    np.testing.assert_allclose(found.total[0], best[0], rtol=1e-5)
    assert (found.start[0], found.end[0]) == (best[1], best[1] + len(best[2]))
    assert found.states[0][found.start[0] : found.end[0]].tolist() == best[2]


def test_overlapping_cosines_by_a_plain_loop() -> None:
    """Every span of a fitting length inside the window that holds half of the window's own."""
    rng = np.random.default_rng(2)
    projected = rng.standard_normal((3, 14, 4)).astype(np.float32)
    vectors = rng.standard_normal((2, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    n_frames, first, last = np.array([14, 14, 9]), np.array([4, 0, 5]), np.array([9, 3, 9])
    both = {3: np.array([0]), 5: np.array([0, 1]), 12: np.array([1]), 99: np.array([1])}
    found = scores.overlapping_cosines(projected, n_frames, (first, last), vectors, both)
    for k in range(3):
        for r, lengths in enumerate(((3, 5), (5, 12))):
            cosines = [-1.0]
            for length in lengths:
                for begin in range(n_frames[k] - length + 1):
                    shared = min(begin + length, last[k]) - max(begin, first[k])
                    if shared >= 0.5 * (last[k] - first[k]):
                        span = projected[k, begin : begin + length].sum(axis=0)
                        cosines.append(vectors[r] @ span / np.linalg.norm(span))
            assert abs(found[k, r] - max(cosines)) < 1e-5


def test_suppression_keeps_the_better_of_two_that_overlap() -> None:
    starts, ends = np.array([0.0, 0.1, 2.0, 0.0], np.float32), np.array([1.0, 1.1, 3.0, 1.0], np.float32)
    groups, ranking = np.array([0, 0, 0, 1]), np.array([0.5, 0.9, 0.1, 0.7], np.float32)
    assert scores.suppress(starts, ends, groups, ranking).tolist() == [1, 3, 2]


def test_logistic_by_hand() -> None:
    probability = scores.logistic(np.array([[1.0, 2.0]], np.float32), np.array([2.0, -1.0, 0.0], np.float32))
    np.testing.assert_allclose(probability, [0.5])


def test_reliability_by_hand() -> None:
    """Bins 0 to .5 and .5 to 1: means .2 and .8; a third and all are right."""
    p = np.array([0.1, 0.2, 0.3, 0.7, 0.9], np.float32)
    right = np.array([False, True, False, True, True])
    found = scores.reliability(p, right, (0.0, 0.5, 1.0))
    np.testing.assert_allclose(found.mean, [0.2, 0.8], atol=1e-6)
    np.testing.assert_allclose(found.right, [1 / 3, 1.0], atol=1e-6)
    assert found.number.tolist() == [3, 2]
    error = scores.expected_calibration_error(found)
    assert error == pytest.approx((3 * abs(0.2 - 1 / 3) + 2 * 0.2) / 5, abs=1e-6)


def test_reliability_of_nothing_and_of_certainty() -> None:
    none = scores.reliability(np.zeros(0, np.float32), np.zeros(0, bool), (0.0, 0.5, 1.0))
    assert len(none.mean) == 0 and scores.expected_calibration_error(none) == 0
    sure = scores.reliability(np.ones(3, np.float32), np.ones(3, bool), (0.0, 0.5, 1.0))
    assert sure.mean.tolist() == [1.0] and scores.expected_calibration_error(sure) == 0

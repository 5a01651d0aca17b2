"""BM25 over expected counts, against bm25s where words are certain."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest

from earshot.bm25 import K1, B, Index, scores


def test_certain_words_are_ranked_as_by_a_library() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 30, rng.integers(3, 40)) for _ in range(50)]
    index, lengths = Index(texts), np.array([len(text) for text in texts])
    theirs = bm25s.BM25(k1=K1, b=B, method="lucene")
    theirs.index([[str(k) for k in text] for text in texts], show_progress=False)
    for question in ([3, 4, 9], [11], [29, 0]):
        expected = theirs.get_scores([str(k) for k in question])
        found = scores(index.counts(question), lengths)
        assert found.max() < 1
        np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-5, atol=1e-6)


def test_a_word_counts_by_its_chance() -> None:
    """Two halves are as much as one whole; what is never there changes nothing but how much could be held."""
    found = scores(np.array([[0.5 + 0.5, 1.0, 0.0, 0.2]]), np.ones(4))
    assert found[0] == pytest.approx(found[1]) and found[0] > found[3] > found[2] == 0
    more = scores(np.array([[1.0, 1.0, 0.0, 0.2], [0.0] * 4]), np.ones(4))
    assert more.argsort().tolist() == found.argsort().tolist() and more.max() < found.max()


def test_nothing_is_no_trouble() -> None:
    assert Index([]).counts([1]).shape == (1, 0) and scores(np.zeros((1, 0)), np.zeros(0)).shape == (0,)
    assert scores(np.zeros((0, 3)), np.ones(3)).tolist() == [0, 0, 0]
    assert Index([np.array([7])]).counts([1, 7, 9]).tolist() == [[0], [1], [0]]

"""BM25 over expected counts, against bm25s where words are certain."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest

from earshot.bm25 import Index


def test_certain_words_are_ranked_as_by_a_library() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 30, rng.integers(3, 40)) for _ in range(50)]
    index = Index([(text[:, None], np.ones((len(text), 1))) for text in texts])
    theirs = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    theirs.index([[str(k) for k in text] for text in texts], show_progress=False)
    for question in ([3, 4, 9], [11], [29, 0]):
        expected = theirs.get_scores([str(k) for k in question])
        found = index.scores(question)
        assert found.max() < 1
        np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-5, atol=1e-6)


def test_a_word_counts_by_its_chance() -> None:
    """Two halves are as much as one whole; what is never there, or asked twice, changes nothing."""
    sure = np.array([[0.5, 0.5], [0.5, 0.5]])
    texts = [
        (np.array([[1, 2], [1, 3]]), sure),
        (np.array([[1], [4]]), np.ones((2, 1))),
        (np.array([[5, 1]]), np.array([[1.0, 0.0]])),
    ]
    scores = Index(texts).scores([1])
    assert scores[0] == pytest.approx(scores[1]) and scores[0] > 0 and scores[2] == 0
    np.testing.assert_array_equal(Index(texts).scores([1, 1]), scores)
    assert Index(texts).scores([77]).max() == 0 and Index(texts).scores([]).max() == 0
    assert Index([]).scores([1]).shape == (0,)

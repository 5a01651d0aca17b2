"""Texts of which each word is uncertain, ranked by the words of a question: BM25 over expected counts.

In: how often each word of a question is expected in each text. Out: scores. Pure NumPy; knows nothing of speech,
encoders or libraries.

Robertson et al., Okapi at TREC-3 (1994); expected counts as in Chia et al., Statistical lattice-based spoken document
retrieval (2010). With certain words it is BM25 with the idf of Lucene, log(1 + ...).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
K1, B = 0.4, 0.4
"""Sentences are short and say a word once; libraries of documents take 1.2 and .75."""


def scores(counts: NDArray[np.floating], lengths: NDArray[np.floating]) -> Floats:
    """(n,): of a question's words how much of their weight each text holds; 1 where it could hold no more.

    counts (w, n): how often each of the words is expected in each text; lengths (n,) of the texts, in any unit.
    """
    n = len(lengths)
    norm = K1 * (1 - B + B * lengths / max(float(lengths.mean()) if n else 1.0, 1e-9))
    holding = np.minimum(counts, 1.0).sum(axis=1)
    idf = np.log1p((n - holding + 0.5) / (holding + 0.5))
    most = float(idf.sum()) * (K1 + 1)
    found: Floats = (idf @ (counts * (K1 + 1) / (counts + norm)) / max(most, 1e-9)).astype(np.float32)
    return found


class Index:
    """Where each word is in texts that are certain; immutable."""

    def __init__(self, texts: Sequence[Ints]) -> None:
        """Of each text its words (n,)."""
        rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        words = np.concatenate([np.zeros(0, np.int64), *texts])
        order = np.argsort(words, kind="stable")
        self.n = len(texts)
        self._words, self._rows = words[order], rows[order]

    def counts(self, words: Sequence[int]) -> NDArray[np.float64]:
        """(w, n): how often each of some words is in each text."""
        found = np.zeros((len(words), self.n))
        for of, word in zip(found, words, strict=True):
            low, high = np.searchsorted(self._words, [word, word + 1])
            np.add.at(of, self._rows[low:high], 1)
        return found

"""Texts of which each word is uncertain, ranked by the words of a question: BM25 over expected counts.

In: word pieces with the probabilities that they were said. Out: scores. Pure NumPy; knows nothing of speech, encoders
or libraries.

Robertson et al., Okapi at TREC-3 (1994); expected counts as in Chia et al., Statistical lattice-based spoken document
retrieval (2010). With certain words it is BM25 with the idf of Lucene, log(1 + ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
K1, B = 1.2, 0.75


class Index:
    """Texts by their words; immutable."""

    def __init__(self, texts: Sequence[tuple[Ints, NDArray[np.floating]]]) -> None:
        """Of each text tokens (n, k), what each word may be, and their probabilities (n, k)."""
        parts = [_counts(*text) for text in texts]
        tokens = np.concatenate([np.zeros(0, np.int64), *(tokens for tokens, _ in parts)])
        counts = np.concatenate([np.zeros(0), *(counts for _, counts in parts)])
        rows = np.repeat(np.arange(len(parts)), [len(tokens) for tokens, _ in parts])
        order = np.argsort(tokens, kind="stable")
        self.n = len(parts)
        self._tokens, self._rows, counts = tokens[order], rows[order], counts[order]
        lengths = np.array([float(sure.sum()) for _, sure in texts])
        norm = K1 * (1 - B + B * lengths / max(float(lengths.mean()) if self.n else 1.0, 1e-9))
        self._weights = counts * (K1 + 1) / (counts + norm[self._rows])
        self._present = np.minimum(counts, 1.0)

    def scores(self, tokens: Iterable[int]) -> Floats:
        """(n,): of a question's words how much of their weight each text holds; 1 where it could hold no more."""
        found, most = np.zeros(self.n), 0.0
        for token in set(tokens):
            low, high = np.searchsorted(self._tokens, [token, token + 1])
            holding = float(self._present[low:high].sum())
            idf = float(np.log1p((self.n - holding + 0.5) / (holding + 0.5)))
            found[self._rows[low:high]] += idf * self._weights[low:high]
            most += idf * (K1 + 1)
        return (found / max(most, 1e-9)).astype(np.float32)


def _counts(tokens: Ints, sure: NDArray[np.floating]) -> tuple[Ints, NDArray[np.float64]]:
    """The different tokens of a text, and how often each is expected to be in it."""
    different, where = np.unique(tokens[sure > 0], return_inverse=True)
    counts = np.zeros(len(different))
    np.add.at(counts, where, sure[sure > 0])
    return different, counts

"""The words that speech is likely to hold, as an encoder knows them: how each sounds, how often it is said, its vector.

In: a query's phones or a spoken word's embedding. Out: words that could be mistaken for it, or that it may be. A word
found inside a longer one, and an example too short to be sure of, are told apart by what else could have been said.
Knows nothing of audio, libraries or search.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.types import EncoderError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PAD = 255
"""Ends a row of phone ids."""
SCALE = 127
"""A stored value v of a vector stands for v / SCALE."""
GAP = 0.8
"""What a phone too many or too few costs, where a phone in place of another costs one minus the cosine of both."""
FIRST_TRIED = 2_000
"""Words whose edit distance is worked out at first: those that could be nearest by the phones they hold."""
SHORTEST_RIVAL = 0.75
"""Phones that a word must have to be a rival, as a share of the query's."""
MEANT = 60
"""Words that a spoken word may be, at most."""
EXPECTED_SCALE, EXPECTED_PRIOR = 40.0, 0.5
"""Nats of a cosine, and of a log prior, in the chance that a spoken word is one of the lexicon."""
MISMATCH = 7.0
"""Nats by which a word is less likely to be mistaken for another for each unit of cost between them."""


@dataclass(frozen=True)
class Lexicon:
    """Distinct pronunciations, longest first.

    phones (n, longest) uint8 ids, PAD after the last; log_prior (n,): of a spoken word being this; vectors (n, dim)
    int8: embeddings; costs (phones, phones): how unlike two phones are, 0 for the same.
    """

    phones: NDArray[np.uint8]
    log_prior: Floats
    vectors: NDArray[np.int8]
    costs: Floats

    @cached_property
    def lengths(self) -> Ints:
        """(n,): phones of each."""
        lengths: Ints = (self.phones != PAD).sum(axis=1)
        return lengths

    @cached_property
    def _columns(self) -> list[NDArray[np.uint8]]:
        """Phone i of every row that has so many."""
        return [np.ascontiguousarray(column[column != PAD]) for column in self.phones.T]

    @cached_property
    def _nearest(self) -> dict[int, Floats]:
        """For phones asked for so far, (n,): what the phone of each word that is nearest to it costs, GAP at most."""
        return {}

    def ids(self, row: int) -> list[int]:
        """The phone ids of a row."""
        return [int(phone) for phone in self.phones[row, : self.lengths[row]]]

    @cached_property
    def unknown(self) -> float:
        """Log prior of what is not in the lexicon: that of a word of middling frequency."""
        return float(np.median(self.log_prior))

    def prior(self, ids: Sequence[int]) -> float:
        """The log prior of a pronunciation, `unknown` where it is no word's."""
        rows = self._rows(ids)
        return float(self.log_prior[rows[0]]) if len(rows) else self.unknown

    def rivals(self, ids: Sequence[int], same: Iterable[Sequence[int]], most: int) -> Ints:
        """Rows of the words likeliest to be what was said where these phones seem to be heard: alike or around them.

        `same`: other pronunciations of what is sought, which are no rivals of it. Nor are words much shorter: they may
        well be said in a part of it, as "standing" in "understanding" and "climate" in "climate change".
        """
        at_best = self.log_prior - MISMATCH * self._least_cost(ids)
        at_best[self.lengths < SHORTEST_RIVAL * len(ids)] = -np.inf
        for pronunciation in (ids, *same):
            at_best[self._rows(pronunciation)] = -np.inf
        tried = FIRST_TRIED
        while True:
            rows = np.sort(_greatest(at_best, tried))
            likely = self.log_prior[rows] - MISMATCH * self._cost_within(ids, rows)
            chosen = _greatest(likely, most)
            untried = np.delete(at_best, rows).max(initial=-np.inf)
            if len(rows) < tried or (len(chosen) and likely[chosen[-1]] >= untried):
                return rows[chosen]
            tried *= 4

    def nearest(self, vector: Floats, scale: float, prior: float, most: int) -> Ints:
        """Rows whose `scale` * cosine with the vector + `prior` * log prior are greatest, best first."""
        return _greatest(self.vectors @ (scale / SCALE * vector) + prior * self.log_prior, most)

    def expected(self, vectors: Floats) -> Floats:
        """(n, dim): the mean vector of the words that each of some spoken words, unit vectors (n, dim), may be.

        Words weigh what EXPECTED_SCALE * cosine + EXPECTED_PRIOR * log prior makes of them, the MEANT likeliest alone.
        """
        out = np.zeros_like(vectors)
        for k, vector in enumerate(vectors):
            evidence = self.vectors @ (EXPECTED_SCALE / SCALE * vector) + EXPECTED_PRIOR * self.log_prior
            rows = _greatest(evidence, MEANT)
            weights = np.exp(evidence[rows] - evidence[rows].max(initial=-np.inf))
            out[k] = weights @ self.vectors[rows] / (SCALE * weights.sum())
        return out

    def _rows(self, ids: Sequence[int]) -> Ints:
        """The row of a pronunciation, if there is one."""
        rows = np.flatnonzero(self.lengths == len(ids))
        found: Ints = rows[(self.phones[rows, : len(ids)] == ids).all(axis=1)] if len(rows) else rows
        return found

    def _least_cost(self, ids: Sequence[int]) -> Floats:
        """(n,): a bound below `_cost_within`, for which the order of the phones does not matter."""
        for phone in set(ids) - self._nearest.keys():
            nearest = np.full(len(self.phones), GAP, np.float32)
            for phones in self._columns:
                np.minimum(nearest[: len(phones)], self.costs[phone][phones], out=nearest[: len(phones)])
            self._nearest[phone] = nearest
        total: Floats = np.sum([self._nearest[phone] for phone in ids], axis=0)
        return total

    def _cost_within(self, ids: Sequence[int], words: Ints) -> Floats:
        """(k,): edit distance of the phones from the part of each word, or the whole, that is nearest to them.

        `words`: rows of the words in order, so that longer ones come first.
        """
        n = len(ids)
        table = np.repeat(np.arange(n + 1, dtype=np.float32)[:, None] * GAP, len(words), axis=1)
        best = table[n].copy()
        for phones in self.phones[words].T:
            phones = phones[phones != PAD]
            rows = table[:, : len(phones)]
            diagonal = rows[0].copy()
            for j in range(1, n + 1):
                above = rows[j].copy()
                rows[j] = np.minimum(diagonal + self.costs[:, ids[j - 1]][phones], np.minimum(above, rows[j - 1]) + GAP)
                diagonal = above
            np.minimum(best[: len(phones)], rows[n], out=best[: len(phones)])
        found: Floats = best
        return found


def _greatest(values: Floats, most: int) -> Ints:
    """Where the `most` greatest finite values are, greatest first."""
    chosen = np.argpartition(-values, min(most, len(values) - 1))[:most]
    chosen = chosen[np.isfinite(values[chosen])]
    found: Ints = chosen[np.argsort(-values[chosen], kind="stable")]
    return found


def phone_costs(phone_weights: Floats, n_phones: int) -> Floats:
    """(n_phones, n_phones): one minus the cosine of two phones' centred weights (classes, dim) in a classifier."""
    weights = phone_weights[:n_phones] - phone_weights[:n_phones].mean(axis=0)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    costs: Floats = (1 - weights @ weights.T).astype(np.float32)
    return costs


def load(path: Path, costs: Floats) -> Lexicon:
    """The lexicon in an encoder's folder. EncoderError where the file is damaged."""
    try:
        with np.load(path) as arrays:
            log_prior = arrays["log_prior"].astype(np.float32)
            return Lexicon(arrays["phones"], log_prior, arrays["vectors"], costs)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(f"{path}: not the lexicon of a word encoder ({error}); install Earshot again") from error

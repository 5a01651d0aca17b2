"""The word encoder at run time: speech and written words -> unit vectors in one space (ONNX Runtime, no torch).

In: log-mels of stretches of speech, samples of clips, or written words. Out: int8 frames for the library, and vectors.
Knows nothing of files of speech, of the library or of how it was trained.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.encoders.clock import BORDER, GRID, HALVES, N_CLASSES, SILENCE, frame_count
from earshot.encoders.lexicon import Lexicon, phone_costs
from earshot.encoders.lexicon import load as load_lexicon
from earshot.encoders.towers import Towers, batches, first_pronunciations, padded, phone_ids, run_text
from earshot.features import N_MELS, Floats, log_mel, normalise
from earshot.pronounce import PHONES
from earshot.types import EncoderError

Frames = NDArray[np.int8]
LEXICON = "-lexicon.npz"
"""Ends the name of the file with the lexicon, which no stored frame depends on."""
SCALE = 127
"""A stored frame value v stands for v / SCALE, in (-1, 1)."""
_STEPS, _LOWEST = 32, -5
"""A stored norm is a byte: steps to an octave of the mean frame, from 2 ** _LOWEST on; right to about 1 %."""


@dataclass(frozen=True)
class WordEncoder(Towers):
    """Acoustic word embeddings (paper A, arXiv 2512.14115) whose audio tower runs once over running speech.

    A stretch of speech becomes one frame every 40 ms: `frame_dim` int8 values, then a byte for each length of GRID, the
    norm of the span of that length from there on. Any span has the embedding `normalise(projection @ sum(values))`,
    and each half of a frame has scores for the 39 phones, silence and the border of a word; all are linear in what is
    stored, and with the norms the cosines of a query with spans take one inner product for two frames. `digest` names
    the exact weights.
    """

    prior_mean: Floats
    prior_std: Floats
    projection: Floats
    """(dim, frame_dim)"""
    phone_weights: Floats
    """(HALVES * N_CLASSES, frame_dim)"""
    phone_bias: Floats
    """(HALVES * N_CLASSES,)"""
    border_weights: Floats
    """(HALVES, frame_dim)"""
    border_bias: Floats
    """(HALVES,)"""
    phone_seconds: Floats
    """(len(PHONES),): how long each phone takes on average"""
    typed_calibration: Floats
    spoken_calibration: Floats
    heard_calibration: Floats
    """Weights and bias of the probability of a hit (`search.measure` gives the features), for phones and for the sound
    of an example; and of the words that an example may be (`query.hypotheses`), with the evidence for none of them."""
    typed_outcome: Floats
    spoken_outcome: Floats
    """(3,): weights and bias of the probability that is told, from the log odds of what the ways to say a query come to
    together, and from how long the query is (`search.outcome_features`)."""

    @property
    def dim(self) -> int:
        return int(self.projection.shape[0])

    def calibration(self, spoken: bool) -> Floats:
        """Weights of the probability of a hit, for typed or spoken queries."""
        return self.spoken_calibration if spoken else self.typed_calibration

    def outcome(self, spoken: bool) -> Floats:
        """Weights of the probability that is told."""
        return self.spoken_outcome if spoken else self.typed_outcome

    @property
    def stored_dim(self) -> int:
        """Bytes a frame takes in a library."""
        return self.frame_dim + len(GRID)

    @property
    def frame_dim(self) -> int:
        return int(self.projection.shape[1])

    def frames(self, mels: Sequence[Floats]) -> list[Frames]:
        """Frames (ceil(n / 4), stored_dim) of each stretch, from raw log-mels (n, N_MELS). Thread-safe."""
        out: list[Frames] = [np.zeros((0, self.stored_dim), np.int8)] * len(mels)
        for batch in batches([len(mel) for mel in mels]):
            longest = max(len(mels[k]) for k in batch)
            padded = np.zeros((len(batch), longest, N_MELS), np.float32)
            for row, k in enumerate(batch):
                padded[row, : len(mels[k])] = normalise(mels[k], self.prior_mean, self.prior_std)
            lengths = np.array([len(mels[k]) for k in batch], np.int32)
            values = self.audio.run(None, {"mel": padded, "lengths": lengths})[0]
            for row, k in enumerate(batch):
                out[k] = self._stored(np.rint(values[row, : frame_count(len(mels[k]))] * SCALE).astype(np.int8))
        return out

    def _stored(self, values: Frames) -> Frames:
        """Values (n, frame_dim) with the norms of the spans that begin at each; the stretch's end cuts spans short."""
        projected = values.astype(np.float32) @ (self.projection.T / SCALE)
        total = np.concatenate([np.zeros((1, self.dim)), projected.cumsum(axis=0, dtype=np.float64)])
        first = np.arange(len(values))
        ends = np.minimum(first[:, None] + np.array(GRID), len(values))
        means = np.linalg.norm(total[ends] - total[first][:, None], axis=2) / np.array(GRID)
        steps = np.rint(_STEPS * (np.log2(np.maximum(means, 1e-9)) - _LOWEST))
        return np.concatenate([values, np.clip(steps, 0, 255).astype(np.uint8).view(np.int8)], axis=1)

    def inverse_norms(self, frames: Frames) -> dict[int, Floats]:
        """For each length of GRID, (n,): one over the norm of the sum of that many projected values from frame k on."""
        table = 2.0 ** -(np.arange(256) / _STEPS + _LOWEST) / SCALE
        codes = np.ascontiguousarray(frames[:, self.frame_dim :].view(np.uint8).T)
        return {length: (table / length).astype(np.float32)[row] for length, row in zip(GRID, codes, strict=True)}

    def pool(self, frames: Frames) -> Floats:
        """The embedding (dim,) of the span that `frames` (n, at least frame_dim) are: unit norm."""
        return _unit(self.projection @ frames[:, : self.frame_dim].sum(axis=0, dtype=np.int32).astype(np.float32))

    def phone_scores(self, values: Floats) -> Floats:
        """(HALVES, N_CLASSES, n) log posteriors of the phones and silence in the halves of frames (n, frame_dim)."""
        scores: Floats = np.matmul(self.phone_weights / np.float32(SCALE), values.T)
        scores += self.phone_bias[:, None]
        scores = scores.reshape(HALVES, N_CLASSES, len(values))
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def phone_log_probabilities(self, frames: Frames) -> Floats:
        """(HALVES * n, N_CLASSES): the same, half frame by half frame, of stored frames."""
        values = frames[:, : self.frame_dim].astype(np.float32)
        return np.ascontiguousarray(self.phone_scores(values).transpose(2, 0, 1)).reshape(-1, N_CLASSES)

    def border_log_odds(self, values: Floats) -> Floats:
        """(HALVES * n,) log odds that a word begins or ends in each half of frames (n, frame_dim)."""
        log_odds: Floats = np.matmul(values, self.border_weights.T / np.float32(SCALE))
        log_odds += self.border_bias
        return log_odds.reshape(-1)

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words that speech is likely to hold; read when first needed."""
        halves = self.phone_weights.reshape(HALVES, N_CLASSES, -1)
        return load_lexicon(self.folder / f"{self.name}{LEXICON}", phone_costs(halves.mean(axis=0), len(PHONES)))

    def embed_speech(self, clips: Sequence[Floats]) -> Floats:
        """Embeddings (n, dim) of clips, each float32 samples at 16 kHz; silence around the speech is left out."""
        out = np.zeros((len(clips), self.dim), np.float32)
        for k, frames in enumerate(self.frames([log_mel(padded(clip)) for clip in clips])):
            out[k] = self.pool(self.trim(frames))
        return out

    def with_lexicon(self, vectors: Floats) -> Floats:
        """Embeddings (n, dim) of spoken English words drawn to those of the words that they may be; unit norm.

        What a speaker or a room adds to a vector goes, and so may what tells a word that is not in the lexicon.
        """
        together = vectors + self.lexicon.expected(vectors)
        drawn: Floats = (together / np.linalg.norm(together, axis=1, keepdims=True)).astype(np.float32)
        return drawn

    def trim(self, frames: Frames) -> Frames:
        """Without the silent frames at both ends; everything where all is silent."""
        spoken = np.flatnonzero(self.speech(frames))
        return frames[spoken[0] : spoken[-1] + 1] if len(spoken) else frames

    def speech(self, frames: Frames) -> NDArray[np.bool_]:
        """(n,) whether a phone is likelier than silence in either half of each frame."""
        sounds = self.phone_log_probabilities(frames).argmax(axis=1) != SILENCE
        return np.asarray(sounds.reshape(-1, HALVES).any(axis=1))

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Embeddings (n, dim) of words or phrases by their first pronunciation. QueryError where one has none."""
        return self.embed_phones(first_pronunciations(texts))

    def embed_phones(self, pronunciations: Sequence[Sequence[str]]) -> Floats:
        """Embeddings (n, dim) of the phones (ARPAbet without stress) of whole words."""
        return self.embed_ids([phone_ids(phones) for phones in pronunciations])

    def embed_ids(self, words: Sequence[Sequence[int]]) -> Floats:
        """Embeddings (n, dim) of the phones of whole words, as places in PHONES."""
        if not words:
            return np.zeros((0, self.dim), np.float32)
        return run_text(self.text, [[BORDER, *ids, BORDER] for ids in words])


def load_spans(card: dict[str, Any], digest: str, folder: Path, name: str) -> WordEncoder:
    """The encoder of a card and the arrays beside it. EncoderError where they are damaged or missing."""
    try:
        with np.load(folder / f"{name}.npz") as weights:
            arrays = {key: weights[key].astype(np.float32) for key in _ARRAYS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(f"{folder / f'{name}.npz'}: not the weights of a word encoder ({error})") from error
    try:
        for kind in ("typed", "spoken", "heard"):
            arrays[f"{kind}_calibration"] = np.array(card["calibration"][kind], np.float32)
        for kind in ("typed", "spoken"):
            arrays[f"{kind}_outcome"] = np.array(card["calibration"][f"{kind}_outcome"], np.float32)
    except (ValueError, KeyError) as error:
        raise EncoderError(f"{folder / f'{name}.toml'}: no [calibration] of this version ({error})") from error
    return WordEncoder(name, digest, folder, **arrays)


_ARRAYS = (
    "prior_mean",
    "prior_std",
    "projection",
    "phone_weights",
    "phone_bias",
    "border_weights",
    "border_bias",
    "phone_seconds",
)


def _unit(vector: Floats) -> Floats:
    return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)

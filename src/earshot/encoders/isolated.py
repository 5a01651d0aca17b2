"""An encoder of isolated words at run time, as paper A has it: one word, cut out, at a time (ONNX Runtime, no torch).

In: samples of clips, or written words. Out: vectors. It cannot index recordings: it serves comparison and research.
Knows nothing of how it was trained.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earshot.encoders.towers import Towers, batches, first_pronunciations, padded, phone_ids, run_text
from earshot.features import Floats, log_mel, mel_energies, normalise
from earshot.types import EncoderError

ENERGIES, LOG_MEL = "energies", "log_mel"


@dataclass(frozen=True, slots=True)
class Front:
    """What the tower is given of a clip: raw mel energies, as in the paper's code, or normalised log-mels; `stack`
    frames side by side make one row, so that the tower takes as many fewer steps."""

    features: str
    n_mels: int
    stack: int
    prior_mean: Floats
    prior_std: Floats
    """(n_mels,), for log-mels."""

    @property
    def inputs(self) -> int:
        """Values in a row."""
        return self.n_mels * self.stack

    def rows(self, samples: Floats) -> Floats:
        """(ceil(frames / stack), inputs) of samples at 16 kHz; zeros where the last row lacks frames."""
        if self.features == ENERGIES:
            mel = mel_energies(padded(samples), self.n_mels)
        else:
            mel = normalise(log_mel(padded(samples)), self.prior_mean, self.prior_std)
        missing = -len(mel) % self.stack
        return np.pad(mel, ((0, missing), (0, 0))).reshape(-1, self.inputs)


@dataclass(frozen=True)
class IsolatedEncoder(Towers):
    """A tower over one cut-out word; paper A (arXiv 2512.14115) as it is published, and the systems it names."""

    front: Front
    has_text: bool

    def embed_speech(self, clips: Sequence[Floats]) -> Floats:
        """Embeddings (n, dim) of clips, each float32 samples at 16 kHz."""
        rows = [self.front.rows(clip) for clip in clips]
        out: list[Floats] = [np.zeros(0, np.float32)] * len(rows)
        for batch in batches([len(row) for row in rows]):
            lengths = np.array([len(rows[k]) for k in batch], np.int32)
            x = np.zeros((len(batch), lengths.max(), self.front.inputs), np.float32)
            for place, k in enumerate(batch):
                x[place, : lengths[place]] = rows[k]
            vectors = self.audio.run(None, {"x": x, "lengths": lengths})[0]
            for k, vector in zip(batch, vectors, strict=True):
                out[k] = vector
        return np.stack(out) if out else np.zeros((0, 0), np.float32)

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Embeddings (n, dim) of words by their first pronunciation. QueryError where one has none."""
        if not self.has_text:
            raise EncoderError(f"{self.folder}: this encoder was trained without written words; it takes speech alone")
        return run_text(self.text, [phone_ids(phones) for phones in first_pronunciations(texts)])


def load_isolated(card: dict[str, Any], digest: str, folder: Path, name: str) -> IsolatedEncoder:
    """The encoder of a card. EncoderError where it lacks what the front end needs."""
    mean = std = np.zeros(0, np.float32)
    try:
        if card["features"] == LOG_MEL:
            with np.load(folder / f"{name}.npz") as stored:
                mean, std = stored["prior_mean"], stored["prior_std"]
        front = Front(card["features"], card["n_mels"], card["stack"], mean, std)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(f"{folder / name}: not an encoder of isolated words ({error})") from error
    return IsolatedEncoder(name, digest, folder, front, f"{name}-text.onnx" in card["files"])

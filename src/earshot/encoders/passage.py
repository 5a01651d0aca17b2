"""The passage encoder at run time: frames of the word encoder -> words as it hears them -> a vector beside questions'.

In: frames that a library stores, or samples; questions. Out: unit vectors in the text encoder's space, and the word
pieces that were heard, each with its time. ONNX Runtime, no torch. Knows nothing of libraries or of training.

arXiv 2511.09282 (CLSR): SAN-M encoder, continuous integrate-and-fire, SAN-M decoder, frozen text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earshot.encoders.cif import HALVES, find_ends, integrate_and_fire, pool, told
from earshot.encoders.clock import FIRST_CENTRE, FRAME_SECONDS
from earshot.encoders.text import TextEncoder, load_text
from earshot.encoders.towers import check, identity, open_network, padded, read_card
from earshot.encoders.word import WordEncoder
from earshot.features import Floats, log_mel
from earshot.types import EncoderError, Span

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

KIND = "passages"
ENCODER, DECODER = "-encoder.onnx", "-decoder.onnx"
"""How the names of a passage encoder's files end."""
STACKED = 2
"""Frames of the word encoder to one of the passage encoder: 80 ms."""
SCALE = np.float32(1 / 127)


@dataclass(frozen=True, slots=True)
class Heard:
    """The word pieces (n,) that were heard in a stretch, and the second (n,) of it at which each ends."""

    tokens: NDArray[np.int64]
    ends: NDArray[np.float64]


@dataclass(frozen=True)
class PassageEncoder:
    """Speech branch and text encoder; `word`: the encoder whose frames the speech branch reads.

    `digest` names the exact weights.
    """

    name: str
    digest: str
    folder: Path
    word: WordEncoder
    text: TextEncoder

    @property
    def dim(self) -> int:
        return self.text.dim

    @cached_property
    def encoder(self) -> InferenceSession:
        """features (1, t, STACKED * frame_dim) float32 -> frames (1, t, d) and their weights (1, t); of an encoder that
        tells where tokens end also the log odds of that (1, HALVES * t)."""
        return open_network(self.folder / f"{self.name}{ENCODER}")

    @cached_property
    def decoder(self) -> InferenceSession:
        """vectors (1, n, d), frames (1, t, d) -> tokens (1, n) int64; of an encoder that tells where tokens end also
        the probability that none does (1, n), and log probabilities of how many pieces each is (1, n, k)."""
        path = self.folder / f"{self.name}{DECODER}"
        network = open_network(path)
        if [output.name for output in network.get_outputs()] not in (["tokens"], ["tokens", "blank", "spans"]):
            raise EncoderError(f"{path}: exported by another version of Earshot; export its checkpoint again")
        return network

    def hear(self, frames: NDArray[np.int8]) -> Heard:
        """The word pieces in frames (n, at least frame_dim) of one stretch, of a minute at most."""
        features = stacked(frames[:, : self.word.frame_dim]).astype(np.float32)[None] * SCALE
        nothing = Heard(np.zeros(0, np.int64), np.zeros(0))
        if not features.shape[1]:
            return nothing
        hidden, weights, *borders = self.encoder.run(None, {"features": features})
        if borders:
            ends = find_ends(borders[0][0], weights[0])
            vectors, times = pool(hidden[0], weights[0], ends), ends / HALVES
        else:
            vectors, fires = integrate_and_fire(hidden[0], weights[0])
            times = np.minimum(fires + 1.0, features.shape[1])
        if not len(vectors):
            return nothing
        (tokens,), *rest = self.decoder.run(None, {"vectors": vectors[None], "frames": hidden})
        if rest:
            (blank,), (spans,) = rest
            some = told(blank, spans)
            tokens, times = tokens[some], times[some]
        return Heard(tokens, seconds(times))

    def read(self, tokens: Sequence[int] | NDArray[np.int64]) -> str:
        """Word pieces as a text."""
        return self.text.pieces.text(tokens)

    def embed_tokens(self, texts: Sequence[NDArray[np.int64]]) -> Floats:
        """Vectors (n, dim) of texts as word pieces (m,) each."""
        return self.text.embed_ids([tokens.tolist() for tokens in texts])

    def speech_frames(self, clip: Floats) -> NDArray[np.int8]:
        """Frames (n, stored_dim) of the speech in a clip, float32 samples at 16 kHz; none where there is no speech."""
        (frames,) = self.word.frames([log_mel(padded(clip))])
        return self.word.trim(frames) if self.word.speech(frames).any() else frames[:0]

    def listen(self, clip: Floats) -> Heard:
        """The word pieces in a clip, float32 samples at 16 kHz, of a minute at most; none where there is no speech."""
        return self.hear(self.speech_frames(clip))

    def words(self, heard: Heard) -> list[tuple[str, Span]]:
        """The words that were heard, each with its seconds in the stretch."""
        edges = [0.0, *heard.ends.tolist()]
        some = self.text.pieces.words(heard.tokens.tolist())
        return [(self.read(heard.tokens[of]), Span(edges[of.start], edges[of.stop])) for of in some]

    def embed_speech(self, clips: Sequence[Floats]) -> Floats:
        """Vectors (n, dim) of clips, each float32 samples at 16 kHz."""
        return self.embed_tokens([self.listen(clip).tokens for clip in clips])

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Vectors (n, dim) of questions, or of any texts."""
        return self.text.embed(texts)


def stacked(frames: NDArray[np.int8]) -> NDArray[np.int8]:
    """(ceil(n / STACKED), STACKED * dim) of frames (n, dim); the last is filled up with zeros."""
    short = -len(frames) % STACKED
    return np.pad(frames, ((0, short), (0, 0))).reshape(-1, STACKED * frames.shape[1])


def seconds(ends: NDArray[Any]) -> NDArray[np.float64]:
    """The time at which that many frames of the passage encoder end."""
    return FIRST_CENTRE - FRAME_SECONDS / 2 + ends.astype(np.float64) * (STACKED * FRAME_SECONDS)


def load_passage(folder: Path, word: WordEncoder, name: str = "passage") -> PassageEncoder:
    """The encoder whose card is `name`.toml in `folder`, with the text encoder beside it.

    EncoderError where a file is missing or damaged, or it reads the frames of another word encoder than `word`.
    """
    path = folder / f"{name}.toml"
    card = read_card(path)
    if card.get("kind") != KIND or "files" not in card:
        raise EncoderError(f"{path}: not the card of a passage encoder")
    if card.get("reads") != word.digest:
        raise EncoderError(f"{path}: it reads the frames of another word encoder; train it anew for this one")
    for file, digest in card["files"].items():
        check(folder / file, digest)
    text = load_text(folder)
    return PassageEncoder(name, identity([*card["files"].values(), text.digest]), folder, word, text)

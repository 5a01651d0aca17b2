"""What the encoders share: their files and cards, ONNX Runtime sessions, and how clips and phones become batches.

In: a folder with networks and a card. Out: opened networks; vectors of phone sequences. Knows nothing of what the
audio networks are given.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot.encoders.clock import SILENCE
from earshot.features import Floats
from earshot.pronounce import PHONES, pronounce
from earshot.types import EncoderError, QueryError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SHORTEST = 1_600
"""Samples that a clip is filled up to: a tenth of a second."""
BATCH_FRAMES = 12_000
"""Feature frames, padding included, that are run through the network at a time: two minutes."""


@dataclass(frozen=True)
class Towers:
    """The files of an encoder: its two networks, opened when first used."""

    name: str
    digest: str
    folder: Path

    @cached_property
    def card(self) -> dict[str, Any]:
        """What the model is: data, licence, figures."""
        return read_card(self.folder / f"{self.name}.toml")

    @cached_property
    def audio(self) -> InferenceSession:
        """The network of spoken words."""
        return open_network(self.folder / f"{self.name}-audio.onnx")

    @cached_property
    def text(self) -> InferenceSession:
        """The network of written words."""
        return open_network(self.folder / f"{self.name}-text.onnx")


def first_pronunciations(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The first pronunciation of each word or phrase. QueryError where one has none."""
    if isinstance(texts, str):
        raise TypeError("texts are a list; one text is a list of one")
    return [tuple(pronounce(text, most=1)[0]) for text in texts]


def run_text(session: InferenceSession, texts: Sequence[Sequence[int]]) -> Floats:
    """Run a phone tower over sequences of phone ids: (n, dim)."""
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.full((len(lengths), lengths.max(initial=1)), SILENCE, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    vectors: Floats = session.run(None, {"phones": ids, "lengths": lengths})[0]
    return vectors


def read_card(path: Path) -> dict[str, Any]:
    """The card of a model: what it is, its files with their SHA-256, its licence and figures."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise EncoderError(f"{path}: no readable model card ({error}); install Earshot again") from error


def check(path: Path, digest: str) -> None:
    """EncoderError unless the file's SHA-256 is `digest`."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EncoderError(f"{path}: cannot read the model file ({error.strerror}); install Earshot again") from error
    if found != digest:
        raise EncoderError(f"{path}: not the file that its model card names; install Earshot again")


def phone_ids(phones: Sequence[str]) -> list[int]:
    """Numbers of phones, in the order of `PHONES`. QueryError for a symbol that is none of them."""
    try:
        return [_PHONE_ID[phone] for phone in phones]
    except KeyError as error:
        raise QueryError(f"{error} is not an ARPAbet phone") from None


_PHONE_ID = {phone: k for k, phone in enumerate(PHONES)}


def padded(samples: Floats) -> Floats:
    """A clip with zeros after it where it has less than SHORTEST samples."""
    return np.pad(samples, (0, max(0, SHORTEST - len(samples)))).astype(np.float32)


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices by falling length, cut into batches of about BATCH_FRAMES padded frames; empty stretches left out."""
    made: list[list[int]] = []
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        if lengths[k] == 0:
            continue
        if not made or (len(made[-1]) + 1) * lengths[made[-1][0]] > BATCH_FRAMES:
            made.append([])
        made[-1].append(k)
    return made


def identity(digests: Iterable[str]) -> str:
    """Names the weights that files of these SHA-256 hold."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]


def open_network(path: Path) -> InferenceSession:
    """An ONNX graph, on one thread. EncoderError where ONNX Runtime cannot open it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EncoderError(f"{path}: ONNX Runtime cannot open the model ({type(error).__name__})") from error

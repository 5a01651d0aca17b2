"""The text encoder at run time: texts, or word embeddings in place of a text -> unit vectors (ONNX Runtime, no torch).

In: texts, ids of word pieces, or rows that stand for word pieces (paper B's bridge from speech, arXiv 2511.09282).
Out: vectors in one space. Knows nothing of speech or of how it was trained.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earshot.encoders.towers import check, identity, open_network, read_card
from earshot.encoders.wordpiece import WordPiece
from earshot.encoders.wordpiece import read as read_vocabulary
from earshot.features import Floats
from earshot.types import EncoderError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

KIND = "text"
NETWORK, WORDS, VOCABULARY = ".onnx", "-words.npz", "-vocabulary.txt"
"""How the names of a text encoder's files end."""


@dataclass(frozen=True)
class TextEncoder:
    """A sentence encoder of BERT's kind whose network takes word embeddings, so that speech can take their place.

    `digest` names the exact weights. `limit`: word pieces that the network takes, [CLS] and [SEP] included; what is
    longer is cut to its first `limit` - 2, some 200 words of English for 256. Texts run one by one: int8 activations
    are scaled by the greatest of a batch, and a text's vector shall not depend on what is beside it.
    """

    name: str
    digest: str
    folder: Path
    pieces: WordPiece
    limit: int
    words: NDArray[np.int8] | Floats
    """(len(pieces), dim): a word embedding is the row times its scale."""
    scales: Floats
    """(len(pieces),)"""

    @property
    def dim(self) -> int:
        return int(self.words.shape[1])

    @cached_property
    def network(self) -> InferenceSession:
        """x (b, t, dim) float32, lengths (b,) int32 -> unit vectors (b, dim); opened when first used."""
        return open_network(self.folder / f"{self.name}{NETWORK}")

    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors (n, dim) of texts. One without words has the vector of [CLS] [SEP], which is like no text's."""
        if isinstance(texts, str):
            raise TypeError("texts are a list; one text is a list of one")
        return self.embed_ids([self.pieces.ids(text) for text in texts])

    def embed_ids(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Vectors (n, dim) of texts as ids of word pieces, without [CLS] and [SEP]."""
        return self.embed_words([self.lookup(ids) for ids in texts])

    def embed_words(self, texts: Sequence[Floats]) -> Floats:
        """Vectors (n, dim) of texts as word embeddings (pieces, dim) each, without those of [CLS] and [SEP]."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        first, last = self.lookup(self.pieces.frame)
        for vector, words in zip(vectors, texts, strict=True):
            x = np.vstack([first, words[: self.limit - 2], last])[None]
            vector[:] = self.network.run(None, {"x": x, "lengths": np.array([x.shape[1]], np.int32)})[0][0]
        return vectors

    def lookup(self, ids: Sequence[int]) -> Floats:
        """The word embeddings (n, dim) of n ids. IndexError for one outside the vocabulary."""
        rows = np.asarray(ids, np.int64)
        if rows.min(initial=0) < 0:
            raise IndexError(f"there is no word piece {rows.min()}")
        found: Floats = self.words[rows].astype(np.float32) * self.scales[rows, None]
        return found


def load_text(folder: Path, name: str = "text") -> TextEncoder:
    """The text encoder whose card is `name`.toml in `folder`.

    EncoderError where a file is missing, damaged or not the one that the card names.
    """
    path = folder / f"{name}.toml"
    card = read_card(path)
    if card.get("kind") != KIND:
        raise EncoderError(f"{path}: not the card of a text encoder")
    try:
        files, limit, lower = card["files"], int(card["limit"]), bool(card["lower"])
        digests = [files[f"{name}{end}"] for end in (NETWORK, WORDS, VOCABULARY)]
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{path}: not the card of a text encoder ({error})") from None
    for file, digest in files.items():
        check(folder / file, digest)
    pieces = read_vocabulary(folder / f"{name}{VOCABULARY}", lower)
    try:
        with np.load(folder / f"{name}{WORDS}") as stored:
            words, scales = stored["words"], stored["scales"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(
            f"{folder / f'{name}{WORDS}'}: not the word embeddings of a text encoder ({error})"
        ) from error
    if not len(words) == len(scales) == len(pieces.pieces):
        raise EncoderError(f"{path}: {len(words)} word embeddings for {len(pieces.pieces)} word pieces")
    return TextEncoder(name, identity(digests), folder, pieces, limit, words, scales)

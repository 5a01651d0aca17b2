"""BERT's tokenizer: text -> ids of word pieces, as Hugging Face's `tokenizers` has it, without that package.

In: text, and a vocabulary with a piece on each line. Out: ids. Knows nothing of networks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

from earshot.types import EncoderError

UNKNOWN = "[UNK]"
"""Stands for a word that cannot be spelt."""
FRAME = ("[CLS]", "[SEP]")
"""Come before and after every text."""
WITHIN = "##"
"""Begins pieces that go on within a word."""
LONGEST_WORD = 100
"""Characters; longer words are UNKNOWN."""


@dataclass(frozen=True)
class WordPiece:
    """Greedy longest pieces (BERT, arXiv 1810.04805) of a vocabulary, whose ids are their places in it.

    `lower`: for a vocabulary without capitals, also without accents. Names of special pieces within a text, such as
    "[SEP]", are words like any others.
    """

    pieces: tuple[str, ...]
    lower: bool

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: k for k, piece in enumerate(self.pieces)}

    @cached_property
    def frame(self) -> tuple[int, int]:
        """Ids of FRAME."""
        first, last = FRAME
        return self._ids[first], self._ids[last]

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without `frame`; none for a text without a letter, figure or sign."""
        return [k for word in self._words(text) for k in self._spelt(word)]

    def text(self, ids: Iterable[int]) -> str:
        """What word pieces say, in words as far as they tell."""
        text = " ".join(self.pieces[k] for k in ids).removeprefix(WITHIN)
        return text.replace(f" {WITHIN}", "").replace(" ' ", "'")

    def words(self, ids: Sequence[int]) -> list[slice]:
        """For each word of `text`, which of the pieces it is."""
        pieces = [self.pieces[k] for k in ids]
        goes_on = [piece.startswith(WITHIN) or "'" in (piece, before) for before, piece in pairwise(["", *pieces])]
        firsts = [k for k, on in enumerate(goes_on) if not on or not k]
        return [slice(first, last) for first, last in pairwise([*firsts, len(pieces)])]

    def _words(self, text: str) -> list[str]:
        text = "".join(map(_cleaned, text))
        if self.lower:
            letters = (c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
            text = "".join(c.lower() for c in letters)
        return "".join(map(_parted, text)).split()

    def _spelt(self, word: str) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            before = WITHIN if start else ""
            for end in range(len(word), start, -1):
                found = self._ids.get(before + word[start:end])
                if found is not None:
                    break
            else:
                break
            ids.append(found)
            start = end
        return ids if start == len(word) else [self._ids[UNKNOWN]]


def write(pieces: Sequence[str], path: Path) -> None:
    """Write a vocabulary."""
    path.write_bytes("".join(f"{piece}\n" for piece in pieces).encode())


def read(path: Path, lower: bool) -> WordPiece:
    """The tokenizer of a vocabulary. EncoderError where the file is none of BERT's."""
    try:
        pieces = tuple(path.read_bytes().decode().removesuffix("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise EncoderError(f"{path}: no readable vocabulary ({error})") from error
    missing = {UNKNOWN, *FRAME}.difference(pieces)
    if missing:
        raise EncoderError(f"{path}: not a vocabulary of BERT's: no {min(missing)}")
    return WordPiece(pieces, lower)


@cache
def _cleaned(c: str) -> str:
    """A character of a text as it came: nothing for control characters, spaces around a Chinese one."""
    if c in "\t\n\r":
        return " "
    if c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co"):
        return ""
    return f" {c} " if any(first <= ord(c) <= last for first, last in _CHINESE) else c


@cache
def _parted(c: str) -> str:
    """Signs are words of their own."""
    sign = unicodedata.category(c).startswith("P") or (c.isascii() and unicodedata.category(c).startswith("S"))
    return f" {c} " if sign else c


_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)

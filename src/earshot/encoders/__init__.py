"""The encoders that Earshot ships, by name, and those that a user has trained, by folder."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal, overload

from earshot.encoders.isolated import IsolatedEncoder, load_isolated
from earshot.encoders.passage import PassageEncoder, load_passage
from earshot.encoders.towers import check, identity, read_card
from earshot.encoders.word import LEXICON, WordEncoder, load_spans
from earshot.types import EncoderError

__all__ = ["IsolatedEncoder", "PassageEncoder", "WordEncoder", "load", "load_folder"]

SHIPPED = Path(__file__).parent / "weights"


@overload
def load(name: Literal["passage"]) -> PassageEncoder: ...  # type: ignore[overload-overlap]
@overload
def load(name: str) -> WordEncoder: ...
@cache
def load(name: str) -> WordEncoder | PassageEncoder:
    """The encoder called `name`: "word" (paper A) or "passage" (paper B); or the word encoder in the folder `name`.

    EncoderError for any other name, for a folder whose files are missing or damaged, and for an encoder that cannot
    index recordings.
    """
    if name == "word":
        return _load_word(SHIPPED)
    if name == "passage":
        return load_passage(SHIPPED, load("word"))
    if os.path.isdir(name):
        return _load_word(Path(name))
    raise EncoderError(f"there is no encoder '{name}'; Earshot has: word, passage")


def _load_word(folder: Path) -> WordEncoder:
    encoder = load_folder(folder)
    if not isinstance(encoder, WordEncoder):
        raise EncoderError(f"{folder}: an encoder of isolated words cannot index recordings")
    return encoder


def load_folder(folder: Path, name: str = "word") -> WordEncoder | IsolatedEncoder:
    """The encoder whose card is `name`.toml in `folder`; its networks are opened when first used.

    EncoderError where a file is missing, damaged or not the one that the card names.
    """
    card = read_card(folder / f"{name}.toml")
    for file, digest in card["files"].items():
        check(folder / file, digest)
    digest = identity(digest for file, digest in card["files"].items() if not file.endswith(LEXICON))
    if card.get("kind") == "isolated":
        return load_isolated(card, digest, folder, name)
    return load_spans(card, digest, folder, name)

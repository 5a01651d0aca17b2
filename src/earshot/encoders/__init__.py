"""The encoders that Earshot ships, by name, and those that a user has trained, by folder."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from earshot.encoders.word import IsolatedEncoder, WordEncoder, load_folder, load_word
from earshot.types import EncoderError

__all__ = ["IsolatedEncoder", "WordEncoder", "load", "load_folder"]


@cache
def load(name: str) -> WordEncoder:
    """The encoder called `name`: "word" (paper A); or the one that `earshot.train.export` put into the folder `name`.

    EncoderError for any other name, and for a folder whose files are missing or damaged.
    """
    if name == "word":
        return load_word(Path(__file__).parent / "weights")
    if os.path.isdir(name):
        return load_word(Path(name))
    raise EncoderError(f"there is no encoder '{name}'; Earshot has: word")

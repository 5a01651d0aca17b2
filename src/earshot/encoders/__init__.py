"""The encoders that Earshot ships, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from earshot.encoders.word import WordEncoder, load_word
from earshot.types import EncoderError

__all__ = ["WordEncoder", "load"]


@cache
def load(name: str) -> WordEncoder:
    """The encoder called `name`: "word" (paper A). EncoderError for any other name."""
    if name != "word":
        raise EncoderError(f"there is no encoder '{name}'; Earshot has: word")
    return load_word(Path(__file__).parent / "weights")

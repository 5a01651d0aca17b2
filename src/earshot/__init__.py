"""Find what was said in recordings, by typing it or by an example, without transcribing them.

`earshot.open("talks.earshot")` is a library: `.index(paths)` puts recordings in, `.find("word")` or
`.find(earshot.Clip("clip.wav"))` finds what was said, `.ask("who paid?")` what may answer. Importing this loads nothing
heavy.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from earshot.types import (
    AnswerError,
    AudioError,
    Clip,
    EarshotError,
    EncoderError,
    Hit,
    LibraryError,
    QueryError,
    Recording,
)

# ONNX Runtime from 1.32 on keeps a device id and tells its maker what ran, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from earshot import encoders
    from earshot.api import Library, open

__all__ = [
    "AnswerError",
    "AudioError",
    "Clip",
    "EarshotError",
    "EncoderError",
    "Hit",
    "Library",
    "LibraryError",
    "QueryError",
    "Recording",
    "encoders",
    "open",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in ("Library", "open"):
        return getattr(importlib.import_module("earshot.api"), name)
    if name == "encoders":
        return importlib.import_module("earshot.encoders")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("earshot")
    raise AttributeError(f"module 'earshot' has no attribute {name!r}")

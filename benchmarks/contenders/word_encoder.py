"""For the task "words": the word encoder that Earshot ships, or the one of a folder (`word_encoder=FOLDER`).

In: clips and typed words. Out: unit vectors of one space.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contract import Setup, WordEncoder


def build(setup: Setup) -> WordEncoder:
    return load(setup.encoder)


def load(name: str) -> WordEncoder:
    """The encoder that Earshot ships under that name, or any that was exported into the folder `name`."""
    from earshot import encoders

    return encoders.load_folder(Path(name)) if Path(name).is_dir() else encoders.load(name)

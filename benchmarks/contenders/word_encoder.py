"""For the task "words": the word encoder named by `--encoder`, as Earshot loads it.

In: clips and typed words. Out: unit vectors of one space.
"""

from __future__ import annotations

from benchmarks.contract import Setup, WordEncoder


def build(setup: Setup) -> WordEncoder:
    from earshot import encoders

    encoder: WordEncoder = encoders.load(setup.encoder)
    return encoder

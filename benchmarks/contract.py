"""What a contender is given and what it must give back.

In: recordings and queries. Out: detections with scores, more is better. It knows no references: the truth stays in
`tasks.py` and `score.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earshot.metrics import Detection
from earshot.types import Clip, Seconds

Audio = NDArray[np.float32]
SAMPLE_RATE = 16_000
DETECTIONS_PER_QUERY = 200
"""How many detections of a query are kept, the best ones: about one for every 15 seconds of the chapters."""


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to search: its name in the results, its file (16 kHz mono), its length."""

    name: str
    path: Path
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Query:
    """A word to find. Typed: `clip` is None and `word` is what was typed.

    Spoken: `clip` is the example, cut into a file of its own; `context` is the same stretch inside the recording it
    was cut from, for a contender that says that it uses the sound around the example. A spoken query's `word` only
    names the query in the results: a contender must not look at its letters.
    """

    word: str
    clip: Path | None = None
    context: Clip | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a contender may write (`work`), where stored raw results lie (`results`), and a word encoder's name."""

    work: Path
    results: Path
    encoder: str = "word"


class Contender(Protocol):
    """A system that finds words in recordings. `kinds` lists the queries it takes: "typed", "spoken" or both.

    One whose scores are probabilities says so with `probabilities = True`.
    """

    kinds: tuple[str, ...]

    def prepare(self, recordings: Sequence[Source]) -> Seconds | None:
        """Do all that can be done before a query is known; the runner times it as indexing.

        Returns the seconds it took when the work was done in an earlier run and only loaded now, else None.
        """
        ...

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        """At most DETECTIONS_PER_QUERY detections of each query. Timed; all queries are of one kind."""
        ...

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        """The words among `queries` that it cannot search for at all; they count as missed."""
        ...


class SpeechEncoder(Protocol):
    """A map from spoken words to unit vectors. Word encoders also have `embed_text`, in the same space."""

    def embed_speech(self, clips: Sequence[Audio]) -> NDArray[np.float32]:
        """(n, d) unit vectors of n clips, 16 kHz."""
        ...


class WordEncoder(SpeechEncoder, Protocol):
    """A map from spoken and written words to unit vectors of one space."""

    def embed_text(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) unit vectors of n written words."""
        ...

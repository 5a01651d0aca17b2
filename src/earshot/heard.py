"""What is heard in a recording, as it is kept: word pieces with their times, and passages over them with vectors.

In and out: arrays, and the bytes of each that docs/format.md describes. Knows nothing of SQLite, encoders or sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Times = NDArray[np.float64]

_WORD = np.dtype([("end", "<f8"), ("token", "<u4")])
_PASSAGE = np.dtype([("first", "<u4"), ("last", "<u4"), ("start", "<f8"), ("end", "<f8")])
_VALUE = np.dtype("<f2")


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Word pieces (n,) of a recording in order, and the second (n,) at which each ends; and its passages (p,).

    Passage k is the word pieces from `first[k]` to before `last[k]`, and lasts from second `starts[k]` to `stops[k]`.
    vectors (p, dim) float16: unit norm.
    """

    tokens: Ints
    ends: Times
    first: Ints
    last: Ints
    starts: Times
    stops: Times
    vectors: NDArray[np.float16]


def pack(heard: Heard) -> tuple[bytes, bytes, bytes]:
    """The bytes of its words, of its passages, and of their vectors."""
    words, passages = np.zeros(len(heard.tokens), _WORD), np.zeros(len(heard.first), _PASSAGE)
    words["token"], words["end"] = heard.tokens, heard.ends
    for name, values in (("first", heard.first), ("last", heard.last), ("start", heard.starts), ("end", heard.stops)):
        passages[name] = values
    return words.tobytes(), passages.tobytes(), np.ascontiguousarray(heard.vectors, _VALUE).tobytes()


def unpack(words: bytes, passages: bytes, vectors: bytes, dim: int) -> Heard:
    """What `pack` made bytes of. ValueError where they do not go together."""
    told, cut = np.frombuffer(words, _WORD), np.frombuffer(passages, _PASSAGE)
    values: NDArray[Any] = np.frombuffer(vectors, _VALUE)
    if len(values) != len(cut) * dim or np.any(cut["last"] > len(told)) or np.any(cut["first"] >= cut["last"]):
        raise ValueError("passages that do not go with their words or vectors")
    first, last = (cut[name].astype(np.int64) for name in ("first", "last"))
    tokens = told["token"].astype(np.int64)
    return Heard(tokens, told["end"], first, last, cut["start"], cut["end"], values.reshape(-1, dim))

"""What is found as pydantic models, which HTTP and MCP answer with: rows of hits, passages and recordings.

In: values of `types`. Out: models whose texts UTF-8 can say. Knows nothing of either protocol.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from earshot.types import Seconds

Probability = Annotated[float, Field(ge=0, le=1, description="Chance that it is said there")]


class HitRow(BaseModel):
    """A place where a query is said."""

    recording: str
    start: Seconds
    end: Seconds
    score: Annotated[float, Field(description="Cosine between speech and query")]
    probability: Probability
    query: str


class BestRow(BaseModel):
    """The seconds of a passage that are most like the question, and their words."""

    start: Seconds
    end: Seconds
    text: str


class WordRow(BaseModel):
    """Where a word of the question seems to be said."""

    word: str
    start: Seconds
    end: Seconds
    probability: Probability


class PassageRow(BaseModel):
    """A passage that may answer a question."""

    recording: str
    start: Seconds
    end: Seconds
    score: Annotated[float, Field(description="Ranks the passages; it has no unit")]
    text: str
    heard: Annotated[bool, Field(description="True: the text is a machine's rough guess. False: it is a transcript")]
    best: BestRow
    words: list[WordRow]


class RecordingRow(BaseModel):
    """A recording in the library."""

    recording: str
    seconds: Seconds
    speech_seconds: Seconds


def printed(text: str) -> str:
    """Text without what UTF-8 cannot say, which is escaped: names of files may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()

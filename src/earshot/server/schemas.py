"""What goes over HTTP, as the OpenAPI document tells it: rows of recordings, hits, passages, and what is wrong.

In: values of `types`. Out: pydantic models. Knows nothing of requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from earshot import output, rows
from earshot.types import Hit, Passage, Recording

MOST_SECONDS = 1e7
"""No recording is longer: four months."""
Time = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False, description="Seconds from the start.")]
Id = Annotated[int, Field(ge=1, le=2**63 - 1, description="Of a recording, as /api/recordings lists it.")]
Text = Annotated[str, Field(max_length=1000)]


class Problem(BaseModel):
    """What is wrong, in one line."""

    detail: str


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


class StatusRow(BaseModel):
    """What the library holds. `answers`: whether /api/answer has an endpoint to send passages to; `hears`: whether
    they go there as sound, and questions may too."""

    recordings: int
    seconds: float
    speech_seconds: float
    answers: bool
    hears: bool


class Identified(BaseModel):
    """What is of a recording."""

    id: int


class RecordingRow(rows.RecordingRow, Identified):
    """A recording: its path as the server's folder sees it, and the file's name."""

    name: str

    @classmethod
    def of(cls, recording: Recording) -> RecordingRow:
        path, name = shown(recording.path), shown(os.path.basename(recording.path))
        seconds, speech_seconds = round(recording.seconds, 3), round(recording.speech_seconds, 3)
        return cls(id=recording.id, recording=path, name=name, seconds=seconds, speech_seconds=speech_seconds)


class HitRow(rows.HitRow, Identified):
    """A place where a query is said: seconds, cosine, and the chance that it is said there."""

    @classmethod
    def of_all(cls, hits: Sequence[Hit], query: str) -> list[HitRow]:
        """`query`: as it is shown."""
        pairs = zip(hits, output.hit_rows(hits), strict=True)
        return [cls(**_with_id(row, hit.recording) | {"query": query}) for hit, row in pairs]


class PassageRow(rows.PassageRow, Identified):
    """A passage that may answer a question; `heard`: by the machine, with errors, else as its transcript says."""

    @classmethod
    def of_all(cls, passages: Iterable[Passage]) -> list[PassageRow]:
        return [cls(**_with_id(output.passage_row(passage), passage.recording)) for passage in passages]


class PeaksRow(BaseModel):
    """The loudest sample of each of n equal parts of a stretch, from 0 to 1."""

    start: float
    end: float
    peaks: list[float]


class Uploaded(BaseModel):
    """A recording that was taken in and waits to be indexed: the name that it was given."""

    name: str


class FailureRow(BaseModel):
    """A recording that could not be indexed, and why."""

    name: str
    reason: str


class IndexingRow(BaseModel):
    """How far indexing is; `hearing`: in its second half, when passages are made, and the seconds begin anew."""

    running: bool
    seconds: float
    expected_seconds: float
    files: int
    expected_files: int
    hearing: bool
    failures: list[FailureRow]


class ExportedHit(BaseModel):
    """A hit as /api/find gave it."""

    model_config = ConfigDict(strict=True)

    id: Id
    start: Time
    end: Time
    query: Text
    probability: Annotated[float, Field(ge=0, le=1)]
    score: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0


class Export(BaseModel):
    """Hits as a file: a CSV table, subtitles (SRT; of several recordings in a zip), or their clips in a zip."""

    format: Literal["csv", "srt", "zip"]
    hits: Annotated[list[ExportedHit], Field(min_length=1, max_length=1000)]


def shown(path: str) -> str:
    """A path from the current folder, without the bytes that are not UTF-8: these are escaped."""
    return rows.printed(output.path_from_here(path))


def _with_id(row: dict[str, Any], recording: Recording) -> dict[str, Any]:
    return {"id": recording.id, **row, "recording": shown(recording.path)}

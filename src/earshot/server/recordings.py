"""Routes of the recordings: what is in, their sound whole and in parts, putting them in and taking them out.

In: ids, uploads. Out: rows, audio, peaks to draw a waveform of, how far indexing is. Knows nothing of searching.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from earshot import audio
from earshot.server.indexing import Indexing, name_of
from earshot.server.schemas import FailureRow, Id, IndexingRow, PeaksRow, RecordingRow, StatusRow, Time, Uploaded, shown
from earshot.server.searching import AUDIO_BODY, Within, event, named
from earshot.server.service import ALWAYS, EVENTS, Served, Service, at_once, in_turn, problems
from earshot.server.uploads import body_in_file, disk_errors, keep
from earshot.types import Clip, Seconds

router = APIRouter(prefix="/api", responses=ALWAYS)
LONGEST: Seconds = 600.0
"""Of a clip, and of a stretch whose waveform is drawn."""
OFTEN: Seconds = 0.25
"""How often an event tells of progress."""
# fmt: off
MEDIA = {
    ".wav": "audio/wav", ".wave": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".aac": "audio/aac",
    ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg", ".spx": "audio/ogg", ".weba": "audio/webm",
    ".m4a": "audio/mp4", ".m4b": "audio/mp4", ".aif": "audio/aiff", ".aiff": "audio/aiff", ".mka": "audio/x-matroska",
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".ogv": "video/ogg",
    ".mkv": "video/x-matroska", ".3gp": "video/3gpp",
}
"""What the endings that browsers play are; any other file is bytes, whatever it claims to be."""
# fmt: on
SOUND = {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The sound."}
NO_RANGE: dict[int | str, dict[str, Any]] = {
    400: {"description": "What is asked for is no range.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    416: {"description": "There is no such range."},
}
WAV = {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}, "description": "The sound."}


@router.get("/status", responses=problems(503))
async def status(service: Served) -> StatusRow:
    """What the library holds."""
    found = await run_in_threadpool(service.recordings)
    seconds, speech_seconds = sum(r.seconds for r in found), sum(r.speech_seconds for r in found)
    return StatusRow(
        recordings=len(found),
        seconds=round(seconds, 3),
        speech_seconds=round(speech_seconds, 3),
        answers=service.endpoint is not None,
        hears=service.endpoint is not None and service.endpoint.sends == "audio",
    )


@router.get("/recordings", responses=problems(422, 503))
async def recordings(service: Served, within: Within = None) -> list[RecordingRow]:
    """The recordings in the library, by path."""
    return [RecordingRow.of(recording) for recording in await run_in_threadpool(service.recordings, within or None)]


@router.head("/audio/{id}", include_in_schema=False)
@router.get(
    "/audio/{id}",
    responses={200: SOUND, 206: SOUND, **NO_RANGE, **problems(404, 422, 503)},
    response_class=FileResponse,
)
async def sound(id: Id, service: Served) -> FileResponse:
    """The file of a recording, whole or in ranges."""
    recording = await service.sound(id)
    media = MEDIA.get(os.path.splitext(recording.path)[1].lower(), "application/octet-stream")
    return FileResponse(recording.path, media_type=media)


@router.get("/clip/{id}", responses={200: WAV, **problems(400, 404, 422, 503)}, response_class=Response)
async def clip(request: Request, id: Id, service: Served, start: Time = 0.0, end: Time | None = None) -> Response:
    """A stretch of a recording, of 600 s at most: wav, 16 kHz, mono."""
    samples, _ = await _samples(request, service, id, start, end)
    return Response(await run_in_threadpool(audio.wav, samples), media_type="audio/wav")


@router.get("/peaks/{id}", responses=problems(400, 404, 422, 503))
async def peaks(
    request: Request,
    id: Id,
    service: Served,
    start: Time = 0.0,
    end: Time | None = None,
    n: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> PeaksRow:
    """The waveform of a stretch of a recording, of 600 s at most."""
    samples, end = await _samples(request, service, id, start, end)
    drawn = np.round(_peaks(samples, n).astype(np.float64), 4).tolist()
    return PeaksRow(start=start, end=round(end, 3), peaks=drawn)


async def _samples(
    request: Request, service: Service, id: int, start: Seconds, end: Seconds | None
) -> tuple[NDArray[np.float32], Seconds]:
    """(n,) samples of a stretch at 16 kHz, and where it ends."""
    recording = await service.sound(id)
    end = recording.seconds if end is None else min(end, recording.seconds)
    cut = Clip(recording.path, start, end)
    with named(cut, shown(recording.path)):
        return await in_turn(request, service.decoding, partial(audio.load, cut, max_seconds=LONGEST)), end


def _peaks(samples: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """(n,): the loudest of each of n equal parts."""
    first = np.arange(n) * len(samples) // n
    return np.minimum(np.maximum.reduceat(np.abs(samples), first), 1.0)


@router.post("/recordings", status_code=202, responses=problems(400, 408, 415, 422, 503, 507), openapi_extra=AUDIO_BODY)
async def upload(
    request: Request,
    service: Served,
    name: Annotated[str, Query(min_length=1, max_length=1000, description="What the file is called, as in talk.mp3.")],
) -> Uploaded:
    """Take a recording in, to be indexed in the background; /api/indexing tells how far that is."""
    with disk_errors():
        await run_in_threadpool(partial(service.uploads.mkdir, parents=True, exist_ok=True))
    busy = "too many recordings are being sent at once: send it again when they are in"
    async with at_once(service.sending, busy), body_in_file(request, service.uploads) as part:
        path = await in_turn(request, service.decoding, partial(keep, part, name))
    service.indexer.add(str(path), sent=True)
    return Uploaded(name=path.name)


@router.delete("/recordings/{id}", status_code=204, response_model=None, responses=problems(404, 422, 503))
async def remove(request: Request, id: Id, service: Served) -> None:
    """Take a recording out of the library. Its file stays, unless it was uploaded here: then it goes too."""
    recording = await service.recording(id)
    await in_turn(request, service.removing, partial(service.remove, recording))


@router.get("/indexing")
async def indexing(service: Served) -> IndexingRow:
    """How far the recordings are that were taken in."""
    return _row(service.indexer.tell())


@router.get(
    "/indexing/events",
    responses={200: EVENTS},
    response_class=StreamingResponse,
)
async def indexing_events(service: Served) -> StreamingResponse:
    """The same as events while it runs; the last one tells that it does not."""
    return StreamingResponse(_events(service), media_type="text/event-stream")


async def _events(service: Service) -> AsyncIterator[str]:
    told: Indexing | None = None
    while told is None or told.running:
        if told is not None:
            await anyio.sleep(OFTEN)
        if (state := service.indexer.tell()) != told:
            yield event(None, _row(state).model_dump())
            told = state


def _row(state: Indexing) -> IndexingRow:
    return IndexingRow(
        running=state.running,
        seconds=round(state.seconds, 3),
        expected_seconds=round(state.expected_seconds, 3),
        files=state.files,
        expected_files=state.expected_files,
        hearing=state.hearing,
        failures=[FailureRow(name=shown(name_of(f)), reason=shown(f.reason)) for f in state.failures],
    )

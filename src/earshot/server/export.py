"""The route that makes files of hits: a table, subtitles, their clips.

In: hits as /api/find gave them. Out: CSV, SRT, or a zip. Knows nothing of how a format is written.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from earshot import audio, output
from earshot.server.schemas import Export
from earshot.server.service import ALWAYS, Served, in_turn, problems
from earshot.server.uploads import disk_errors, file_name
from earshot.types import Clip, Hit, QueryError, Seconds

router = APIRouter(prefix="/api", responses=ALWAYS)
LONGEST: Seconds = 3600.0
"""Of all clips in a zip together."""
SLACK: Seconds = 0.1
"""A hit may end this much after its recording: times are rounded."""
FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A file.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("text/csv", "application/x-subrip", "application/zip")
        },
    }
}


@router.post("/export", responses={**FILES, **problems(400, 404, 408, 422, 503, 507)}, response_class=Response)
async def export(request: Request, service: Served, wanted: Export) -> Response:
    """Hits as a file to keep: CSV, SRT (of several recordings as a zip), or their clips as a zip."""
    get = service.sound if wanted.format == "zip" else service.recording
    known = {id: await get(id) for id in {hit.id for hit in wanted.hits}}
    hits = [Hit(known[h.id], h.start, h.end, h.score, h.probability, h.query) for h in wanted.hits]
    for hit in hits:
        if not hit.start < hit.end <= hit.recording.seconds + SLACK:
            raise QueryError(f"{hit.start:g} s to {hit.end:g} s: no stretch of recording {hit.recording.id}")
    if wanted.format == "csv" or (wanted.format == "srt" and len(known) == 1):
        media = "text/csv" if wanted.format == "csv" else "application/x-subrip"
        text = output.text_of(hits, wanted.format) + "\n"
        return Response(text.encode("utf-8", "backslashreplace"), headers=_named(wanted.format), media_type=media)
    if wanted.format == "zip" and sum(hit.end - hit.start for hit in hits) > LONGEST:
        raise QueryError(f"the clips are longer than {LONGEST:g} s together: export fewer")
    pack = _subtitles if wanted.format == "srt" else _clips
    with disk_errors():
        file = await in_turn(request, service.decoding, partial(_zipped, pack, hits))
    headers = _named("zip") | {"content-length": str(file.seek(0, os.SEEK_END))}
    return StreamingResponse(_pieces(file), headers=headers, media_type="application/zip")


def _named(suffix: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="hits.{suffix}"'}


def _zipped(pack: Callable[[zipfile.ZipFile, Sequence[Hit]], None], hits: Sequence[Hit]) -> BinaryIO:
    """A zip in a file that has no name and vanishes when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            pack(archive, hits)
    except BaseException:
        file.close()
        raise
    return file


def _subtitles(archive: zipfile.ZipFile, hits: Sequence[Hit]) -> None:
    """An SRT for each recording, called after it; those of the same name get numbers."""
    written: set[str] = set()
    for path in sorted({hit.recording.path for hit in hits}):
        name = stem = _stem(path)
        number = 1
        while name.casefold() in written:
            number += 1
            name = f"{stem}-{number}"
        written.add(name.casefold())
        text = output.text_of([hit for hit in hits if hit.recording.path == path], "srt") + "\n"
        archive.writestr(f"{name}.srt", text.encode("utf-8", "backslashreplace"))


def _clips(archive: zipfile.ZipFile, hits: Sequence[Hit]) -> None:
    """A wav for each hit, in the order given, called after its number, recording and time."""
    for number, hit in enumerate(hits, 1):
        sound = audio.wav(audio.load(Clip(hit.recording.path, hit.start, hit.end)))
        archive.writestr(f"{number:03d} {_stem(hit.recording.path)} {hit.start:.2f}-{hit.end:.2f}.wav", sound)


def _stem(path: str) -> str:
    """What files of a recording are called, on any system."""
    return os.path.splitext(file_name(os.path.basename(path)))[0]


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(1 << 16):
            yield piece

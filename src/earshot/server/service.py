"""What the routes share: the library, its writer, whose turn it is to search, and how bodies become files.

In: requests. Out: recordings by id, clips, files that are gone afterwards. Knows nothing of what is done with them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from anyio import CapacityLimiter
from fastapi import Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from earshot.api import Library
from earshot.database import DATABASE
from earshot.server.indexing import Indexer
from earshot.server.schemas import Problem, shown
from earshot.types import EarshotError, Passage, Recording, Seconds

if TYPE_CHECKING:
    from earshot.answer import Answer, Endpoint

T = TypeVar("T")
AT_ONCE = 1 << 20
"""Bytes of a body that are written to disk at a time."""
PATIENCE: Seconds = 5.0
"""How long taking out waits for what is being put in."""
GONE = 499
"""Status of a request whose client has left; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a request needs. Searches, decoders and answers take turns: others find threads then."""

    library: Library
    indexer: Indexer
    endpoint: Endpoint | None
    answer: Callable[[str, Sequence[Passage], Any], Iterator[str | Answer]] | None
    searching: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    answering: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))

    @property
    def uploads(self) -> Path:
        """Where recordings that are taken in are kept."""
        return self.library.path.absolute() / "recordings"

    def prepare(self) -> None:
        """Load the models and the library, so that the first search is quick, and go on with what was left undone."""
        for search in (self.library.find, self.library.ask):
            with suppress(EarshotError):  # whoever searches is told
                search("ready", top=1)
        if self.uploads.is_dir():
            self.indexer.add(str(self.uploads))

    def recordings(self, within: str | None = None) -> list[Recording]:
        """Those in the library; none where it is yet to be made."""
        return self.library.recordings(within) if (self.library.path / DATABASE).is_file() else []

    def remove(self, recording: Recording) -> None:
        """Take a recording out, and its file too where it was taken in here."""
        with self.indexer.paused(PATIENCE):
            self.library.remove(recording.path)
            if Path(recording.path).parent == self.uploads:
                Path(recording.path).unlink(missing_ok=True)

    async def recording(self, id: int) -> Recording:
        """404 where there is none."""
        recording = await run_in_threadpool(self.library.recording, id)
        if recording is None:
            raise HTTPException(404, f"no recording {id} in the library: it may have been replaced or removed")
        return recording


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


async def in_turn(request: Request, turn: CapacityLimiter, call: Callable[[], T]) -> T:
    """What a call in a thread returns, once it is its turn; nothing is done for a client that has left meanwhile."""
    async with turn:
        if await request.is_disconnected():
            raise HTTPException(GONE, "the client has left")
        return await run_in_threadpool(call)


@asynccontextmanager
async def body_in_file(request: Request, folder: Path | None = None) -> AsyncIterator[Path]:
    """The body of a request as a file, in a folder or where temporary files are; gone afterwards, if not moved away.

    400 for an empty body, 507 where the disk is full.
    """
    path: Path | None = None
    try:
        descriptor, name = await run_in_threadpool(tempfile.mkstemp, ".part", ".", folder)
        path = Path(name)
        with open(descriptor, "wb", buffering=0) as file:
            waiting = bytearray()
            async for chunk in request.stream():
                waiting += chunk
                if len(waiting) >= AT_ONCE:
                    await run_in_threadpool(_write, file.fileno(), waiting)
                    waiting = bytearray()
            await run_in_threadpool(_write, file.fileno(), waiting)
            if not file.tell():
                raise HTTPException(400, "the body is empty: send the bytes of an audio file")
        yield path
    except OSError as error:
        raise disk_error(error) from error
    finally:
        if path is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _write(descriptor: int, data: bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def disk_error(error: OSError) -> HTTPException:
    """What is wrong with the server's disk, in one line."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    told = "the server's disk is full" if full else f"the server cannot write it ({error.strerror})"
    return HTTPException(507, f"{told}: nothing was kept")


def file_of(recording: Recording) -> os.stat_result:
    """What a recording's file is like; 404 where it is gone or cannot be read."""
    try:
        with open(recording.path, "rb") as file:
            return os.fstat(file.fileno())
    except OSError as error:
        line = f"{shown(recording.path)}: cannot be read ({error.strerror}); put it back, or index it again"
        raise HTTPException(404, line) from error


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of an OpenAPI document: the statuses that a route may answer with, beside those that all may."""
    told = {
        400: "It cannot be searched for, or read as audio.",
        401: "Wrong token or none.",
        403: "From a page of another site.",
        404: "There is no such thing.",
        408: "The body comes too slowly.",
        413: "The body is too large.",
        415: "It is not audio.",
        421: "The server is not called that.",
        422: "A parameter is missing or wrong.",
        503: "There is no library, or it is busy or damaged.",
        507: "The server's disk is full.",
    }
    return {
        status: {"model": Problem, "description": told[status]} for status in sorted({401, 403, 413, 421, *statuses})
    }

"""What the routes share: the library, its writer, whose turn it is, and what may go wrong.

In: requests. Out: recordings by id, results of calls in their turn. Knows nothing of what is done with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from anyio import CapacityLimiter, WouldBlock
from fastapi import Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from earshot.api import Library
from earshot.database import DATABASE
from earshot.server.indexing import Indexer
from earshot.server.schemas import Problem
from earshot.server.uploads import sweep
from earshot.types import Answer, Clip, EarshotError, Passage, Recording, Seconds

if TYPE_CHECKING:
    from earshot.answer import Endpoint

T = TypeVar("T")
PATIENCE: Seconds = 5.0
"""How long taking out waits for what is being put in."""
STALE: Seconds = 2.0
"""How old what is searched may be while recordings are taken in."""
GONE = 499
"""Status of a request whose client has left; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a request needs. Searches, decoders and answers take turns: others find threads then."""

    library: Library
    indexer: Indexer
    endpoint: Endpoint | None
    searching: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    answering: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))
    removing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    sending: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))

    @property
    def uploads(self) -> Path:
        """Where recordings that are taken in are kept."""
        return self.library.uploads

    def prepare(self) -> None:
        """Load the models and the library, so that the first search is quick, and go on with what was left undone."""
        self.library.stale = STALE
        for search in (self.library.find, self.library.ask):
            with suppress(EarshotError):  # whoever searches is told
                search("ready", top=1)
        if self.uploads.is_dir():
            sweep(self.uploads)
            self.indexer.add(str(self.uploads))

    def recordings(self, within: str | None = None) -> list[Recording]:
        """Those in the library; none where it is yet to be made."""
        return self.library.recordings(within) if (self.library.path / DATABASE).is_file() else []

    def remove(self, recording: Recording) -> None:
        """Take a recording out."""
        with self.indexer.paused(PATIENCE):
            self.library.remove(recording.path)
            self.library.refresh()

    @contextmanager
    def answer(
        self, question: str | Clip, passages: Sequence[Passage]
    ) -> Iterator[asyncio.Queue[str | Answer | Exception]]:
        """An answer piece by piece, last all of it or what went wrong; it stops when nobody waits for it any more.

        There is an endpoint. Its thread is one of its own: a shutdown does not wait for what others may never say.
        """
        from earshot.answer import Stop, answer

        assert self.endpoint is not None
        loop, pieces, stop = asyncio.get_running_loop(), asyncio.Queue[str | Answer | Exception](), Stop()

        def work(endpoint: Endpoint) -> None:
            with suppress(RuntimeError):  # the loop has ended
                try:
                    for piece in answer(question, passages, endpoint, stop, self.library.file_of):
                        loop.call_soon_threadsafe(pieces.put_nowait, piece)
                except Exception as error:
                    loop.call_soon_threadsafe(pieces.put_nowait, error)

        Thread(target=work, args=(self.endpoint,), daemon=True).start()
        try:
            yield pieces
        finally:
            stop()

    async def recording(self, id: int) -> Recording:
        """404 where there is none."""
        recording = await run_in_threadpool(self.library.recording, id)
        if recording is None:
            raise HTTPException(404, f"no recording {id} in the library: it may have been replaced or removed")
        return recording

    async def sound(self, id: int) -> Recording:
        """The same, to listen to: 404 too where its file is gone, or no longer what was indexed."""
        recording = await self.recording(id)
        await run_in_threadpool(self.library.file_of, recording)
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
async def at_once(turn: CapacityLimiter, busy: str) -> AsyncIterator[None]:
    """A turn that nobody waits for: 503, with that line, where all are taken."""
    try:
        turn.acquire_nowait()
    except WouldBlock:
        raise HTTPException(503, busy, {"connection": "close"}) from None
    try:
        yield
    finally:
        turn.release()


def unexpected(error: Exception) -> str:
    """An error that nobody thought of, in one line for clients."""
    return f"unexpected {type(error).__name__}: the server's log shows where"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of an OpenAPI document: what may go wrong, by status."""
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


_PROBLEMS = {
    400: "It cannot be searched for, or read as audio.",
    401: "Wrong token or none.",
    403: "From a page of another site.",
    404: "There is no such thing.",
    408: "The body comes too slowly.",
    413: "The body is too large.",
    415: "It is not audio.",
    421: "The server is not called that.",
    422: "A parameter is missing or wrong.",
    503: "There is no library, or it is busy or damaged; or too much is sent at once.",
    507: "The server's disk is full.",
}
ALWAYS = problems(401, 403, 413, 421)
"""What may go wrong with any request: see `guard`."""
EVENTS: dict[str, Any] = {
    "description": "Events, as they happen; the data of each is JSON.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
        }
    },
}

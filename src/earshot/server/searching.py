"""Routes that search: find, ask, and an answer with its citations as it is written.

In: a word, a phrase or a question in the address, or the bytes of a spoken one. Out: hits and passages as JSON, best
first; events. Knows nothing of how they are found.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from earshot.server.schemas import HitRow, Id, PassageRow, Text, Time, shown
from earshot.server.service import ALWAYS, EVENTS, Served, Service, in_turn, problems, unexpected
from earshot.server.uploads import body_in_file
from earshot.types import Answer, Clip, EarshotError, Passage, QueryError

if TYPE_CHECKING:
    from earshot.answer import Endpoint

router = APIRouter(prefix="/api", responses=ALWAYS)
Top = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Threshold = Annotated[float, Query(ge=0, le=1, description="Only hits with at least this probability.")]
Within = Annotated[
    str | None, Query(max_length=1000, description="Only recordings whose path ends like this glob; or a folder.")
]
AUDIO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an audio file of any kind.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
EXAMPLE, QUESTION = "spoken example", "spoken question"
"""What sounds that were sent are called."""


@router.get("/find", responses=problems(400, 404, 422, 503))
async def find(
    request: Request,
    service: Served,
    q: Annotated[str | None, Query(max_length=1000, description="A word or phrase.")] = None,
    like: Annotated[
        Id | None, Query(description="In place of q: what sounds like a stretch of this recording.")
    ] = None,
    start: Annotated[Time | None, Query()] = None,
    end: Annotated[Time | None, Query()] = None,
    top: Top = 50,
    threshold: Threshold = 0.02,
    within: Within = None,
) -> list[HitRow]:
    """Places where a word or phrase is said, or what sounds like a stretch of a recording; best first."""
    if (q is None) == (like is None):
        raise QueryError("give q=WORD, or like=ID with start= and end=")
    if like is None:
        return await _found(request, service, q or "", q or "", top, threshold, within)
    recording = await service.sound(like)
    clip = Clip(recording.path, start, end)
    told = str(replace(clip, path=shown(recording.path)))
    return await _found(request, service, clip, told, top, threshold, within)


@router.post("/find", responses=problems(400, 408, 422, 503, 507), openapi_extra=AUDIO_BODY)
async def find_like(
    request: Request, service: Served, top: Top = 50, threshold: Threshold = 0.02, within: Within = None
) -> list[HitRow]:
    """Places that sound like the spoken example in the body; best first."""
    async with body_in_file(request) as path:
        return await _found(request, service, Clip(str(path)), EXAMPLE, top, threshold, within)


@router.get("/ask", responses=problems(400, 422, 503))
async def ask(request: Request, service: Served, q: Text, top: Top = 5, within: Within = None) -> list[PassageRow]:
    """Passages that may answer a question; best first."""
    return PassageRow.of_all(await _asked(request, service, q, top, within))


@router.post("/ask", responses=problems(400, 408, 422, 503, 507), openapi_extra=AUDIO_BODY)
async def ask_spoken(request: Request, service: Served, top: Top = 5, within: Within = None) -> list[PassageRow]:
    """Passages that may answer the spoken question in the body; best first."""
    async with body_in_file(request) as path:
        return PassageRow.of_all(await _asked(request, service, Clip(str(path)), top, within))


@router.get(
    "/answer",
    responses={200: EVENTS, **problems(400, 404, 422, 503)},
    response_class=StreamingResponse,
)
async def answer(request: Request, service: Served, q: Text, top: Top = 5, within: Within = None) -> StreamingResponse:
    """An answer from the passages, by the endpoint that the server was given.

    Events: `passages`, as /api/ask; `text`, pieces of the answer, a JSON string each; `answer`, all of it with its
    citations; or `error` with a detail.
    """
    _endpoint(service)
    passages = await _asked(request, service, q, top, within)
    return StreamingResponse(_answered(service, q, passages), media_type="text/event-stream")


@router.post(
    "/answer",
    responses={200: EVENTS, **problems(400, 404, 408, 422, 503, 507)},
    response_class=StreamingResponse,
    openapi_extra=AUDIO_BODY,
)
async def answer_spoken(request: Request, service: Served, top: Top = 5, within: Within = None) -> StreamingResponse:
    """An answer to the spoken question in the body, where the server's model hears (--send audio); events as of GET."""
    if _endpoint(service).sends != "audio":
        raise QueryError("the model reads, and cannot hear a spoken question: type it, or start with --send audio")
    async with AsyncExitStack() as kept:
        question = Clip(str(await kept.enter_async_context(body_in_file(request))))
        passages = await _asked(request, service, question, top, within)
        answered = _answered(service, question, passages, kept.pop_all())
        return StreamingResponse(answered, media_type="text/event-stream")


def _endpoint(service: Service) -> Endpoint:
    if service.endpoint is None:
        raise HTTPException(404, "no endpoint to answer with: start the server with --endpoint URL --model NAME")
    return service.endpoint


async def _answered(
    service: Service, question: str | Clip, passages: Sequence[Passage], kept: AsyncExitStack | None = None
) -> AsyncIterator[str]:
    """The events of an answer; what is `kept` for it is let go of at its end."""
    async with kept or AsyncExitStack(), aclosing(_events(service, question, passages)) as events:
        async for one in events:
            yield one


async def _events(service: Service, question: str | Clip, passages: Sequence[Passage]) -> AsyncGenerator[str]:
    rows = [row.model_dump() for row in PassageRow.of_all(passages)]
    yield event("passages", rows)
    try:
        async with service.answering:
            with service.answer(question, passages) as pieces:
                while isinstance(piece := await pieces.get(), str):
                    yield event("text", piece)
            if isinstance(piece, Exception):
                raise piece
            yield event("answer", _answer_row(piece))
    except EarshotError as error:
        yield event("error", {"detail": str(error)})
    except Exception as error:
        yield event("error", {"detail": unexpected(error)})
        raise


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "citations": [
            {
                "number": citation.number,
                "id": citation.recording.id,
                "recording": shown(citation.recording.path),
                "start": round(citation.start, 3),
                "end": round(citation.end, 3),
            }
            for citation in answer.citations
        ],
    }


@contextmanager
def named(query: str | Clip, told: str) -> Iterator[None]:
    """Errors of a clip tell what it is to the client, not which file it is here."""
    try:
        yield
    except EarshotError as error:
        if isinstance(query, str):
            raise
        line = str(error).removeprefix(f"{query}: ").removeprefix(f"{query.path}: ")
        raise type(error)(f"{told}: {line}") from error


def event(name: str | None, data: Any) -> str:
    """A server-sent event; JSON holds no line break."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


async def _found(
    request: Request,
    service: Service,
    query: str | Clip,
    told: str,
    top: int,
    threshold: float,
    within: str | None,
) -> list[HitRow]:
    call = partial(service.library.find, query, top=top, threshold=threshold, within=within or None)
    with named(query, told):
        hits = await in_turn(request, service.searching, call)
    await _check(service, within, bool(hits))
    return HitRow.of_all(hits, told)


async def _asked(
    request: Request, service: Service, question: str | Clip, top: int, within: str | None
) -> list[Passage]:
    with named(question, QUESTION):
        call = partial(service.library.ask, question, top=top, within=within or None)
        passages = await in_turn(request, service.searching, call)
    await _check(service, within, bool(passages))
    return passages


async def _check(service: Service, within: str | None, found: bool) -> None:
    """QueryError where nothing was found as there is nothing to search."""
    if within and not found and not await run_in_threadpool(service.recordings, within):
        raise QueryError(f"no recording has a path that matches {within!r}")

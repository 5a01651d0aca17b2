"""The application: routes, guard, page, and one line for whatever goes wrong.

In: a library. Out: an ASGI application. Knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from earshot.api import Library
from earshot.server import export, recordings, searching
from earshot.server.guard import LOOPBACK, Guard
from earshot.server.indexing import Indexer
from earshot.server.schemas import Health
from earshot.server.service import GONE, Service, unexpected
from earshot.types import EarshotError, GoneError, LibraryError

if TYPE_CHECKING:
    from earshot.answer import Endpoint

PAGE = Path(__file__).parent / "page"
LONGEST_RECORDING = 1 << 30
"""Bytes of a recording that is taken in."""


def create_app(
    library: Library,
    *,
    token: str | None = None,
    endpoint: Endpoint | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    max_upload: int = LONGEST_RECORDING,
) -> FastAPI:
    """The library as an ASGI application; `library` may be yet to be made, and stays open when the application stops.

    token: what every request but /healthz must show. endpoint: who writes answers. hosts: names that the server goes
    by, None for any. max_upload: bytes of a recording.
    """
    service = Service(library, Indexer(library), endpoint)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.prepare)
        yield
        await run_in_threadpool(service.indexer.stop)

    app = FastAPI(
        title="Earshot",
        version=_version(),
        description="Find what was said in recordings.",
        lifespan=lifespan,
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    app.add_middleware(Guard, token=token, hosts=None if hosts is None else frozenset(hosts), longest=max_upload)
    app.add_exception_handler(EarshotError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(ClientDisconnect, _forget)
    app.add_exception_handler(Exception, _apologise)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> Health:
        """Whether the server is there; needs no token."""
        return Health()

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    for part in (searching, recordings, export):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("earshot")


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, GoneError) else 503 if isinstance(error, LibraryError) else 400
    return JSONResponse({"detail": str(error)}, status)


async def _refuse_parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return JSONResponse({"detail": f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"}, 422)


async def _apologise(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": unexpected(error)}, 500)


async def _forget(_: Request, __: Exception) -> Response:
    """For a client that left in the middle of its body."""
    return Response(status_code=GONE)

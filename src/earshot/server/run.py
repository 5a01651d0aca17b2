"""Runs the application on an address until it is stopped.

In: a library, an address. Out: its address on standard output. Knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from earshot.api import Library
from earshot.server import guard
from earshot.server.app import create_app
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.answer import Endpoint

GRACE = 1
"""Seconds that answers on their way have when the server stops."""
CONNECTIONS = 400
"""At once; beyond these requests are answered with 503."""


def serve(
    library: Library, host: str, port: int, *, token: str | None = None, endpoint: Endpoint | None = None
) -> None:
    """Serve `library` until a signal comes. EarshotError where the address cannot be had, click.UsageError
    where strangers can reach it and there is no token. AnswerError where `endpoint` cannot be asked from here."""
    if endpoint is not None:
        from earshot.answer import require

        require()
    listener = _bound(host, port)
    with listener:
        address = listener.getsockname()
        open_to_others = not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        if open_to_others and token is None:
            raise click.UsageError(f"At {host} other machines can connect: name a secret with --token.")
        name = f"[{host}]" if ":" in host else host
        hosts = None if open_to_others else guard.LOOPBACK | {name.lower()}
        app = create_app(library, token=token, endpoint=endpoint, hosts=hosts)
        _Server(config(app), f"http://{name}:{address[1]}/").run(sockets=[listener])


def config(app: FastAPI) -> uvicorn.Config:
    """How the application is served: by connections that do not wait for ever, and with a log of errors only."""
    return uvicorn.Config(
        app,
        http=_Connection,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )


class _Connection(H11Protocol):
    """Hangs up on whoever says nothing whole, at first or after an answer, and on whoever does not take an answer."""

    _waits: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._waits, self._stuck):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()  # which may begin with the next request

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(guard.PATIENCE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _wait(self) -> None:
        """For a request after the last one."""
        if self._waits is not None:
            self._waits.cancel()
        self._waits = self.loop.call_later(guard.PATIENCE, self._hang_up, self.cycle)

    def _hang_up(self, last: RequestResponseCycle | None) -> None:
        if self.cycle is last:
            self.transport.abort()  # closing would wait until all that was written is taken


class _Server(uvicorn.Server):
    """Tells its address when it is ready."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo(f"Earshot is at {self._address}  (Ctrl-C stops it)")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what breaks off now is meant to
        await super().shutdown(sockets)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":  # else it would let two servers have one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            undo.pop_all()
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or "no such host"
        raise EarshotError(f"cannot listen at {host}:{port} ({told}): choose another --port or --host") from error
    return listener

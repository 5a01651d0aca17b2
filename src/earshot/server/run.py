"""Runs the application on an address until it is stopped.

In: a library, an address. Out: its address on standard output. Knows nothing of routes.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import uvicorn

from earshot.api import Library
from earshot.server.app import create_app
from earshot.server.guard import LOOPBACK
from earshot.types import EarshotError

if TYPE_CHECKING:
    from earshot.answer import Endpoint

GRACE = 3
"""Seconds that answers on their way have when the server stops."""


def serve(
    library: Library, host: str, port: int, *, token: str | None = None, endpoint: Endpoint | None = None
) -> None:
    """Serve `library` until a signal comes. EarshotError where the address cannot be had, click.UsageError
    where strangers can reach it and there is no token."""
    listener = _bound(host, port)
    with listener:
        address = listener.getsockname()
        open_to_others = not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        if open_to_others and token is None:
            raise click.UsageError(f"At {host} other machines can connect: name a secret with --token.")
        name = f"[{host}]" if ":" in host else host
        hosts = None if open_to_others else LOOPBACK | {name.lower()}
        app = create_app(library, token=token, endpoint=endpoint, hosts=hosts)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False)
        _Server(config, f"http://{name}:{address[1]}/").run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells its address when it is ready."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo(f"Earshot is at {self._address}  (Ctrl-C stops it)")


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

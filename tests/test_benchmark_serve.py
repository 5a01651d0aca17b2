"""The load on the server: every request that fails is counted, and no result comes from threads that died."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from benchmarks import serve

ROWS = [{"id": 1, "seconds": 60.0}]


@contextmanager
def stub(indexing: object, status: int, body: bytes, length: int | None = None) -> Iterator[int]:
    """A server that answers whatever is searched for with this; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/api/recordings": ROWS, "/api/indexing": indexing}
            told = json.dumps(known[self.path]).encode() if self.path in known else body
            self.send_response(200 if self.path in known else status)
            self.send_header("Content-Length", str(len(told) if self.path in known or length is None else length))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


FULL = {"expected_files": 9, "files": 0}


@pytest.mark.parametrize(
    ("status", "body", "length"),
    [(200, b"short", 500), (500, b"{}", None), (400, b"the server is broken", None), (200, b"", 1)],
)
def test_replies_that_are_wrong_or_break_off_are_errors(status: int, body: bytes, length: int | None) -> None:
    with stub(FULL, status, body, length) as port:
        load = serve.measure(port, os.getpid(), [Path(__file__)], 2, 0.9)
    assert len(load.errors) >= 2


def test_silent_examples_are_no_errors_and_other_searches_that_are_refused_are() -> None:
    with stub(FULL, 400, b'{"detail": "a@1-2: no speech in it"}') as port:
        load = serve.measure(port, os.getpid(), [Path(__file__)], 2, 0.9)
    asked = sum(len(load.waits[kind]) for kind in load.waits)
    assert len(load.errors) == asked - len(load.waits["example"]) and load.waits["example"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_there_is_no_result_where_a_thread_has_died() -> None:
    with stub({"detail": "broken"}, 200, b"[]") as port, pytest.raises(click.ClickException, match="1 of 4 threads"):
        serve.measure(port, os.getpid(), [Path(__file__)], 2, 0.9)

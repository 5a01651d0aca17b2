"""Who may ask what: the checks that every request passes before a route sees it, and the headers of every answer.

In: an ASGI application. Out: one that refuses other sites, strangers, and bodies that are too large or too slow, each
with a status and one line. Knows nothing of recordings.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earshot.types import Seconds

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What a server on loopback is called. A page elsewhere whose name is made to lead here has another Host."""
LONGEST_EXAMPLE = 32 << 20
LONGEST_BODY = 1 << 20
"""Bytes of a spoken example or question, and of any other body but a recording."""
PATIENCE: Seconds = 30.0
"""For the next request of a connection, for the next piece of a body, and for an answer to be taken."""
SLOWEST = 1000.0
"""Bytes a second that a body must bring in the mean, after PATIENCE."""
WAVEFORM_STYLE = "sha256-XGW/cX2BkTPWNNT3NdyASrPEWZfPnKdPJaJ2aN7R+v8="
"""The style sheet that the page's wavesurfer.js puts into its own shadow tree, at a height of 72 px."""
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{WAVEFORM_STYLE}'; img-src 'self' data: blob:;"
        " media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self' blob:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Middleware. `token`: what a client must show; `hosts`: names of the server, None for any; `longest`: bytes."""

    app: ASGIApp
    token: str | None
    hosts: frozenset[str] | None
    longest: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope, Headers(scope=scope))
        if answer is not None:
            await answer(scope, receive, send_guarded)
        else:
            await self.app(scope, self._measured(receive, self._limit(scope)), send_guarded)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """What to answer at once; None for a request that may go on."""
        path, host = scope["path"].removeprefix(scope.get("root_path", "")), headers.get("host", "").lower()
        if self.hosts is not None and _name(host) not in self.hosts:
            return _refused(421, "this server is not called that: open it by the address that it printed")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        foreign = site not in ("same-origin", "none") and path.startswith("/api/")
        if foreign or (origin is not None and origin.lower().partition("://")[2] != host):
            return _refused(403, "requests from pages of other sites are refused")
        if self.token is not None and path != "/healthz":
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if path == "/" else {}
            if "token" in query and _same(query["token"].encode(), self.token):
                return self._welcomed(scope, query)
            if "token" in query or not self._shown(headers, Request(scope).cookies.get(_cookie(scope), "")):
                if path == "/" and "text/html" in headers.get("accept", ""):
                    return HTMLResponse(_door("token" in query), 401, _DOOR_HEADERS)
                advice = "send `Authorization: Bearer TOKEN`, or open /?token=TOKEN once"
                return _refused(401, f"wrong token or none: {advice}", {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._limit(scope):
            return _too_large(self._limit(scope))
        return None

    def _welcomed(self, scope: Scope, query: dict[str, str]) -> Response:
        """To the page without the token, which is in a cookie from here on."""
        rest = urlencode({name: value for name, value in query.items() if name != "token"})
        answer = RedirectResponse(f"{scope.get('root_path', '')}/{'?' if rest else ''}{rest}", 303)
        value, secure = _digest(self.token or ""), scope.get("scheme") == "https"
        answer.set_cookie(_cookie(scope), value, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    def _shown(self, headers: Headers, cookie: str) -> bool:
        """Whether a request shows the token, or the cookie that stands for it."""
        assert self.token is not None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(shown.strip().encode("latin-1"), self.token)
        return _same(cookie.encode(), _digest(self.token))

    def _limit(self, scope: Scope) -> int:
        """Bytes that the body of a request may have."""
        if scope["path"].endswith("/api/recordings"):
            return self.longest
        heard = ("/api/find", "/api/ask", "/api/answer")
        return LONGEST_EXAMPLE if scope["path"].endswith(heard) else LONGEST_BODY

    def _measured(self, receive: Receive, limit: int) -> Receive:
        """`receive` that counts a body, and does not wait for ever for the rest of one."""
        size, more, began = 0, True, anyio.current_time()

        async def receive_measured() -> Message:
            nonlocal size, more
            if not more:  # the next message is that the client has gone
                return await receive()
            try:
                with anyio.fail_after(PATIENCE):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the rest of the body did not come: send it again", _CLOSE) from None
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            waited = anyio.current_time() - began
            if size > limit:
                raise HTTPException(413, _too_large_line(limit), _CLOSE)
            if more and waited > PATIENCE and size < SLOWEST * waited:
                raise HTTPException(408, "the body comes too slowly: send it again", _CLOSE)
            return message

        return receive_measured


_CLOSE = {"connection": "close"}
_DOOR_HEADERS = {
    "www-authenticate": "Bearer",
    "content-security-policy": HEADERS["content-security-policy"].replace("form-action 'none'", "form-action 'self'"),
}


def _door(wrong: bool) -> str:
    """The page for browsers that do not show the token. Style sheets are not for strangers either."""
    return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Earshot</title>
  <link rel="icon" href="data:,">
</head>
<body>
  <main>
    <h1>Earshot</h1>
    <p>{"That is not the token" if wrong else "This server wants a token"}: ask whoever started it.</p>
    <form>
      <label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
      <button>Open</button>
    </form>
  </main>
</body>
</html>
"""


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _cookie(scope: Scope) -> str:
    """The cookie's name: a browser sends those of one server to those at other ports too."""
    return f"earshot-{(scope.get('server') or ('', 0))[1]}"


def _digest(token: str) -> str:
    return hashlib.sha256(f"earshot {token}".encode()).hexdigest()


def _same(shown: bytes, wanted: str) -> bool:
    return hmac.compare_digest(shown, wanted.encode("utf-8", "surrogateescape"))


def _refused(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": line}, status, headers)


def _too_large(limit: int) -> Response:
    return _refused(413, _too_large_line(limit), _CLOSE)


def _too_large_line(limit: int) -> str:
    return f"larger than the {limit / 2**20:g} MiB that are taken here: send less, or index it on the command line"

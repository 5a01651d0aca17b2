"""The library in a browser and over HTTP: `create_app(library)` is an ASGI application; `earshot serve` runs it.

In: HTTP. Out: JSON, audio, the page. Knows nothing of the work: every request is a call of the Python interface.
"""

from earshot.server.app import create_app

__all__ = ["create_app"]

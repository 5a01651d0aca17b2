"""Keeps BLAS to one thread where Earshot has threads of its own, which its threads would only get in the way of.

In: nothing. Out: a context for `with`. Knows nothing of what is computed in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from threadpoolctl import threadpool_limits

_lock = Lock()
_users: list[threadpool_limits] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, BLAS starts no threads of its own. That holds for the whole process: the last to leave undoes it."""
    with _lock:
        _users.append(_users[0] if _users else threadpool_limits(1, "blas"))
    try:
        yield
    finally:
        with _lock:
            limits = _users.pop()
            if not _users:
                limits.restore_original_limits()

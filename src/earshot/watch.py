"""Index what appears: folders are looked at every few seconds, and what has stopped changing goes into a library.

In: a library, folders. Out: recordings as they go in, and what is wrong, once. Files that are deleted stay in the
library. Knows nothing of printing, and of indexing only the call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

from earshot import ingest
from earshot.api import Library, Paths
from earshot.library import Failure, Fingerprint, Store
from earshot.types import WATCH_EVERY, EarshotError, LibraryBusyError, Recording, Seconds

AT_ONCE = 16
"""Files that are indexed together; they are told when all of them are in."""
_Version = tuple[int, int, int]
"""Of a file: its size, when it was written, when anything else about it changed; zeros where it cannot be looked at."""


def watch(
    library: Library, folders: Paths, *, every: Seconds = WATCH_EVERY, stop: threading.Event | None = None
) -> Iterator[Recording | Failure]:
    """Look into `folders`, and all that is below them, until `stop` is set; yields what goes in and what is wrong.

    A file goes in when two looks, `every` seconds apart, see it the same, so what is still being written waits. One
    that fails is told once and tried again when it has changed. A folder that is gone is told once and watched for its
    return, and so is a library that another process writes to. Raises LibraryError where the library cannot be used.
    """
    stop = stop or threading.Event()
    watcher = Watcher(library, folders)
    while not stop.is_set():
        yield from watcher.look()
        stop.wait(every)


class Watcher:
    """What the looks into some folders have seen so far."""

    def __init__(self, library: Library, folders: Paths) -> None:
        listed = [folders] if isinstance(folders, str | os.PathLike) else folders
        self._folders = [os.path.abspath(folder) for folder in listed]
        self._library = library
        self._opened = False
        self._seen: dict[str, _Version] = {}
        self._done: dict[str, _Version] = {}
        self._told: set[Failure] = set()
        self._wrong: set[Failure] = set()

    def look(self) -> Iterator[Recording | Failure]:
        """Look once: index what was seen the same by the look before; yields as `watch`."""
        self._told, self._wrong = self._wrong, set()
        for folder in self._folders:
            if not os.path.isdir(folder):
                yield from self._once(Failure(folder, None, "the folder is gone; it is watched for its return"))
        found = ingest.find_files(folder for folder in self._folders if os.path.isdir(folder))
        for failure in found.failures:
            if os.path.lexists(failure.path):  # else it has vanished just now
                yield from self._once(failure)
        before, self._seen = self._seen, {path: _version(path) for path in found.files}
        self._done = {path: version for path, version in self._done.items() if path in self._seen}
        still = [path for path, version in self._seen.items() if before.get(path) == version != self._done.get(path)]
        try:
            if not self._opened:  # tells at once what is wrong with the library, and goes on where a run was stopped
                self._library.index([])
                self._opened = True
            new = self._new(still)
            for k in range(0, len(new), AT_ONCE):
                yield from self._index(new[k : k + AT_ONCE])
        except LibraryBusyError:
            busy = "another program is writing to the library; it is tried again until it is free"
            yield from self._once(Failure(str(self._library.path), None, busy))

    def _once(self, failure: Failure) -> Iterator[Failure]:
        """What is wrong, unless the look before this found it too."""
        self._wrong.add(failure)
        if failure not in self._told:
            yield failure

    def _new(self, paths: Sequence[str]) -> list[str]:
        """Those that are not in the library as they are now."""
        if not paths:
            return []
        with Store.open(self._library.path) as store:
            known = store.fingerprints()
        old = {path for path in paths if known.get(path) == Fingerprint(*self._seen[path][:2])}
        self._done.update({path: self._seen[path] for path in old})
        return [path for path in paths if path not in old]

    def _index(self, paths: Sequence[str]) -> Iterator[Recording | Failure]:
        there = [path for path in paths if os.path.lexists(path)]
        if not there:
            return
        try:
            report = self._library.index(there)
        except EarshotError:
            if any(map(os.path.lexists, there)):
                raise
            return  # all of them have vanished just now
        self._done.update({path: self._seen[path] for path in there if os.path.lexists(path)})
        yield from report.recordings
        for failure in report.failures:
            if os.path.lexists(failure.path):  # else it was taken away, perhaps with its disk: nothing is wrong with it
                yield failure


def _version(path: str) -> _Version:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns

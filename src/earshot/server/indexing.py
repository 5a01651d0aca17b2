"""One writer in the background: paths that wait -> `Library.index`, with its progress for whoever looks.

In: a library, paths. Out: how far it is. Knows nothing of HTTP.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Condition, Lock, Thread

from earshot.api import Library
from earshot.ingest import Progress, processors
from earshot.library import Failure
from earshot.types import EarshotError, LibraryBusyError, Seconds

RETRY: Seconds = 2.0
"""After which it is tried again to write to a library that another process is writing to."""
JOIN: Seconds = 20.0
"""How long a shutdown waits for the recording that is being stored."""
MOST = 100
"""Failures that are kept, the last."""
DAMAGED = ("not audio", "damaged", "cut off")
"""How reasons begin that are about what is in a file, and not about reading it."""
WORKERS = max(1, processors() // 2)
"""Threads; the other processors search."""
NICENESS = 10
"""By how much they stand back for those that search."""


class _Stopped(Exception):
    """The server shuts down; the next one goes on."""


@dataclass(frozen=True, slots=True)
class Indexing:
    """How far the indexer is; `failures` are the last of those since somebody last saw it idle."""

    running: bool = False
    seconds: Seconds = 0.0
    expected_seconds: Seconds = 0.0
    files: int = 0
    expected_files: int = 0
    hearing: bool = False
    failures: tuple[Failure, ...] = ()


class Indexer:
    """Indexes what is added, in a thread of its own that lives as long as there is something to do.

    Files that were just sent and turn out to be damaged are not kept: whoever sent one has it. Any other file that
    cannot be indexed stays where it is.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._waiting: list[str] = []
        self._sent: set[str] = set()
        self._worthless: list[str] = []
        self._state = Indexing()
        self._seen_idle = False
        self._news = Condition()  # held for what is above
        self._thread: Thread | None = None
        self._stopped = False
        self._writing = Lock()

    def tell(self) -> Indexing:
        """How far it is; whoever is told that it is idle has been told of its failures."""
        with self._news:
            self._seen_idle |= not self._state.running
            return replace(self._state, expected_files=self._state.expected_files + len(self._waiting))

    def add(self, path: str, *, sent: bool = False) -> None:
        """Index a file or folder as soon as those before it are done. `sent`: a file that was just taken in."""
        with self._news:
            if sent:
                self._sent.add(path)
            self._waiting.append(path)
            if self._thread is None and not self._stopped:
                unseen = () if self._seen_idle else self._state.failures  # a file may be done before the next has come
                self._state, self._seen_idle = Indexing(running=True, failures=unseen), False
                self._thread = Thread(target=self._work, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop soon; nothing that was finished is lost."""
        with self._news:
            self._stopped, thread = True, self._thread
            self._news.notify_all()
        if thread is not None:
            thread.join(JOIN)

    @contextmanager
    def paused(self, patience: Seconds) -> Iterator[None]:
        """Have the library to oneself to write to. LibraryBusyError where it is being indexed for longer than that."""
        if not self._writing.acquire(timeout=patience):
            raise LibraryBusyError("recordings are being indexed: try again when that is done")
        try:
            yield
        finally:
            self._writing.release()

    def _work(self) -> None:
        if sys.platform == "linux":  # where each thread has its own, which the threads that it starts take over
            os.nice(NICENESS)
        while True:
            with self._news:
                if self._stopped or not self._waiting:
                    self.library.refresh()
                    self._state, self._thread = replace(self._state, running=False), None
                    return
                paths, self._waiting = self._waiting, []
                self._state = Indexing(running=True, expected_files=len(paths), failures=self._state.failures)
            try:
                with self._writing:
                    self.library.index(paths, progress=self._note, workers=WORKERS)
                    if self._worthless:
                        self.library.remove(self._worthless)
                        self._worthless = []
            except _Stopped:
                pass
            except LibraryBusyError:
                with self._news:
                    self._waiting = paths + self._waiting
                    self._state = replace(self._state, expected_files=0)
                    self._news.wait_for(lambda: self._stopped, RETRY)
            except Exception as error:
                told = " ".join(str(error).split())
                reason = told if isinstance(error, EarshotError) else f"unexpected {type(error).__name__}: {told}"
                self._fail(Failure(path, None, reason) for path in paths)
            with self._news:
                self._sent.intersection_update(self._waiting)

    def _note(self, progress: Progress) -> None:
        with self._news:
            if self._stopped:
                raise _Stopped
            self._state = Indexing(
                True,
                progress.seconds,
                progress.expected_seconds,
                progress.files,
                progress.expected_files,
                progress.hearing,
                self._state.failures,
            )
        if progress.failure is not None:
            self._fail([progress.failure])
            if self._is_worthless(progress.failure):
                self._worthless.append(progress.failure.path)

    def _is_worthless(self, failure: Failure) -> bool:
        """Whether nothing is lost with the file: it is damaged, was just sent, and is not in the library."""
        with self._news:
            sent = failure.path in self._sent
        if not sent or not failure.reason.startswith(DAMAGED):
            return False
        return all(recording.path != failure.path for recording in self.library.recordings())

    def _fail(self, failures: Iterator[Failure] | list[Failure]) -> None:
        with self._news:
            self._state = replace(self._state, failures=(*self._state.failures, *failures)[-MOST:])


def name_of(failure: Failure) -> str:
    """The name of the file that failed."""
    return os.path.basename(failure.path)

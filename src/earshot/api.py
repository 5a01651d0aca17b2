"""Earshot for Python: a library that recordings are indexed into and searched in. The command line is a skin over it.

In: paths and queries. Out: reports and hits. Knows nothing of printing, and of indexing and searching only the calls.
"""

from __future__ import annotations

import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from earshot.library import EncoderIdentity, Failure, Store, Totals
from earshot.types import Clip, EarshotError, Hit, LibraryError, Recording

if TYPE_CHECKING:
    from earshot.encoders import WordEncoder
    from earshot.ingest import IndexReport, Progress
    from earshot.search import Searcher

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Status:
    """What a library holds.

    failures: files that are there and could not be indexed. vanished, changed: paths of recordings whose files are
    gone or out of reach, and of those whose files are not what they were when they were indexed.
    """

    encoder: EncoderIdentity
    totals: Totals
    failures: tuple[Failure, ...]
    vanished: tuple[str, ...]
    changed: tuple[str, ...]


def open(uri: str | os.PathLike[str], *, encoder: WordEncoder | None = None) -> Library:
    """The library in the folder `uri` (a path or a file:// address), there or yet to be made by `Library.index`.

    `encoder` takes the place of the word encoder that Earshot ships. LibraryError for any other kind of address, and
    for a file.
    """
    address = os.fspath(uri)
    scheme, found, _ = address.partition("://")
    if not address or (found and scheme != "file"):
        raise LibraryError(f"cannot keep a library at {address!r}: name a folder")
    if found:
        address = urllib.request.url2pathname(urllib.parse.urlsplit(address).path)
    if os.path.isfile(address):
        raise LibraryError(f"{address} is a file; a library is a folder of its own")
    return Library(Path(address), encoder)


class Library:
    """Recordings that can be searched. Nothing is opened or loaded before it is needed; threads may share one."""

    def __init__(self, path: Path, encoder: WordEncoder | None = None) -> None:
        self.path = path
        self._encoder = encoder
        self._searcher: Searcher | None = None
        self._turn = Lock()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files and the memory that searching holds."""
        with self._turn:
            if self._searcher is not None:
                self._searcher.store.close()
                self._searcher = None

    def index(
        self, paths: Paths, *, progress: Callable[[Progress], None] | None = None, workers: int | None = None
    ) -> IndexReport:
        """Bring recordings into the library: files, and folders with all that is below them, as `ingest.index`.

        The report names the files that failed. Raises EarshotError where none of the paths exists, LibraryError where
        the library cannot be made or written, or another process is writing to it.
        """
        from earshot import ingest

        paths = _listed(paths)
        if paths and not any(map(os.path.lexists, paths)):
            raise EarshotError(f"{paths[0]!r}: no such file or folder; check its name")
        encoder = self._load_encoder()
        with Store.create_or_open(self.path, _identity(encoder)) as store:
            return ingest.index(store, encoder, paths, progress=progress, workers=workers)

    def find(
        self, query: str | Clip, *, top: int | None = 20, threshold: float | None = None, within: str | None = None
    ) -> list[Hit]:
        """Places where `query`, a word or phrase or a spoken example, is said, best first.

        At most `top`; none with a probability below `threshold`; only in recordings whose path matches the glob
        `within`. Raises QueryError for what cannot be searched for, AudioError for a clip that cannot be read and
        LibraryError where there is no library, or another encoder wrote it.
        """
        with self._turn:
            if self._searcher is None:
                from earshot.search import Searcher

                encoder = self._load_encoder()
                self._searcher = Searcher(Store.open(self.path, encoder=_identity(encoder)), encoder)
            return self._searcher.find(query, top=top, threshold=threshold, within=within)

    def recordings(self, within: str | None = None) -> list[Recording]:
        """The recordings in the library, by path; only those whose path matches `within`, as for `find`."""
        from earshot.search import matches

        with Store.open(self.path) as store:
            found = [recording for recording in store.recordings() if within is None or matches(recording, within)]
        return sorted(found, key=lambda recording: recording.path)

    def remove(self, paths: Paths) -> list[str]:
        """Take recordings, and what is remembered of files that failed, out of the library; return their paths.

        A folder's path takes out all that is below it. The files themselves stay as they are.
        """
        named = [os.path.abspath(path) for path in _listed(paths) if path]
        with Store.open(self.path, writing=True) as store:
            held = [*store.fingerprints(), *(failure.path for failure in store.failures())]
            removed = sorted({path for path in held if any(_is_at(path, name) for name in named)})
            store.remove(removed)
        return removed

    def status(self) -> Status:
        """What the library holds, and how its recordings' files compare with what was indexed."""
        from earshot import ingest

        with Store.open(self.path) as store:
            identity, totals, known = store.encoder, store.totals(), store.fingerprints()
            failures = tuple(failure for failure in store.failures() if os.path.lexists(failure.path))
        vanished, changed = [], []
        for path, indexed in known.items():
            try:
                if ingest.fingerprint(path) != indexed:
                    changed.append(path)
            except OSError:
                vanished.append(path)
        return Status(identity, totals, failures, tuple(sorted(vanished)), tuple(sorted(changed)))

    def _load_encoder(self) -> WordEncoder:
        if self._encoder is None:
            from earshot import encoders

            self._encoder = encoders.load("word")
        return self._encoder


def _identity(encoder: WordEncoder) -> EncoderIdentity:
    from earshot.encoders.clock import FRAME_SECONDS

    return EncoderIdentity(encoder.name, encoder.digest, encoder.stored_dim, FRAME_SECONDS)


def _listed(paths: Paths) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _is_at(path: str, name: str) -> bool:
    return path == name or path.startswith(name.rstrip(os.sep) + os.sep)

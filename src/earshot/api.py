"""Earshot for Python: a library that recordings are indexed into and searched in. The command line is a skin over it.

In: paths and queries. Out: reports and hits. Knows nothing of printing, and of indexing and searching only the calls.
"""

from __future__ import annotations

import os
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from earshot.database import DATABASE
from earshot.library import EncoderIdentity, Failure, Store, Totals
from earshot.types import Clip, EarshotError, GoneError, Hit, LibraryError, Passage, Recording, Seconds

if TYPE_CHECKING:
    from earshot.ask import Asker
    from earshot.encoders import PassageEncoder, WordEncoder
    from earshot.ingest import IndexReport, Progress
    from earshot.search import Searcher

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
UPLOADS = "recordings"
"""Where in a library those lie that were sent to a server."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a library holds.

    unheard: recordings that cannot be asked questions yet, as `index` was stopped before it heard them.
    failures: files that are there and could not be indexed. vanished, changed: paths of recordings whose files are
    gone or out of reach, and of those whose files are not what they were when they were indexed.
    """

    encoder: EncoderIdentity
    totals: Totals
    unheard: int
    failures: tuple[Failure, ...]
    vanished: tuple[str, ...]
    changed: tuple[str, ...]


def open(
    uri: str | os.PathLike[str], *, encoder: WordEncoder | None = None, passages: PassageEncoder | None = None
) -> Library:
    """The library in the folder `uri` (a path or a file:// address), there or yet to be made by `Library.index`.

    `encoder` takes the place of the word encoder that Earshot ships, `passages` of its passage encoder; with another
    word encoder and no `passages` that read its frames nothing can be asked. LibraryError for any other kind of
    address, and for a file.
    """
    address = os.fspath(uri)
    scheme, found, _ = address.partition("://")
    if not address or (found and scheme != "file"):
        raise LibraryError(f"cannot keep a library at {address!r}: name a folder")
    if found:
        address = urllib.request.url2pathname(urllib.parse.urlsplit(address).path)
    if os.path.isfile(address):
        raise LibraryError(f"{address} is a file; a library is a folder of its own")
    return Library(Path(address), encoder, passages)


class Library:
    """Recordings that can be searched. Nothing is opened or loaded before it is needed; threads may share one."""

    def __init__(self, path: Path, encoder: WordEncoder | None = None, passages: PassageEncoder | None = None) -> None:
        self.path = path
        self._encoder = encoder
        self._passages = passages
        self.stale: Seconds = 0.0
        """How old what is searched may be while others write to the library: to look for changes takes time."""
        self._searcher: Searcher | None = None
        self._asker: Asker | None = None
        self._turn = Lock()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files and the memory that searching holds."""
        with self._turn:
            if self._searcher is not None:
                self._searcher.close()
            self._searcher = self._asker = None

    def refresh(self) -> None:
        """Have the next search see all that is in the library, however `stale` it may be."""
        if (searcher := self._searcher) is not None:
            searcher.refresh()

    def index(
        self,
        paths: Paths,
        *,
        transcripts: str | os.PathLike[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        workers: int | None = None,
    ) -> IndexReport:
        """Bring recordings into the library: files, and folders with all that is below them, as `ingest.index`.

        Then passages are made of what has none. `transcripts`: a folder with SRT, WebVTT or Whisper's JSON files, each
        called after its recording; questions are also compared with what they say. The report names the files that
        failed. Raises EarshotError where none of the paths exists or there is no folder of transcripts, LibraryError
        where the library cannot be made or written, or another process is writing to it.
        """
        from earshot import hear, ingest
        from earshot.ingest import Progress

        began = time.monotonic()
        paths = _listed(paths)
        if paths and not any(map(os.path.lexists, paths)):
            raise EarshotError(f"{paths[0]!r}: no such file or folder; check its name")
        encoder, passages = self._load_encoder(), self._load_passages()
        if transcripts is not None and passages is None:
            raise EarshotError("transcripts need a passage encoder, and there is none for this word encoder")
        with Store.create_or_open(self.path, _identity(encoder)) as store:
            report = ingest.index(store, encoder, paths, progress=progress, workers=workers)
            if passages is None:
                return report
            if transcripts is not None:
                report = replace(report, transcripts=hear.import_transcripts(store, passages, Path(transcripts)))
                for failure in report.transcripts.failures:
                    if progress:
                        progress(Progress(0.0, 0.0, 0, 0, failure, hearing=True))
            hear.hear(store, passages, workers or ingest.processors(), progress=progress)
        return replace(report, elapsed=time.monotonic() - began)

    def find(
        self, query: str | Clip, *, top: int | None = 20, threshold: float | None = None, within: str | None = None
    ) -> list[Hit]:
        """Places where `query`, a word or phrase or a spoken example, is said, best first.

        At most `top`; none with a probability below `threshold`; only in recordings whose path matches the glob
        `within`. Raises QueryError for what cannot be searched for, AudioError for a clip that cannot be read and
        LibraryError where there is no library, or another encoder wrote it.
        """
        with self._turn:
            searcher = self._open_searcher()
        return searcher.find(query, top=top, threshold=threshold, within=within)

    def ask(self, question: str | Clip, *, top: int | None = 10, within: str | None = None) -> list[Passage]:
        """Passages that may answer a question, typed or spoken, best first; `top` and `within` as for `find`.

        Raises QueryError for what is no question, AudioError for a clip that cannot be read and LibraryError where
        there is no library, or none that can be asked.
        """
        with self._turn:
            searcher = self._open_searcher()
            if self._asker is None:
                from earshot.ask import Asker

                passages = self._load_passages()
                if passages is None:
                    raise LibraryError("nothing can be asked: there is no passage encoder for this word encoder")
                self._asker = Asker(passages, searcher)
            asker = self._asker
        return asker.ask(question, top=top, within=within)

    def recordings(self, within: str | None = None) -> list[Recording]:
        """The recordings in the library, by path; only those whose path matches `within`, as for `find`."""
        from earshot.search import matches

        with Store.open(self.path) as store:
            found = [recording for recording in store.recordings() if within is None or matches(recording, within)]
        return sorted(found, key=lambda recording: recording.path)

    def recording(self, id: int) -> Recording | None:
        """The recording with this id; None where the library, or there being none, holds none."""
        if not (self.path / DATABASE).is_file():
            return None
        with Store.open(self.path) as store:
            return next(iter(store.recordings([id])), None)

    def file_of(self, recording: Recording) -> str:
        """Path of the file of a recording. GoneError where it cannot be read, or is no longer what was indexed."""
        from earshot import ingest

        path = recording.path
        name = path if path.isprintable() else repr(path)
        with Store.open(self.path) as store:
            indexed = store.fingerprints([recording.id]).get(path)
        try:
            if ingest.fingerprint(path) != indexed:
                raise GoneError(f"{name}: has changed since it was indexed; run `earshot index` again")
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            raise GoneError(f"{name}: cannot be read ({error.strerror}); put it back, or index it again") from error
        return path

    @property
    def uploads(self) -> Path:
        """The folder of recordings that were sent to `earshot serve`: the library's own, deleted when removed."""
        return Path(os.path.abspath(self.path), UPLOADS)

    def remove(self, paths: Paths) -> list[str]:
        """Take recordings, and what is remembered of files that failed, out of the library; return their paths.

        A folder's path takes out all that is below it. The files themselves stay as they are, but for `uploads`.
        """
        named = [os.path.abspath(path) for path in _listed(paths) if path]
        with Store.open(self.path, writing=True) as store:
            held = [*store.fingerprints(), *(failure.path for failure in store.failures())]
            removed = sorted({path for path in held if any(_is_at(path, name) for name in named)})
            for path in map(Path, removed):
                if path.parent == self.uploads:
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as error:
                        raise LibraryError(f"{path}: cannot be deleted ({error.strerror})") from error
            store.remove(removed)
        return removed

    def remove_transcripts(self, paths: Paths) -> int:
        """Forget the transcripts of recordings, by their paths or those of folders; how many there were."""
        named = [os.path.abspath(path) for path in _listed(paths) if path]
        with Store.open(self.path, writing=True) as store:
            return store.remove_transcripts(
                recording.path
                for recording in store.recordings()
                if any(_is_at(recording.path, name) for name in named)
            )

    def status(self) -> Status:
        """What the library holds, and how its recordings' files compare with what was indexed."""
        from earshot import ingest

        with Store.open(self.path) as store:
            identity, totals, known = store.encoder, store.totals(), store.fingerprints()
            unheard = len(store.without_passages()) if store.passage_encoder() or _is_shipped(identity) else 0
            failures = tuple(failure for failure in store.failures() if os.path.lexists(failure.path))
        vanished, changed = [], []
        for path, indexed in known.items():
            try:
                if ingest.fingerprint(path) != indexed:
                    changed.append(path)
            except OSError:
                vanished.append(path)
        return Status(identity, totals, unheard, failures, tuple(sorted(vanished)), tuple(sorted(changed)))

    def _open_searcher(self) -> Searcher:
        if self._searcher is None:
            from earshot.search import Searcher

            encoder = self._load_encoder()
            self._searcher = Searcher(Store.open(self.path, encoder=_identity(encoder)), encoder)
        self._searcher.stale = self.stale  # it may have been set meanwhile
        return self._searcher

    def _load_encoder(self) -> WordEncoder:
        if self._encoder is None:
            from earshot import encoders

            self._encoder = encoders.load("word")
        return self._encoder

    def _load_passages(self) -> PassageEncoder | None:
        """The passage encoder; None where none reads the frames of a word encoder that somebody brought."""
        if self._passages is None and _is_shipped(self._load_encoder()):
            from earshot import encoders

            self._passages = encoders.load("passage")
        return self._passages


def _identity(encoder: WordEncoder) -> EncoderIdentity:
    from earshot.encoders.clock import FRAME_SECONDS

    return EncoderIdentity(encoder.name, encoder.digest, encoder.stored_dim, FRAME_SECONDS)


def _is_shipped(word: WordEncoder | EncoderIdentity) -> bool:
    """Whether it is the word encoder whose frames the passage encoder that Earshot ships reads."""
    from earshot import encoders

    return word.digest == encoders.load("word").digest


def _listed(paths: Paths) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _is_at(path: str, name: str) -> bool:
    return path == name or path.startswith(name.rstrip(os.sep) + os.sep)

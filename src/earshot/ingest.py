"""The write path: files and folders -> speech -> frame vectors -> the library, each recording in one transaction.

In: a store open for writing, an encoder, paths. Out: a report; a file that fails is remembered and the rest goes on.
Knows nothing of printing, of how speech is found or of what a vector means.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earshot import audio, blas, speech
from earshot.features import HOP, SAMPLE_RATE, Floats
from earshot.library import Failure, Fingerprint, Store, Stretch
from earshot.types import AudioError, EncoderError, Recording, Seconds

BATCH_FRAMES = 12_000
"""Feature frames that are encoded at a time, whichever recordings they are of: two minutes of speech."""
_PATIENCE: Seconds = 2.0  # how long a thread without work waits for another stretch before it encodes half a batch
_PROBED = 200  # files whose headers are read to estimate how much audio there is


class FrameEncoder(Protocol):
    """What indexing needs of an encoder."""

    def frames(self, mels: Sequence[Floats]) -> Sequence[NDArray[np.int8]]:
        """Frames (m, dim) of each stretch, given its raw log-mels (n, N_MELS). Called by several threads at once."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """Absolute paths of files to index; what is not there or may not be looked into; folders without audio files."""

    files: tuple[str, ...]
    failures: tuple[Failure, ...]
    empty_folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `expected_seconds` is an estimate; `failure` is there when a file has just failed.

    `hearing`: of its second half, when passages are made from what the first half stored.
    """

    seconds: Seconds
    expected_seconds: Seconds
    files: int
    expected_files: int
    failure: Failure | None = None
    hearing: bool = False


@dataclass(frozen=True, slots=True)
class Transcripts:
    """Of a folder of transcripts how many went to recordings, those that could not be used, and those of none."""

    used: int = 0
    failures: tuple[Failure, ...] = ()
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run did: the recordings that went in, how many were in already, and so on; `elapsed` is its wall time."""

    recordings: tuple[Recording, ...]
    unchanged: int
    failures: tuple[Failure, ...]
    empty_folders: tuple[str, ...]
    elapsed: Seconds
    transcripts: Transcripts = Transcripts()

    @property
    def seconds(self) -> Seconds:
        return sum(recording.seconds for recording in self.recordings)

    @property
    def speech_seconds(self) -> Seconds:
        return sum(recording.speech_seconds for recording in self.recordings)


def index(
    store: Store,
    encoder: FrameEncoder,
    paths: Iterable[str | os.PathLike[str]],
    *,
    progress: Callable[[Progress], None] | None = None,
    workers: int | None = None,
) -> IndexReport:
    """Bring the recordings at `paths`, folders with all that is below them, into the store.

    A file whose size and modification time are those of its last run is left alone; a changed one is replaced.
    `workers`: threads, one for each processor unless told. `progress` is called by the calling thread.
    Raises LibraryError (a full disk) and EncoderError; these and KeyboardInterrupt lose no recording that was finished.
    """
    began = time.monotonic()
    found = find_files(paths)
    jobs, missed = _jobs(found.files, store.fingerprints())
    unchanged = len(found.files) - len(jobs) - len(missed)
    failures: list[Failure] = []
    recordings: list[Recording] = []
    expected = _expected_seconds(jobs) if progress else 0.0
    n_files = len(jobs) + len(found.failures) + len(missed)
    # Every thread of a crew keeps a processor busy: threads of BLAS below them would only get in their way.
    with blas.one_thread(), _Crew(encoder, jobs, workers or processors()) as crew:

        def tell(failure: Failure | None = None) -> None:
            if failure is not None:
                failures.append(failure)
            if progress:
                done = len(recordings) + len(failures)
                progress(Progress(crew.seconds, max(expected, crew.seconds), done, n_files, failure))

        for failure in missed:
            store.add_failure(failure)
        for failure in (*found.failures, *missed):
            tell(failure)
        for job in crew.finished():
            if job is None:
                tell()
            elif job.reason is not None:
                failure = Failure(job.path, job.fingerprint, job.reason)
                if os.path.lexists(job.path):  # of a file that has vanished there is nothing to remember
                    store.add_failure(failure)
                tell(failure)
            else:
                stretches = [stretch for stretch in job.stretches if stretch is not None]
                seconds = job.n_samples / SAMPLE_RATE
                speech_seconds = min(job.n_frames * HOP / SAMPLE_RATE, seconds)
                recordings.append(store.add(job.path, job.fingerprint, seconds, speech_seconds, stretches))
                tell()
    elapsed = time.monotonic() - began
    return IndexReport(tuple(recordings), unchanged, tuple(failures), found.empty_folders, elapsed)


def find_files(paths: Iterable[str | os.PathLike[str]]) -> Found:
    """The files at `paths`, once each: those named, whatever they are, and those below folders that look like audio.

    Hidden files and folders are passed over unless named. Links are followed to folders that are not below `paths`,
    once to each, and not to one that they are in.
    """
    files: dict[str, None] = {}
    failures: list[Failure] = []
    empty: list[str] = []
    walk = _Walk(failures)
    for path in [os.fspath(path) for path in paths]:
        if os.path.isdir(path):
            failed, linked = len(failures), len(walk.links)
            seen = walk.has_seen(path)
            below = list(walk.audio_files(os.path.abspath(path)))
            files.update(dict.fromkeys(below))
            if not (below or seen) and (len(failures), len(walk.links)) == (failed, linked):
                empty.append(os.path.abspath(path))
        elif os.path.lexists(path):
            files[os.path.abspath(path)] = None
        else:
            failures.append(Failure(path, None, "no such file or folder; check its name"))
    for link in walk.links:  # grows meanwhile
        files.update(dict.fromkeys(walk.audio_files(link)))
    return Found(tuple(files), tuple(failures), tuple(empty))


class _Walk:
    """Walks through folders, each once however it is reached; links to others wait until the rest is done."""

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = failures
        self.links: list[str] = []
        self._visited: set[tuple[int, int]] = set()

    def has_seen(self, folder: str) -> bool:
        """Whether its files are among those that were found."""
        status = os.stat(folder)
        return (status.st_dev, status.st_ino) in self._visited

    def audio_files(self, folder: str) -> Iterator[str]:
        """Paths of the audio files below."""
        for path, subfolders, names in os.walk(folder, onerror=self._refused):
            try:
                status = os.stat(path)
            except OSError as error:  # it has vanished meanwhile
                self._refused(error)
                subfolders.clear()
                continue
            if (status.st_dev, status.st_ino) in self._visited:
                subfolders.clear()
                continue
            self._visited.add((status.st_dev, status.st_ino))
            below = [os.path.join(path, name) for name in sorted(subfolders) if not name.startswith(".")]
            self.links += [link for link in below if os.path.islink(link) and not _leads_up(link)]
            subfolders[:] = [os.path.basename(name) for name in below]
            for name in sorted(names):
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in audio.SUFFIXES:
                    yield os.path.join(path, name)

    def _refused(self, error: OSError) -> None:
        advice = "allow it, as with chmod +rx" if isinstance(error, PermissionError) else "check the path and the disk"
        self.failures.append(Failure(str(error.filename), None, f"cannot be listed ({error.strerror}); {advice}"))


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it is in itself."""
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, here]) == target


def fingerprint(path: str) -> Fingerprint:
    """What the file at `path` is like now. OSError where it cannot be looked at."""
    status = os.stat(path)
    return Fingerprint(status.st_size, status.st_mtime_ns)


@dataclass(slots=True, eq=False)
class _Job:
    """A file on its way. `stretches` is in order, None where not encoded yet; `open` counts these and the reading."""

    path: str
    fingerprint: Fingerprint
    n_samples: int = 0
    n_frames: int = 0
    stretches: list[Stretch | None] = field(default_factory=list)
    open: int = 1
    reason: str | None = None


def _jobs(files: Sequence[str], known: dict[str, Fingerprint]) -> tuple[list[_Job], list[Failure]]:
    """The files that are new or have changed, and those that cannot even be looked at."""
    jobs: list[_Job] = []
    missed: list[Failure] = []
    for path in files:
        try:
            seen = fingerprint(path)
        except OSError as error:
            missed.append(Failure(path, None, f"cannot be opened ({error.strerror}); check the path and the disk"))
        else:
            if known.get(path) != seen:
                jobs.append(_Job(path, seen))
    return jobs, missed


class _Stopped(Exception):
    """The run is over before its files are."""


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A stretch that waits to be encoded: number `number` of its recording."""

    job: _Job
    number: int
    stretch: speech.SpeechStretch


class _Crew:
    """Threads that read recordings and encode their speech, as long as the `with` block lasts.

    Each reads one recording after another and piles up its stretches. Where the pile is high, whoever adds to it
    encodes a batch first; whoever has nothing left to read only encodes. So a folder of short recordings is encoded
    in full batches, a single long one by all threads, and neither fills the memory.
    """

    def __init__(self, encoder: FrameEncoder, jobs: Sequence[_Job], workers: int) -> None:
        self.seconds: Seconds = 0.0  # read so far
        self._encoder = encoder
        self._unread = deque(jobs)
        self._unfinished = len(jobs)
        self._readers = workers if jobs else 0
        self._highest = (1 + workers) * BATCH_FRAMES
        self._pile: deque[_Piece] = deque()
        self._height = 0  # feature frames in the pile
        self._stopped = False
        self._turn = threading.Condition()  # held for whatever is above and for the jobs
        self._news: queue.SimpleQueue[_Job | BaseException | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._readers)]

    def __enter__(self) -> _Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
        for thread in self._threads:
            thread.join()

    def finished(self) -> Iterator[_Job | None]:
        """Each job when it is encoded or has failed, and None now and then, when more has been read."""
        while self._unfinished:
            news = self._news.get()
            if isinstance(news, BaseException):
                raise news
            self._unfinished -= news is not None
            yield news

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._read(job)
            while batch := self._take(wait=True):
                self._encode(batch)
        except _Stopped:
            pass
        except BaseException as error:  # the thread that stores raises it
            self._news.put(error)

    def _next(self) -> _Job | None:
        with self._turn:
            if self._unread:
                return self._unread.popleft()
            self._readers -= 1
            self._turn.notify_all()
            return None

    def _read(self, job: _Job) -> None:
        try:
            for stretch in speech.stretches(self._blocks(job)):
                if job.reason is not None:  # encoding it has failed
                    return
                with self._turn:
                    self._pile.append(_Piece(job, len(job.stretches), stretch))
                    self._height += len(stretch.mel)
                    job.n_frames += len(stretch.mel)
                    job.stretches.append(None)
                    job.open += 1
                    self._turn.notify()
                while batch := self._take(wait=False):
                    self._encode(batch)
            self._close(job)
        except (_Stopped, EncoderError):
            raise
        except Exception as error:
            self._fail(job, error)

    def _blocks(self, job: _Job) -> Iterator[Floats]:
        for block in audio.stream(job.path):
            with self._turn:
                if self._stopped:
                    raise _Stopped
                job.n_samples += len(block)
                self.seconds += len(block) / SAMPLE_RATE
            self._news.put(None)
            yield block

    def _take(self, *, wait: bool) -> list[_Piece]:
        """Pieces to encode now: about a batch, at the end what is left. Without `wait` only where the pile is high."""
        with self._turn:
            while wait and self._readers and self._height < BATCH_FRAMES and not self._stopped:
                if not self._turn.wait(_PATIENCE) and self._pile:
                    break
            if self._stopped:
                raise _Stopped
            batch: list[_Piece] = []
            room = BATCH_FRAMES if wait or self._height > self._highest else 0
            while self._pile and room > 0:
                batch.append(self._pile.popleft())
                self._height -= len(batch[-1].stretch.mel)
                room -= len(batch[-1].stretch.mel)
            return batch

    def _encode(self, batch: Sequence[_Piece]) -> None:
        try:
            frames = self._encoder.frames([piece.stretch.mel for piece in batch])
        except EncoderError:
            raise
        except Exception as error:
            jobs = {id(piece.job): piece.job for piece in batch}
            for job in jobs.values():
                if len(jobs) == 1:
                    self._fail(job, error)
                else:  # find out whose it was
                    self._encode([piece for piece in batch if piece.job is job])
            return
        for piece, vectors in zip(batch, frames, strict=True):
            piece.job.stretches[piece.number] = Stretch(piece.stretch.start, vectors)
            self._close(piece.job)

    def _close(self, job: _Job) -> None:
        with self._turn:
            job.open -= 1
            if not job.open and job.reason is None:
                self._news.put(job)

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._turn:
            if job.reason is None:
                job.reason = _reason(error, job.path)
                self._news.put(job)


def _reason(error: Exception, path: str) -> str:
    """Why a file failed, in one line without its name; with the type of an error that nobody thought of."""
    if isinstance(error, AudioError):
        return str(error).removeprefix(f"{path}: ").removeprefix(f"{path!r}: ")
    told = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{told and ': '}{told}; please report it, with the file if you can"


def _expected_seconds(jobs: Sequence[_Job]) -> Seconds:
    """About how much audio the files hold, by their headers; of many files some stand for all."""
    probed = jobs[:: -(-len(jobs) // _PROBED) or 1]
    known = [(seconds, job.fingerprint.size) for job in probed if (seconds := _stated_seconds(job.path))]
    if not known:
        return 0.0
    seconds, size = map(sum, zip(*known, strict=True))
    return seconds if len(probed) == len(jobs) else seconds * sum(job.fingerprint.size for job in jobs) / max(size, 1)


def _stated_seconds(path: str) -> Seconds:
    """A recording's length by its header, which may be wrong; 0 where it says nothing."""
    import av

    if not os.path.isfile(path):
        return 0.0
    try:
        options = {"protocol_whitelist": "file", "probesize": "32768"}  # the smaller, the faster
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            return max(0.0, (container.duration or 0) / 1e6)
    except (av.FFmpegError, OSError, ValueError):  # reading the file will say what is wrong with it
        return 0.0


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

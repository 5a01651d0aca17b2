"""The library on disk: recordings, their frame vectors and the files that failed, in one SQLite file.

In: int8 frame vectors by stretch of speech. Out: the same as one array ready to be scanned. Safe against kill -9, one
writer, any number of readers, format in docs/format.md. Knows nothing of audio, of models or of what a vector means.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from earshot import heard
from earshot.captions import Caption
from earshot.database import (
    DATABASE,
    among,
    connect,
    connect_reading,
    damaged,
    from_sql,
    is_blank,
    log_of,
    no_library,
    one_line_errors,
    take_writer_lock,
    to_sql,
)
from earshot.frames import FrameTable, Stretch, TableBuilder, pack
from earshot.heard import Heard
from earshot.types import LibraryError, Recording, Seconds

__all__ = ["EncoderIdentity", "Failure", "Fingerprint", "FrameTable", "Store", "Stretch", "Totals"]

Source = Literal["heard", "transcript"]
"""Of passages: what an encoder heard, or what a transcript says."""
FORMAT_VERSION = 1
APPLICATION_ID = 0x45415253  # "EARS", in the header of the SQLite file

_SCHEMA = (
    "CREATE TABLE encoders (kind TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, dim INTEGER NOT NULL,"
    " frame_seconds REAL) WITHOUT ROWID",
    "CREATE TABLE recordings (id INTEGER PRIMARY KEY AUTOINCREMENT, path NOT NULL UNIQUE, size INTEGER NOT NULL,"
    " mtime_ns INTEGER NOT NULL, seconds REAL NOT NULL, speech_seconds REAL NOT NULL, n_frames INTEGER NOT NULL)",
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY, recording INTEGER NOT NULL REFERENCES recordings ON DELETE CASCADE,"
    " stretches BLOB NOT NULL, vectors BLOB NOT NULL)",
    "CREATE INDEX blocks_of_recording ON blocks (recording)",
    "CREATE TABLE failures (path NOT NULL PRIMARY KEY, size INTEGER, mtime_ns INTEGER, reason NOT NULL) WITHOUT ROWID",
    "CREATE TABLE state (changes INTEGER NOT NULL)",
    "INSERT INTO state VALUES (0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)
_PASSAGES = (
    "CREATE TABLE IF NOT EXISTS passages (recording INTEGER NOT NULL REFERENCES recordings ON DELETE CASCADE,"
    " source TEXT NOT NULL, words BLOB NOT NULL, passages BLOB NOT NULL, vectors BLOB NOT NULL,"
    " PRIMARY KEY (recording, source))",
    "CREATE TABLE IF NOT EXISTS transcripts (recording INTEGER PRIMARY KEY REFERENCES recordings ON DELETE CASCADE,"
    " captions TEXT NOT NULL)",
)
# The write-ahead log reaches the disk itself at checkpoints and on closing. A process killed in between loses no
# commit; a power cut may lose the last ones, never half of one, and the next run indexes those files again.
_WRITING = ("PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON", "PRAGMA journal_size_limit = 16777216")


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """An encoder whose vectors a library holds, of `dim` values: int8, a frame every `frame_seconds`, those of the word
    encoder; of passages those of another, which has no frames."""

    name: str
    digest: str
    dim: int
    frame_seconds: Seconds | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.digest[:12]}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells that a file has changed: its size in bytes and its modification time in nanoseconds."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed, and why. `fingerprint` is None where the file could not even be looked at."""

    path: str
    fingerprint: Fingerprint | None
    reason: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What a library holds, and the bytes it takes on disk."""

    recordings: int
    seconds: Seconds
    speech_seconds: Seconds
    n_frames: int
    failures: int
    bytes: int
    transcripts: int

    @property
    def bytes_per_hour(self) -> float:
        """Bytes on disk per hour of recording; 0 for an empty library."""
        return self.bytes * 3600 / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_speech_hour(self) -> float:
        """Bytes on disk per hour of speech; 0 for a library without speech."""
        return self.bytes * 3600 / self.speech_seconds if self.speech_seconds else 0.0


class Store:
    """An open library. Threads may share one (calls take turns); a forked process must open its own."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: sqlite3.Connection | None) -> None:
        _check_format(folder, connection)
        self.path = folder
        self._file = (folder / DATABASE).absolute()
        word = _stored_encoder(connection, "word")
        if word is None:
            raise damaged(folder, "no word encoder")
        self.encoder = word
        self._connection = connection
        self._lock = lock  # None when opened for reading
        self._turn = threading.RLock()

    @classmethod
    def create_or_open(cls, path: str | PathLike[str], encoder: EncoderIdentity) -> Store:
        """Open the library at folder `path` for writing; make it where there is none.

        Raises LibraryError: another encoder or format wrote it, another process is writing, the folder cannot be
        written, the file is damaged or is not a library.
        """
        folder = Path(path)
        with one_line_errors(folder):
            if folder.is_file():
                raise LibraryError(f"{folder} is a file, not a library: choose another folder with --library")
            folder.mkdir(parents=True, exist_ok=True)
        return cls._open(folder, encoder, writing=True, create=True)

    @classmethod
    def open(cls, path: str | PathLike[str], *, encoder: EncoderIdentity | None = None, writing: bool = False) -> Store:
        """Open the library at folder `path`, for reading unless `writing`; with `encoder`, only if that one wrote it.

        Raises LibraryError as `create_or_open`, and where there is no library.
        """
        folder = Path(path)
        with one_line_errors(folder):
            if not (folder / DATABASE).is_file():
                raise no_library(folder)
        return cls._open(folder, encoder, writing=writing, create=False)

    @classmethod
    def _open(cls, folder: Path, encoder: EncoderIdentity | None, *, writing: bool, create: bool) -> Store:
        with one_line_errors(folder), ExitStack() as undo:
            lock = undo.enter_context(closing(take_writer_lock(folder))) if writing else None
            file = folder / DATABASE
            connection = undo.enter_context(closing(connect(file, "mode=rwc") if writing else connect_reading(file)))
            if writing:
                for pragma in _WRITING:
                    connection.execute(pragma)
            if create and encoder is not None and is_blank(connection):
                _create(connection, encoder)
            store = cls(folder, connection, lock)
            if encoder is not None and store.encoder != encoder:
                raise LibraryError(
                    f"the library at {folder} was written by the encoder {store.encoder}, this is {encoder}:"
                    " index into a new library (--library)"
                )
            undo.pop_all()
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close; after writing, once this returns everything added is on the disk itself. Closing twice is fine."""
        with self._turn:
            if self._lock is not None:
                with suppress(sqlite3.Error):  # closed already, or the disk is full: then the log keeps the commits
                    self._connection.execute("PRAGMA busy_timeout = 0")  # where a reader is busy, do what can be done
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            if self._lock is not None:
                self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise RuntimeError(f"the store at {self.path} is open for reading only")
        with self._turn, one_line_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it by itself on some errors, such as a full disk
                    self._connection.execute("ROLLBACK")
                raise

    def add(
        self,
        path: str,
        fingerprint: Fingerprint,
        seconds: Seconds,
        speech_seconds: Seconds,
        stretches: Sequence[Stretch],
    ) -> Recording:
        """Store a recording in one transaction, in place of an earlier version of `path`; forget its failure.

        A new version gets a new id; an id is never used twice. Stretches of no frames are left out.
        Raises ValueError for frames that are not (n, dim) int8, LibraryError when it could not be stored.
        """
        stretches = [stretch for stretch in stretches if len(stretch.frames)]
        for stretch in stretches:
            if stretch.frames.dtype != np.int8 or stretch.frames.shape[1:] != (self.encoder.dim,):
                found = f"{stretch.frames.shape} {stretch.frames.dtype}"
                raise ValueError(f"frames must be (n, {self.encoder.dim}) int8, not {found}")
        key = to_sql(path)
        n_frames = sum(len(stretch.frames) for stretch in stretches)
        with self._transaction() as connection:
            connection.execute("DELETE FROM recordings WHERE path = ?", (key,))
            connection.execute("DELETE FROM failures WHERE path = ?", (key,))
            recording_id = connection.execute(
                "INSERT INTO recordings (path, size, mtime_ns, seconds, speech_seconds, n_frames)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (key, fingerprint.size, fingerprint.mtime_ns, seconds, speech_seconds, n_frames),
            ).lastrowid
            assert recording_id is not None
            for block in pack(stretches):
                connection.execute(
                    "INSERT INTO blocks (recording, stretches, vectors) VALUES (?, ?, ?)", (recording_id, *block)
                )
            connection.execute("UPDATE state SET changes = changes + 1")
        return Recording(recording_id, path, seconds, speech_seconds)

    def add_failure(self, failure: Failure) -> None:
        """Remember that a file could not be indexed. An earlier version of the recording stays searchable."""
        size_and_mtime = (None, None) if failure.fingerprint is None else astuple(failure.fingerprint)
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO failures (path, size, mtime_ns, reason) VALUES (?, ?, ?, ?)",
                (to_sql(failure.path), *size_and_mtime, to_sql(failure.reason)),
            )

    def remove(self, paths: Iterable[str]) -> int:
        """Remove recordings, and failures, by path, all in one transaction; how many recordings were removed."""
        keys = [(to_sql(path),) for path in paths]
        with self._transaction() as connection:
            removed = connection.executemany("DELETE FROM recordings WHERE path = ?", keys).rowcount if keys else 0
            connection.executemany("DELETE FROM failures WHERE path = ?", keys)
            if removed:
                connection.execute("UPDATE state SET changes = changes + 1")
        return removed

    def _rows(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        with self._turn, one_line_errors(self.path):
            return self._connection.execute(sql, parameters).fetchall()

    def version(self) -> int:
        """A number that grows with every change of the recordings, by whichever process; cheap to ask for."""
        return int(self._rows("SELECT changes FROM state")[0][0])

    def recordings(self, ids: Iterable[int] | None = None) -> list[Recording]:
        """The recordings, or those with these ids that are still there, in the order of their ids."""
        where, parameters = among("id", ids)
        rows = self._rows(f"SELECT id, path, seconds, speech_seconds FROM recordings{where} ORDER BY id", *parameters)
        return [Recording(id, from_sql(path), *seconds) for id, path, *seconds in rows]

    def fingerprints(self, ids: Iterable[int] | None = None) -> dict[str, Fingerprint]:
        """Path of every recording, or of those with these ids -> what its file was like when it was indexed."""
        where, parameters = among("id", ids)
        rows = self._rows(f"SELECT path, size, mtime_ns FROM recordings{where} ORDER BY id", *parameters)
        return {from_sql(path): Fingerprint(size, mtime_ns) for path, size, mtime_ns in rows}

    def failures(self) -> list[Failure]:
        """The files that could not be indexed, by path."""
        return [
            Failure(from_sql(path), None if size is None else Fingerprint(size, mtime_ns), from_sql(reason))
            for path, size, mtime_ns, reason in self._rows("SELECT * FROM failures ORDER BY path")
        ]

    def totals(self) -> Totals:
        """What the library holds; bytes count the database and its write-ahead log."""
        transcripts = self._rows("SELECT count(*) FROM transcripts")[0][0] if self.passage_encoder() else 0
        ((recordings, seconds, speech_seconds, n_frames, failures),) = self._rows(
            "SELECT count(*), total(seconds), total(speech_seconds), coalesce(sum(n_frames), 0),"
            " (SELECT count(*) FROM failures) FROM recordings"
        )
        size = 0
        for file in (self._file, log_of(self._file)):
            with suppress(FileNotFoundError):
                size += file.stat().st_size
        return Totals(recordings, seconds, speech_seconds, n_frames, failures, size, transcripts)

    def passage_encoder(self) -> EncoderIdentity | None:
        """The encoder of the passages that are stored; None where none ever were."""
        with self._turn, one_line_errors(self.path):
            return _stored_encoder(self._connection, "passage")

    def use_passage_encoder(self, encoder: EncoderIdentity) -> None:
        """Say whose passages are stored from now on; those of any other are forgotten, as frames are all it takes."""
        if self.passage_encoder() == encoder:
            return
        with self._transaction() as connection:
            for statement in _PASSAGES:
                connection.execute(statement)
            connection.execute("DELETE FROM passages")
            connection.execute("INSERT OR REPLACE INTO encoders VALUES ('passage', ?, ?, ?, ?)", astuple(encoder))
            connection.execute("UPDATE state SET changes = changes + 1")

    def without_passages(self, source: Source = "heard") -> list[int]:
        """Ids of the recordings whose passages are yet to be made, in order: of all, or of those with transcripts."""
        if self.passage_encoder() is None:
            return [recording.id for recording in self.recordings()] if source == "heard" else []
        of = {"heard": "SELECT id FROM recordings", "transcript": "SELECT recording AS id FROM transcripts"}[source]
        made = "SELECT recording FROM passages WHERE source = ?"
        return [id for (id,) in self._rows(f"{of} WHERE id NOT IN ({made}) ORDER BY id", source)]

    def add_passages(self, recording_id: int, passages: Heard, source: Source = "heard") -> None:
        """Store what was heard in a recording, by the encoder of `use_passage_encoder`; nothing where it is gone."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO passages SELECT id, ?, ?, ?, ? FROM recordings WHERE id = ?",
                (source, *heard.pack(passages), recording_id),
            )
            connection.execute("UPDATE state SET changes = changes + 1")

    def passages(
        self, source: Source = "heard", recording_ids: Iterable[int] | None = None
    ) -> Iterator[tuple[int, Heard]]:
        """Ids of recordings, all or those of these, and what was heard in each or is in its transcript, in order."""
        if (encoder := self.passage_encoder()) is None:
            return
        where, parameters = among("recording", recording_ids)
        of_source = f"{where} AND" if where else " WHERE"
        sql = f"SELECT recording, words, passages, vectors FROM passages{of_source} source = ? ORDER BY recording"
        for recording, words, cut, vectors in self._rows(sql, *parameters, source):
            try:
                yield recording, heard.unpack(words, cut, vectors, encoder.dim)
            except ValueError as error:
                raise damaged(self.path, error) from error

    def add_transcript(self, recording_id: int, captions: Sequence[Caption]) -> None:
        """Store the transcript of a recording, in place of an earlier one, whose passages go unless it is the same.

        Nothing where the recording is gone. Needs `use_passage_encoder` first.
        """
        told = json.dumps([astuple(caption) for caption in captions], ensure_ascii=False)
        with self._transaction() as connection:
            there = "SELECT count(*) FROM transcripts WHERE recording = ? AND captions = ?"
            if connection.execute(there, (recording_id, told)).fetchone()[0]:
                return
            connection.execute(
                "INSERT OR REPLACE INTO transcripts SELECT id, ? FROM recordings WHERE id = ?", (told, recording_id)
            )
            connection.execute("DELETE FROM passages WHERE source = 'transcript' AND recording = ?", (recording_id,))
            connection.execute("UPDATE state SET changes = changes + 1")

    def remove_transcripts(self, paths: Iterable[str]) -> int:
        """Forget the transcripts of recordings, by path; how many there were. The recordings stay."""
        if self.passage_encoder() is None:
            return 0
        keys, of_path = [(to_sql(path),) for path in paths], "recording = (SELECT id FROM recordings WHERE path = ?)"
        with self._transaction() as connection:
            connection.executemany(f"DELETE FROM passages WHERE source = 'transcript' AND {of_path}", keys)
            removed = connection.executemany(f"DELETE FROM transcripts WHERE {of_path}", keys).rowcount if keys else 0
            if removed:
                connection.execute("UPDATE state SET changes = changes + 1")
        return removed

    def transcripts(self, recording_ids: Iterable[int] | None = None) -> dict[int, list[Caption]]:
        """Id of each recording, or of these among them, that has a transcript -> what it says."""
        if self.passage_encoder() is None:
            return {}
        where, parameters = among("recording", recording_ids)
        rows = self._rows(f"SELECT recording, captions FROM transcripts{where}", *parameters)
        try:
            return {recording: [Caption(*caption) for caption in json.loads(told)] for recording, told in rows}
        except (ValueError, TypeError) as error:
            raise damaged(self.path, error) from error

    def frames(self, recording_ids: Iterable[int] | None = None) -> FrameTable:
        """All frames, or those of these recordings, from one consistent snapshot. Ids that are gone yield nothing."""
        (table,) = self._tables(None, recording_ids)
        return table

    def frame_chunks(self, max_bytes: int, recording_ids: Iterable[int] | None = None) -> Iterator[FrameTable]:
        """The same frames and the same snapshot as a sequence of tables, for a library larger than memory.

        Each holds whole stretches, up to `max_bytes` of vectors, or one block (about 4 MiB) where that is more. The
        array of one table is not used again for the next. There is always at least one table.
        """
        return self._tables(max_bytes, recording_ids)

    def _tables(self, max_bytes: int | None, recording_ids: Iterable[int] | None) -> Iterator[FrameTable]:
        dim = self.encoder.dim
        ids = None if recording_ids is None else list(recording_ids)
        with one_line_errors(self.path), closing(connect_reading(self._file)) as snapshot:
            snapshot.execute("BEGIN")
            where, parameters = among("id", ids)
            (total, version) = snapshot.execute(
                f"SELECT coalesce(sum(n_frames), 0), (SELECT changes FROM state) FROM recordings{where}", parameters
            ).fetchone()
            where, parameters = among("recording", ids)
            order = "id" if ids is None else "recording, id"  # the same order, and each needs no sorting
            blocks = snapshot.execute(
                f"SELECT recording, stretches, vectors FROM blocks{where} ORDER BY {order}", parameters
            )
            room = total if max_bytes is None else min(total, max_bytes // dim)
            table, unread = TableBuilder(room, dim), total * dim
            try:
                for recording, stretches, vectors in blocks:
                    if not table.has_room(vectors):
                        if table.filled:
                            yield table.build(version)
                        table = TableBuilder(max(room, -(-len(vectors) // dim)), dim)
                    table.append(recording, stretches, vectors)
                    unread -= len(vectors)
                if unread:
                    raise ValueError("number of frames")
                yield table.build(version)
            except ValueError as error:
                raise damaged(self.path, error) from error


def _create(connection: sqlite3.Connection, encoder: EncoderIdentity) -> None:
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO encoders VALUES ('word', ?, ?, ?, ?)", astuple(encoder))
    connection.execute("COMMIT")


def _check_format(folder: Path, connection: sqlite3.Connection) -> None:
    if is_blank(connection):
        raise no_library(folder)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise LibraryError(f"{folder / DATABASE} is not an Earshot library: choose another folder with --library")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != FORMAT_VERSION:
        raise LibraryError(
            f"the library at {folder} has format {version}, this Earshot reads format {FORMAT_VERSION}:"
            " index into a new library (--library), or use the version of Earshot that wrote it"
        )


def _stored_encoder(connection: sqlite3.Connection, kind: str) -> EncoderIdentity | None:
    columns = "name, digest, dim, frame_seconds"
    row = connection.execute(f"SELECT {columns} FROM encoders WHERE kind = ?", (kind,)).fetchone()
    return row and EncoderIdentity(*row)

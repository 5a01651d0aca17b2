"""One SQLite file in a folder, as a library keeps it: connections, the lock of its writer, errors that are one line.

In: folders. Out: connections, and LibraryError in place of what SQLite and the file system say. Knows no tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import fsdecode, fsencode
from pathlib import Path

from earshot.types import LibraryBusyError, LibraryError, Seconds

DATABASE = "library.db"
LOCK = "library.lock"
BUSY_SECONDS = 30.0  # how long to wait where SQLite makes connections take turns (recovery, last close): milliseconds


def connect(file: Path, query: str, timeout: Seconds = BUSY_SECONDS) -> sqlite3.Connection:
    uri = f"{file.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def connect_reading(file: Path) -> sqlite3.Connection:
    """A connection that reads, also on a medium where SQLite cannot put its shared index beside the database."""
    connection = connect(file, "mode=rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.DatabaseError as error:
        connection.close()
        cannot_share = _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if cannot_share and file.is_file() and not log_of(file).exists():
            return connect(file, "immutable=1")
        raise


def log_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def take_writer_lock(folder: Path) -> sqlite3.Connection:
    """An exclusive SQLite transaction on an empty file beside the database: one writer, on every system.

    The operating system releases it when the process dies, however it dies; forked children do not inherit it.
    """
    lock = connect(folder / LOCK, "mode=rwc", timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        return lock
    except sqlite3.DatabaseError as error:
        lock.close()
        if _code(error) != sqlite3.SQLITE_BUSY:
            raise
        raise LibraryBusyError(
            f"another `earshot` (index, watch or serve) is writing to the library at {folder}: wait for it, or use"
            " another (--library)"
        ) from error


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever stored: a new file, or one whose making was interrupted."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables


def no_library(folder: Path) -> LibraryError:
    return LibraryError(f"no library at {folder}: make one with `earshot index FOLDER --library {folder}`")


def damaged(folder: Path, what: object) -> LibraryError:
    return LibraryError(
        f"{folder / DATABASE} is damaged or not an Earshot library ({what}): move it away and index again"
    )


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


@contextmanager
def one_line_errors(folder: Path) -> Iterator[None]:
    """Turns the errors of SQLite and of the file system that a user can mend into one line each."""
    try:
        yield
    except OSError as error:
        raise LibraryError(
            f"cannot use {folder} as a library ({error.strerror}): choose another folder with --library"
        ) from error
    except sqlite3.DatabaseError as error:
        code = _code(error)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(folder, error) from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            advice = "check the disk and its free space, then run again; everything stored before is kept"
        elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            advice = "make the folder and the files in it writable, or choose another with --library"
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LibraryBusyError(
                f"cannot use the library at {folder} ({error}): another program holds it: wait for that program"
            ) from error
        else:
            raise
        raise LibraryError(f"cannot use the library at {folder} ({error}): {advice}") from error


def to_sql(text: str) -> str | bytes:
    """Text, or raw bytes for a file name that is not valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return fsencode(text)
    return text


def from_sql(value: str | bytes) -> str:
    return fsdecode(value) if isinstance(value, bytes) else value


def among(column: str, ids: Iterable[int] | None) -> tuple[str, tuple[str, ...]]:
    """A WHERE clause and its parameters."""
    if ids is None:
        return "", ()
    return f" WHERE {column} IN (SELECT value FROM json_each(?))", (json.dumps([int(id) for id in ids]),)

"""Bodies of requests -> files: of a spoken example for as long as it is needed, of a recording under a name of its own.

In: requests. Out: paths. What is not audio, or does not fit on the disk, leaves nothing behind. Knows nothing of
libraries.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from earshot import audio
from earshot.types import AudioError, Seconds

AT_ONCE = 1 << 20
"""Bytes of a body that are written to disk at a time."""
STALE: Seconds = 86_400.0
LONGEST_NAME = 180
"""Bytes of a file name, its ending and a number aside; most systems take 255."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that are devices on Windows."""


@asynccontextmanager
async def body_in_file(request: Request, folder: Path | None = None) -> AsyncIterator[Path]:
    """The body of a request as a file, in a folder or where temporary files are; gone afterwards, if not moved away.

    400 for an empty body, 507 where the disk is full.
    """
    path: Path | None = None
    try:
        with disk_errors():
            descriptor, name = await run_in_threadpool(tempfile.mkstemp, ".part", ".", folder)
        path = Path(name)
        with open(descriptor, "wb", buffering=0) as file:
            waiting = bytearray()
            async for chunk in request.stream():
                waiting += chunk
                if len(waiting) >= AT_ONCE:
                    await run_in_threadpool(_write, file.fileno(), waiting)
                    waiting = bytearray()
            await run_in_threadpool(_write, file.fileno(), waiting)
            if not file.tell():
                raise HTTPException(400, "the body is empty: send the bytes of an audio file")
        yield path
    finally:
        if path is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)


@contextmanager
def disk_errors() -> Iterator[None]:
    """What is wrong with the server's disk, in one line: 507."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        told = "the server's disk is full" if full else f"the server cannot write it ({error.strerror})"
        raise HTTPException(507, f"{told}: nothing was kept") from error


def _write(descriptor: int, data: bytearray) -> None:
    with disk_errors():
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]


def keep(part: Path, name: str) -> Path:
    """Move a body to the name that it was sent with, made harmless, or with the next number that is free.

    415 for what does not begin as audio does, and for a name without the ending of an audio file; 507.
    """
    name = file_name(name)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in audio.SUFFIXES:
        raise HTTPException(415, f"{name}: has no ending of an audio file: name it as in talk.mp3")
    try:
        with closing(audio.stream(part, block=1.0)) as blocks:
            next(blocks)
    except AudioError as error:
        raise HTTPException(415, f"{name}: {str(error).removeprefix(f'{part}: ')}") from error
    number = 1
    with disk_errors():
        _sync(part)
        while True:
            path = part.with_name(name if number == 1 else f"{stem}-{number}{suffix}")
            try:
                path.open("xb").close()
            except FileExistsError:
                number += 1
            else:
                os.replace(part, path)
                return path


def sweep(folder: Path) -> None:
    """Delete what a server that was killed while it took a recording in has left, a day ago or earlier."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def file_name(name: str) -> str:
    """A name for a file on any system: no folders, no characters that are not seen or mean something, not too long."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C")
    name = re.sub(r'[<>:"|?*\s]+', " ", name).strip(" .")
    stem, suffix = os.path.splitext(name)
    stem = stem.encode()[:LONGEST_NAME].decode(errors="ignore").strip(" .") or "recording"
    return f"{'_' if RESERVED.match(stem) else ''}{stem}{suffix}"


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())

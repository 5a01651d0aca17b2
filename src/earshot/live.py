"""Sound as it comes: a microphone, PCM through a pipe, or whatever FFmpeg's libraries decode from a URL, pipe or file.

In: the name of a source. Out: blocks of 16 kHz mono samples, each with the moment it came and what was lost before it,
read ahead in a thread of its own in bounded memory. Knows nothing of what is listened for.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earshot import audio
from earshot.audio import MIN_SAMPLE_RATE, SAMPLE_RATE
from earshot.features import Floats
from earshot.types import AudioError, EarshotError, Seconds

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

BLOCK: Seconds = 0.1
"""A source that is live gives blocks of about this length."""
AHEAD: Seconds = 10.0
"""So much is read ahead at most; of a live source more than that is lost, the oldest first."""
PATIENCE: Seconds = 1.0
"""How long a thread is waited for that reads from a source that is no longer needed."""
TIMEOUT: Seconds = 20.0
"""A URL that sends nothing for so long is broken."""
MAX_RATE = 384_000
_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WEB = "http,https,httpproxy,tls,tcp,crypto"
"""What FFmpeg may open for a URL: never a local file, whatever a playlist says."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Samples (n,) at 16 kHz that came at `arrived` (time.monotonic); `lost` samples before them were dropped."""

    samples: Floats
    arrived: Seconds
    lost: int = 0


class Feed:
    """The blocks of a source in the order they come, read ahead by a thread; closed, or at its end, it stops.

    live: a source that does not wait. What is more than AHEAD is dropped, the oldest first; other sources wait.
    """

    def __init__(self, source: Generator[Floats], *, live: bool = False) -> None:
        self._source, self._live = source, live
        self._blocks: deque[Block] = deque()
        self._held = self._lost = 0
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        # a daemon: a read that never returns must not keep the program alive
        self._thread = threading.Thread(target=self._read, name="earshot-feed", daemon=True)
        self._thread.start()

    def take(self, most: Seconds) -> list[Block]:
        """The blocks that are there, of about `most` seconds, waiting for the first; none at the end of the source.

        Raises what reading the source raised, after the last block.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._ended)
            taken: list[Block] = []
            size = 0
            while self._blocks and size < most * SAMPLE_RATE:
                taken.append(self._blocks.popleft())
                size += len(taken[-1].samples)
            self._held -= size
            self._changed.notify_all()
            if not taken and self._error is not None:
                raise self._error
            return taken

    def close(self) -> None:
        """Let the thread end after what it is reading, and wait for that a little."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)

    def _read(self) -> None:
        try:
            with closing(self._source):
                for samples in self._source:
                    arrived = time.monotonic()
                    with self._changed:
                        if not self._live:
                            self._changed.wait_for(lambda: self._held < AHEAD * SAMPLE_RATE or self._closed)
                        if self._closed:
                            return
                        self._append(samples, arrived)
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _append(self, samples: Floats, arrived: Seconds) -> None:
        while self._live and self._blocks and self._held + len(samples) > AHEAD * SAMPLE_RATE:
            oldest = self._blocks.popleft()
            self._held -= len(oldest.samples)
            lost = oldest.lost + len(oldest.samples)
            if self._blocks:
                following = self._blocks[0]
                self._blocks[0] = Block(following.samples, following.arrived, following.lost + lost)
            else:
                self._lost += lost
        self._blocks.append(Block(samples, arrived, self._lost))
        self._lost = 0
        self._held += len(samples)
        self._changed.notify_all()


def pcm(descriptor: int, rate: int = SAMPLE_RATE) -> Generator[Floats]:
    """What comes through a file descriptor as 16-bit little-endian mono PCM. AudioError for a rate out of bounds."""
    if not MIN_SAMPLE_RATE <= rate <= MAX_RATE:
        raise AudioError(f"a rate of {rate} Hz cannot be listened to: {MIN_SAMPLE_RATE} to {MAX_RATE} Hz")
    return _pcm(descriptor, rate)


_CODED = (b"fLaC", b"OggS", b"RIFF", b"FORM", b"ID3", b"\x1aE\xdf\xa3")
"""How files begin that people pipe: they would be listened to as noise."""


def _pcm(descriptor: int, rate: int) -> Generator[Floats]:
    import av

    mono, rest, first = _Mono(), b"", True
    try:
        # os.read returns what is there; a file object would wait for more, and its lock outlive the thread
        while data := _read(descriptor, 2 * max(1, round(BLOCK * rate))):
            if first and data.startswith(_CODED):
                advice = "pipe it through ffmpeg -i - -f s16le -ar 16000 -ac 1 -"
                raise AudioError(f"standard input is a file of sound, not raw 16-bit PCM; {advice}")
            first = False
            data = rest + data
            rest = data[len(data) // 2 * 2 :]
            samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
            if len(samples):
                frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
                frame.sample_rate = rate
                yield from mono(frame)
    except OSError as error:
        raise AudioError(f"standard input cannot be read ({error.strerror}); pipe 16-bit PCM into it") from error
    yield from mono(None)


def _read(descriptor: int, size: int) -> bytes:
    """What is there, at most `size`; where nothing is, also of a descriptor that does not block, wait for it."""
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:
            select.select([descriptor], [], [])


def decoded(source: str) -> Generator[Floats]:
    """The first audio track of a URL (http or https), a pipe or a file, as it comes.

    AudioError, at once or while it is read, for what cannot be reached or decoded.
    """
    if url := _URL.match(source):
        protocol = url["protocol"].lower()
        if protocol not in ("http", "https"):
            raise AudioError(
                f"{_printable(source)}: {protocol} is not listened to; name a http or https URL, or a file"
            )
        return _decoded(source, source, _WEB, TIMEOUT)
    if is_file(source) or os.path.isdir(source) or not os.path.exists(source):
        return _file(source)  # `audio` says what is wrong with it
    return _decoded(source, f"file:{os.path.abspath(source)}", "file", None)


def _file(path: str) -> Generator[Floats]:
    yield from audio.stream(path, block=1.0)


def _decoded(name: str, url: str, protocols: str, timeout: Seconds | None) -> Generator[Floats]:
    import av

    # little is looked at before the first block is given: with the defaults a stream begins many seconds late
    options = {"protocol_whitelist": protocols, "probesize": str(1 << 16), "analyzeduration": "1000000"}
    complaint = "cannot be opened as audio"
    try:
        with av.open(url, options=options, metadata_errors="ignore", timeout=timeout) as container:
            if not container.streams.audio:
                raise AudioError(f"{_printable(name)}: has no audio track; name another source")
            complaint = "broke off"
            resampler = _Mono()
            for frame in itertools.chain(container.decode(container.streams.audio[0]), [None]):
                yield from resampler(frame)
    except (av.FFmpegError, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise AudioError(f"{_printable(name)}: {complaint} ({reason}); check the address and the source") from error


class _Mono:
    """Decoded frames -> mono at 16 kHz, whatever rate and channels come, and should they change; None ends them."""

    def __init__(self) -> None:
        self._coding: tuple[object, ...] = ()
        self._resampler: AudioResampler | None = None

    def __call__(self, frame: AudioFrame | None) -> Iterator[Floats]:
        import av

        coding = (frame.format.name, frame.layout.name, frame.sample_rate) if frame else ()
        if coding != self._coding:
            if self._resampler is not None:
                yield from self._resampled(None)
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            self._coding = coding
        if frame is not None:
            frame.pts = None  # a clock that jumps is no matter here
            yield from self._resampled(frame)

    def _resampled(self, frame: AudioFrame | None) -> Iterator[Floats]:
        for resampled in self._resampler.resample(frame) if self._resampler else ():
            yield np.nan_to_num(resampled.to_ndarray()[0], posinf=0.0, neginf=0.0)


def _quiet(message: str) -> None: ...


def microphone(device: str | None = None, complain: Callable[[str], None] = _quiet) -> Generator[Floats]:
    """What a microphone hears: the system's, or the one whose name holds `device` or whose number it is.

    complain: is told of sound that was lost as it was not read in time.
    EarshotError where the package sounddevice, PortAudio or the microphone is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise EarshotError("the microphone needs pip install '.[listen]'; or name a source: --from -") from error
    except OSError as error:
        raise EarshotError(
            f"the microphone cannot be used ({error}): install PortAudio (Debian: libportaudio2); or name a source: "
            "--from -"
        ) from error
    named = int(device) if device is not None and device.isdigit() else device
    try:
        opened = sounddevice.RawInputStream(SAMPLE_RATE, round(BLOCK * SAMPLE_RATE), named, 1, "int16")
        opened.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        told = " ".join(str(error).split())
        raise EarshotError(f"no microphone can be opened ({told}); connect one, or name it with --device") from error
    return _recorded(opened, complain)


def _recorded(opened: Any, complain: Callable[[str], None]) -> Generator[Floats]:
    import sounddevice

    try:
        with closing(opened):
            overflowed = False
            for n in itertools.count():
                before = overflowed
                data, overflowed = opened.read(round(BLOCK * SAMPLE_RATE))
                if overflowed and not before:
                    complain(f"the microphone was read too late: some sound before {n * BLOCK:.1f} s was lost")
                yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(1 << 15)
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone broke off ({' '.join(str(error).split())})") from error


def is_file(name: str | None) -> bool:
    """Whether a source is a regular file, which is read as fast as it goes: nothing is said when it comes."""
    if name is None or _URL.match(name):
        return False
    try:
        return stat.S_ISREG((os.fstat(0) if name == "-" else os.stat(name)).st_mode)
    except OSError:
        return False


def source(
    name: str | None,
    *,
    rate: int = SAMPLE_RATE,
    device: str | None = None,
    complain: Callable[[str], None] = _quiet,
) -> Generator[Floats]:
    """Blocks of a source by its name: None the microphone, "-" PCM on standard input, else a URL, pipe or file.

    complain: see `microphone`.
    """
    if name is None:
        return microphone(device, complain)
    if name != "-":
        return decoded(name)
    if os.isatty(0):
        raise AudioError("standard input is a terminal; pipe 16-bit PCM into it, or leave out --from -")
    return pcm(0, rate)


def _printable(name: str) -> str:
    """The name of a source for people, without the password of a URL."""
    name = re.sub(r"(?<=://)[^/@]*@", "", name)
    return name if name.isprintable() else repr(name)

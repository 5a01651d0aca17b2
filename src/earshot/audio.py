"""Any recording -> 16 kHz mono float32 samples, in blocks, so that length never costs memory; and clips cut from it.

In: paths of audio or video files in whatever format, rate and channel count FFmpeg's libraries (PyAV) decode; which
format it is, the content says, not the name. Out: NumPy arrays, or an AudioError. Knows nothing of speech or features.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import stat
import uuid
import wave
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earshot.types import AudioError, Clip, QueryError, Seconds

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.plane import AudioPlane
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 16_000
MIN_SAMPLE_RATE = 4_000
"""Below this nothing above 2 kHz is left: the second formant of front vowels and nearly every fricative are gone."""

# fmt: off
SUFFIXES = frozenset({
    ".wav", ".wave", ".w64", ".aif", ".aiff", ".aifc", ".au", ".caf", ".flac", ".wv", ".ape", ".tta",
    ".mp3", ".mp2", ".aac", ".ac3", ".amr", ".wma", ".ogg", ".oga", ".opus", ".spx", ".m4a", ".m4b", ".mka", ".weba",
    ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".ogv", ".avi", ".wmv", ".flv", ".mpg", ".mpeg",
})
"""Endings of the files that are taken from a folder. A file named by itself may end in anything."""
# fmt: on

_NO_SAMPLES = "not audio, or without any samples; record or export it again"
_CHUNK = 1 << 16  # samples that are checked and resampled at a time
_LEAD: Seconds = 1.0  # decoded before a clip: by then the decoder (80 ms for Opus) and the resampler have settled
_SLACK: Seconds = 0.1  # a clip may end this much after its recording: printed times are rounded
_SHORTFALL: Seconds = 1.0  # a recording that ends this much before the end that its header states is cut off

_PAUSING = frozenset({"mov", "matroska"})  # formats with exact clocks, where a jump may be a pause (or a loss)
_GAPLESS = frozenset({"wav", "flac", "ogg"})  # formats with exact clocks, where a jump is a loss
_COUNTED = frozenset({"mp3", "aac"})  # formats whose clock is exact when counted from the start, but not after a seek
_LISTS = frozenset({"hls", "concat", "dash", "imf"})  # formats that only name other files, whoever's these are
_PAUSE: Seconds = 0.1  # a clock is taken to jump from here up
_LONGEST_PAUSE: Seconds = 3600.0  # and to be wrong from here up
_PLACEHOLDER = 0x7FFF0000  # sizes from here up are written to RIFF headers by those who do not know the length yet

_SAMPLE_FORMATS: dict[str, tuple[np.dtype[Any], float]] = {  # FFmpeg's name -> type, full scale
    "u8": (np.dtype(np.uint8), 2.0**7),
    "s16": (np.dtype(np.int16), 2.0**15),
    "s32": (np.dtype(np.int32), 2.0**31),
    "s64": (np.dtype(np.int64), 2.0**63),
    "flt": (np.dtype(np.float32), 1.0),
    "dbl": (np.dtype(np.float64), 1.0),
}
_Piece = tuple[int, int, NDArray[np.float32]]
"""Sample rate in Hz, position of the first sample counted from the recording's start, (n,) mono samples."""

_TIME = r"\d+(?::[0-5]?\d){0,2}(?:\.\d*)?|\.\d+"
_SPAN = re.compile(rf"(?P<start>{_TIME})?-(?P<end>{_TIME})?")


def stream(path: str | os.PathLike[str], *, block: Seconds = 60.0) -> Generator[NDArray[np.float32]]:
    """Yield the first audio track of a file as (n,) float32 blocks at 16 kHz, channels averaged.

    Every block but the last holds exactly `block` seconds. Sample 0 is the start of the recording as a player shows it:
    silence stands where the track starts late or pauses. Memory does not grow with length.
    Raises AudioError for whatever cannot be read to its end, also after blocks have been yielded: damage and cut-off
    ends are found only there, so what a caller makes of the blocks counts once the iterator is exhausted.
    """
    size = max(1, round(block * SAMPLE_RATE))
    waiting: list[NDArray[np.float32]] = []
    held = reached = 0
    with closing(_resampled(os.fspath(path), 0.0)) as pieces:
        for position, samples in pieces:
            reached = position + len(samples)
            while held + len(samples) >= size:
                cut = size - held
                yield np.concatenate([*waiting, samples[:cut]])
                waiting, held, samples = [], 0, samples[cut:]
            waiting.append(samples)
            held += len(samples)
    if reached == 0:
        raise _error(os.fspath(path), _NO_SAMPLES)
    if held:
        yield np.concatenate(waiting)


def load(clip: Clip, *, max_seconds: Seconds | None = None) -> NDArray[np.float32]:
    """Return the (n,) float32 samples of a clip at 16 kHz: those of `stream`, from `start` to `end`.

    Common formats are decoded from a little before the clip only. Right to the sample, but to 1 ms in Matroska and
    WebM, whose clocks tick in milliseconds, and in Ogg Vorbis, whose blocks vary in length.
    Raises AudioError when the clip lies outside its recording or has no length, QueryError when it is longer than
    `max_seconds`.
    """
    start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
    if not (math.isfinite(start) and 0 <= start < end):
        raise _error(str(clip), "a clip must start at 0 or later and end after its start")
    limit = math.inf if max_seconds is None else max_seconds
    too_long = f"longer than {limit:g} s; name a shorter stretch of it, as in FILE@START-END"
    if math.isfinite(end) and end - start > limit + 1e-6:
        raise QueryError(f"{clip}: {too_long}")
    first = round(start * SAMPLE_RATE)
    last = math.inf if math.isinf(end) else round(end * SAMPLE_RATE)
    found: list[NDArray[np.float32]] = []
    reached = held = 0
    with closing(_resampled(clip.path, start)) as pieces:
        for position, samples in pieces:
            reached = position + len(samples)
            found.append(samples[max(0, first - position) : max(0, int(min(last - position, len(samples))))])
            held += len(found[-1])
            if held > limit * SAMPLE_RATE + 1:
                raise QueryError(f"{clip}: {too_long}")
            if reached >= last:
                break
    if held == 0 or (clip.end is not None and last > reached + _SLACK * SAMPLE_RATE):
        raise _error(str(clip), f"the recording is only {reached / SAMPLE_RATE:.2f} s long")
    return np.concatenate(found)


def duration(path: str | os.PathLike[str]) -> Seconds:
    """Return a recording's length: at once where the header states it, else by decoding all of it.

    Raises AudioError as `stream` does, but finds damage further in only where it has to decode.
    """
    name = os.fspath(path)
    with _opened(name) as (container, track):
        stated = _stated_end(container, track)
    return stated if stated else sum(len(block) for block in stream(name)) / SAMPLE_RATE


def wav(samples: NDArray[np.float32]) -> bytes:
    """(n,) samples at 16 kHz, clipped to [-1, 1], as a 16-bit mono wav."""
    pcm = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE, len(pcm), "NONE", ""))
        writer.writeframesraw(pcm.tobytes())
    return file.getvalue()


def write_wav(path: str | os.PathLike[str], samples: NDArray[np.float32]) -> None:
    """Write (n,) samples as `wav` does to a file that is there whole or not at all.

    Raises AudioError when the file cannot be written.
    """
    name = os.fspath(path)
    target = os.path.realpath(name)
    if os.path.isdir(target):
        raise _error(name, "is a folder; name a .wav file to write")
    if os.path.exists(target) and not os.path.isfile(target):
        raise _error(name, "is not a regular file; name a .wav file to write")
    partial = os.path.join(os.path.dirname(target), f".{uuid.uuid4().hex}.part")
    try:
        with open(partial, "xb") as file:
            file.write(wav(samples))
        os.replace(partial, target)
    except OSError as error:
        raise _error(name, f"cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def parse_clip(text: str) -> Clip:
    """Read `FILE` or `FILE@START-END`, either time may be left out; times are seconds or [h:]mm:ss, with fractions.

    A file whose own name is `text` comes first. Raises AudioError when the part after `@` of a file is no stretch.
    """
    path, at, span = text.rpartition("@")
    if not at or os.path.exists(text):
        return Clip(text)
    times = _SPAN.fullmatch(span)
    if times and (times["start"] or times["end"]) and path:
        return Clip(path, _seconds(times["start"]), _seconds(times["end"]))
    if os.path.exists(path):
        raise _error(text, f"cannot read {span!r}; write FILE@START-END, as in talk.mp3@61.5-62 or @1:01.5-1:02")
    return Clip(text)


def _seconds(time: str | None) -> Seconds | None:
    if time is None:
        return None
    total = 0.0
    for part in time.split(":"):
        total = total * 60 + float(part)
    return total


def _resampled(path: str, start: Seconds) -> Generator[tuple[int, NDArray[np.float32]]]:
    """Yield (position, samples) at 16 kHz, without holes, from some place at or before `start`."""
    import soxr

    resampler: soxr.ResampleStream | None = None
    position = skip = 0
    for rate, at, mono in _decoded(path, start):
        if not np.isfinite(mono).all():
            raise _error(path, f"holds NaN or infinite samples near {at / rate:.2f} s; export it again")
        if resampler is None:
            # Begin where a sample of the file and one at 16 kHz fall together: any entry then gives the same samples.
            skip = -at % (rate // math.gcd(rate, SAMPLE_RATE))
            position = (at + skip) * SAMPLE_RATE // rate
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        mono, skip = mono[skip:], max(0, skip - len(mono))
        samples = resampler.resample_chunk(mono)
        if len(samples):
            yield position, samples
            position += len(samples)
    if resampler is not None:
        yield position, resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _decoded(path: str, start: Seconds) -> Iterator[_Piece]:
    """Yield pieces at the file's own rate, without holes, from some place at or before `start`."""
    with _opened(path) as (container, track):
        entry = _enter(path, container, track, start)
        if entry is None:
            yield from _decoded(path, 0.0)
            return
        frames, rate, zero, reached = entry
        counted = _format(container) in _COUNTED
        gathered: list[AudioFrame] = []
        begin = reached
        for frame in frames:
            if frame.sample_rate != rate:
                raise _error(path, f"its sample rate changes at {reached / rate:.2f} s; convert it to wav")
            pause = 0 if zero is None or frame.time is None else round((frame.time - zero) * rate) - reached
            if counted or not _PAUSE * rate <= pause <= _LONGEST_PAUSE * rate:
                pause = 0
            elif reached and _format(container) in _GAPLESS:
                raise _error(path, f"damaged at {reached / rate:.2f} s; copy or export it again")
            if gathered and (pause or reached - begin >= _CHUNK or _coding(frame) != _coding(gathered[0])):
                yield rate, begin, _mixed(gathered)
                gathered, begin = [], reached
            while pause:
                silence = np.zeros(min(_CHUNK, pause), np.float32)
                yield rate, reached, silence
                pause -= len(silence)
                reached += len(silence)
                begin = reached
            gathered.append(frame)
            reached += frame.samples
        if gathered:
            yield rate, begin, _mixed(gathered)
        stated = None if counted else _stated_end(container, track)
        if reached / rate < (stated or 0.0) - _SHORTFALL or _lacks_its_tail(path):
            raise _error(path, f"cut off after {reached / rate:.2f} s; copy it again, or re-export what plays")


def _enter(
    path: str, container: InputContainer, track: AudioStream, start: Seconds
) -> tuple[Iterator[AudioFrame], int, Seconds | None, int] | None:
    """Go to a place a little before `start`; return None where the way back to its position is not reliable.

    Returns the frames from there, their sample rate, what the track's clock shows at the recording's sample 0 (None
    where that clock is an estimate), and the position of the first frame.
    """
    import av

    frames = _frames(container, track)
    first = next(frames, None)
    if first is None:
        raise _error(path, _NO_SAMPLES)
    rate, zero = first.sample_rate, None
    if rate < MIN_SAMPLE_RATE:
        raise _error(path, f"its sample rate is {rate} Hz; speech needs {MIN_SAMPLE_RATE} Hz or more")
    if first.time is not None and _format(container) in _PAUSING | _GAPLESS | _COUNTED:
        zero = (container.start_time or 0) / 1e6
        zero = zero if first.time - zero >= _PAUSE else first.time
    if zero is None or track.time_base is None or start <= 2 * _LEAD:
        return itertools.chain([first], frames), rate, zero, 0
    before = int((zero + start - 2 * _LEAD) / track.time_base)
    try:
        if _format(container) not in _COUNTED:
            container.seek(before, stream=track)
        frames = _frames(container, track, before)
        first = next(frames, None)
    except av.FFmpegError:
        return None
    if first is None or first.time is None or not 0 <= first.time - zero <= start - _LEAD:
        return None
    return itertools.chain([first], frames), rate, zero, round((first.time - zero) * rate)


def _frames(container: InputContainer, track: AudioStream, before: int = -(2**63)) -> Iterator[AudioFrame]:
    """Decode from where the container stands, in a counted format from the clock's `before` on."""
    counted = _format(container) in _COUNTED
    for packet in container.demux(track):
        early = packet.pts is not None and packet.pts < before
        if counted and (early or bytes(packet)[:3] == b"ID3"):  # a tag inside an mp3 that was joined from several
            continue
        yield from packet.decode()


def _coding(frame: AudioFrame) -> tuple[str, int]:
    return frame.format.name, frame.layout.nb_channels


def _mixed(frames: list[AudioFrame]) -> NDArray[np.float32]:
    """Return the mean of the channels of frames of one coding, (n,), full scale at 1."""
    import av

    name, channels = _coding(frames[0])
    if name.endswith("p") and channels > 8:  # where PyAV does not know how many planes there are
        packer = av.AudioResampler(format="flt")
        frames, name = [packed for frame in frames for packed in packer.resample(frame)], "flt"
    dtype, full_scale = _SAMPLE_FORMATS[name.removesuffix("p")]
    if name.endswith("p"):
        planes = list(zip(*(frame.planes for frame in frames), strict=True))
        parts = [_joined(plane, dtype, [frame.samples for frame in frames]) for plane in planes]
    else:
        packed = _joined([frame.planes[0] for frame in frames], dtype, [frame.samples * channels for frame in frames])
        parts = [packed[channel::channels] for channel in range(channels)]
    with np.errstate(all="ignore"):  # samples that are not finite are found and named later
        mono = parts[0].astype(np.float32)
        for part in parts[1:]:
            mono += part
        if name.startswith("u8"):
            mono -= 128.0 * channels
        mono /= full_scale * channels
    return mono


def _joined(planes: Sequence[AudioPlane], dtype: np.dtype[Any], counts: list[int]) -> NDArray[Any]:
    buffers = [np.frombuffer(memoryview(plane), dtype, count) for plane, count in zip(planes, counts, strict=True)]
    return np.concatenate(buffers)


@contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file and its first audio track; what FFmpeg complains of until it is closed becomes an AudioError."""
    import av

    _check(path)
    complaint = "not audio, or damaged from the start"
    try:
        # "file:" and the whitelist keep names with colons, and playlists in disguise, from reaching for the network.
        url, options = f"file:{os.path.abspath(path)}", {"protocol_whitelist": "file"}
        with av.open(url, options=options, metadata_errors="ignore") as container:
            if _format(container) in _LISTS:
                raise _error(path, "is a playlist; name the files that it names")
            if not container.streams.audio:
                raise _error(path, "has no audio track; leave it out or name another file")
            track = container.streams.audio[0]
            if track.codec_context is None:
                raise _error(path, "its audio is in an unknown coding; convert it to wav, flac or mp3")
            track.codec_context.thread_count = 1
            complaint = "damaged or cut off"
            yield container, track
    except av.FFmpegError as error:
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, OSError | MemoryError):  # says nothing of what is in it
            raise _error(path, f"cannot be read ({reason}); check the disk, and try again") from error
        raise _error(path, f"{complaint} ({reason}); copy it again or convert it") from error


def _check(path: str) -> None:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise _error(path, "is a folder; name an audio file in it")
        if not stat.S_ISREG(status.st_mode):
            raise _error(path, "is not a regular file; save the audio to a file first")
        if status.st_size == 0:
            raise _error(path, "is empty; copy or record it again")
        open(path, "rb").close()
    except FileNotFoundError as error:
        raise _error(path, "no such file; check its name") from error
    except PermissionError as error:
        raise _error(path, "no permission to read it; allow it, as with chmod +r") from error
    except OSError as error:
        raise _error(path, f"cannot be opened ({error.strerror}); check the path and the disk") from error


def _format(container: InputContainer) -> str:
    return container.format.name.partition(",")[0]


def _stated_end(container: InputContainer, track: AudioStream) -> Seconds | None:
    """Return where the header says that the track ends, None where it says nothing or only an estimate."""
    name = _format(container)
    if name == "matroska":
        tag = track.metadata.get("DURATION", "")
        if re.fullmatch(_TIME, tag):
            return _seconds(tag)
        alone = len(container.streams) == 1 and container.duration is not None
        return container.duration / 1e6 if alone and container.duration else None
    if track.duration is None or track.time_base is None:
        return None
    begin = float((track.start_time or 0) * track.time_base)
    if name == "mp3":  # one tag states both the length and the encoder's delay, which is shown as a later start
        return float(track.duration * track.time_base) if begin else None
    exact = name in _PAUSING | _GAPLESS
    return begin - (container.start_time or 0) / 1e6 + float(track.duration * track.time_base) if exact else None


def _lacks_its_tail(path: str) -> bool:
    """Tell whether a wav, aiff or mp3 is shorter than its header says, or an Ogg file ends inside a page."""
    _check(path)  # it may have vanished meanwhile
    with open(path, "rb") as file:
        head = file.read(10)
        size = file.seek(0, os.SEEK_END)
        if head[:4] in (b"RIFF", b"FORM"):
            stated = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
            return size + 64 < stated < _PLACEHOLDER
        if head[:4] == b"OggS":
            file.seek(max(0, size - 65_307))  # the largest page
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
        begin = 0
        if head[:3] == b"ID3":
            begin = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(begin)
        frame = file.read(256)
    tag = re.search(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", frame, re.DOTALL)
    return frame[:1] == b"\xff" and tag is not None and size - begin + 4096 < int.from_bytes(tag[1], "big")


def _error(path: str, complaint: str) -> AudioError:
    """Return an error of one printable line, whatever characters the path holds."""
    return AudioError(f"{path if path.isprintable() else repr(path)}: {complaint}")

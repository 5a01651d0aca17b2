"""Audio in: every format gives the same 16 kHz samples, clips sit where they should, bad files get one clear line."""

from __future__ import annotations

import errno
import os
import resource
import struct
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import Talk
from numpy.typing import NDArray

from earshot import audio
from earshot.types import AudioError, Clip, QueryError, Seconds

Samples = NDArray[np.float32]

# suffix -> container, codec, sample format, smallest correlation with the original
FORMATS = {
    "wav": ("wav", "pcm_s16le", "s16", 0.9999),
    "aiff": ("aiff", "pcm_s16be", "s16", 0.9999),
    "flac": ("flac", "flac", "s16", 0.9999),
    "mp3": ("mp3", "libmp3lame", "s16p", 0.99),
    "ogg": ("ogg", "vorbis", "fltp", 0.97),
    "opus": ("ogg", "libopus", "s16", 0.99),
    "m4a": ("mp4", "aac", "fltp", 0.99),
    "aac": ("adts", "aac", "fltp", 0.98),
    "mp4": ("mp4", "aac", "fltp", 0.99),
    "webm": ("webm", "libopus", "s16", 0.99),
    "mkv": ("matroska", "pcm_s16le", "s16", 0.9999),
}


def chirp(seconds: Seconds, rate: int, begin: Seconds = 0.0) -> Samples:
    """A tone gliding up and down: everywhere different, below 2 kHz, so that every rate holds the same signal."""
    time = begin + np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (900 * time + 700 / (2 * np.pi * 0.37) * np.sin(2 * np.pi * 0.37 * time + time**2 / 9))
    return (0.4 * np.sin(phase)).astype(np.float32)


def encode(path: Path, samples: Samples, rate: int, container: str, codec: str, sample_format: str) -> Path:
    """Write (n,) or (channels, n) samples with FFmpeg's libraries."""
    channels = np.atleast_2d(samples)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 12: "7.1.4"}[len(channels)]
    with av.open(str(path), "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, layout=layout, format=sample_format)
        if codec == "vorbis":
            track.codec_context.options = {"strict": "experimental"}
        if len(channels) > 8:
            track.codec_context.options = {"mapping_family": "255"}
        frame = av.AudioFrame.from_ndarray(channels.T.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate, frame_size=960)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return path


def make(folder: Path, suffix: str, seconds: Seconds = 4.0, rate: int = 48_000, channels: int = 2) -> Path:
    samples = np.tile(chirp(seconds, rate), (channels, 1))
    return encode(folder / f"talk.{suffix}", samples, rate, *FORMATS[suffix][:3])


def raw_wav(path: Path, samples: NDArray[np.int16], rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def wav_header(size: int, encoding: int, bits: int, rate: int = 16_000) -> bytes:
    """The head of a mono wav with `size` bytes of samples; encoding 1 is PCM, 3 is floating point."""
    form = struct.pack("<HHIIHH", encoding, 1, rate, rate * bits // 8, bits // 8, bits)
    return struct.pack("<4sI4s4sI16s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, form, b"data", size)


def whole(path: Path, block: Seconds = 60.0) -> Samples:
    return np.concatenate(list(audio.stream(path, block=block)))


def complaint(path: Path | str) -> str:
    """The error that reading a file to its end gives: one line that begins with the file."""
    with pytest.raises(AudioError) as caught:
        for _ in audio.stream(path):
            pass
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and "; " in line
    return line.removeprefix(f"{path}: ")


def correlation(found: Samples, expected: Samples) -> float:
    return float(np.dot(found, expected) / np.sqrt(np.dot(found, found) * np.dot(expected, expected)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_samples_on_time(tmp_path: Path, suffix: str) -> None:
    samples = whole(make(tmp_path, suffix))
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == pytest.approx(4.0 * 16_000, abs=0.05 * 16_000)
    expected = chirp(4.0, 16_000)
    delay = 341 if suffix == "aac" else 0  # raw AAC cannot tell its encoder's delay of 1024 samples
    delays = range(delay - 16, delay + 17)
    best = max(correlation(samples[16_000 + d : 48_000 + d], expected[16_000:48_000]) for d in delays)
    assert best > FORMATS[suffix][3]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000])
def test_every_rate_gives_the_same_samples(tmp_path: Path, rate: int) -> None:
    samples = whole(make(tmp_path, "wav", seconds=2.0, rate=rate, channels=1))
    assert len(samples) == pytest.approx(32_000, abs=1)
    assert np.abs(samples[200:31_000] - chirp(2.0, 16_000)[200:31_000]).max() < 2e-3


@pytest.mark.parametrize("codec, sample_format", [("pcm_u8", "u8"), ("pcm_s24le", "s32"), ("pcm_f64le", "dbl")])
def test_every_sample_type_keeps_its_level(tmp_path: Path, codec: str, sample_format: str) -> None:
    path = encode(tmp_path / "talk.wav", chirp(1.0, 16_000), 16_000, "wav", codec, sample_format)
    assert np.abs(whole(path) - chirp(1.0, 16_000)).max() < 0.02


@pytest.mark.parametrize("channels", [1, 2, 24])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = np.zeros((16_000, channels), np.int16)
    samples[:, -1] = np.rint(chirp(1.0, 16_000) * 32_768)
    found = whole(raw_wav(tmp_path / "talk.wav", samples, 16_000))
    assert np.abs(found - chirp(1.0, 16_000) / channels).max() < 1e-4


@pytest.mark.parametrize("channels", [6, 12])
def test_planar_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = np.zeros((channels, 48_000), np.float32)
    samples[2] = chirp(1.0, 48_000)
    found = whole(encode(tmp_path / "talk.opus", samples, 48_000, "ogg", "libopus", "s16"))
    assert correlation(found[2_000:14_000], chirp(1.0, 16_000)[2_000:14_000] / 6) > 0.99
    assert np.abs(found).max() == pytest.approx(0.4 / channels, rel=0.1)


def test_blocks_are_full_but_the_last_and_do_not_change_the_samples(tmp_path: Path) -> None:
    path = make(tmp_path, "flac", seconds=5.3, rate=44_100)
    blocks = list(audio.stream(path, block=0.7))
    assert [len(block) for block in blocks] == [11_200] * 7 + [round(5.3 * 16_000) - 7 * 11_200]
    assert np.array_equal(np.concatenate(blocks), whole(path))


def test_the_content_says_what_a_file_is_not_its_name(tmp_path: Path) -> None:
    path = make(tmp_path, "mp3")
    expected = whole(path)
    for name in ("talk.wav", "talk", "http:talk.txt", "Gespräch \udcff\n1.flac"):
        liar = path.rename(tmp_path / name)
        assert np.array_equal(whole(liar), expected)
        path = liar


def test_an_mp3_that_was_joined_from_several_is_read_to_its_end(tmp_path: Path) -> None:
    path = make(tmp_path, "mp3")
    alone = whole(path)
    path.write_bytes(path.read_bytes() * 3)
    samples = whole(path)
    assert len(samples) == pytest.approx(3 * len(alone), abs=3_000)
    assert np.allclose(samples[:60_000], alone[:60_000], atol=1e-3)


def test_the_first_audio_track_of_a_video_is_read(tmp_path: Path) -> None:
    path = tmp_path / "talk.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        tracks = [container.add_stream("pcm_s16le", rate=16_000, layout="mono", format="s16") for _ in range(2)]
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        for track, level in zip(tracks, (8_000, 100), strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), level, np.int16), "s16", "mono")
            frame.sample_rate = 16_000
            container.mux([*track.encode(frame), *track.encode(None)])
        container.mux(video.encode(None))
    assert whole(path) == pytest.approx(np.full(16_000, 8_000 / 32_768), abs=1e-4)


def test_a_pause_of_the_recorder_is_silence_so_that_times_stay_right(tmp_path: Path) -> None:
    path = tmp_path / "talk.mkv"
    pcm = np.rint(chirp(2.0, 16_000) * 32_767).astype(np.int16)
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=16_000, layout="mono", format="s16")
        for begin, part in ((0, pcm[:16_000]), (16_000 * 4, pcm[16_000:])):
            frame = av.AudioFrame.from_ndarray(part[None], "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, begin
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    samples = whole(path)
    assert np.abs(samples[:16_000] - chirp(1.0, 16_000)).max() < 1e-3
    assert not samples[16_000 : 4 * 16_000].any()
    assert np.abs(samples[4 * 16_000 :] - chirp(1.0, 16_000, begin=1.0)).max() < 1e-3
    assert np.array_equal(audio.load(Clip(str(path), 4.1, 4.9)), samples[round(4.1 * 16_000) : round(4.9 * 16_000)])


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    seconds = 1800
    size = seconds * 16_000 * 2
    path.write_bytes(wav_header(size, 1, 16))
    os.truncate(path, 44 + size)  # silence that takes no room on disk
    for _ in audio.stream(path):  # whatever is loaded only once
        break
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(len(block) for block in audio.stream(path)) == seconds * 16_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_several_threads_decode_at_the_same_time(tmp_path: Path) -> None:
    paths = [make(tmp_path, suffix, seconds=3.0) for suffix in ("opus", "mp3", "m4a", "flac")]
    expected = [whole(path) for path in paths]
    barrier = threading.Barrier(4)

    def read(path: Path) -> Samples:
        barrier.wait(timeout=30)
        return whole(path)

    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(a, b) for a, b in zip(pool.map(read, paths), expected, strict=True))


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != "aiff"])
def test_a_clip_holds_the_samples_of_the_whole_at_its_place(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path, suffix, seconds=8.0)
    samples = whole(path)
    reach = 20 if suffix in ("ogg", "webm", "mkv") else 0
    for start, end in ((0.0, 0.5), (1.23, 1.5), (3.7713, 4.9), (5.0001, 6.25), (7.0, 7.9)):
        first, last = round(start * 16_000), round(end * 16_000)
        clip = audio.load(Clip(str(path), start, end))
        assert len(clip) == last - first
        lags = range(-reach, reach + 1) if first else [0]
        errors = [np.abs(clip - samples[first + lag : last + lag]).max() for lag in lags]
        assert min(errors) < 0.02, (start, end)


def test_a_clip_without_ends_is_the_whole_recording(tmp_path: Path) -> None:
    path = make(tmp_path, "flac", seconds=3.0)
    samples = whole(path)
    assert np.array_equal(audio.load(Clip(str(path))), samples)
    assert np.array_equal(audio.load(Clip(str(path), end=1.0)), samples[:16_000])
    assert np.allclose(audio.load(Clip(str(path), start=2.5)), samples[40_000:], atol=1e-5)
    assert len(audio.load(Clip(str(path), 2.5, 3.04))) == 8_000  # an end that was rounded when it was printed


@pytest.mark.parametrize(
    "start, end", [(2.0, 2.0), (2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (4.0, 5.0), (1.0, 3.5)]
)
def test_a_clip_must_lie_in_its_recording(tmp_path: Path, start: float, end: float) -> None:
    path = make(tmp_path, "flac", seconds=3.0)
    with pytest.raises(AudioError, match=r"talk\.flac@.*(must start at 0|only 3\.00 s long)"):
        audio.load(Clip(str(path), start, end))


def test_a_clip_may_not_be_longer_than_allowed(tmp_path: Path) -> None:
    path = str(make(tmp_path, "wav", seconds=4.0))
    for clip in (Clip(path), Clip(path, 1.0), Clip(path, 0.5, 3.0)):
        with pytest.raises(QueryError, match="longer than 2 s"):
            audio.load(clip, max_seconds=2.0)
    assert len(audio.load(Clip(path, 1.0, 3.0), max_seconds=2.0)) == 32_000


@pytest.mark.parametrize("suffix", FORMATS)
def test_duration_is_that_of_the_samples(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path, suffix, seconds=3.0)
    assert audio.duration(path) == pytest.approx(len(whole(path)) / 16_000, abs=0.03)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    line = complaint(path)
    assert "cut off" in line or "damaged" in line


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg", "opus", "m4a"])
def test_damage_in_the_middle_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path, suffix)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3_000] = bytes(3_000)
    path.write_bytes(data)
    assert "damaged" in complaint(path)


def test_a_clip_before_the_damage_can_be_had(tmp_path: Path) -> None:
    path = make(tmp_path, "flac")
    expected = whole(path)[8_000:16_000]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert np.allclose(audio.load(Clip(str(path), 0.5, 1.0)), expected, atol=1e-5)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_whose_writer_did_not_know_its_length_is_read(tmp_path: Path, size: int) -> None:
    path = make(tmp_path, "wav", seconds=1.0, rate=16_000, channels=1)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(whole(path)) == 16_000


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    assert "is empty" in complaint(path)


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "m4a", "opus"])
def test_text_is_not_audio(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"notes.{suffix}"
    path.write_text("Dear diary, nothing was recorded today.\n" * 50)
    assert "not audio" in complaint(path)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_in_disguise_reaches_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "list.mp3"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    assert "not audio" in complaint(path)


def test_audio_without_samples_is_an_error(tmp_path: Path) -> None:
    assert "without any samples" in complaint(raw_wav(tmp_path / "a.wav", np.zeros((0, 1), np.int16), 16_000))
    assert "without any samples" in complaint(raw_wav(tmp_path / "b.wav", np.zeros((1, 1), np.int16), 96_000))


def test_a_sample_rate_too_low_for_speech_is_an_error(tmp_path: Path) -> None:
    path = raw_wav(tmp_path / "slow.wav", np.ones((2_000, 1), np.int16), 1_000)
    assert "1000 Hz" in complaint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_an_error(tmp_path: Path, value: float) -> None:
    samples = chirp(12.0, 16_000)
    samples[170_000] = value
    path = tmp_path / "broken.wav"
    path.write_bytes(wav_header(samples.nbytes, 3, 32) + samples.tobytes())
    assert "NaN or infinite" in complaint(path)


def test_a_video_without_sound_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        container.mux([*video.encode(av.VideoFrame(32, 32, "yuv420p")), *video.encode(None)])
    assert "no audio track" in complaint(path)


def test_paths_that_are_no_readable_file_are_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is a folder" in complaint(tmp_path)
    assert "no such file" in complaint(tmp_path / "gone.wav")
    assert "not a regular file" in complaint(tmp_path / "pipe.wav")
    assert "cannot be opened" in complaint(tmp_path / ("long" * 100))


def test_a_file_without_permission_is_an_error(tmp_path: Path) -> None:
    path = make(tmp_path, "wav", seconds=1.0)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root may read everything
    try:
        assert "no permission" in complaint(path)
    finally:
        os.seteuid(user)


def test_a_file_that_vanishes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = make(tmp_path, "wav", seconds=20.0)
    blocks = audio.stream(path, block=1.0)
    next(blocks)
    path.unlink()
    with pytest.raises(AudioError, match="no such file"):
        list(blocks)


def test_written_clips_are_16_bit_mono_and_stay_within_range(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(b"what was there before")
    audio.write_wav(path, np.array([0.0, 0.5, 2.0, -2.0], np.float32))
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 4)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 16_384, 32_767, -32_767]
    assert os.listdir(tmp_path) == ["clip.wav"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_clip_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(b"what was there before")
    with full_disk(10_000), pytest.raises(AudioError, match=r"clip\.wav: cannot be written"):
        audio.write_wav(path, chirp(2.0, 16_000))
    assert os.listdir(tmp_path) == ["clip.wav"]
    assert path.read_bytes() == b"what was there before"
    for bad in (tmp_path, tmp_path / "nowhere" / "clip.wav", Path(os.devnull)):
        with pytest.raises(AudioError, match=r"(is a folder|cannot be written|not a regular file)"):
            audio.write_wav(bad, chirp(0.1, 16_000))


@pytest.mark.parametrize(
    "text, clip",
    [
        ("talk.mp3", Clip("talk.mp3")),
        ("talk.mp3@1-2.5", Clip("talk.mp3", 1.0, 2.5)),
        ("talk.mp3@1.5-", Clip("talk.mp3", 1.5)),
        ("talk.mp3@-.5", Clip("talk.mp3", None, 0.5)),
        ("talk.mp3@1:02-1:03.25", Clip("talk.mp3", 62.0, 63.25)),
        ("a/b c.wav@1:00:02.5-90:00", Clip("a/b c.wav", 3602.5, 5400.0)),
        ("me@home.wav", Clip("me@home.wav")),
        ("me@home.wav@3-4", Clip("me@home.wav", 3.0, 4.0)),
        ("@3-4", Clip("@3-4")),
    ],
)
def test_clips_are_written_as_file_at_start_end(text: str, clip: Clip) -> None:
    assert audio.parse_clip(text) == clip


def test_what_a_clip_prints_is_read_back(tmp_path: Path) -> None:
    for clip in (Clip("talk.mp3"), Clip("talk.mp3", 1.25, 2.5), Clip("talk.mp3", 1.5)):
        assert audio.parse_clip(str(clip)) == clip


def test_a_file_whose_name_looks_like_a_clip_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "talk@1-2"
    path.touch()
    assert audio.parse_clip(str(path)) == Clip(str(path))
    assert audio.parse_clip(f"{path}@0-1") == Clip(str(path), 0.0, 1.0)


@pytest.mark.parametrize("span", ["", "1", "1-2-3", "a-b", "-", "1:99-2:00", "2e1-3"])
def test_a_stretch_that_cannot_be_read_is_an_error(tmp_path: Path, span: str) -> None:
    path = tmp_path / "talk.mp3"
    path.touch()
    with pytest.raises(AudioError, match="write FILE@START-END"):
        audio.parse_clip(f"{path}@{span}")


def test_what_keeps_a_file_from_being_read_is_not_taken_for_damage(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = talk("a.wav")

    def refuse(*_: object, **__: object) -> None:
        raise av.error.OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("av.open", refuse)
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read \(too many open files\)"):
        audio.load(Clip(str(path)))

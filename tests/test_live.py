"""Sound as it comes: blocks in order, in bounded memory; pipes, URLs and microphones, and all that breaks."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Samples, Talk

from earshot import audio, live
from earshot.audio import SAMPLE_RATE
from earshot.live import AHEAD, Block, Feed
from earshot.types import AudioError, EarshotError

SECOND = np.ones(SAMPLE_RATE, np.float32)


def everything(feed: Feed) -> list[Block]:
    blocks = []
    while taken := feed.take(1.0):
        blocks += taken
    return blocks


def joined(blocks: Iterator[Samples]) -> Samples:
    return np.concatenate([*blocks, np.zeros(0, np.float32)])


def wait_until(true: Any) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_feed_gives_all_blocks_in_order_and_then_nothing() -> None:
    feed = Feed(SECOND * k for k in range(40))
    blocks = everything(feed)
    assert [block.samples[0] for block in blocks] == list(range(40)) and not any(block.lost for block in blocks)
    assert feed.take(1.0) == []


def test_a_source_that_can_wait_is_read_only_so_far_ahead() -> None:
    read: list[int] = []

    def source() -> Generator[Samples]:
        for k in range(100):
            read.append(k)
            yield SECOND

    feed = Feed(source())
    wait_until(lambda: len(read) > AHEAD)
    time.sleep(0.05)
    assert len(read) == AHEAD + 1
    assert len(everything(feed)) == 100


def test_of_a_live_source_the_oldest_is_dropped_and_counted() -> None:
    read, go_on = threading.Event(), threading.Event()

    def source() -> Generator[Samples]:
        yield from (SECOND * k for k in range(25))
        read.set()
        go_on.wait(60)
        yield SECOND * 25

    feed = Feed(source(), live=True)
    assert read.wait(60)
    first = feed.take(3.0)
    assert [block.samples[0] for block in first] == [15, 16, 17]
    assert [block.lost for block in first] == [15 * SAMPLE_RATE, 0, 0]
    go_on.set()
    rest = everything(feed)
    assert [block.samples[0] for block in rest] == list(range(18, 26)) and not any(block.lost for block in rest)


def test_what_breaks_a_source_is_raised_after_its_last_block() -> None:
    def source() -> Generator[Samples]:
        yield SECOND
        raise AudioError("radio: broke off")

    feed = Feed(source())
    assert len(feed.take(1.0)) == 1
    with pytest.raises(AudioError, match="radio: broke off"):
        feed.take(1.0)


def test_a_closed_feed_stops_reading() -> None:
    closed = threading.Event()

    def source() -> Generator[Samples]:
        try:
            while True:
                yield SECOND
        finally:
            closed.set()

    feed = Feed(source())
    feed.take(1.0)
    feed.close()
    assert closed.wait(60)


def test_pcm_comes_through_a_pipe_however_it_is_cut(tmp_path: Path) -> None:
    samples = (np.sin(np.arange(20_000) / 9) * 9_000).astype("<i2")
    data = samples.tobytes() + b"x"  # half a sample at the end is none
    out, into = os.pipe()

    def write() -> None:
        for k in range(0, len(data), 777):
            os.write(into, data[k : k + 777])
        os.close(into)

    threading.Thread(target=write).start()
    np.testing.assert_array_equal(joined(live.pcm(out)), samples.astype(np.float32) / 32768)
    os.close(out)


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)
    read: list[Samples] = []
    reader = threading.Thread(target=lambda: read.append(joined(live.pcm(out))))
    reader.start()
    for _ in range(2):
        time.sleep(0.05)
        os.write(into, SECOND[:800].astype("<i2").tobytes())
    os.close(into)
    reader.join(60)
    assert [len(of) for of in read] == [1600]
    os.close(out)


def test_pcm_of_another_rate_is_resampled(tmp_path: Path) -> None:
    path = tmp_path / "pcm"
    path.write_bytes((np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100) * 20_000).astype("<i2").tobytes())
    with path.open("rb") as file:
        samples = joined(live.pcm(file.fileno(), 44_100))
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=2)
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(440, abs=1)
    with pytest.raises(AudioError, match="a rate of 100 Hz cannot be listened to: 4000 to 384000 Hz"):
        live.pcm(0, 100)


def test_a_file_is_read_as_everywhere(talk: Talk) -> None:
    path = talk("a.wav")
    np.testing.assert_array_equal(joined(live.decoded(str(path))), joined(audio.stream(path)))


def test_only_regular_files_are_files(talk: Talk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    others = [None, "http://host/a.wav", str(tmp_path / "pipe"), str(tmp_path), "gone.wav"]
    assert live.is_file(str(talk("a.wav"))) and not any(map(live.is_file, others))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gone.wav", "gone.wav: no such file; check its name"),
        (".", ".: is a folder"),
        ("rtsp://host/x", "rtsp://host/x: rtsp is not listened to; name a http or https URL, or a file"),
        ("concat://a", "concat is not listened to"),
    ],
)
def test_sources_that_are_none(name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match=complaint):
        joined(live.decoded(name))


def through_a_pipe(path: Path, data: bytes) -> Samples:
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    try:
        return joined(live.decoded(str(path)))
    finally:
        writer.join(60)


def test_a_named_pipe_is_decoded(talk: Talk, tmp_path: Path) -> None:
    path = talk("a.wav")
    expected = joined(audio.stream(path))
    np.testing.assert_allclose(through_a_pipe(tmp_path / "pipe", path.read_bytes()), expected, atol=1e-4)


def test_a_pipe_may_pause_and_a_url_not_for_long(
    talk: Talk, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TIMEOUT", 0.3)
    data = talk("stalls.wav", 30).read_bytes()
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with (tmp_path / "pipe").open("wb") as pipe:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                pipe.write(half)
                pipe.flush()
                time.sleep(0.6)

    threading.Thread(target=write).start()
    assert len(joined(live.decoded(str(tmp_path / "pipe")))) == 30 * SAMPLE_RATE + SAMPLE_RATE // 2
    monkeypatch.setattr(live, "TIMEOUT", 2.0)  # what is there must come in time
    seconds = 0.0
    with pytest.raises(AudioError, match=r"stalls.wav: broke off \(.*\); check the address and the source"):
        for block in live.decoded(f"{served}/stalls.wav"):
            seconds += len(block) / SAMPLE_RATE
    assert 10 < seconds < 16


def test_a_pipe_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"pipe: cannot be opened as audio \(.*\); check the address and the source"):
        through_a_pipe(tmp_path / "pipe", b"no audio at all " * 99)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in the test's folder; of what is called stalls only the first half comes."""
    gone = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / self.path.strip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            stalls = path.name.startswith("stalls")
            self.wfile.write(data[: len(data) // 2] if stalls else data)
            if stalls:
                gone.wait(60)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        gone.set()
        server.shutdown()


def test_a_url_is_decoded(talk: Talk, served: str) -> None:
    path = talk("a.wav")
    np.testing.assert_allclose(joined(live.decoded(f"{served}/a.wav")), joined(audio.stream(path)), atol=1e-4)


def test_urls_that_lead_nowhere_are_refused_in_one_line(served: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"/gone: cannot be opened as audio \(.*not found.*\)"):
        joined(live.decoded(f"{served}/gone"))
    with pytest.raises(AudioError, match=r"cannot be opened as audio \(connection refused\)"):
        joined(live.decoded("http://127.0.0.1:9/"))
    with pytest.raises(AudioError) as raised:
        joined(live.decoded("http://somebody:secret@127.0.0.1:9/"))
    assert "secret" not in str(raised.value)


def test_a_playlist_from_elsewhere_opens_no_file_here(talk: Talk, served: str, tmp_path: Path) -> None:
    secret = talk("secret.wav")
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
    (tmp_path / "list.m3u8").write_text(f"{head}file://{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError):
        joined(live.decoded(f"{served}/list.m3u8"))


def fake_sounddevice(monkeypatch: pytest.MonkeyPatch, **made: Any) -> None:
    module = SimpleNamespace(PortAudioError=type("PortAudioError", (Exception,), {}), **made)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.mark.parametrize("start", [b"fLaC", b"OggS", b"RIFF", b"ID3\x04"])
def test_a_file_of_sound_is_no_pcm(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "talk").write_bytes(start + bytes(1000))
    with open(tmp_path / "talk", "rb") as file, pytest.raises(AudioError, match="not raw 16-bit PCM; pipe it through"):
        joined(live.pcm(file.fileno()))


def test_without_sounddevice_or_portaudio_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(EarshotError, match=r"pip install '\.\[listen\]'; or name a source: --from -"):
        live.microphone()
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EarshotError, match=r"PortAudio library not found\): install PortAudio"):
        live.microphone()


def test_without_a_microphone_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise sys.modules["sounddevice"].PortAudioError("Error querying device -1")

    fake_sounddevice(monkeypatch, RawInputStream=refuse)
    with pytest.raises(EarshotError, match=r"no microphone can be opened \(Error querying device -1\); connect one"):
        live.microphone()


def test_a_microphone_gives_blocks_until_it_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        opened: Any = None
        reads = 0

        def __init__(self, *arguments: Any) -> None:
            Stream.opened, self.closed = arguments, False

        def start(self) -> None: ...

        def close(self) -> None: ...

        def read(self, n: int) -> tuple[bytes, bool]:
            self.reads += 1
            if self.reads > 3:
                raise sys.modules["sounddevice"].PortAudioError("device unplugged")
            return np.full(n, 16_384, "<i2").tobytes(), self.reads > 1

    fake_sounddevice(monkeypatch, RawInputStream=Stream)
    blocks, told = [], list[str]()
    with pytest.raises(AudioError, match=r"the microphone broke off \(device unplugged\)"):
        for block in live.microphone("7", told.append):
            blocks.append(block)
    assert [len(block) for block in blocks] == [1600] * 3 and blocks[0][0] == 0.5
    assert Stream.opened == (SAMPLE_RATE, 1600, 7, 1, "int16")
    assert told == ["the microphone was read too late: some sound before 0.1 s was lost"]  # once while it goes on

"""The server: what is asked over HTTP and what comes back, and everything that is refused."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

pytest.importorskip("fastapi")

import schemathesis
import uvicorn
from conftest import Talk
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import earshot
from earshot import audio, cli, encoders
from earshot.answer import Endpoint
from earshot.audio import SAMPLE_RATE, load
from earshot.ingest import IndexReport
from earshot.server import create_app, guard, run
from earshot.server.app import PAGE
from earshot.types import Answer, AnswerError, Citation, Clip, Passage

SAMPLES = Path(__file__).parents[1] / "samples"
HERE = "http://localhost"
Shelf = tuple[TestClient, earshot.Library]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"encoder": encoders.load("word"), "passages": encoders.load("passage")}


@pytest.fixture(scope="module")
def indexed(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with three of the samples."""
    folder = tmp_path_factory.mktemp("indexed")
    with earshot.open(folder, **models) as library:
        library.index([SAMPLES / name for name in ("council-meeting.mp3", "lecture.opus", "podcast.m4a")])
    return folder


@pytest.fixture
def library(indexed: Path, models: dict[str, Any], tmp_path: Path) -> Iterator[earshot.Library]:
    """One to change."""
    shutil.copytree(indexed, tmp_path / "library")
    with earshot.open(tmp_path / "library", **models) as library:
        yield library


@pytest.fixture
def absent(models: dict[str, Any], tmp_path: Path) -> earshot.Library:
    return earshot.open(tmp_path / "absent", **models)


@contextmanager
def served(library: earshot.Library, **options: Any) -> Iterator[TestClient]:
    with TestClient(create_app(library, **options), base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def client(indexed: Path, models: dict[str, Any]) -> Iterator[TestClient]:
    """Of a library that nobody changes."""
    with earshot.open(indexed, **models) as library, served(library) as client:
        yield client


@pytest.fixture(scope="module")
def shelf(indexed: Path, models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """A server that takes recordings in and never indexes them."""
    folder = tmp_path_factory.mktemp("shelf") / "library"
    shutil.copytree(indexed, folder)
    with earshot.open(folder, **models) as library, served(library) as client:
        library.index = lambda paths, **_: None  # type: ignore[assignment, method-assign, return-value]
        yield client, library


@contextmanager
def listening(library: earshot.Library, **options: Any) -> Iterator[tuple[str, int]]:
    """A real server on loopback: its address."""
    server = uvicorn.Server(run.config(create_app(library, **options)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    """Long enough for indexing, which stands back for all else that runs on the machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def exchange(address: tuple[str, int], *parts: bytes, seconds: float = 60.0) -> bytes:
    """All that a server says to these bytes until it closes."""
    with socket.create_connection(address, seconds) as connection:
        for part in parts:
            connection.sendall(part)
        said = b""
        try:
            while piece := connection.recv(1 << 16):
                said += piece
        except ConnectionResetError:
            pass
        return said


def idle(client: TestClient) -> dict[str, Any]:
    """How indexing ended."""
    wait_for(lambda: not client.get("/api/indexing").json()["running"])
    state: dict[str, Any] = client.get("/api/indexing").json()
    return state


def line(answer: Any) -> str:
    """What is wrong, which is told in one line."""
    assert answer.headers["content-type"] == "application/json"
    told: str = answer.json()["detail"]
    assert set(answer.json()) == {"detail"} and told and told.isprintable()
    return told


def ids(client: TestClient) -> dict[str, int]:
    return {row["name"]: row["id"] for row in client.get("/api/recordings").json()}


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(part.split(": ", 1) for part in block.split("\n"))
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


def uploads(library: earshot.Library) -> list[str]:
    folder = library.path / "recordings"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


# What is in


def test_the_page_and_its_files_are_served_and_come_from_nowhere_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for path in ("index.html", *(part.relative_to(PAGE) for kind in ("js", "css") for part in PAGE.rglob(f"*.{kind}"))):
        text = client.get(f"/static/{path}").text
        assert text and set(re.findall(r"\w+://([\w.-]+)", text)) <= {"www.w3.org"}, path
    assert client.get("/static/index.html").text == page.text
    assert client.get("/static/../app.py").status_code == client.get("/static/%2e%2e/app.py").status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}
    for address in ("/", "/healthz", f"/api/audio/{ids(client)['lecture.opus']}"):
        head, whole = client.head(address), client.get(address)
        assert head.status_code == 200 and head.headers == whole.headers, address


def test_recordings_and_their_totals(client: TestClient, library: earshot.Library) -> None:
    rows = client.get("/api/recordings").json()
    assert [row["name"] for row in rows] == ["council-meeting.mp3", "lecture.opus", "podcast.m4a"]
    (council, *_) = library.recordings()
    assert rows[0]["id"] == council.id and rows[0]["seconds"] == pytest.approx(council.seconds, abs=0.001)
    assert os.path.samefile(rows[0]["recording"], council.path)
    status = client.get("/api/status").json()
    assert status["recordings"] == 3 and not status["answers"]
    assert status["seconds"] == pytest.approx(sum(row["seconds"] for row in rows), abs=0.01)
    assert [row["name"] for row in client.get("/api/recordings?within=lecture.*").json()] == ["lecture.opus"]


def test_an_absent_library_is_empty_until_something_is_taken_in(absent: earshot.Library, talk: Talk) -> None:
    with served(absent) as client:
        assert client.get("/api/status").json()["recordings"] == 0
        assert client.get("/api/recordings").json() == []
        answer = client.get("/api/find?q=gradient")
        assert answer.status_code == 503 and "no library" in line(answer)
        assert not absent.path.exists()
        assert client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes()).status_code == 202
        assert not idle(client)["failures"]
        assert list(ids(client)) == ["a.wav"]
        assert client.get("/api/find?q=gradient").status_code == 200


def test_a_name_that_is_not_utf8_is_shown_and_can_be_listened_to(
    library: earshot.Library, talk: Talk, tmp_path: Path
) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    try:
        os.rename(talk("a.wav"), odd)
    except OSError:
        pytest.skip("the file system takes no such name")
    library.index(os.fsdecode(odd))
    with served(library) as client:
        known = ids(client)
        assert "caf\\udce9.wav" in known
        id = known["caf\\udce9.wav"]
        assert client.get(f"/api/audio/{id}").status_code == 200
        assert client.get(f"/api/find?like={id}&start=0.5&end=1").status_code == 200
        hit = {"id": id, "start": 0.5, "end": 1, "query": "x", "probability": 0.5}
        for format in ("csv", "srt", "zip"):
            assert client.post("/api/export", json={"format": format, "hits": [hit]}).status_code == 200


# Searching


def test_a_word_is_found_as_in_python(client: TestClient, library: earshot.Library) -> None:
    hits = library.find("gradient", top=3, threshold=0.02)
    rows = client.get("/api/find?q=gradient&top=3").json()
    assert len(rows) == 3
    for hit, row in zip(hits, rows, strict=True):
        assert (row["id"], row["query"]) == (hit.recording.id, "gradient")
        assert row["start"] == pytest.approx(hit.start, abs=1e-3) and row["end"] == pytest.approx(hit.end, abs=1e-3)
        assert row["probability"] == pytest.approx(hit.probability, abs=1e-4)
    assert client.get("/api/find?q=gradient&threshold=1").json() == []
    within = client.get("/api/find?q=gradient&within=podcast.m4a").json()
    assert {row["recording"] for row in within} == {rows[0]["recording"].replace("lecture.opus", "podcast.m4a")}


def test_an_example_is_a_stretch_or_a_file_that_is_sent(client: TestClient) -> None:
    id = ids(client)["podcast.m4a"]
    rows = client.get(f"/api/find?like={id}&start=18.77&end=19.35&top=2").json()
    assert rows[0]["id"] == id and abs(rows[0]["start"] - 18.8) < 0.2
    assert rows[0]["query"].endswith("podcast.m4a@18.77-19.35")
    clip = audio.wav(load(Clip(str(SAMPLES / "podcast.m4a"), 18.77, 19.35)))
    (sent,) = client.post("/api/find?top=1", content=clip).json()
    assert sent["id"] == id and abs(sent["start"] - 18.8) < 0.2 and sent["query"] == "spoken example"


def test_questions_typed_and_spoken(client: TestClient) -> None:
    (row,) = client.get("/api/ask", params={"q": "who paid for the telescope?", "top": 1}).json()
    assert row["id"] == ids(client)["council-meeting.mp3"] and row["heard"] and row["best"]["text"]
    assert "telescope" in [word["word"] for word in row["words"]]
    assert len(client.get("/api/ask?q=telescope").json()) <= 5
    question = audio.wav(load(Clip(str(SAMPLES / "council-meeting.mp3"), 7, 12)))
    assert client.post("/api/ask?top=1", content=question).json()[0]["id"] == row["id"]


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        ("/api/find", 400, "q=WORD"),
        ("/api/find?q=a&like=1", 400, "q=WORD"),
        ("/api/find?q=", 400, "empty"),
        ("/api/find?q=%00", 400, ""),
        ("/api/find?q=望远镜", 400, ""),
        ("/api/find?q=" + "very%20long%20" * 40, 400, ""),
        ("/api/find?q=" + "x" * 2000, 422, "q: "),
        ("/api/find?q=a&top=0", 422, "top: "),
        ("/api/find?q=a&top=many", 422, "top: "),
        ("/api/find?q=a&threshold=nan", 422, "threshold: "),
        ("/api/find?q=a&threshold=2", 422, "threshold: "),
        ("/api/find?like=1&start=2&end=1", 400, "council-meeting.mp3@2-1"),
        ("/api/find?like=1&start=1&end=30", 400, "too long"),
        ("/api/find?like=1&start=inf", 422, "start: "),
        ("/api/find?like=1&start=1e300", 422, "start: "),
        ("/api/find?like=999", 404, "no recording 999"),
        ("/api/ask", 422, "q: "),
        ("/api/ask?q=", 400, "empty"),
        ("/api/ask?q=" + "?!" * 500, 400, "empty"),
        ("/api/ask?q=" + "a+" * 450, 400, "sentences"),
        ("/api/answer?q=why", 404, "--endpoint"),
        ("/api/audio/999", 404, "no recording 999"),
        ("/api/audio/0", 422, "id: "),
        ("/api/audio/99999999999999999999999", 422, "id: "),
        ("/api/audio/..%2f..%2fetc%2fpasswd", 404, ""),
        ("/api/audio/%2e%2e", 422, "id: "),
        ("/api/audio/1.wav", 422, "id: "),
        ("/api/clip/1?start=9&end=8", 400, ""),
        ("/api/find?q=w1&within=nowhere", 400, "no recording has a path that matches 'nowhere'"),
        ("/api/ask?q=w1&within=nowhere", 400, "no recording has a path that matches 'nowhere'"),
        ("/api/clip/1?start=9000", 400, ""),
        ("/api/peaks/1?n=0", 422, "n: "),
        ("/api/peaks/1?n=1000000", 422, "n: "),
        ("/api/nothing", 404, ""),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(client: TestClient, address: str, status: int, told: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    assert told in line(answer)


def test_an_example_that_is_not_audio_is_refused_without_the_name_of_its_file_here(client: TestClient) -> None:
    for address in ("/api/find", "/api/ask"):
        answer = client.post(address, content=b"<script>" * 100)
        assert answer.status_code == 400 and ": not audio" in line(answer)
        assert line(answer).startswith(f"spoken {'question' if 'ask' in address else 'example'}: ")
        assert client.post(address, content=b"").status_code == 400
    long = client.post("/api/find", content=(SAMPLES / "lecture.opus").read_bytes())
    assert long.status_code == 400 and ".part" not in line(long)


# Listening


def test_sound_comes_whole_and_in_ranges(client: TestClient) -> None:
    whole = (SAMPLES / "council-meeting.mp3").read_bytes()
    address = f"/api/audio/{ids(client)['council-meeting.mp3']}"
    answer = client.get(address)
    assert answer.content == whole and answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "audio/mpeg"
    part = client.get(address, headers={"range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == whole[1000:2000]
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole)}"
    assert client.get(address, headers={"range": "bytes=-10"}).content == whole[-10:]
    assert client.get(address, headers={"range": f"bytes={len(whole)}-"}).status_code == 416


def test_a_file_that_is_gone_or_poses_as_a_page(library: earshot.Library, talk: Talk) -> None:
    gone, page = talk("gone.wav"), talk("page.wav")
    page = page.rename(page.with_suffix(".html"))
    library.index([gone, page])
    gone.unlink()
    with served(library) as client:
        known = ids(client)
        assert_refused(client, known["gone.wav"], "gone.wav: cannot be read")
        assert client.get(f"/api/audio/{known['page.html']}").headers["content-type"] == "application/octet-stream"


def test_a_file_that_is_no_longer_the_one_that_was_indexed(library: earshot.Library, talk: Talk) -> None:
    library.index([talk("a.wav"), talk("b.wav")])
    os.utime(talk("a.wav", seed=1), (1, 1))  # of the same size, and clocks may be coarse
    path = talk("b.wav").with_name("b.wav")
    path.unlink()
    path.mkdir()
    with served(library) as client:
        for name in ("a.wav", "b.wav"):
            assert_refused(client, ids(client)[name], f"{name}: has changed since it was indexed")


def assert_refused(client: TestClient, id: int, told: str) -> None:
    for address in (f"audio/{id}", f"clip/{id}?end=1", f"peaks/{id}?end=1", f"find?like={id}&start=0.5&end=1"):
        answer = client.get(f"/api/{address}")
        assert answer.status_code == 404 and told in line(answer), address
    hit = {"id": id, "start": 0.5, "end": 1, "query": "x", "probability": 0.5}
    answer = client.post("/api/export", json={"format": "zip", "hits": [hit]})
    assert answer.status_code == 404 and told in line(answer)


def test_clips_and_waveforms_are_those_of_the_stretch(client: TestClient) -> None:
    id = ids(client)["lecture.opus"]
    samples = load(Clip(str(SAMPLES / "lecture.opus"), 10, 12))
    with wave.open(io.BytesIO(client.get(f"/api/clip/{id}?start=10&end=12").content)) as clip:
        assert (clip.getframerate(), clip.getnchannels()) == (SAMPLE_RATE, 1)
        pcm = np.frombuffer(clip.readframes(10**6), "<i2") / 32767
    assert np.abs(pcm - samples).max() < 1e-4
    drawn = client.get(f"/api/peaks/{id}?start=10&end=12&n=20").json()
    assert (drawn["start"], drawn["end"]) == (10, 12)
    assert np.allclose(drawn["peaks"], np.abs(samples).reshape(20, -1).max(axis=1), atol=1e-4)
    assert len(client.get(f"/api/peaks/{id}?start=10&end=10.01&n=1000").json()["peaks"]) == 1000
    assert client.get(f"/api/peaks/{id}").json()["end"] == client.get("/api/recordings").json()[1]["seconds"]


def test_a_stretch_of_more_than_ten_minutes_is_refused(library: earshot.Library, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    audio.write_wav(long, np.zeros(SAMPLE_RATE * 601, np.float32))
    library.index(long)
    with served(library) as client:
        id = ids(client)["long.wav"]
        for what in ("clip", "peaks"):
            answer = client.get(f"/api/{what}/{id}")
            assert answer.status_code == 400 and "longer than 600 s" in line(answer)
        assert client.get(f"/api/peaks/{id}?start=1&n=3").json()["peaks"] == [0, 0, 0]


# Taking in and taking out


def test_a_recording_is_taken_in_indexed_found_and_taken_out(library: earshot.Library) -> None:
    sound = (SAMPLES / "court-hearing.opus").read_bytes()
    with served(library) as client:
        answer = client.post("/api/recordings?name=court.opus", content=sound)
        assert answer.status_code == 202 and answer.json() == {"name": "court.opus"}
        told = events(client.get("/api/indexing/events").text)
        assert all(name == "" for name, _ in told)
        *before, last = [state for _, state in told]
        assert all(state["running"] for state in before) and not last["running"]
        assert last["files"] == last["expected_files"] == 1 and not last["failures"]
        id = ids(client)["court.opus"]
        assert {row["id"] for row in client.get("/api/find?q=witness&within=court.opus&threshold=0.5").json()} == {id}
        assert client.get("/api/ask?q=witness&within=court.opus").json()[0]["id"] == id
        assert client.get(f"/api/audio/{id}").content == sound
        assert client.post("/api/recordings?name=court.opus", content=sound).json() == {"name": "court-2.opus"}
        idle(client)
        assert client.delete(f"/api/recordings/{id}").status_code == 204
        assert client.delete(f"/api/recordings/{id}").status_code == 404
        assert uploads(library) == ["court-2.opus"] and "court.opus" not in ids(client)


def test_a_library_of_a_crooked_path_and_what_a_crash_left(
    library: earshot.Library, models: dict[str, Any], talk: Talk
) -> None:
    (library.path / "recordings").mkdir()
    old, new = (library.path / "recordings" / f".{name}.part" for name in ("old", "new"))
    old.touch(), new.touch()
    os.utime(old, (0, 0))
    crooked = earshot.open(library.path / ".." / library.path.name, **models)
    with crooked, served(crooked) as client:
        client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes())
        idle(client)
        assert client.delete(f"/api/recordings/{ids(client)['a.wav']}").status_code == 204
    assert uploads(library) == [new.name]


def test_taking_out_leaves_files_that_were_not_taken_in_here(library: earshot.Library, talk: Talk) -> None:
    path = talk("mine.wav")
    library.index(path)
    with served(library) as client:
        assert client.delete(f"/api/recordings/{ids(client)['mine.wav']}").status_code == 204
        assert "mine.wav" not in ids(client)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../../etc/cron.d/x.wav", "x.wav"),
        ("..\\..\\x.wav", "x.wav"),
        ("/etc/x.wav", "x.wav"),
        ("<img src=x onerror=alert(1)>.wav", "img src=x onerror=alert(1).wav"),
        ("a\x00b\r\nc\u202ed.wav", "abcd.wav"),
        ("-rf.wav", "-rf.wav"),
        (".hidden.wav", "hidden.wav"),
        ("con.wav", "_con.wav"),
        ("LPT1.tar.wav", "_LPT1.tar.wav"),
        ("  talk .wav. ", "talk.wav"),
        ("$(touch x);`id`.wav", "$(touch x);`id`.wav"),
        ("vo\u0302\u0301i 望远镜.WAV", "v\u1ed1i 望远镜.WAV"),
        ("é" * 400 + ".wav", "é" * 90 + ".wav"),
    ],
)
def test_names_are_made_harmless(shelf: Shelf, talk: Talk, name: str, kept: str) -> None:
    client, library = shelf
    content = talk("a.wav").read_bytes()
    before = {path for path in library.path.parent.rglob("*") if path.is_file()}
    answer = client.post("/api/recordings", params={"name": name}, content=content)
    assert answer.status_code == 202 and answer.json() == {"name": kept}
    new = {path for path in library.path.parent.rglob("*") if path.is_file()} - before
    assert new == {library.path / "recordings" / kept}
    (library.path / "recordings" / kept).unlink()


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("a.mp3", b"", 400),
        ("a.mp3", b"<!doctype html><script>alert(1)</script>", 415),
        ("a.wav", b"RIFF" + bytes(40), 415),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", 415),
        ("a.wav", b"ffconcat version 1.0\nfile court.opus\n", 415),
        ("a.exe", None, 415),
        ("a", None, 415),
        (".wav", None, 415),
        ("..", None, 415),
        ("", None, 422),
        ("x" * 2000 + ".wav", None, 422),
    ],
)
def test_what_is_not_audio_is_refused_and_leaves_nothing(
    shelf: Shelf, talk: Talk, name: str, body: bytes | None, status: int
) -> None:
    client, library = shelf
    content = talk("a.wav").read_bytes() if body is None else body
    answer = client.post("/api/recordings", params={"name": name}, content=content)
    assert answer.status_code == status, answer.text
    assert line(answer) and uploads(library) == []


def test_a_playlist_does_not_lead_to_other_files(library: earshot.Library, talk: Talk) -> None:
    secret = talk("secret.wav")
    with served(library) as client:
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile {secret.name}\n",
        ):
            assert client.post("/api/recordings?name=a.m3u8", content=text).status_code == 415
            assert client.post("/api/find", content=text).status_code == 400
            lists = secret.with_name("list.m3u8")
            lists.write_text(text)
            with pytest.raises(earshot.AudioError, match="playlist"):
                load(Clip(str(lists)))


def test_a_damaged_recording_is_named_and_the_rest_goes_in(library: earshot.Library, talk: Talk) -> None:
    sound = talk("long.wav", 8).read_bytes()
    with served(library) as client:
        client.post("/api/recordings?name=cut.wav", content=sound[: len(sound) // 2])
        client.post("/api/recordings?name=whole.wav", content=sound)
        (failure,) = idle(client)["failures"]
        assert failure["name"] == "cut.wav" and "cut off" in failure["reason"]
        assert [path.name for path in (library.path / "recordings").iterdir()] == ["whole.wav"]
        assert "whole.wav" in ids(client)


def test_a_failure_is_told_although_indexing_ended_before_the_next_recording_came(
    library: earshot.Library, talk: Talk
) -> None:
    sound = talk("long.wav", 8).read_bytes()
    with served(library) as client:
        client.post("/api/recordings?name=cut.wav", content=sound[: len(sound) // 2])
        indexer = client.app.state.service.indexer  # type: ignore[attr-defined]
        wait_for(lambda: indexer._thread is None)
        client.post("/api/recordings?name=whole.wav", content=sound)
        assert [failure["name"] for failure in idle(client)["failures"]] == ["cut.wav"]
        client.post("/api/recordings?name=more.wav", content=sound)
        assert not idle(client)["failures"]  # it has been told


@pytest.mark.parametrize(
    "reason",
    ["cannot be read (too many open files); check the disk, and try again", "damaged at 1.00 s; copy it again"],
)
def test_a_recording_that_is_in_stays_whatever_fails_at_a_later_start(
    library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    with served(library) as client:
        client.post("/api/recordings?name=kept.wav", content=talk("kept.wav").read_bytes())
        assert not idle(client)["failures"]
    kept = library.path / "recordings" / "kept.wav"
    os.utime(kept, (1, 1))  # as a backup that is put back

    def fail(path: str, **_: Any) -> Iterator[Any]:
        raise earshot.AudioError(f"{path}: {reason}")

    monkeypatch.setattr("earshot.audio.stream", fail)
    with served(library) as client:
        (failure,) = idle(client)["failures"]
        assert failure == {"name": "kept.wav", "reason": reason}
        assert kept.exists() and "kept.wav" in ids(client)


def test_a_recording_that_cannot_be_read_for_now_goes_in_at_the_next_start(
    library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, check = library.index, audio._check

    def denied(path: str) -> None:
        if path.endswith("/kept.wav"):
            raise earshot.AudioError(f"{path}: cannot be opened (Too many open files); check the path and the disk")
        check(path)

    def later(paths: Sequence[str], **options: Any) -> Any:
        monkeypatch.setattr(audio, "_check", denied)
        return index(paths, **options)

    monkeypatch.setattr(library, "index", later)
    with served(library) as client:
        client.post("/api/recordings?name=kept.wav", content=talk("kept.wav").read_bytes())
        assert len(idle(client)["failures"]) == 1
    monkeypatch.undo()
    with served(library) as client:
        assert not idle(client)["failures"] and "kept.wav" in ids(client)


def test_a_full_disk_keeps_nothing(library: earshot.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [1 << 20]
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with served(library) as client:
        monkeypatch.setattr("earshot.server.uploads.os.write", full)
        answer = client.post("/api/recordings?name=a.wav", content=bytes(5 << 20))
        assert answer.status_code == 507 and line(answer) == "the server's disk is full: nothing was kept"
        assert uploads(library) == []
        assert client.post("/api/find", content=b"x").status_code == 507


def test_too_large_a_body_is_refused_early_or_when_it_shows(library: earshot.Library) -> None:
    with listening(library, max_upload=3 << 20) as address:
        head = b"POST /api/recordings?name=a.wav HTTP/1.1\r\nHost: localhost\r\n"
        said = exchange(address, head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (2 << 30))
        assert said.startswith(b"HTTP/1.1 413") and b"larger than the 3 MiB" in said
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        with socket.create_connection(address, 60) as connection:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk)
            wait_for(lambda: uploads(library))
            connection.sendall(chunk[:20])
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        wait_for(lambda: not uploads(library))
        for wrong in (b"-1", b"1e3", b"x", b"9" * 5000):
            assert not exchange(address, head + b"Content-Length: " + wrong + b"\r\n\r\n").startswith(b"HTTP/1.1 2")
    with served(library) as client:
        for path, within in (("find", 400), ("ask", 400), ("answer", 404)):
            assert client.post(f"/api/{path}", content=bytes(2 << 20)).status_code == within
            assert client.post(f"/api/{path}", content=bytes(33 << 20)).status_code == 413
        assert client.post("/api/export", content=bytes(2 << 20)).status_code == 413


def test_a_slow_client_is_not_waited_for(library: earshot.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 2.0)
    with listening(library) as address:
        head = b"POST /api/recordings?name=a.wav HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        said = exchange(address, head, b"RIFF")
        assert said.startswith(b"HTTP/1.1 408") and b"send it again" in said
        with socket.create_connection(address, 60) as connection:
            connection.sendall(head)
            connection.settimeout(0.1)
            said, end = b"", time.monotonic() + 60
            while not said and time.monotonic() < end:
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    said = connection.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 408")
        assert uploads(library) == []
        monkeypatch.setattr(guard, "PATIENCE", 0.5)  # nothing need be in time from here on
        assert exchange(address) == exchange(address, b"GET / HTTP/1.1\r\nHost: loc") == b""


def test_half_a_request_is_not_waited_for_after_an_answer_either(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 2.0)
    with listening(library) as address, socket.create_connection(address, 60) as connection:

        def ask() -> None:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while not said.endswith(b"}"):
                piece = connection.recv(1 << 16)
                assert piece
                said += piece

        ask()
        monkeypatch.setattr(guard, "PATIENCE", 60.0)
        ask()
        time.sleep(2.2)  # for what the patience was before, which no longer counts
        monkeypatch.setattr(guard, "PATIENCE", 0.5)
        ask()
        with suppress(ConnectionError):  # it may have been hung up on already
            connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert connection.recv(1) == b""


def test_who_does_not_take_an_answer_is_hung_up_on_and_who_takes_it_slowly_is_not(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patience = 3.0
    monkeypatch.setattr(guard, "PATIENCE", patience)
    left, lost = list[Any](), run._Connection.connection_lost
    monkeypatch.setattr(run._Connection, "connection_lost", lambda self, error: (lost(self, error), left.append(self)))
    long = tmp_path / "long.wav"
    audio.write_wav(long, np.zeros(SAMPLE_RATE * 500, np.float32))
    library.index(long)
    with listening(library) as address:
        head = b"GET /api/audio/%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        (id,) = (recording.id for recording in library.recordings("long.wav"))

        def asked() -> socket.socket:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.settimeout(60)
            connection.connect(address)
            connection.sendall(head % id)
            return connection

        def taken(connection: socket.socket, pause: float) -> int:
            size = 0
            with suppress(ConnectionResetError):
                while piece := connection.recv(1 << 20):
                    size += len(piece)
                    time.sleep(pause)
            return size

        with asked() as slow:
            began = time.monotonic()
            assert taken(slow, 0.02) > long.stat().st_size and time.monotonic() - began > patience
        with asked() as stuck:
            wait_for(lambda: len(left) == 2)
            assert 0 < taken(stuck, 0.0) < long.stat().st_size


def test_only_so_many_recordings_are_sent_at_once(library: earshot.Library, talk: Talk) -> None:
    head = b"POST /api/recordings?name=a.wav HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nRIFF"
    with listening(library) as address:
        connections = [socket.create_connection(address, 60) for _ in range(8)]
        for connection in connections:
            connection.sendall(head)
        wait_for(lambda: len(uploads(library)) == 8)
        said = exchange(address, head)
        assert said.startswith(b"HTTP/1.1 503") and b"send it again" in said and len(uploads(library)) == 8
        for connection in connections:
            connection.close()
        wait_for(lambda: not uploads(library))
        assert exchange(address, head.replace(b"9999", b"4")).startswith(b"HTTP/1.1 415")


def test_connections_beyond_those_that_are_served_are_told_so(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CONNECTIONS", 3)
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with listening(library) as address:
        taken = [socket.create_connection(address, 60) for _ in range(3)]
        assert exchange(address, get).startswith(b"HTTP/1.1 503")
        for connection in taken:
            connection.close()
        wait_for(lambda: exchange(address, get).startswith(b"HTTP/1.1 200"))


def test_a_client_that_leaves_in_the_middle_leaves_nothing(library: earshot.Library) -> None:
    with listening(library) as address:
        with socket.create_connection(address, 60) as connection:
            head = b"POST /api/recordings?name=a.wav HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
            connection.sendall(head + bytes(2 << 20))
            wait_for(lambda: uploads(library))
        wait_for(lambda: not uploads(library))


def test_nothing_is_searched_for_a_client_that_has_left(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, find = list[str](), threading.Event(), library.find

    def slow(query: str, **options: Any) -> Any:
        asked.append(query)
        if query != "ready":
            assert go_on.wait(120)
        return find(query, **options)

    monkeypatch.setattr(library, "find", slow)
    with listening(library) as address:
        get = "GET /api/find?q={} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connections = []
        for k in range(6):
            connections.append(socket.create_connection(address, 60))
            connections[-1].sendall(get.format(f"word{k}").encode())
            wait_for(lambda k=k: len(asked) >= min(k + 2, 3))
            time.sleep(0.05)
        for connection in connections[2:5]:
            connection.close()
        time.sleep(0.2)
        assert b"ok" in exchange(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        go_on.set()
        assert b"HTTP/1.1 200" in connections[5].recv(1 << 16)
        for connection in connections:
            connection.close()
    assert asked == ["ready", "word0", "word1", "word5"]


def test_the_last_hundred_failures_are_kept(library: earshot.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(paths: Sequence[str], *, progress: Any, workers: int) -> None:
        for k in range(250):
            progress(earshot.ingest.Progress(0, 1, k, 250, earshot.library.Failure(f"/{k}.wav", None, "is odd")))

    monkeypatch.setattr(library, "index", fail)
    with served(library) as client:
        client.app.state.service.indexer.add("/")  # type: ignore[attr-defined]
        assert [failure["name"] for failure in idle(client)["failures"]] == [f"{k}.wav" for k in range(150, 250)]


def test_what_was_not_indexed_when_the_server_stopped_is_at_the_next_start(
    library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, begun = library.index, threading.Event()

    def endless(paths: Sequence[str], *, progress: Any, workers: int) -> IndexReport:
        while True:
            begun.set()
            time.sleep(0.01)
            progress(earshot.ingest.Progress(0, 1, 0, 1))

    monkeypatch.setattr(library, "index", endless)
    with served(library) as client:
        client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes())
        assert begun.wait(60) and client.get("/api/indexing").json()["running"]
    monkeypatch.setattr(library, "index", index)
    with served(library) as client:
        assert not idle(client)["failures"]
        assert "a.wav" in ids(client)


def test_another_writer_is_waited_for(library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.server.indexing.RETRY", 0.05)
    with served(library) as client:
        with earshot.library.Store.open(library.path, writing=True):
            client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes())
            answer = client.delete("/api/recordings/1")
            assert answer.status_code == 503 and "writing" in line(answer)
            time.sleep(0.2)
            state = client.get("/api/indexing").json()
            assert state["running"] is True and not state["failures"]
        assert not idle(client)["failures"]
        assert "a.wav" in ids(client)


def test_what_was_sent_goes_with_the_recording_and_does_not_come_back(library: earshot.Library, talk: Talk) -> None:
    own = talk("own.wav")
    library.index(own)
    with served(library) as client:
        client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes())
        sound = talk("long.wav", 8).read_bytes()
        client.post("/api/recordings?name=cut.wav", content=sound[: len(sound) // 2])
        assert len(idle(client)["failures"]) == 1
    assert not library.status().failures and uploads(library) == ["a.wav"]
    assert library.remove([library.uploads, own]) == sorted([str(library.uploads / "a.wav"), str(own)])
    assert uploads(library) == [] and own.exists()
    with served(library) as client:
        idle(client)
        assert not {"a.wav", "own.wav"}.intersection(ids(client))


def test_taking_out_waits_a_little_for_what_is_taken_in(
    library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.server.service.PATIENCE", 0.1)
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(library, "index", lambda paths, **_: (begun.set(), go_on.wait(60)))
    with served(library) as client:
        client.post("/api/recordings?name=a.wav", content=talk("a.wav").read_bytes())
        assert begun.wait(60)
        answer = client.delete("/api/recordings/1")
        assert answer.status_code == 503 and "being indexed" in line(answer)
        go_on.set()
        idle(client)
        assert client.delete("/api/recordings/1").status_code == 204


def test_waveforms_are_drawn_while_those_who_take_out_wait(
    library: earshot.Library, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earshot.server.service.PATIENCE", 60.0)
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(library, "index", lambda paths, **_: (begun.set(), go_on.wait(60)))
    with listening(library) as address:
        sound = talk("a.wav").read_bytes()
        head = b"POST /api/recordings?name=a.wav HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(sound)
        assert exchange(address, head + b"Connection: close\r\n\r\n", sound).startswith(b"HTTP/1.1 202")
        assert begun.wait(30)
        waiting = [socket.create_connection(address, 30) for _ in range(6)]
        for connection in waiting:
            connection.sendall(b"DELETE /api/recordings/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        get = b"GET /api/peaks/2?end=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert exchange(address, get, seconds=30).startswith(b"HTTP/1.1 200")  # while nothing else goes on
        go_on.set()
        for connection in waiting:
            assert connection.recv(1 << 16).startswith((b"HTTP/1.1 204", b"HTTP/1.1 404"))
            connection.close()


def test_many_can_listen_while_all_that_search_wait(library: earshot.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    with listening(library) as address:
        monkeypatch.setattr(library, "find", lambda *_, **__: go_on.wait(120) and [])
        get = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        waiting = [socket.create_connection(address, 30) for _ in range(60)]
        for connection in waiting:
            connection.sendall(get % b"/api/find?q=a")
        for path in (b"/healthz", b"/api/status", b"/api/audio/1", b"/api/peaks/1?end=2", b"/"):
            assert exchange(address, get % path).startswith(b"HTTP/1.1 200")
        go_on.set()
        for connection in waiting:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            connection.close()


# Who may ask


def test_only_those_who_show_the_token_are_served(library: earshot.Library) -> None:
    with served(library, token="pa ss&wörd") as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/", "/static/index.html", "/api/status", "/api/audio/1", "/openapi.json", "/nothing"):
            answer = client.get(path)
            assert answer.status_code == 401 and "token" in line(answer), path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/api/recordings?name=a.wav", content=bytes(9)).status_code == 401
        assert client.delete("/api/recordings/1").status_code == 401
        for shown in ("Bearer", "Bearer ", "Bearer pa", "Basic pa ss&wörd", "pa ss&wörd"):
            assert client.get("/api/status", headers={"authorization": shown.encode()}).status_code == 401
        shown = {"authorization": "bearer pa ss&wörd".encode()}
        assert client.get("/api/status", headers=shown).status_code == 200
        assert client.get("/api/status?token=pa%20ss%26w%C3%B6rd").status_code == 401
        for cookie in ("earshot-80=secret; x", "a@b=c; earshot-80=", "earshot-80", "=;;\xff"):
            assert client.get("/api/status", headers={"cookie": cookie.encode("latin-1")}).status_code == 401


def test_the_page_is_opened_with_the_token_once(library: earshot.Library) -> None:
    with served(library, token="secret") as client:
        assert client.get("/?token=wrong").status_code == 401 and not client.cookies
        answer = client.get("/?token=secret&q=word", follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/?q=word"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("earshot-80=")  # a browser sends it to servers at other ports too
        assert "secret" not in cookie and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert client.get("/").status_code == client.get("/api/status").status_code == 200
        client.cookies.set("earshot-80", "0" * 64, domain="localhost.local")
    with served(library, token="another") as client:
        client.cookies.set("earshot-80", cookie.partition("=")[2].partition(";")[0])
        assert client.get("/api/status").status_code == 401


def test_a_browser_without_the_token_is_asked_for_it(library: earshot.Library) -> None:
    html = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    with served(library, token="secret") as client:
        for address, told in (("/", "wants a token"), ("/?q=word", "wants a token"), ("/?token=<b>", "not the token")):
            answer = client.get(address, headers=html)
            assert answer.status_code == 401 and answer.headers["content-type"].startswith("text/html"), address
            assert told in answer.text and 'name="token"' in answer.text
            assert "<b>" not in answer.text and not re.search(r"<script|style|static/", answer.text)
            assert answer.headers["www-authenticate"] == "Bearer" and not client.cookies
            policy = answer.headers["content-security-policy"]
            assert policy == client.get("/").headers["content-security-policy"].replace(
                "form-action 'none'", "form-action 'self'"
            )
        assert line(client.get("/api/status", headers=html))  # no page: the data of one
        assert client.get("/?token=secret", headers=html).status_code == 200


def test_other_names_and_other_sites_are_refused(client: TestClient, library: earshot.Library) -> None:
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]:80"):
        answer = client.get("/api/status", headers={"host": host})
        assert answer.status_code == 421 and line(answer), host
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:9"):
        assert client.get("/api/status", headers={"host": host}).status_code == 200, host
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:8001",
        "http://localhost.evil.example",
        "x",
        "",
        "http://[",
    ):
        for send in (client.get, client.delete):
            answer = send("/api/recordings", headers={"origin": origin})
            assert answer.status_code == 403 and line(answer), origin
    assert client.get("/api/status", headers={"origin": HERE}).status_code == 200
    for site in ("cross-site", "same-site"):
        assert client.get("/api/audio/1", headers={"sec-fetch-site": site}).status_code == 403
        assert client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200
    with served(library, token="t", hosts=None) as anywhere:
        headers = {"host": "studio.example", "authorization": "Bearer t"}
        assert anywhere.get("/api/status", headers=headers).status_code == 200
        assert anywhere.get("/api/status", headers=headers | {"origin": "http://studio.example"}).status_code == 200
        assert anywhere.get("/api/status", headers=headers | {"origin": "http://evil.example"}).status_code == 403


def test_every_answer_tells_browsers_to_be_careful(client: TestClient) -> None:
    for path, host in (("/", "localhost"), ("/api/audio/1", "localhost"), ("/nothing", "localhost"), ("/", "evil")):
        headers = client.get(path, headers={"host": host}).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["style-src"].split()[0] == "'self'"
        assert all(style.startswith("'sha256-") for style in policy["style-src"].split()[1:])
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


# Exports


@pytest.fixture
def hits(client: TestClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/api/find?q=gradient&top=7").json()
    assert len({row["id"] for row in rows}) == 2
    return rows


def test_hits_as_a_table(client: TestClient, hits: list[dict[str, Any]]) -> None:
    answer = client.post("/api/export", json={"format": "csv", "hits": hits})
    assert answer.headers["content-disposition"] == 'attachment; filename="hits.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["recording"], float(row["start"]), float(row["probability"])) for row in rows] == [
        (hit["recording"], hit["start"], hit["probability"]) for hit in hits
    ]


def test_hits_as_subtitles(client: TestClient, hits: list[dict[str, Any]]) -> None:
    lecture = [hit for hit in hits if hit["recording"].endswith("lecture.opus")]
    answer = client.post("/api/export", json={"format": "srt", "hits": lecture})
    assert answer.text.startswith("1\n00:00:06,6") and answer.text.count(" --> ") == len(lecture)
    both = client.post("/api/export", json={"format": "srt", "hits": hits})
    assert both.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(both.content)) as archive:
        assert sorted(archive.namelist()) == ["lecture.srt", "podcast.srt"]
        assert archive.read("lecture.srt").decode() == answer.text


def test_hits_as_clips(client: TestClient, hits: list[dict[str, Any]]) -> None:
    answer = client.post("/api/export", json={"format": "zip", "hits": hits})
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == len(hits) and all(os.sep not in name for name in archive.namelist())
        with archive.open(archive.namelist()[0]) as file, wave.open(file) as clip:
            seconds = clip.getnframes() / clip.getframerate()
    assert seconds == pytest.approx(hits[0]["end"] - hits[0]["start"], abs=0.002)


def test_names_and_texts_in_exports_harm_nobody(
    library: earshot.Library, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [
        "=cmd().wav",
        "a\\..\\..\\evil.wav",
        "x" * 251 + ".wav",
        f"below/{'x' * 251}.wav",
        "below/EVIL.wav",
        "con.wav",
    ]
    sound = talk("a.wav")
    (tmp_path / "below").mkdir()
    for name in made:
        shutil.copy(sound, name)
    library.index(made)
    with served(library) as client:
        known = [row["id"] for row in client.get("/api/recordings").json() if row["recording"] in made]
        assert len(known) == len(made)
        hits = [{"id": id, "start": 0.5, "end": 1, "query": "-1+1", "probability": 0.5} for id in known]
        for format in ("srt", "zip"):
            answer = client.post("/api/export", json={"format": format, "hits": hits})
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                names = archive.namelist()
                archive.extractall(tmp_path / format)
            assert len({name.casefold() for name in names}) == len(made) == len(list((tmp_path / format).iterdir()))
            assert all(len(name) <= 255 and not set('/\\:*?"<>|') & set(name) for name in names), names
        table = client.post("/api/export", json={"format": "csv", "hits": hits}).text
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["query"] for row in rows} == {"'-1+1"} and "'=cmd().wav" in {row["recording"] for row in rows}


def test_exports_that_cannot_be_made(client: TestClient) -> None:
    hit = {"id": 1, "start": 0, "end": 1, "query": "a", "probability": 0.5, "score": 0.5}
    for change, format, status in (
        ({}, "exe", 422),
        ({"id": 999}, "csv", 404),
        ({"start": 5}, "zip", 400),
        ({"start": 1}, "csv", 400),
        ({"start": 1, "end": 0.5}, "srt", 400),
        ({"start": 1e6, "end": 1e6 + 1}, "srt", 400),
        ({"end": 4000}, "zip", 400),
        ({"end": 60}, "zip", 400),
        ({"probability": float("nan")}, "csv", 422),
        ({"query": "x" * 1001}, "csv", 422),
        ({"start": -1}, "csv", 422),
    ):
        body = json.dumps({"format": format, "hits": [hit | change]})
        answer = client.post("/api/export", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, (change, answer.text)
        line(answer)
    for text in (b"", b"{", b"[]", b"null", b"\xff", b'{"format": "csv", "hits": []}', b"[" * 100_000):
        answer = client.post("/api/export", content=text, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and line(answer), text[:20]
    many = client.post("/api/export", json={"format": "csv", "hits": [hit] * 1001})
    assert many.status_code == 422


# Answers


@pytest.fixture
def answering(library: earshot.Library) -> Iterator[TestClient]:
    with served(library, endpoint=Endpoint("http://127.0.0.1:9/v1", "model")) as client:
        assert client.get("/api/status").json()["answers"]
        yield client


def test_an_answer_comes_piece_by_piece_with_its_citations(
    answering: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: str, passages: Sequence[Passage], endpoint: Endpoint, *_: Any) -> Iterator[str | Answer]:
        assert question == "who paid?" and endpoint.model == "model"
        yield "The widow"
        yield "\npaid [1]."
        first = passages[0]
        yield Answer("The widow\npaid [1].", (Citation(1, first.recording, first.start, first.end),))

    monkeypatch.setattr("earshot.answer.answer", answer)
    stream = answering.get("/api/answer?q=who%20paid?&top=2")
    assert stream.headers["content-type"].startswith("text/event-stream")
    (name, passages), *pieces, last = events(stream.text)
    assert name == "passages" and passages == answering.get("/api/ask?q=who%20paid?&top=2").json()
    assert pieces == [("text", "The widow"), ("text", "\npaid [1].")]
    cited = {key: passages[0][key] for key in ("id", "recording", "start", "end")}
    assert last == ("answer", {"answer": "The widow\npaid [1].", "citations": [{"number": 1, **cited}]})


def test_a_spoken_question_is_answered_where_the_model_hears(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = list[Path]()

    def answer(question: Clip, passages: Sequence[Passage], endpoint: Endpoint, *_: Any) -> Iterator[str | Answer]:
        spoken.append(Path(question.path))
        yield f"{len(audio.load(question)) / audio.SAMPLE_RATE:.1f} s"
        yield Answer("That.", ())

    monkeypatch.setattr("earshot.answer.answer", answer)
    question = audio.wav(audio.load(Clip(str(SAMPLES / "council-meeting.mp3"), 9.0, 12.5)))
    with served(library, endpoint=Endpoint("http://127.0.0.1:9/v1", "model", sends="audio")) as client:
        assert client.get("/api/status").json()["hears"]
        told = events(client.post("/api/answer?top=2", content=question).text)
        assert [name for name, _ in told] == ["passages", "text", "answer"] and told[1][1] == "3.5 s"
        assert told[0][1] == client.post("/api/ask?top=2", content=question).json()
        assert client.post("/api/answer", content=b"noise").status_code == 400
    assert len(spoken) == 1 and not spoken[0].exists()
    with served(library, endpoint=Endpoint("http://127.0.0.1:9/v1", "model")) as client:
        assert not client.get("/api/status").json()["hears"]
        refused = client.post("/api/answer", content=question)
        assert refused.status_code == 400 and "--send audio" in line(refused)


def test_sound_that_is_no_longer_what_was_indexed_is_not_sent(library: earshot.Library, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    shutil.copy(SAMPLES / "council-meeting.mp3", path)
    library.index(path)
    path.write_bytes(path.read_bytes() + bytes(32_000))
    with served(library, endpoint=Endpoint("http://127.0.0.1:9/v1", "model", sends="audio")) as client:
        *_, (name, data) = events(client.get("/api/answer?q=who%20paid&within=a.mp3").text)
        assert name == "error" and data["detail"].startswith(f"{path}: has changed")


@pytest.mark.parametrize(("error", "told"), [(AnswerError("401: check the key"), "401"), (KeyError("x"), "KeyError")])
def test_an_answer_that_breaks_off_says_why(
    answering: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def answer(*_: Any) -> Iterator[str]:
        yield "The"
        raise error

    monkeypatch.setattr("earshot.answer.answer", answer)
    with suppress(KeyError), answering.stream("GET", "/api/answer?q=who") as stream:
        text = ""
        for piece in stream.iter_text():
            text += piece
        names = [name for name, _ in events(text)]
        assert names == ["passages", "text", "error"] and told in events(text)[-1][1]["detail"]


def test_an_endpoint_that_is_not_there_is_an_error_in_the_stream(answering: TestClient) -> None:
    *_, (name, data) = events(answering.get("/api/answer?q=who%20paid").text)
    assert name == "error" and set(data) == {"detail"}
    assert answering.get("/api/answer?q=").status_code == 400


def test_clients_that_leave_a_silent_endpoint_make_room_and_do_not_hold_a_shutdown_up(
    library: earshot.Library, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        endpoint = Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "model")
        with listening(library, endpoint=endpoint) as address:
            get = b"GET /api/answer?q=who%20paid HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for _ in range(9):  # one more than are asked at once
                with socket.create_connection(address, 60) as client:
                    client.sendall(get)
                    asked, _ = silent.accept()
                    assert asked.recv(9).startswith(b"POST")
                with asked:
                    asked.settimeout(60)
                    while asked.recv(1 << 16):  # until the server hangs up
                        pass
            with socket.create_connection(address, 60) as client:
                client.sendall(get)
                asked, _ = silent.accept()
                began = time.monotonic()
        with asked:
            assert time.monotonic() - began < 30  # of 120 that the endpoint may be silent
    assert "Traceback" not in capfd.readouterr().err


# The document, and the command


def test_the_document_tells_every_route_and_what_may_go_wrong(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    told = {f"{method.upper()} {path}" for path, of in document["paths"].items() for method in of}
    assert told == {
        *("GET /healthz", "GET /api/status", "GET /api/recordings", "POST /api/recordings"),
        *("DELETE /api/recordings/{id}", "GET /api/find", "POST /api/find", "GET /api/ask", "POST /api/ask"),
        *("GET /api/answer", "POST /api/answer", "GET /api/audio/{id}", "GET /api/clip/{id}", "GET /api/peaks/{id}"),
        *("GET /api/indexing", "GET /api/indexing/events", "POST /api/export"),
    }
    problem = {"$ref": "#/components/schemas/Problem"}
    for path, of in document["paths"].items():
        for method in of.values():
            wrong = {status: answer for status, answer in method["responses"].items() if status[0] in "45"}
            assert path == "/healthz" or {"401", "403", "421"} <= set(wrong), path
            for status, answer in wrong.items():
                if path == "/api/audio/{id}" and status in ("400", "416"):  # about ranges, as files everywhere
                    continue
                assert answer["content"]["application/json"]["schema"] == problem, (path, status)
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_nothing_that_fits_the_document_breaks_the_server(
    library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "index", lambda paths, **_: None)
    with served(library) as client:
        schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers={"host": "localhost"})
        tried = 0
        for found, mode in itertools.product(schema.get_all_operations(), schemathesis.GenerationMode):

            @hypothesis.settings(
                max_examples=8,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=[hypothesis.HealthCheck.too_slow],
            )
            @hypothesis.given(case=found.ok().as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                nonlocal tried
                tried += 1
                case.call_and_validate(headers={"host": "localhost"}, excluded_checks=[positive_data_acceptance])

            with suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong where there is no parameter
                check()
    assert tried > 100


def earshot_serve(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "earshot", "serve", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_tells_its_address_and_stops_when_told(library: earshot.Library) -> None:
    with earshot_serve("--library", library.path, "--port", 0, "--token", "secret") as server:
        try:
            assert server.stdout is not None and server.stderr is not None
            told = server.stdout.readline()
            address = re.fullmatch(r"Earshot is at http://127\.0\.0\.1:(\d+)/ .*\n", told)
            assert address, told
            head = b"GET /api/audio/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer secret\r\n"
            said = exchange(("127.0.0.1", int(address[1])), head + b"Range: bytes=0-99\r\nConnection: close\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 206") and len(said.partition(b"\r\n\r\n")[2]) == 100
            other = earshot_serve("--port", address[1])
            assert other.wait(60) == 1
            assert other.communicate()[1].startswith(f"earshot: cannot listen at 127.0.0.1:{address[1]}")
            sound = (SAMPLES / "lecture.opus").read_bytes()
            head = b"POST /api/recordings?name=a.opus HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer secret\r\n"
            head += b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(sound)
            assert exchange(("127.0.0.1", int(address[1])), head, sound).startswith(b"HTTP/1.1 202")
            listener = socket.create_connection(("127.0.0.1", int(address[1])), 60)
            get = b"GET /api/indexing/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer secret\r\n\r\n"
            listener.sendall(get)
            assert listener.recv(1 << 16).startswith(b"HTTP/1.1 200")
        finally:
            server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
        listener.close()
        assert (server.returncode, out, err) == (cli.STOPPED, "", "earshot: stopped\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--host", "0.0.0.0"), 2, "--token"),
        (("--host", "::"), 2, "--token"),
        (("--host", "192.0.2.1", "--token", "t"), 1, "cannot listen at 192.0.2.1:8000"),
        (("--host", "no.such.host.invalid"), 1, "cannot listen"),
        (("--host", "x" * 300), 1, "cannot listen"),
        (("--token", ""), 2, "token"),
        (("--port", "99999"), 2, "--port"),
        (("--endpoint", "nowhere"), 2, "endpoint"),
    ],
)
def test_addresses_that_cannot_be_served(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    for name in ("EARSHOT_LIBRARY", "EARSHOT_TOKEN", "EARSHOT_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert cli.run(["serve", "--library", str(tmp_path / "none"), *arguments]) == code
    out, err = capsys.readouterr()
    assert not out and told in err and err.count("\n") == 1 and not (tmp_path / "none").exists()


def test_an_endpoint_that_cannot_be_asked_from_here_is_told_at_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if name == "httpx" else find_spec(name, *of))
    arguments = ["--library", str(tmp_path / "none"), "--endpoint", "http://localhost:9", "--port", "0"]
    assert cli.run(["serve", *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out and err == "earshot: answers need httpx: pip install '.[answer]'\n"


def test_it_can_be_part_of_another_application(library: earshot.Library) -> None:
    outer = Starlette(routes=[Mount("/earshot", create_app(library, token="t", hosts=None))])
    with TestClient(outer, base_url="http://studio.example", headers={"authorization": "Bearer t"}) as client:
        assert client.get("/earshot/healthz", headers={"authorization": ""}).status_code == 200
        assert client.get("/earshot/api/status").json()["recordings"] == 3
        assert client.get("/earshot/").status_code == 200
        assert client.get("/earshot/api/status", headers={"authorization": ""}).status_code == 401
        answer = client.get("/earshot/?token=t", follow_redirects=False)
        assert answer.headers["location"] == "/earshot/"

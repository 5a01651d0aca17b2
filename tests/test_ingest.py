"""The write path: what is found goes in once and whole; what is bad is named; what stops a run loses nothing stored."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Samples, Talk, ToyEncoder, loud_stretches
from numpy.typing import NDArray

import earshot
from earshot import audio, ingest
from earshot.ingest import IndexReport, Progress, find_files
from earshot.library import EncoderIdentity, Store
from earshot.speech import SpeechStretch
from earshot.types import EncoderError, LibraryError

pytestmark = pytest.mark.usefixtures("loud_is_speech")

IDENTITY = EncoderIdentity(ToyEncoder.name, ToyEncoder.digest, ToyEncoder.stored_dim, 0.04)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create_or_open(tmp_path / ".library", IDENTITY) as store:
        yield store


def held(store: Store) -> dict[str, list[tuple[float, bytes]]]:
    """Path -> (start, frames) of the stretches of each recording."""
    table = store.frames()
    found: dict[str, list[tuple[float, bytes]]] = {recording.path: [] for recording in store.recordings()}
    paths = {recording.id: recording.path for recording in store.recordings()}
    for k, recording in enumerate(table.stretch_recording):
        frames = table.vectors[table.stretch_offsets[k] : table.stretch_offsets[k + 1]]
        found[paths[int(recording)]].append((float(table.stretch_start[k]), frames.tobytes()))
    return found


def expected(path: Path) -> list[tuple[float, bytes]]:
    return [(s.start, ToyEncoder.one(s.mel).tobytes()) for s in loud_stretches(audio.stream(path))]


def names(report: IndexReport) -> list[str]:
    return sorted(os.path.basename(recording.path) for recording in report.recordings)


def threads() -> list[threading.Thread]:
    """Those that ingest has left behind; a library for progress bars has one of its own."""
    return [
        t
        for t in threading.enumerate()
        if t is not threading.main_thread() and "ingest" in repr(getattr(t, "_target", None))
    ]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_stretch_is_stored_in_its_place(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(ingest, "BATCH_FRAMES", 170)  # three words and a bit: batches go across recordings
    paths = [talk(f"{n}.wav", n, seed=n) for n in (1, 2, 3, 40)] + [talk("silence.wav", 0)]
    report = ingest.index(store, toy, paths, workers=workers)
    assert held(store) == {str(path): expected(path) for path in paths}
    assert [len(expected(path)) for path in paths] == [1, 2, 3, 40, 0]
    assert sorted(recording.seconds for recording in report.recordings) == [0.5, 1.5, 2.5, 3.5, 40.5]
    assert report.speech_seconds == pytest.approx(46 * 0.5, rel=0.06)
    assert len(toy.batches) < 46 / 2 and report.failures == () and report.unchanged == 0


def test_short_recordings_are_encoded_together(store: Store, toy: ToyEncoder, talk: Talk, tmp_path: Path) -> None:
    for n in range(12):
        talk(f"talks/{n}.wav", 1, seed=n)
    ingest.index(store, toy, [tmp_path / "talks"], workers=2)
    assert len(toy.batches) == 1


def test_one_long_recording_keeps_all_threads_busy_within_bounds(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    waiting = []

    def endless(blocks: Iterator[Samples]) -> Iterator[SpeechStretch]:
        nonlocal made
        for _ in blocks:
            for _ in range(40):
                yield SpeechStretch(made / 100, np.full((1_500, 80), made / 1e6, np.float32))
                made += 1_500
                waiting.append(made - sum(toy.batches))

    monkeypatch.setattr("earshot.speech.stretches", endless)
    monkeypatch.setattr("earshot.audio.stream", lambda path: iter([np.zeros(960_000, np.float32)] * 20))
    encode, met, all_here = toy.frames, set[int](), threading.Barrier(3)

    def together(mels: list[Samples]) -> list[NDArray[np.int8]]:
        """A thread waits in its first batch until all have one."""
        found = encode(mels)
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            all_here.wait(60)
        return found

    monkeypatch.setattr(toy, "frames", together)
    toy.delay = 0.002
    ingest.index(store, toy, [talk("long.wav")], workers=3)
    assert made == sum(toy.batches) == 20 * 40 * 1_500
    assert len(toy.threads) == 3
    assert max(waiting) <= (1 + 3 + 3) * ingest.BATCH_FRAMES  # the pile, and what each thread has just taken from it
    starts = [start for start, _ in next(iter(held(store).values()))]
    assert starts == sorted(starts) and len(starts) == 20 * 40


def test_running_twice_does_nothing_twice(store: Store, toy: ToyEncoder, talk: Talk, tmp_path: Path) -> None:
    talk("talks/a.wav"), talk("talks/b.wav", 2)
    assert names(ingest.index(store, toy, [tmp_path / "talks"])) == ["a.wav", "b.wav"]
    version, asked = store.version(), len(toy.batches)
    report = ingest.index(store, toy, [tmp_path / "talks", tmp_path / "talks" / "a.wav"])
    assert (report.recordings, report.unchanged, report.failures) == ((), 2, ())
    assert (store.version(), len(toy.batches)) == (version, asked)


def test_changed_and_new_files_go_in_and_the_rest_is_left(store: Store, toy: ToyEncoder, talk: Talk) -> None:
    a, b = talk("talks/a.wav"), talk("talks/b.wav")
    ingest.index(store, toy, [a.parent])
    talk("talks/a.wav", 5, seed=9)
    talk("talks/c.wav")
    report = ingest.index(store, toy, [a.parent])
    assert names(report) == ["a.wav", "c.wav"] and report.unchanged == 1
    assert held(store)[str(a)] == expected(a) and held(store)[str(b)] == expected(b)
    assert len(store.recordings()) == 3


def test_folders_are_walked_in_order_and_hidden_ones_passed_over(talk: Talk, tmp_path: Path) -> None:
    root = tmp_path / "talks"
    for name in ("b/z.wav", "b/a.WAV", "a/1.mp3", "c.ogg", ".hidden/x.wav", "a/.x.wav", "notes.txt"):
        talk(f"talks/{name}")
    found = find_files([root])
    assert [os.path.relpath(path, root) for path in found.files] == ["c.ogg", "a/1.mp3", "b/a.WAV", "b/z.wav"]
    assert found.failures == () and found.empty_folders == ()
    assert find_files([root / ".hidden"]).files == (str(root / ".hidden" / "x.wav"),)
    assert find_files([root / "notes.txt"]).files == (str(root / "notes.txt"),)
    assert len(find_files([root, root / "b", root / "c.ogg"]).files) == 4


def test_paths_are_stored_as_absolute(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = talk("talks/a.wav")
    monkeypatch.chdir(path.parent)
    ingest.index(store, toy, ["a.wav", "../talks/a.wav", "."])
    assert list(held(store)) == [str(path)]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_that_go_round_are_followed_once(talk: Talk, tmp_path: Path) -> None:
    talk("talks/a/x.wav")
    (tmp_path / "talks/a/up").symlink_to(tmp_path / "talks")
    (tmp_path / "talks/z").symlink_to(tmp_path / "talks/a")
    assert find_files([tmp_path / "talks"]).files == (str(tmp_path / "talks/a/x.wav"),)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_bring_no_file_in_twice_and_none_of_the_folder_that_they_are_in(talk: Talk, tmp_path: Path) -> None:
    for name in ("talks/x.wav", "talks/b/y.wav", "more/z.wav", "other.wav"):
        talk(name)
    (tmp_path / "talks/a").symlink_to(tmp_path / "more")
    (tmp_path / "talks/b/up").symlink_to(tmp_path)
    there = tuple(str(tmp_path / name) for name in ("talks/x.wav", "talks/b/y.wav", "more/z.wav"))
    found = find_files([tmp_path / "talks", tmp_path / "more", tmp_path / "talks/a", tmp_path / "talks/b"])
    assert (found.files, found.empty_folders) == (there, ())
    assert find_files([tmp_path / "talks"]).files == (*there[:2], str(tmp_path / "talks/a/z.wav"))


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_to_nowhere_is_a_failure_that_is_remembered(store: Store, toy: ToyEncoder, tmp_path: Path) -> None:
    (tmp_path / "nowhere.wav").symlink_to("gone")
    (failure,) = ingest.index(store, toy, [tmp_path]).failures
    assert store.failures() == [failure] and failure.path.endswith("nowhere.wav")


def test_what_is_not_there_and_empty_folders_are_told_apart(store: Store, toy: ToyEncoder, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("hello")
    report = ingest.index(store, toy, [tmp_path / "none", tmp_path / "gone.wav", ""])
    assert report.empty_folders == (str(tmp_path / "none"),)
    assert [failure.path for failure in report.failures] == [str(tmp_path / "gone.wav"), ""]
    assert all("no such file or folder" in failure.reason for failure in report.failures)
    assert store.failures() == []


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_folder_without_permission_is_named_and_the_rest_goes_on() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        folder, user = Path(name), os.geteuid()
        folder.chmod(0o755)
        (folder / "a").mkdir()
        (folder / "a" / "x.wav").touch()
        (folder / "closed").mkdir(0)
        if user == 0:
            os.seteuid(65_534)  # root may read everything
        try:
            found = find_files([folder])
        finally:
            os.seteuid(user)
    assert found.files == (str(folder / "a" / "x.wav"),)
    ((path, reason),) = [(failure.path, failure.reason) for failure in found.failures]
    assert path == str(folder / "closed") and "cannot be listed" in reason and "chmod" in reason


def raw_wav(path: Path, samples: Samples, rate: int = 16_000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def nan_wav(path: Path) -> None:
    data = np.where(np.arange(16_000) == 9_000, np.nan, 0.1).astype("<f4").tobytes()
    form = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32, b"data", len(data))
    path.write_bytes(struct.pack("<4sI4s4sIHHIIHH4sI", *form) + data)


def truncated_flac(path: Path) -> None:
    import soundfile

    rng = np.random.default_rng(1)
    soundfile.write(path, rng.uniform(-0.3, 0.3, 160_000), 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[:100_000])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.mp3": (lambda path: path.touch(), "is empty"),
    "text.mp3": (lambda path: path.write_text("not audio at all\n" * 500), "not audio"),
    "truncated.flac": (truncated_flac, ""),
    "no-samples.wav": (lambda path: raw_wav(path, np.zeros(0, np.float32)), "samples"),
    "slow.wav": (lambda path: raw_wav(path, np.full(4_000, 0.1, np.float32), rate=1_000), "1000 Hz"),
    "nan.wav": (nan_wav, "NaN"),
}


def test_bad_files_are_named_and_remembered_and_the_rest_goes_in(
    store: Store, toy: ToyEncoder, talk: Talk, tmp_path: Path
) -> None:
    good = talk("talks/good.wav")
    rng = np.random.default_rng(0)
    raw_wav(tmp_path / "talks" / "wide.wav", rng.uniform(-0.3, 0.3, 24 * 16_000).astype(np.float32), channels=24)
    for name, (make, _) in BAD.items():
        make(tmp_path / "talks" / name)
    report = ingest.index(store, toy, [tmp_path / "talks"])
    assert names(report) == ["good.wav", "wide.wav"] and held(store)[str(good)] == expected(good)
    reasons = {os.path.basename(failure.path): failure.reason for failure in report.failures}
    assert set(reasons) == set(BAD)
    for name, (_, reason) in BAD.items():
        assert reason in reasons[name] and "\n" not in reasons[name]
        assert name not in reasons[name] and "unexpected" not in reasons[name]
    assert {f.path: f.reason for f in store.failures()} == {f.path: f.reason for f in report.failures}
    talk("talks/text.mp3")
    report = ingest.index(store, toy, [tmp_path / "talks"])
    assert names(report) == ["text.mp3"] and report.unchanged == 2 and len(report.failures) == len(BAD) - 1
    assert len(store.failures()) == len(BAD) - 1


def test_a_changed_file_that_fails_stays_searchable_as_it_was(store: Store, toy: ToyEncoder, talk: Talk) -> None:
    path = talk("a.wav")
    before = expected(path)
    ingest.index(store, toy, [path])
    path.write_bytes(path.read_bytes()[:5_000])
    assert len(ingest.index(store, toy, [path]).failures) == 1
    assert held(store) == {str(path): before}


def test_a_file_that_vanishes_half_way_is_named_and_not_remembered(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, gone = talk("good.wav"), talk("gone.wav", 200)

    def vanishing(path: str) -> Iterator[Samples]:
        for block in audio_stream(path, block=5.0):
            if path == str(gone):
                gone.unlink(missing_ok=True)
            yield block

    audio_stream = audio.stream
    monkeypatch.setattr("earshot.audio.stream", vanishing)
    report = ingest.index(store, toy, [good, gone])
    assert names(report) == ["good.wav"]
    assert [(f.path, f.reason) for f in report.failures] == [(str(gone), "no such file; check its name")]
    assert store.failures() == []


def test_a_surprise_in_one_file_stops_no_other(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stretches(blocks: Iterator[Samples]) -> Iterator[SpeechStretch]:
        found = list(loud_stretches(blocks))
        if len(found) == 5:
            raise RuntimeError("in\nreading")
        return iter(found)

    def frames(mels: list[Samples]) -> list[NDArray[np.int8]]:
        if max(map(len, mels)) > 150:
            raise ZeroDivisionError
        return [toy.one(mel) for mel in mels]

    paths = [talk("a.wav"), talk("b.wav", 3, word=2.0), talk("c.wav", 5), talk("d.wav", 1)]
    monkeypatch.setattr("earshot.speech.stretches", stretches)
    monkeypatch.setattr(toy, "frames", frames)
    report = ingest.index(store, toy, paths)
    assert names(report) == ["a.wav", "d.wav"]
    reasons = {os.path.basename(failure.path): failure.reason for failure in report.failures}
    assert reasons["b.wav"].startswith("unexpected ZeroDivisionError;")
    assert reasons["c.wav"].startswith("unexpected RuntimeError: in reading;")
    assert held(store) == {str(path): expected(path) for path in (paths[0], paths[3])}


def test_an_encoder_that_cannot_work_ends_the_run(store: Store, toy: ToyEncoder, talk: Talk) -> None:
    def frames(mels: object) -> list[NDArray[np.int8]]:
        raise EncoderError("word-audio.onnx: damaged")

    toy.frames = frames  # type: ignore[method-assign]
    with pytest.raises(EncoderError, match="damaged"):
        ingest.index(store, toy, [talk("a.wav"), talk("b.wav")])
    assert store.failures() == [] and threads() == []


class Interrupting:
    """A progress callback that stops the run as Ctrl-C does, when two recordings are stored."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(self, state: Progress) -> None:
        if len(self.store.recordings()) == 2:
            raise KeyboardInterrupt


def test_stopping_keeps_what_is_finished_and_the_next_run_goes_on(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_FRAMES", 1)
    paths = [talk(f"{n}.wav", 2, seed=n) for n in range(8)]
    with pytest.raises(KeyboardInterrupt):
        ingest.index(store, toy, paths, workers=2, progress=Interrupting(store))
    assert threads() == []
    assert len(store.recordings()) == 2
    report = ingest.index(store, toy, paths, workers=2)
    assert report.unchanged == 2 and len(report.recordings) == 6
    assert held(store) == {str(path): expected(path) for path in paths}


def test_a_full_disk_ends_the_run_and_costs_nothing_stored(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Store, path: str, *arguments: object) -> object:
        if len(self.recordings()) == 2:
            raise LibraryError("cannot use the library at x (disk full): check the disk")
        return plain(self, path, *arguments)  # type: ignore[arg-type]

    plain = Store.add
    monkeypatch.setattr(Store, "add", add)
    paths = [talk(f"{n}.wav", 2, seed=n) for n in range(5)]
    with pytest.raises(LibraryError, match="disk full"):
        ingest.index(store, toy, paths)
    assert len(store.recordings()) == 2 and threads() == []
    monkeypatch.undo()
    monkeypatch.setattr("earshot.speech.stretches", loud_stretches)
    assert ingest.index(store, toy, paths).unchanged == 2
    assert held(store) == {str(path): expected(path) for path in paths}


KILLED = """
import sys
from conftest import ToyEncoder, loud_stretches
from earshot import ingest, speech
from earshot.library import Store
from test_ingest import IDENTITY
speech.stretches, ingest.BATCH_FRAMES = loud_stretches, 1
toy = ToyEncoder()
toy.delay = 0.02
with Store.create_or_open(sys.argv[1], IDENTITY) as store:
    def progress(state):
        print(state.files, flush=True)
        if state.files == 30:
            sys.stdin.read()  # never comes to its end before it is killed

    ingest.index(store, toy, [sys.argv[2]], workers=2, progress=progress)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_loses_nothing_stored_and_finished_files_are_not_done_again(
    toy: ToyEncoder, talk: Talk, tmp_path: Path
) -> None:
    paths = [talk(f"talks/{n:02d}.wav", 2, seed=n) for n in range(40)]
    places = [str(Path(__file__).parent), str(Path(earshot.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "library"), str(tmp_path / "talks")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 5:
                child.send_signal(signal.SIGKILL)
                break
    with Store.create_or_open(tmp_path / "library", IDENTITY) as store:
        stored = held(store)
        assert 5 <= len(stored) < 40
        assert stored == {str(path): expected(path) for path in paths if str(path) in stored}
        report = ingest.index(store, toy, [tmp_path / "talks"])
        assert report.unchanged == len(stored) and len(report.recordings) == 40 - len(stored)
        assert held(store) == {str(path): expected(path) for path in paths}


def test_progress_tells_seconds_files_and_failures(store: Store, toy: ToyEncoder, talk: Talk) -> None:
    paths = [talk("a.wav", 2), talk("b.wav", 4), talk("bad.wav")]
    paths[2].write_text("no")
    states: list[Progress] = []
    ingest.index(store, toy, paths, progress=states.append)
    assert {state.expected_files for state in states} == {3}
    assert (states[-1].files, states[-1].seconds, states[-1].expected_seconds) == (3, 7.0, 7.0)
    assert states[0].expected_seconds == 7.0  # known before anything has been read to its end
    assert [state.seconds for state in states] == sorted(state.seconds for state in states)
    assert [state.failure.path for state in states if state.failure] == [str(paths[2])]


def test_much_audio_is_estimated_from_some_of_it(
    store: Store, toy: ToyEncoder, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_PROBED", 5)
    paths = [talk(f"{n:02d}.wav", 2) for n in range(23)]
    states: list[Progress] = []
    ingest.index(store, toy, paths, progress=states.append)
    assert states[0].expected_seconds == pytest.approx(23 * 2.5)

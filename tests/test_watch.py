"""What appears in a watched folder goes in once, whole; what is wrong is told once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Talk, ToyEncoder, ToyPassageEncoder

import earshot
from earshot import cli
from earshot.library import Failure, Store
from earshot.types import LibraryError, Recording
from earshot.watch import AT_ONCE, Watcher, watch


@pytest.fixture
def library(
    tmp_path: Path, toy: ToyEncoder, toy_passages: ToyPassageEncoder, loud_is_speech: None
) -> Iterator[earshot.Library]:
    (tmp_path / "inbox").mkdir()
    with earshot.open(tmp_path / "library", encoder=toy, passages=toy_passages) as library:  # type: ignore[arg-type]
        yield library


@pytest.fixture
def watcher(library: earshot.Library, tmp_path: Path) -> Watcher:
    return Watcher(library, tmp_path / "inbox")


def names(watcher: Watcher, looks: int = 1) -> list[str]:
    """Names, sorted, of what comes of some looks, those of failures with a ! before."""
    seen = [seen for _ in range(looks) for seen in watcher.look()]
    return sorted(f"{'!' if isinstance(one, Failure) else ''}{os.path.basename(one.path)}" for one in seen)


def test_what_is_there_and_what_appears_goes_in_once(watcher: Watcher, talk: Talk, library: earshot.Library) -> None:
    talk("inbox/a.wav", 2), talk("inbox/below/b.wav", 3), talk("inbox/.hidden.wav", 1)
    assert names(watcher) == [] and names(watcher) == ["a.wav", "b.wav"] and names(watcher, 3) == []
    talk("inbox/c.wav", 1)
    assert names(watcher) == [] and names(watcher) == ["c.wav"] and names(watcher, 3) == []
    assert len(library.recordings()) == 3 == len(library.ask("w0", top=None))


def test_the_first_look_after_a_file_has_changed_waits(watcher: Watcher, talk: Talk, toy: ToyEncoder) -> None:
    whole = talk("whole.wav", 8).read_bytes()
    with open(watcher._folders[0] + "/slow.wav", "wb") as slow:
        for k in range(0, len(whole), len(whole) // 4 + 1):
            slow.write(whole[k : k + len(whole) // 4 + 1])
            slow.flush()
            assert names(watcher) == []
    (recording,) = watcher.look()
    assert isinstance(recording, Recording) and recording.seconds == 8.5
    assert names(watcher, 2) == [] and len(toy.batches) == 1


def test_a_replaced_file_takes_the_place_of_the_one_before(
    watcher: Watcher, talk: Talk, library: earshot.Library
) -> None:
    talk("inbox/a.wav", 2)
    names(watcher, 2)
    os.replace(talk("b.wav", 4), Path(watcher._folders[0]) / "a.wav")
    assert names(watcher, 4) == ["a.wav"]
    assert [recording.seconds for recording in library.recordings()] == [4.5]


def test_a_deleted_file_stays_in_the_library_and_a_removed_recording_stays_out(
    watcher: Watcher, talk: Talk, library: earshot.Library
) -> None:
    gone, removed = talk("inbox/gone.wav", 1), talk("inbox/removed.wav", 1)
    names(watcher, 2)
    gone.unlink()
    library.remove(removed)
    assert names(watcher, 3) == []
    assert [recording.path for recording in library.recordings()] == [str(gone)]


def test_a_broken_file_is_told_once_for_each_version(watcher: Watcher, talk: Talk) -> None:
    bad = Path(watcher._folders[0]) / "bad.mp3"
    bad.write_text("no")
    assert names(watcher, 5) == ["!bad.mp3"]
    bad.write_text("nor this")
    assert names(watcher, 5) == ["!bad.mp3"]
    os.replace(talk("good.wav", 1), bad)
    assert names(watcher, 5) == ["bad.mp3"]


def test_a_link_to_nowhere_is_told_once_and_a_file_that_vanishes_never(watcher: Watcher, talk: Talk) -> None:
    Path(watcher._folders[0], "nowhere.wav").symlink_to("gone")
    fleeting = talk("inbox/fleeting.wav", 1)
    assert names(watcher) == []
    fleeting.unlink()
    assert names(watcher, 4) == ["!nowhere.wav"]


def test_a_file_that_vanishes_while_it_is_read_is_not_told_and_its_return_is_seen(
    watcher: Watcher, talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inbox, away = tmp_path / "inbox", tmp_path / "away"
    talk("inbox/a.wav", 1)

    def vanishing(path: str) -> Iterator[None]:
        inbox.rename(away)
        raise earshot.AudioError("a.wav: cannot be read; try again")
        yield

    names(watcher)
    with monkeypatch.context() as patch:
        patch.setattr("earshot.audio.stream", vanishing)
        assert names(watcher) == []
    away.rename(inbox)
    assert names(watcher, 2) == ["a.wav"]


def test_a_file_that_vanishes_just_before_it_is_read_is_not_told(
    watcher: Watcher, talk: Talk, library: earshot.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, whole = talk("inbox/a.wav", 2), library.index

    def index(paths: list[str]) -> object:
        if paths:
            gone.unlink(missing_ok=True)
        return whole(paths)

    monkeypatch.setattr(library, "index", index)
    assert names(watcher, 3) == [] and not gone.exists()


def test_a_folder_that_goes_is_told_once_and_watched_for_its_return(
    watcher: Watcher, talk: Talk, tmp_path: Path
) -> None:
    talk("inbox/a.wav", 1)
    names(watcher, 2)
    for _ in range(2):
        (tmp_path / "inbox").rename(tmp_path / "away")
        (failure, *more) = [seen for _ in range(3) for seen in watcher.look()]
        assert isinstance(failure, Failure) and failure.path == str(tmp_path / "inbox") and more == []
        assert failure.reason == "the folder is gone; it is watched for its return"
        (tmp_path / "away").rename(tmp_path / "inbox")
        assert names(watcher, 2) == []
    talk("inbox/b.wav", 1)
    assert names(watcher, 2) == ["b.wav"]


def test_a_busy_library_is_told_once_and_tried_again(watcher: Watcher, talk: Talk, library: earshot.Library) -> None:
    talk("inbox/a.wav", 1)
    names(watcher, 2)
    talk("inbox/b.wav", 1)
    with Store.open(library.path, writing=True):
        assert names(watcher, 4) == ["!library"]
    assert names(watcher) == ["b.wav"] and names(watcher, 2) == []
    with Store.open(library.path, writing=True):
        assert names(Watcher(library, watcher._folders), 2) == ["!library"]


def test_what_an_earlier_run_indexed_is_left_alone(
    watcher: Watcher, talk: Talk, library: earshot.Library, toy: ToyEncoder
) -> None:
    for n in range(AT_ONCE + 2):
        talk(f"inbox/{n}.wav", 1, seed=n)
    assert len(names(watcher, 2)) == AT_ONCE + 2
    before = len(toy.batches)
    assert names(Watcher(library, watcher._folders), 3) == [] and len(toy.batches) == before


def test_a_library_that_cannot_be_used_is_an_error_at_once(
    watcher: Watcher, library: earshot.Library, toy: ToyEncoder
) -> None:
    names(watcher)
    toy.digest = "fedcba9876543210"
    with pytest.raises(LibraryError, match="was written by the encoder toy"):
        names(Watcher(library, watcher._folders))


def test_watching_goes_on_until_it_is_stopped(library: earshot.Library, talk: Talk, tmp_path: Path) -> None:
    def appears(name: str) -> None:
        talk(name, 1).rename(tmp_path / "inbox" / name)  # whole: looks are too close to wait for one that is written

    stop, seen = threading.Event(), list[str]()
    first, second = threading.Event(), threading.Event()

    def run() -> None:
        for one in watch(library, [tmp_path / "inbox"], every=0.02, stop=stop):
            seen.append(os.path.basename(one.path))
            (second if first.is_set() else first).set()

    thread = threading.Thread(target=run)
    thread.start()
    appears("a.wav")
    assert first.wait(60)
    appears("b.wav")
    assert second.wait(60)
    stop.set()
    thread.join(60)
    assert not thread.is_alive() and seen == ["a.wav", "b.wav"]


TOY = """
import earshot.encoders, earshot.speech
from conftest import ToyEncoder, ToyPassageEncoder, loud_stretches
toys = {"word": ToyEncoder(), "passage": ToyPassageEncoder()}
earshot.encoders.load = toys.get
earshot.speech.stretches = loud_stretches
from earshot.cli import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("signal", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_what_goes_in_and_stops_with_130(talk: Talk, tmp_path: Path, signal: int) -> None:
    talk("inbox/a.wav", 2)
    (tmp_path / "inbox" / "bad.wav").write_text("no")
    places = [str(Path(__file__).parent), str(Path(earshot.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TOY, "watch", "inbox", "--every", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True, process_group=0
    ) as child:
        assert child.stdout is not None
        first = json.loads(child.stdout.readline())
        shutil.copy(tmp_path / "inbox" / "a.wav", tmp_path / "b.wav").rename(tmp_path / "inbox" / "b.wav")
        second = json.loads(child.stdout.readline())
        child.send_signal(signal)
        out, err = child.communicate(timeout=60)
    assert first == {"recording": "inbox/a.wav", "seconds": 2.5, "speech_seconds": first["speech_seconds"]}
    assert second["recording"] == "inbox/b.wav" and out == "" and child.returncode == 130
    bad, stopped = err.splitlines()
    assert bad.startswith("earshot: inbox/bad.wav: not audio") and stopped == "earshot: stopped"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "FOLDER"),
        (("gone",), "gone"),
        (("file.wav",), "file.wav"),
        ((".", "--every", "0"), "--every"),
        ((".", "--every", "nan"), "--every"),
    ],
)
def test_what_cannot_be_watched_is_one_line_and_2(
    arguments: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.wav").touch()
    assert cli.run(["watch", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1 and not Path(".earshot").exists()

"""The store on disk: what goes in comes out, also after kill -9, a full disk, a second writer and another version."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import earshot.library
from earshot.captions import Caption
from earshot.heard import Heard
from earshot.library import EncoderIdentity, Failure, Fingerprint, FrameTable, Store, Stretch
from earshot.types import LibraryError

DIM = 8
ENCODER = EncoderIdentity("word-test", "0123456789abcdef", DIM, 0.04)
POSIX = pytest.mark.skipif(os.name != "posix", reason="kill -9, resource limits and file modes of POSIX")


def stretch(start: float, n_frames: int, value: int = 1) -> Stretch:
    return Stretch(start, np.full((n_frames, DIM), value, dtype=np.int8))


def add(store: Store, path: str, *stretches: Stretch, mtime_ns: int = 1) -> int:
    return store.add(path, Fingerprint(10, mtime_ns), 60.0, 30.0, stretches).id


def by_recording(table: FrameTable) -> dict[int, list[tuple[float, list[int]]]]:
    """Recording id -> (start, first value of each frame) of its stretches."""
    found: dict[int, list[tuple[float, list[int]]]] = {}
    for i, recording in enumerate(table.stretch_recording):
        frames = table.vectors[table.stretch_offsets[i] : table.stretch_offsets[i + 1]]
        assert (frames == frames[:, :1]).all()
        found.setdefault(int(recording), []).append((float(table.stretch_start[i]), frames[:, 0].tolist()))
    return found


def run_script(script: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a Python script with this file's names in another process."""
    head = "import os, sys\nfrom test_library import *\n"
    paths = [str(Path(__file__).parent), str(Path(earshot.library.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create_or_open(tmp_path / "library", ENCODER) as store:
        yield store


def test_what_goes_in_comes_out(store: Store) -> None:
    rng = np.random.default_rng(0)
    first = [Stretch(s, rng.integers(-128, 128, (n, DIM), dtype=np.int8)) for s, n in ((0.52, 7), (9.25, 1), (1e5, 30))]
    second = [Stretch(1 / 3, rng.integers(-128, 128, (5, DIM), dtype=np.int8))]
    a = store.add("/talks/a.mp3", Fingerprint(123, 2**62), 70.5, 12.25, first)
    silent = store.add("/talks/silent.wav", Fingerprint(0, 0), 5.0, 0.0, [])
    b = store.add("/talks/b.mp3", Fingerprint(5, 6), 3.0, 0.2, second)

    with Store.open(store.path, encoder=ENCODER) as reader:
        assert reader.encoder == ENCODER
        assert reader.recordings() == [a, silent, b]
        assert (a.path, a.seconds, a.speech_seconds) == ("/talks/a.mp3", 70.5, 12.25)
        assert reader.recordings([b.id, 999]) == [b]
        assert reader.fingerprints()["/talks/a.mp3"] == Fingerprint(123, 2**62)
        table = reader.frames()
    np.testing.assert_array_equal(table.vectors, np.concatenate([s.frames for s in first + second]))
    assert table.vectors.dtype == np.int8 and table.vectors.flags.c_contiguous
    assert table.stretch_offsets.tolist() == [0, 7, 8, 38, 43]
    assert table.stretch_start.tolist() == [0.52, 9.25, 1e5, 1 / 3]
    assert table.stretch_recording.tolist() == [a.id] * 3 + [b.id]


def test_an_empty_library_has_an_empty_table(store: Store) -> None:
    table = store.frames()
    assert table.vectors.shape == (0, DIM) and table.stretch_offsets.tolist() == [0]
    assert table.stretch_start.shape == table.stretch_recording.shape == (0,)
    assert [t.vectors.shape for t in store.frame_chunks(100)] == [(0, DIM)]
    assert store.recordings() == [] and store.totals().bytes_per_hour == 0 == store.totals().bytes_per_speech_hour


def test_file_names_that_are_not_utf8_and_scripts_of_all_kinds(store: Store) -> None:
    paths = [os.fsdecode(b"/talks/caf\xe9.wav"), "/talks/雲.wav", "/talks/a'b\"c\n%.wav"]
    for path in paths:
        add(store, path)
        store.add_failure(Failure(path + "2", None, f"{path}: unreadable"))
    assert [r.path for r in store.recordings()] == list(store.fingerprints()) == paths
    assert sorted(f.reason for f in store.failures()) == sorted(f"{path}: unreadable" for path in paths)
    assert store.remove(paths) == 3


def test_adding_a_path_again_replaces_it_under_a_new_id(store: Store) -> None:
    old = add(store, "a", stretch(0.0, 5, 1), stretch(2.0, 5, 1))
    other = add(store, "b", stretch(0.0, 2, 9))
    new = add(store, "a", stretch(1.0, 3, 2), mtime_ns=7)
    assert new not in (old, other)
    assert store.fingerprints() == {"b": Fingerprint(10, 1), "a": Fingerprint(10, 7)}
    assert by_recording(store.frames()) == {other: [(0.0, [9, 9])], new: [(1.0, [2, 2, 2])]}


def test_remove_takes_frames_along_and_never_gives_an_id_again(store: Store) -> None:
    ids = [add(store, name, stretch(0.0, 4)) for name in "abc"]
    assert store.remove(["c", "a", "a", "never there"]) == 2
    assert [r.path for r in store.recordings()] == ["b"]
    assert list(by_recording(store.frames())) == [ids[1]]
    assert add(store, "d") > max(ids)
    assert store.remove([]) == 0


def test_removing_gives_the_space_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with Store.create_or_open(tmp_path, ENCODER) as store:
        for i in range(20):
            frames = rng.integers(-128, 128, (10_000, DIM), dtype=np.int8)
            store.add(f"{i}", Fingerprint(1, 1), 400.0, 400.0, [Stretch(0.0, frames)])
    before = (tmp_path / "library.db").stat().st_size
    with Store.open(tmp_path, writing=True) as store:
        store.remove([f"{i}" for i in range(0, 20, 2)])
    assert (tmp_path / "library.db").stat().st_size < 0.55 * before


def test_version_changes_exactly_with_the_recordings(store: Store) -> None:
    with Store.open(store.path) as reader:
        seen = [reader.version()]
        for change in (lambda: add(store, "a"), lambda: add(store, "a"), lambda: store.remove(["a"])):
            change()
            seen.append(reader.version())
            assert reader.version() == store.version() == reader.frames().version
        assert seen == sorted(set(seen))
        store.remove(["a"])
        store.add_failure(Failure("b", None, "no audio"))
        assert reader.version() == seen[-1]


def test_frames_of_some_recordings(store: Store) -> None:
    ids = [add(store, str(i), stretch(0.0, i + 1, i)) for i in range(6)]
    for wanted in ([ids[4], ids[1], ids[4]], np.array([ids[4], ids[1]]), (i for i in (ids[1], ids[4], 10**6))):
        assert by_recording(store.frames(wanted)) == {ids[1]: [(0.0, [1, 1])], ids[4]: [(0.0, [4] * 5)]}
    assert len(store.frames([]).vectors) == 0


def test_chunks_are_bounded_and_together_the_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.frames.BLOCK_BYTES", 40 * DIM)
    lengths = [[10, 30], [41], [5], [39, 2, 40], [], [1]]
    for i, stretches in enumerate(lengths):
        add(store, str(i), *(stretch(float(k), n, i) for k, n in enumerate(stretches)))
    whole = store.frames()
    for frames in (1, 40, 45, 60, 10_000):
        chunks = list(store.frame_chunks(frames * DIM))
        assert all(len(chunk.vectors) <= max(frames, 41) for chunk in chunks)
        np.testing.assert_array_equal(np.concatenate([c.vectors for c in chunks]), whole.vectors)
        assert [x for c in chunks for x in c.stretch_start] == whole.stretch_start.tolist()
        assert [x for c in chunks for x in c.stretch_recording] == whole.stretch_recording.tolist()
        assert all(c.stretch_offsets[0] == 0 and c.stretch_offsets[-1] == len(c.vectors) for c in chunks)
        assert [n for c in chunks for n in np.diff(c.stretch_offsets)] == [n for r in lengths for n in r]
    assert len(list(store.frame_chunks(45 * DIM))) > 3


def test_chunks_show_the_library_as_it_was_at_the_first(store: Store) -> None:
    for i in range(5):
        add(store, str(i), stretch(0.0, 10, i))
    chunks = store.frame_chunks(10 * DIM)
    values = [next(chunks).vectors[0, 0]]
    store.remove([str(i) for i in range(5)])
    add(store, "new", stretch(0.0, 10, 99))
    values += [chunk.vectors[0, 0] for chunk in chunks]
    assert values == [0, 1, 2, 3, 4]
    assert store.frames().vectors[0, 0] == 99


PASSAGES = EncoderIdentity("passage-test", "fedcba", 3)


def passages(n: int, value: int = 1) -> Heard:
    """n passages of a word each."""
    count, times = np.arange(n), np.arange(n, dtype=np.float64)
    vectors = np.full((n, 3), value, np.float16)
    return Heard(count + value, times + 0.5, count, count + 1, times, times + 1, vectors)


def test_passages_go_with_their_recording(store: Store) -> None:
    """Also where it is indexed anew, or removed; what is missing is told."""
    first, second = (add(store, f"/{name}.wav", stretch(0, 5)) for name in "ab")
    assert store.passage_encoder() is None and list(store.passages()) == []
    assert store.without_passages() == [first, second]
    store.use_passage_encoder(PASSAGES)
    before = store.version()
    store.add_passages(second, passages(4))
    assert store.version() > before and store.without_passages() == [first]
    store.add_passages(first, passages(0))
    assert [(id, len(heard.tokens)) for id, heard in store.passages()] == [(first, 0), (second, 4)]
    _, found = (heard for _, heard in store.passages())
    assert found.tokens.tolist() == [1, 2, 3, 4] and found.vectors.shape == (4, 3)
    again = add(store, "/b.wav", stretch(0, 7), mtime_ns=2)
    assert store.without_passages() == [again] and [id for id, _ in store.passages()] == [first]
    store.remove(["/a.wav"])
    assert list(store.passages()) == []
    store.add_passages(first, passages(2))  # whose recording is gone
    assert list(store.passages()) == []


def test_passages_of_another_encoder_are_made_anew(store: Store) -> None:
    one = add(store, "/a.wav", stretch(0, 5))
    store.use_passage_encoder(PASSAGES)
    store.add_passages(one, passages(4))
    store.use_passage_encoder(PASSAGES)
    assert store.without_passages() == []
    other = replace(PASSAGES, digest="another")
    store.use_passage_encoder(other)
    assert store.passage_encoder() == other and store.without_passages() == [one] and list(store.passages()) == []
    assert store.encoder == ENCODER


def test_a_transcript_stays_until_another_comes_and_its_passages_as_long_as_it(store: Store) -> None:
    one, two = (add(store, f"/{name}.wav", stretch(0, 5)) for name in "ab")
    assert store.transcripts() == {} and store.without_passages("transcript") == []
    store.use_passage_encoder(PASSAGES)
    said = [Caption(0.0, 2.0, "ümlaut"), Caption(2.0, 3.5, "b")]
    store.add_transcript(two, said)
    assert store.transcripts() == store.transcripts([two]) == {two: said} and store.transcripts([one]) == {}
    assert store.without_passages("transcript") == [two]
    store.add_passages(two, passages(3), "transcript")
    store.add_passages(two, passages(2))
    store.add_transcript(two, said)
    assert [len(heard.tokens) for _, heard in store.passages("transcript")] == [3]
    store.add_transcript(two, said[:1])
    assert store.without_passages("transcript") == [two] and list(store.passages("transcript")) == []
    assert [len(heard.tokens) for _, heard in store.passages()] == [2]
    store.use_passage_encoder(replace(PASSAGES, digest="another"))
    assert store.transcripts() == {two: said[:1]} and list(store.passages()) == []
    store.add_transcript(99, said)
    store.remove(["/b.wav"])
    assert store.transcripts() == {}


def test_damaged_passages_are_one_line(store: Store) -> None:
    one = add(store, "/a.wav", stretch(0, 5))
    store.use_passage_encoder(PASSAGES)
    store.add_passages(one, passages(4))
    store._connection.execute("UPDATE passages SET vectors = x'00'")
    with pytest.raises(LibraryError, match="is damaged"):
        list(store.passages())


def test_totals(store: Store) -> None:
    store.add("a", Fingerprint(1, 1), 7200.0, 3600.0, [stretch(0.0, 90_000)])
    store.add_failure(Failure("b", None, "no audio"))
    totals = store.totals()
    assert (totals.recordings, totals.seconds, totals.speech_seconds, totals.failures) == (1, 7200.0, 3600.0, 1)
    assert totals.n_frames == 90_000
    on_disk = sum(f.stat().st_size for f in store.path.iterdir() if f.name in ("library.db", "library.db-wal"))
    assert totals.bytes == on_disk >= 90_000 * DIM
    assert totals.bytes_per_speech_hour == 2 * totals.bytes_per_hour == totals.bytes
    store.close()
    with Store.open(store.path) as reader:
        assert 90_000 * DIM < reader.totals().bytes < 1.01 * 90_000 * DIM + 60_000


def test_failures_last_until_the_file_is_indexed_or_removed(store: Store) -> None:
    a, b = Failure("a", Fingerprint(3, 4), "not audio"), Failure("b", None, "permission denied")
    add(store, "a", stretch(0.0, 3))
    for failure in (b, Failure("a", None, "vanished"), a):
        store.add_failure(failure)
    assert store.failures() == [a, b]
    assert len(store.frames().vectors) == 3
    add(store, "a")
    assert store.failures() == [b]
    assert store.remove(["b"]) == 0
    assert store.failures() == []


def test_wrong_frames_are_refused_and_nothing_is_stored(store: Store) -> None:
    for frames in (np.zeros((3, DIM), np.float32), np.zeros((3, DIM + 1), np.int8), np.ones(3, np.int8)):
        with pytest.raises(ValueError, match="int8"):
            store.add("a", Fingerprint(1, 1), 1.0, 1.0, [Stretch(0.0, frames)])  # type: ignore[arg-type]
    assert store.recordings() == [] and store.version() == 0
    add(store, "a", stretch(0.0, 0), stretch(1.0, 2))
    assert store.frames().stretch_start.tolist() == [1.0]


def test_an_interruption_while_adding_leaves_the_earlier_version(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = add(store, "a", stretch(0.0, 3, 5))

    def interrupted(stretches: object) -> Iterator[tuple[bytes, bytes]]:
        yield b"", b""
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(earshot.library, "pack", interrupted)
        add(store, "a", stretch(0.0, 9, 6))
    assert by_recording(store.frames()) == {old: [(0.0, [5, 5, 5])]}
    assert add(store, "b") != old


# Refusals: one line each


def refusal(path: Path, **options: object) -> str:
    """The message with which opening fails, the same for reading and for writing unless `writing` is given."""
    messages = set()
    for writing in [options["writing"]] if "writing" in options else [False, True]:
        with pytest.raises(LibraryError) as caught:
            Store.open(path, **options | {"writing": writing})  # type: ignore[arg-type]
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message and str(path) in message
    return message


def test_no_library(tmp_path: Path) -> None:
    empty_file = tmp_path / "empty"
    empty_file.mkdir()
    (empty_file / "library.db").touch()
    for path in (tmp_path / "nowhere", tmp_path, empty_file, empty_file / "library.db"):
        assert "no library at" in refusal(path) and "earshot index" in refusal(path)
    assert not (tmp_path / "nowhere").exists()
    with Store.create_or_open(empty_file, ENCODER) as store:
        add(store, "a")


def test_another_encoder(store: Store) -> None:
    store.close()
    for other in (EncoderIdentity("word-test", "another", DIM, 0.04), EncoderIdentity("x", ENCODER.digest, 9, 0.04)):
        message = refusal(store.path, encoder=other)
        assert "written by the encoder word-test 0123456789ab" in message and "new library" in message
        with pytest.raises(LibraryError, match="written by the encoder"):
            Store.create_or_open(store.path, other)
    with Store.open(store.path, writing=True) as again:  # a refusal leaves no lock behind
        add(again, "a")


def test_a_future_format(store: Store) -> None:
    store.close()
    with closing(sqlite3.connect(store.path / "library.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
    assert "has format 2, this Earshot reads format 1" in refusal(store.path)
    with pytest.raises(LibraryError, match="has format 2"):
        Store.create_or_open(store.path, ENCODER)


def test_somebody_elses_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "library.db")) as connection:
        connection.execute("CREATE TABLE recordings (id)")
    assert "not an Earshot library" in refusal(tmp_path)
    with pytest.raises(LibraryError, match="not an Earshot library"):
        Store.create_or_open(tmp_path, ENCODER)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "library.db").write_bytes(b"ID3 this was music once " * 1000)
    assert "damaged or not an Earshot library" in refusal(tmp_path)
    with pytest.raises(LibraryError, match="damaged or not"):
        Store.create_or_open(tmp_path, ENCODER)


@pytest.mark.parametrize("harm", ["truncate", "overwrite", "entries"])
def test_a_damaged_library_is_never_read_as_if_it_were_whole(tmp_path: Path, harm: str) -> None:
    with Store.create_or_open(tmp_path, ENCODER) as store:
        for i in range(20):
            add(store, str(i), stretch(0.0, 5000, i))
    database = tmp_path / "library.db"
    size = database.stat().st_size
    if harm == "truncate":
        os.truncate(database, size // 2 // 4096 * 4096)
    elif harm == "overwrite":
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
    else:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE blocks SET stretches = substr(stretches, 1, 11) WHERE id = 7")
    with pytest.raises(LibraryError) as caught, Store.open(tmp_path) as store:
        store.frames()
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_block_is_noticed(store: Store) -> None:
    for i in range(3):
        add(store, str(i), stretch(0.0, 10, i))
    with closing(sqlite3.connect(store.path / "library.db")) as connection, connection:
        connection.execute("DELETE FROM blocks WHERE recording = 2")
    with pytest.raises(LibraryError, match="damaged"):
        store.frames()


def test_a_second_writer_is_refused_and_readers_are_not(store: Store) -> None:
    add(store, "a", stretch(0.0, 3))
    assert "another `earshot` (index, watch or serve) is writing" in refusal(store.path, writing=True)
    with pytest.raises(LibraryError, match=r"another `earshot` .* is writing"):
        Store.create_or_open(store.path, ENCODER)
    result = run_script("Store.create_or_open(sys.argv[1], ENCODER)", store.path)
    assert "another `earshot` (index, watch or serve) is writing" in result.stderr
    with Store.open(store.path) as reader:
        assert len(reader.frames().vectors) == 3
        with pytest.raises(RuntimeError, match="reading only"):
            add(reader, "b")
    store.close()
    store.close()
    with Store.create_or_open(store.path, ENCODER) as again:
        assert len(again.recordings()) == 1


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a folder")
    with pytest.raises(LibraryError, match="is a file, not a library"):
        Store.create_or_open(file, ENCODER)
    with pytest.raises(LibraryError, match=r"cannot use .* as a library .*choose another folder"):
        Store.create_or_open(file / "below", ENCODER)
    (tmp_path / "library.db").mkdir()
    with pytest.raises(LibraryError, match="unable to open database file"):
        Store.create_or_open(tmp_path, ENCODER)


# The hard cases, in processes of their own


READ_ONLY = """
folder = Path(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
with Store.open(folder) as store:
    print(len(store.recordings()), len(store.frames().vectors), store.version())
try:
    Store.open(folder, writing=True)
except LibraryError as error:
    print(error)
"""


@POSIX
def test_a_folder_without_write_permission_can_be_searched() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        with Store.create_or_open(name, ENCODER) as store:
            add(store, "a", stretch(0.0, 3))
        for file in Path(name).iterdir():
            file.chmod(0o444)
        os.chmod(name, 0o555)
        result = run_script(READ_ONLY, name)
        os.chmod(name, 0o755)
    counts, refusal = result.stdout.splitlines()
    assert counts == "1 3 1"
    assert "cannot use the library at" in refusal and "writable" in refusal


FULL_DISK = """
import resource
store = Store.create_or_open(sys.argv[1], ENCODER)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for i in range(1000):
        add(store, str(i), stretch(0.0, 2000, i % 100))
        print(i, flush=True)
except LibraryError as error:
    print(error)
    try:
        add(store, "0", stretch(0.0, 2000, 77))
    except LibraryError as error:
        print(error)
store.close()
"""


@POSIX
def test_a_full_disk_is_one_line_and_costs_nothing_stored(tmp_path: Path) -> None:
    result = run_script(FULL_DISK, tmp_path)
    *stored, message, again = result.stdout.splitlines()
    assert result.returncode == 0 and result.stderr == ""
    assert "check the disk and its free space" in message and "check the disk and its free space" in again
    assert 5 < len(stored) < 1000
    with Store.create_or_open(tmp_path, ENCODER) as store:
        expected = {r.id: [(0.0, [int(r.path) % 100] * 2000)] for r in store.recordings()}
        assert [r.path for r in store.recordings()] == stored
        assert by_recording(store.frames()) == expected
        add(store, "after", stretch(0.0, 2000))
    assert integrity(tmp_path) == "ok"


def integrity(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "library.db")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def write_for_ever(folder: str, first: int, n_paths: int, acknowledgements: int) -> None:
    """Replaces recordings by turns; number i has frames that tell whether they belong to i."""
    with Store.create_or_open(folder, ENCODER) as store:
        for i in range(first, 10**9):
            n = 1 + i * 7919 % 6000
            store.add(f"{i % n_paths}", Fingerprint(n, i), 1.0, 1.0, [stretch(i, n, i % 128), stretch(i, 1, i % 128)])
            os.write(acknowledgements, b"%d\n" % i)


def check_numbers(store: Store) -> dict[str, int]:
    """Path -> number of its recording; fails unless each recording is whole."""
    table, recordings, fingerprints = store.frames(), store.recordings(), store.fingerprints()
    frames = by_recording(table)
    for recording in recordings:
        i, n = fingerprints[recording.path].mtime_ns, fingerprints[recording.path].size
        assert frames.pop(recording.id) == [(float(i), [i % 128] * n), (float(i), [i % 128])]
    assert not frames
    return {path: fingerprint.mtime_ns for path, fingerprint in fingerprints.items()}


KILL = """
import itertools, random, signal, time
rng = random.Random(0)

def write_until_killed(folder, first, seconds):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        write_for_ever(folder, first, 7, writing)
    os.close(writing)
    time.sleep(rng.uniform(0.0, seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading) as lines:
        return [int(line) for line in lines]

for round in range(12):
    folder = f"{sys.argv[1]}/new{round}"
    write_until_killed(folder, 0, 0.02)
    with Store.create_or_open(folder, ENCODER) as store:
        check_numbers(store)

folder, stored, following, largest = sys.argv[1], {}, 0, 0
Store.create_or_open(folder, ENCODER).close()
for round in itertools.count():
    if round >= 20 and following > 50:
        break
    acknowledged = write_until_killed(folder, following, 0.1 * (1 + round // 20))  # longer where it is slow
    expected = stored | {str(i % 7): i for i in acknowledged}
    following += len(acknowledged)
    with Store.open(folder) as store:
        stored = check_numbers(store)
    if stored != expected:  # killed between the commit and its acknowledgement
        assert stored == expected | {str(following % 7): following}, (stored, expected, following)
        following += 1
    assert integrity(Path(folder)) == "ok"
print(following)
"""


@POSIX
def test_kill_9_while_writing_loses_nothing_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    result = run_script(KILL, tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 50


@POSIX
def test_readers_see_whole_recordings_while_another_process_writes(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    script = "sys.path[:0] = sys.argv[2:]; from test_library import *; write_for_ever(sys.argv[1], 0, 5, 1)"
    paths = [str(Path(__file__).parent), str(Path(earshot.library.__file__).parents[1])]
    command = [sys.executable, "-c", f"import sys; {script}", str(tmp_path), *paths]
    with os.fdopen(reading) as lines, subprocess.Popen(command, stdout=writing) as writer:
        os.close(writing)
        for _ in range(5):
            lines.readline()
        try:
            versions, numbers, reads, end = set(), set(), 0, time.monotonic() + 120
            with Store.open(tmp_path) as reader:
                while reads < 40 or len(versions) <= 3 or len(numbers) <= 7:
                    assert time.monotonic() < end, "it writes too slowly"
                    reads += 1
                    table = reader.frames()
                    starts = {int(value) for value in table.stretch_start}
                    assert {i % 5 for i in starts} == set(range(5)) and max(starts) - min(starts) == 4
                    lengths = [1 + i * 7919 % 6000 for i in sorted(starts)]
                    assert np.diff(table.stretch_offsets)[::2].tolist() == lengths
                    expected = np.repeat(np.array(sorted(starts)) % 128, np.array(lengths) + 1)
                    assert (table.vectors == expected[:, None]).all()
                    versions.add(table.version)
                    numbers |= starts
        finally:
            writer.kill()

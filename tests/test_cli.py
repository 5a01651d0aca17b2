"""The command line: what is printed where, exit codes, one line for whatever is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Talk, ToyEncoder, ToyPassageEncoder

import earshot
from earshot import cli
from earshot.library import Store
from earshot.search import Searcher
from earshot.types import AudioError, Clip, Hit, QueryError

Earshot = Callable[..., tuple[int, str, str]]
SAMPLES = Path(__file__).parents[1] / "samples"


class FakeSearcher:
    """Hears every query in every recording that matches, twice; nothing for "silence", and refuses ""."""

    asked: list[tuple[Any, ...]]

    def __init__(self, store: Store, encoder: ToyEncoder) -> None:
        self.store, self.encoder, self.close, self.version = store, encoder, store.close, store.version

    def spot(self, sought: list[list[Any]], within: str | None) -> list[list[Hit]]:
        assert not sought  # no word tells anything to the toy's lexicon
        return []

    def find(self, query: str | Clip, *, top: int | None, threshold: float | None, within: str | None) -> list[Hit]:
        type(self).asked.append((query, top, threshold, within))
        if query == "":
            raise QueryError("the query is empty: name a word")
        if isinstance(query, Clip) and not os.path.exists(query.path):
            raise AudioError(f"{query.path}: no such file; check its name")
        if query in ("silence", "quiet"):
            return []
        hits = []
        for recording in sorted(self.store.recordings(), key=lambda recording: recording.path):
            if within is None or os.path.basename(recording.path) == within:
                first = Hit(recording, 61.25, 61.875, 0.71234, 0.912345, str(query))
                later = replace(first, start=3.5, end=3.75, probability=0.5 if query == "gradient" else 0.6)
                hits += [first, later]
        return sorted(hits, key=lambda hit: -hit.probability)[:top]


@pytest.fixture(autouse=True)
def stand_ins(
    monkeypatch: pytest.MonkeyPatch,
    loud_is_speech: None,
    toy: ToyEncoder,
    toy_passages: ToyPassageEncoder,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("earshot.encoders.load", lambda name: {"word": toy, "passage": toy_passages}[name])
    monkeypatch.setattr("earshot.search.Searcher", FakeSearcher)
    monkeypatch.setattr(FakeSearcher, "asked", [], raising=False)
    monkeypatch.delenv("EARSHOT_LIBRARY", raising=False)
    monkeypatch.delenv("EARSHOT_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Earshot:
    """Run `earshot ARGUMENTS`: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert all(line.startswith("earshot: ") for line in err.splitlines()), err
        return code, out, err

    return run


@pytest.fixture
def indexed(run: Earshot, talk: Talk) -> None:
    talk("talks/a.wav", 2), talk("talks/b.wav", 4)
    assert run("index", "talks")[0] == 0


def test_index_sums_up_in_one_line(run: Earshot, talk: Talk) -> None:
    talk("talks/a.wav", 2), talk("talks/b.wav", 4)
    code, out, err = run("index", "talks")
    assert code == 0 and err == ""
    assert out.startswith("indexed 2 recordings (7.0 s, 3.1 s of speech) in ") and out.endswith("x real time\n")
    assert Path(".earshot/library.db").exists()
    assert run("index", "talks") == (0, "nothing new; 2 unchanged\n", "")


def test_index_names_what_fails_and_exits_with_1(run: Earshot, talk: Talk, tmp_path: Path) -> None:
    talk("talks/a.wav")
    Path("talks/bad.mp3").write_text("no")
    Path("talks/empty.mp3").touch()
    code, out, err = run("index", "talks", "gone.wav")
    assert code == 1 and out.startswith("indexed 1 recording (") and out.endswith("; 3 failed\n")
    gone, bad, empty = sorted(err.splitlines(), key=lambda line: ("gone" not in line, line))
    assert gone == "earshot: gone.wav: no such file or folder; check its name"
    assert bad.startswith("earshot: talks/bad.mp3: not audio") and empty.startswith(
        "earshot: talks/empty.mp3: is empty"
    )
    assert run("index", "talks")[:2] == (1, "nothing new; 1 unchanged; 2 failed\n")


def test_index_of_nothing_at_all_makes_no_library(run: Earshot) -> None:
    code, out, err = run("index", "gone")
    assert (code, out) == (1, "") and "'gone': no such file or folder" in err
    assert not Path(".earshot").exists()


def test_index_of_a_folder_without_audio_says_so(run: Earshot, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    assert run("index", "talks") == (0, "nothing new\n", "earshot: talks: no audio files in it\n")


def test_two_index_runs_at_once(run: Earshot, indexed: None) -> None:
    with Store.open(".earshot", writing=True):
        code, out, err = run("index", "talks")
    assert (
        (code, out) == (1, "")
        and "another `earshot` (index, watch or serve) is writing" in err
        and err.count("\n") == 1
    )


def test_the_library_of_another_encoder_is_refused(run: Earshot, indexed: None, toy: ToyEncoder) -> None:
    toy.digest = "fedcba9876543210"
    for command in ("index", "find"):
        code, out, err = run(command, "talks")
        assert (code, out) == (1, "") and "was written by the encoder toy 0123456789ab" in err and err.count("\n") == 1


def test_a_library_of_another_version_is_refused(run: Earshot, indexed: None) -> None:
    import sqlite3

    connection = sqlite3.connect(".earshot/library.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    for arguments in (("index", "talks"), ("find", "x"), ("status",), ("remove", "x")):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "") and "has format 9" in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("find", "x"), ("status",), ("remove", "x")])
def test_no_library(run: Earshot, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "") and err.startswith("earshot: no library at .earshot: ") and err.count("\n") == 1


def test_the_library_is_named_by_option_or_environment(
    run: Earshot, talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = talk("a.wav")
    monkeypatch.setenv("EARSHOT_LIBRARY", str(tmp_path / "by-environment"))
    assert run("index", path)[0] == 0
    assert run("index", path, "--library", "late")[0] == run("index", "-l", "short", path)[0] == 0
    assert run("--library", "early", "index", path)[0] == run("index", path, "-l", (tmp_path / "uri").as_uri())[0] == 0
    for name in ("by-environment", "late", "short", "early", "uri"):
        assert (tmp_path / name / "library.db").exists()
    code, _, err = run("status", "-l", "s3://bucket/x")
    assert code == 1 and "cannot keep a library at 's3://bucket/x'" in err
    code, _, err = run("find", "gradient", "-l", path)
    assert code == 1 and f"{path} is a file" in err


def test_find_prints_json_lines_when_piped(run: Earshot, indexed: None) -> None:
    code, out, err = run("find", "gradient")
    assert code == 0 and err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [["recording", "start", "end", "score", "probability", "query"]] * 4
    assert rows[0] == {
        "recording": "talks/a.wav",
        "start": 61.25,
        "end": 61.875,
        "score": 0.7123,
        "probability": 0.9123,
        "query": "gradient",
    }
    assert run("find", "gradient", "--json")[1] == out


def test_find_passes_on_what_it_is_asked(run: Earshot, indexed: None, tmp_path: Path) -> None:
    run(
        "find",
        "gradient",
        "--like",
        "talks/a.wav@0.5-1",
        "gradient",
        "--top",
        "3",
        "--threshold",
        "0.25",
        "--in",
        "a.wav",
    )
    assert FakeSearcher.asked == [
        ("gradient", 3, 0.25, "a.wav"),
        (Clip("talks/a.wav", 0.5, 1.0), 3, 0.25, "a.wav"),
    ]
    FakeSearcher.asked.clear()
    for within in ("talks", "./talks/a*", "*.mp3"):
        run("find", "x", "--in", within)
    asked = list(dict.fromkeys(within for *_, within in FakeSearcher.asked))
    assert asked == [f"{tmp_path}/talks/*", f"{tmp_path}/talks/a*", "*.mp3"]


def test_find_names_what_matches_no_recording(run: Earshot, indexed: None) -> None:
    code, out, err = run("find", "gradient", "--in", "nowhere")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--in nowhere" in err


def test_find_merges_queries_best_first(run: Earshot, indexed: None) -> None:
    _, out, _ = run("find", "gradient", "climate change", "--in", "a.wav")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["query"], row["probability"]) for row in rows] == [
        ("gradient", 0.9123),
        ("climate change", 0.9123),
        ("climate change", 0.6),
        ("gradient", 0.5),
    ]


def test_ask_prints_json_lines_when_piped_and_passages_for_people(run: Earshot, indexed: None) -> None:
    code, out, err = run("ask", "what of w0?")
    rows = sorted(map(json.loads, out.splitlines()), key=lambda row: str(row["recording"]))  # they are equally good
    assert code == 0 and [row["recording"] for row in rows] == ["talks/a.wav", "talks/b.wav"]
    assert err == "earshot: no word of the question is found in these: they are alike in meaning at best\n"
    assert list(rows[0]) == ["recording", "start", "end", "score", "text", "heard", "best", "words"]
    assert rows[0]["start"] == rows[0]["best"]["start"] < rows[0]["end"] and rows[0]["text"] == "w0"
    assert rows[0]["heard"] is True and rows[0]["best"]["text"] == "w0" and 0 < rows[0]["score"] <= 1
    table = run("ask", "what", "of", "w0?", "--table", "--top", "1", "--in", "a.wav")[1]
    where, words = table.splitlines()
    assert (
        where.split()[1].startswith("talks/a.wav@0:0") and " best 0:0" in where and words == "      machine-heard: w0"
    )
    assert json.loads(run("ask", "--like", "talks/a.wav", "--in", "b.wav")[1])["recording"] == "talks/b.wav"


def test_recordings_without_speech_are_named(run: Earshot, talk: Talk) -> None:
    for k in range(7):
        talk(f"talks/silent{k}.wav", 0)
    talk("talks/loud.wav", 1)
    code, out, err = run("index", "talks")
    assert code == 0 and "indexed 8 recordings" in out and err.startswith("earshot: no speech in: talks/silent")
    assert err.count("silent") == 5 and err.endswith(" and 2 more\n") and "loud" not in err


def test_ask_reads_transcripts_and_names_those_that_are_none(run: Earshot, talk: Talk) -> None:
    for name in ("a", "b", "c"):
        talk(f"talks/{name}.wav", 2)
    Path("texts").mkdir()
    Path("texts/b.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nI said w5.\n")
    Path("texts/d.srt").touch()
    Path("texts/c.vtt").write_text("WEBVTT\n\n10:00.000 --> 10:05.000\nsomebody else's w5\n")
    code, out, err = run("index", "talks", "--transcripts", "texts")
    assert code == 1 and "; 1 transcript; 1 transcript failed\n" in out
    assert err == (
        "earshot: texts/c.vtt: the transcript reaches 605 s, the recording 2 s; is it of another one?\n"
        "earshot: of no recording in the library by their names: d.srt\n"
    )
    (row, *others) = map(json.loads, run("ask", "w5?")[1].splitlines())
    assert (row["recording"], row["text"], row["heard"]) == ("talks/b.wav", "I said w5.", False)
    assert all(other["heard"] for other in others) and len(others) == 2
    assert "      transcript: I said w5.\n" in run("ask", "w5?", "--table")[1]
    assert run("index", "talks")[:2] == (0, "nothing new; 3 unchanged\n")
    assert json.loads(run("ask", "w5?", "--top", "1")[1])["text"] == "I said w5."
    assert run("index", "talks", "--transcripts", "gone")[0] == 2
    assert "transcripts 1\n" in run("status")[1] and json.loads(run("status", "--json")[1])["transcripts"] == 1
    assert run("remove", "--transcripts", "talks") == (0, "took 1 transcript out of the library\n", "")
    assert run("remove", "--transcripts", "talks/b.wav")[::2] == (
        1,
        "earshot: talks/b.wav: no transcript of it in the library\n",
    )
    assert all(json.loads(line)["heard"] for line in run("ask", "w5?")[1].splitlines())


def test_what_cannot_be_asked_a_library_is_one_line(run: Earshot, indexed: None, talk: Talk) -> None:
    assert run("ask", " ")[::2] == (
        2,
        "earshot: the question is empty; type one, as in 'who paid for it?'\n",
    )
    assert "the question has 99 words" in run("ask", *["w1"] * 99)[2]
    for arguments in ((), ("w1", "--like", "talks/a.wav")):
        assert run("ask", *arguments)[0] == 2
    code, out, err = run("ask", "w1", "--in", "gone.wav")
    assert (code, out) == (2, "") and "No recording in the library has a path that matches --in gone.wav" in err
    run("remove", "talks")
    assert run("ask", "w1") == (0, "", "earshot: the library is empty; put recordings in with `earshot index PATH`\n")
    assert run("ask", "w1", "--library", "none")[0] == 1


def test_a_library_from_before_there_were_passages_is_heard_by_the_next_run(run: Earshot, indexed: None) -> None:
    with Store.open(".earshot", writing=True) as store:
        store._connection.executescript("DROP TABLE passages; DROP TABLE transcripts")
        store._connection.execute("DELETE FROM encoders WHERE kind = 'passage'")
    code, out, err = run("ask", "w0")
    assert (code, out) == (1, "") and "has no passages to ask; make them: run `earshot index` again" in err
    assert "unheard     2 recordings, not to be asked yet" in run("status")[1]
    assert json.loads(run("status", "--json")[1])["unheard"] == 2
    assert run("index", "talks") == (0, "nothing new; 2 unchanged\n", "")
    assert len(run("ask", "w0")[1].splitlines()) == 2 and "unheard" not in run("status")[1]


def test_recordings_outside_the_current_folder_have_absolute_paths(
    run: Earshot, indexed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EARSHOT_LIBRARY", str(tmp_path / ".earshot"))
    (tmp_path / "talks2").mkdir()
    monkeypatch.chdir(tmp_path / "talks2")
    assert json.loads(run("find", "x", "--top", "1")[1])["recording"] == str(tmp_path / "talks" / "a.wav")


def test_find_csv(run: Earshot, indexed: None) -> None:
    _, out, _ = run("find", "climate, change", "--csv", "--top", "1")
    assert list(csv.reader(io.StringIO(out))) == [
        ["recording", "start", "end", "score", "probability", "query"],
        ["talks/a.wav", "61.25", "61.875", "0.7123", "0.9123", "climate, change"],
    ]


def test_find_srt_and_audacity_are_in_order_of_time(run: Earshot, indexed: None) -> None:
    assert run("find", "gradient", "--srt", "--in", "a.wav")[1] == (
        "1\n00:00:03,500 --> 00:00:03,750\ngradient (0.50)\n\n2\n00:01:01,250 --> 00:01:01,875\ngradient (0.91)\n"
    )
    assert run("find", "gradient", "--audacity", "--in", "a.wav")[1] == (
        "3.500000\t3.750000\tgradient (0.50)\n61.250000\t61.875000\tgradient (0.91)\n"
    )


@pytest.mark.parametrize(("format", "suffix"), [("srt", "srt"), ("audacity", "txt")])
def test_formats_for_one_recording_go_to_files_where_there_are_several(
    run: Earshot, talk: Talk, format: str, suffix: str
) -> None:
    for name in ("talks/a.wav", "talks/b.wav", "more/a.wav"):
        talk(name)
    run("index", "talks", "more")
    code, out, err = run("find", "x", f"--{format}")
    assert (code, out) == (2, "") and "hits in 3:" in err and "--in" in err and "--out" in err
    code, out, err = run("find", "x", f"--{format}", "--out", "found")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"found/a.{suffix}", f"found/a-2.{suffix}", f"found/b.{suffix}"]
    assert Path(f"found/b.{suffix}").read_text() == run("find", "x", f"--{format}", "--in", "b.wav")[1]
    Path("mine").mkdir()
    Path(f"mine/a.{suffix}").write_text("mine")
    code, _, err = run("find", "x", f"--{format}", "--out", "mine")
    assert code == 1 and f"mine/a.{suffix}: is there already and stays as it is" in err
    assert Path(f"mine/a.{suffix}").read_text() == "mine"
    Path("file").touch()
    code, _, err = run("find", "x", f"--{format}", "--out", "file")
    assert code == 1 and "cannot be written" in err


def test_the_table_has_a_line_for_each_hit_that_other_commands_read(run: Earshot, indexed: None) -> None:
    _, out, _ = run("find", "x", "--table")
    head, *lines = out.splitlines()
    assert head.split() == ["probability", "cosine", "where"] and len(lines) == 4
    assert lines[0].split() == ["0.91", "0.71", "talks/a.wav@1:01.25-1:01.88"]
    _, out, _ = run("find", "x", "two [bold]words", "--table", "--top", "1")
    assert out.splitlines()[0].endswith("query") and out.splitlines()[2].endswith(" two [bold]words")


def test_no_hit_is_no_error_and_says_how_to_get_some(run: Earshot, indexed: None) -> None:
    for format in ("--json", "--csv", "--srt", "--table"):
        code, out, err = run("find", "silence", format)
        assert (code, out) == (0, "") and err.count("\n") == 1
        assert err.startswith("earshot: no hit for 'silence' with a probability of 0.1 or more: lower it, as in --thr")
    assert run("find", "silence", "quiet", "--threshold", "0")[2] == "earshot: no hit for 'silence', 'quiet'\n"
    code, out, err = run("find", "gradient", "silence")
    assert code == 0 and len(out.splitlines()) == 4 and "'silence'" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("find",), "QUERY"),
        (("find", ""), "empty"),
        (("find", "x", ""), "empty"),
        (("find", "x", "--top", "0"), "--top"),
        (("find", "x", "--threshold", "2"), "--threshold"),
        (("find", "x", "--threshold", "nan"), "nan is not in the range"),
        (("find", "x", "--out", "d"), "--srt"),
        (("find", "--like", "talks/a.wav@2-x"), "FILE@START-END"),
        (("find", "x", "--nonsense"), "--nonsense"),
        (("fnid", "x"), "fnid"),
        (("index",), "PATH"),
        (("clip", "talks/a.wav@2-x", "out.wav"), "FILE@START-END"),
        (("remove",), "PATH"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_2(
    run: Earshot, indexed: None, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1


@pytest.mark.parametrize("query", ["", "  ", "?!", "你好", "--like=long.wav@1-1.02", "--like=long.wav@0-119"])
def test_what_cannot_be_searched_for_is_one_line_and_2(
    run: Earshot, indexed: None, talk: Talk, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr("earshot.search.Searcher", Searcher)
    talk("long.wav", 120)
    code, out, err = run("find", query)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "unexpected" not in err


def test_an_example_that_is_not_there(run: Earshot, indexed: None) -> None:
    assert run("find", "--like", "gone.wav") == (1, "", "earshot: gone.wav: no such file; check its name\n")


def test_clip_cuts(run: Earshot, talk: Talk) -> None:
    talk("a.wav", 3)
    assert run("clip", "a.wav@0:00.5-1.25", "out.wav") == (0, "", "")
    with wave.open("out.wav") as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16_000, 12_000)
    for arguments in (("a.wav@5-6", "x.wav"), ("gone.wav", "x.wav"), ("a.wav", "no/folder/x.wav")):
        code, out, err = run("clip", *arguments)
        assert (code, out) == (1, "") and err.count("\n") == 1
    assert not Path("x.wav").exists()
    before = Path("a.wav").read_bytes()
    code, _, err = run("clip", "a.wav@0:00.5-1.25", "./a.wav")
    assert code == 2 and "is the recording itself" in err and Path("a.wav").read_bytes() == before
    code, _, err = run("clip", "a.wav@0:00.5-1.25", "out.mp3")
    assert code == 2 and "wav" in err and not Path("out.mp3").exists()


def test_align_says_what_it_cannot_do(run: Earshot, talk: Talk) -> None:
    pytest.importorskip("pocketsphinx")
    talk("speech/a.wav", 1)
    code, out, err = run("align", "speech", "times.jsonl")
    assert (code, out) == (1, "") and err.startswith("earshot: speech: no manifest.jsonl") and err.count("\n") == 1
    Path("speech/a.txt").write_text("room 12")
    code, out, err = run("align", "speech", "times.jsonl")
    told = ["a: its text holds digits, whose reading is unknown", "0 utterances with word times, 1 without"]
    assert (code, out, err) == (1, "", "".join(f"earshot: {line}\n" for line in told))
    assert run("align", "speech", "times.ctm")[0] == 2


def test_remove_takes_out_recordings_folders_and_failures(run: Earshot, talk: Talk) -> None:
    for name in ("talks/a.wav", "talks/b/c.wav", "talks/b/d.wav", "talks2/e.wav"):
        talk(name)
    Path("talks/b/bad.wav").write_text("no")
    run("index", "talks", "talks2")
    code, out, err = run("remove", "")
    assert (code, out) == (2, "") and "A PATH is empty" in err
    assert run("remove", "talks/b/") == (0, "took 3 files out of the library\n", "")
    status = json.loads(run("status", "--json")[1])
    assert status["recordings"] == 2 and status["failures"] == []
    code, out, err = run("remove", "gone.wav", "talks")
    assert (code, out) == (1, "took 1 file out of the library\n") and err == "earshot: gone.wav: not in the library\n"
    assert json.loads(run("find", "x", "--top", "1")[1])["recording"] == "talks2/e.wav"
    assert Path("talks/a.wav").exists()
    run("remove", "talks2")
    code, out, err = run("find", "x")
    assert (code, out) == (
        0,
        "",
    ) and err == "earshot: the library is empty; put recordings in with `earshot index PATH`\n"


def test_status_tells_what_is_there_and_what_is_not(run: Earshot, talk: Talk) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        talk(f"talks/{name}", 2)
    Path("talks/bad.wav").write_text("no")
    Path("talks/worse.wav").write_text("no")
    run("index", "talks")
    talk("talks/a.wav", 4)
    Path("talks/b.wav").unlink()
    Path("talks/worse.wav").unlink()
    code, out, err = run("status", "--json")
    status = json.loads(out)
    assert code == 0 and err == ""
    assert (status["recordings"], status["seconds"], status["library"]) == (3, 7.5, ".earshot")
    assert status["encoder"] == {"name": "toy", "digest": "0123456789abcdef"}
    assert (status["changed"], status["vanished"]) == (["talks/a.wav"], ["talks/b.wav"])
    assert [failure["path"] for failure in status["failures"]] == ["talks/bad.wav"]
    assert status["bytes_per_hour"] == pytest.approx(status["bytes"] * 3600 / 7.5)
    text = run("status")[1]
    assert "recordings  3 (7.5 s, " in text and "toy 0123456789ab" in text
    assert text.index("changed     1") < text.index("    talks/a.wav\n") < text.index("vanished    1")
    assert "    talks/b.wav\n" in text and "    talks/bad.wav: not audio" in text


def test_a_surprise_is_one_line_and_a_traceback_for_those_who_ask(
    run: Earshot, indexed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("in\nthe search")

    monkeypatch.setattr(FakeSearcher, "find", find)
    told = "earshot: unexpected ZeroDivisionError: in the search; EARSHOT_DEBUG=1 shows where\n"
    assert run("find", "x") == (1, "", told)
    monkeypatch.setenv("EARSHOT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("find", "x")


def test_file_names_of_any_kind(run: Earshot, talk: Talk, tmp_path: Path) -> None:
    odd = "new\nline [bold] ünï.wav"
    talk(f"talks/{odd}"), talk("talks/empty\n.wav").write_bytes(b"")
    code, _, err = run("index", "talks")
    assert code == 1 and err.count("\n") == 1 and r"'talks/empty\n.wav'" in err
    assert json.loads(run("find", "x", "--top", "1")[1])["recording"] == f"talks/{odd}"
    assert len(run("find", "x", "--table", "--top", "1")[1].splitlines()) == 2


def test_the_python_interface_is_the_same_calls(talk: Talk, tmp_path: Path) -> None:
    path = talk("talks/a.wav")
    with earshot.open(tmp_path / "library") as library:
        report = library.index(tmp_path / "talks")
        assert [recording.path for recording in report.recordings] == [str(path)]
        (hit,) = library.find("x", top=1)
        assert (hit.recording.path, hit.start, hit.query) == (str(path), 61.25, "x")
        talk("talks/b.wav", 2)
        library.index([tmp_path / "talks"])
        assert len(library.find(earshot.Clip(str(path)), top=None)) == 4
        library.stale = 9.0  # also where a search came before
        assert library.find("x") and library._searcher is not None and library._searcher.stale == 9.0
        assert library.status().totals.recordings == 2
        assert [recording.path for recording in library.recordings()] == [str(path), str(tmp_path / "talks" / "b.wav")]
        assert [recording.path for recording in library.recordings("b.wav")] == [str(tmp_path / "talks" / "b.wav")]
        assert library.remove(tmp_path / "talks") == [str(path), str(tmp_path / "talks" / "b.wav")]
        assert library.find("x") == []
    assert earshot.Library is type(library)
    with pytest.raises(earshot.EarshotError):
        earshot.open("")


PROGRAM = [sys.executable, "-c", "from earshot.cli import main; main()"]


def environment() -> dict[str, str]:
    places = [str(Path(__file__).parent), str(Path(earshot.__file__).parents[1])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}


def test_help_and_import_load_nothing_heavy() -> None:
    script = """
import sys, earshot, earshot.cli
assert earshot.Clip and earshot.cli.run(["--help"]) == earshot.cli.run(["find", "--help"]) == 0
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1].split())), file=sys.stderr)
"""
    heavy = "numpy onnxruntime av soundfile soxr rich sqlite3 torch pocketsphinx httpx"
    command = [sys.executable, "-c", script, heavy]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "[]\n")


def test_help_answers_at_once() -> None:
    def processor_seconds(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    least = min(processor_seconds(sys.executable, "-c", "import click") for _ in range(3))  # as fast as the machine is
    assert min(processor_seconds(*PROGRAM, "--help") for _ in range(3)) < max(0.3, 3 * least)


SLOW = """
import sys
import earshot.encoders, earshot.speech, earshot.ingest
from conftest import ToyEncoder, loud_stretches
toy = ToyEncoder()
toy.delay = 0.3
earshot.encoders.load = lambda name: toy
earshot.speech.stretches, earshot.ingest.BATCH_FRAMES = loud_stretches, 1
from earshot.cli import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_one_line_and_130_and_the_same_command_goes_on(run: Earshot, talk: Talk, tmp_path: Path) -> None:
    for n in range(60):
        talk(f"talks/{n}.wav", 2, seed=n)
    command = [sys.executable, "-c", SLOW, "index", "talks"]
    with subprocess.Popen(command, env=environment(), stdout=-1, stderr=-1, text=True, process_group=0) as child:
        while not stored(tmp_path / ".earshot"):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "earshot: stopped; run the same command again to go on\n")
    done = stored(tmp_path / ".earshot")
    assert 0 < done < 60
    code, out, _ = run("index", "talks")
    assert code == 0 and out.startswith(f"indexed {60 - done} recordings") and f"; {done} unchanged" in out


def stored(folder: Path) -> int:
    try:
        with Store.open(folder) as store:
            return len(store.recordings())
    except earshot.LibraryError:
        return 0


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_goes_away_is_no_error_worth_a_word(indexed: None) -> None:
    many = SLOW.replace("from earshot.cli", "import test_cli, earshot.search\n"
        "test_cli.FakeSearcher.asked = []\n"
        "once = test_cli.FakeSearcher.find\n"
        "test_cli.FakeSearcher.find = lambda *a, **k: once(*a, **k) * 5_000\n"
        "earshot.search.Searcher = test_cli.FakeSearcher\nfrom earshot.cli")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", many, "find", "x"], env=environment(), stdout=-1, stderr=-1) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""


def test_the_samples_are_indexed_and_a_word_is_found_where_it_is_said(tmp_path: Path) -> None:
    def earshot_says(*arguments: str) -> str:
        command = [*PROGRAM, *arguments, "--library", str(tmp_path / "library")]
        return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout

    assert earshot_says("index", str(SAMPLES)).startswith("indexed 7 recordings (5.2 min, ")
    assert earshot_says("index", str(SAMPLES)) == "nothing new; 7 unchanged\n"
    said = [
        (line["audio"], start, end)
        for line in map(json.loads, (SAMPLES / "truth.jsonl").read_text().splitlines())
        for start, end, word, _ in line["words"]
        if word == "gradient"
    ]
    asked = json.loads(earshot_says("ask", "who paid for the telescope?", "--top", "1"))
    assert os.path.basename(asked["recording"]) == "council-meeting.mp3" and 5 < asked["best"]["start"] < 20
    best = json.loads(earshot_says("find", "gradient", "--top", "1"))
    assert set(best) == {"recording", "start", "end", "score", "probability", "query"}
    assert any(
        os.path.basename(best["recording"]) == os.path.basename(audio) and abs(best["start"] - start) < 0.2
        for audio, start, _ in said
    )
    audio, start, end = said[0]
    like = f"{SAMPLES / os.path.basename(audio)}@{start}-{end}"
    hits = [json.loads(line) for line in earshot_says("find", "--like", like, "--top", "5", "--json").splitlines()]
    here = [h for h in hits if os.path.basename(h["recording"]) == os.path.basename(audio)]
    assert any(abs(h["start"] - start) < 0.2 and h["score"] > 0.9 for h in here)
    assert len(hits) == 5
    for h in hits:
        assert any(
            os.path.basename(h["recording"]) == os.path.basename(a) and abs(h["start"] - t) < 0.2 for a, t, _ in said
        )

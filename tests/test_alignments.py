"""Transcripts in people's layouts, word times that somebody made or that are found, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from earshot.train import corpus
from earshot.train.align import Alignment, Timed
from earshot.train.alignments import align, complaint, read_alignments
from earshot.train.corpus import prepare, read_corpus
from earshot.train.transcripts import CorpusError, Transcript, read_transcripts

Talk = Callable[..., Path]
SAMPLES = Path(__file__).parent.parent / "samples"

TEXT_GRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = ""
        intervals [2]:
            xmin = 0.2
            xmax = 0.6
            text = "Cats"
        intervals [3]:
            xmin = 0.6
            xmax = 1.1
            text = "bark"
        intervals [4]:
            xmin = 1.1
            xmax = 1.5
            text = "<eps>"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = "sil"
        intervals [2]:
            xmin = 0.2
            xmax = 0.6
            text = "AE1"
        intervals [3]:
            xmin = 0.6
            xmax = 1.1
            text = "B"
"""
CATS = Alignment((Timed(0.2, 0.6, "cats"), Timed(0.6, 1.1, "bark")), (Timed(0.2, 0.6, "AE"), Timed(0.6, 1.1, "B")))


@pytest.fixture
def librispeech(tmp_path: Path, talk: Talk) -> Path:
    """Two utterances in LibriSpeech's layout, 1.5 s each."""
    root = tmp_path / "LibriSpeech"
    for subset, speaker in (("train-clean-100", "19"), ("dev-clean", "84")):
        chapter = root / subset / speaker / "198"
        talk(chapter / f"{speaker}-198-0000.wav", 1)
        (chapter / f"{speaker}-198.trans.txt").write_text(f"{speaker}-198-0000 CATS BARK\n")
    return root


def test_librispeech_is_read_in_its_own_layout(librispeech: Path) -> None:
    found = list(read_transcripts(librispeech))
    assert [(t.id, t.speaker, t.split, t.text) for t in found] == [
        ("84-198-0000", "84", "dev", "CATS BARK"),
        ("19-198-0000", "19", "train", "CATS BARK"),
    ]
    assert all(t.audio.is_file() for t in found)
    assert [t.id for t in read_transcripts(librispeech / "train-clean-100")] == ["19-198-0000"]


def test_a_text_beside_each_file_is_read(tmp_path: Path, talk: Talk) -> None:
    talk(tmp_path / "anna" / "one.wav", 1)
    talk(tmp_path / "anna" / "two.wav", 1)
    (tmp_path / "anna" / "one.txt").write_text("Cats bark.\n")
    found = list(read_transcripts(tmp_path))
    assert [(t.id, t.speaker, t.text) for t in found] == [("anna/one", "anna", "Cats bark.")]


def test_a_folder_without_transcripts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no manifest.jsonl, no \*.trans.txt"):
        list(read_transcripts(tmp_path))
    with pytest.raises(CorpusError, match="no such folder"):
        list(read_transcripts(tmp_path / "none"))
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorpusError, match=r"a.txt: not a text in UTF-8"):
        list(read_transcripts(tmp_path))
    (tmp_path / "a.trans.txt").write_bytes(b"a-1 caf\xe9")
    with pytest.raises(CorpusError, match=r"a.trans.txt: not a text in UTF-8"):
        list(read_transcripts(tmp_path))
    (tmp_path / "manifest.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(CorpusError, match=r"manifest.jsonl: not a text in UTF-8"):
        list(read_transcripts(tmp_path))
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "audio": "a.wav"}\n')
    with pytest.raises(CorpusError, match=r"manifest.jsonl, line 1: not an utterance \(KeyError\('speaker'\)\)"):
        list(read_transcripts(tmp_path))


def test_word_times_of_three_kinds_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "u1.TextGrid").write_text(TEXT_GRID)
    (tmp_path / "times.ctm").write_text(";; words\nu1 1 0.60 0.50 bark\nu1 1 0.20 0.40 Cats 0.9\n")
    row = {"id": "u1", "words": [[0.2, 0.6, "cats"], [0.6, 1.1, "bark"]], "phones": [[0.2, 0.6, "AE"], [0.6, 1.1, "B"]]}
    (tmp_path / "times.jsonl").write_text(json.dumps(row) + '\n{"id": "cut sho')
    for name in ("grids", "times.ctm", "times.jsonl"):
        read = read_alignments(tmp_path / name)
        found = read("u1")
        assert found is not None
        assert [(t.start, t.end, t.label) for t in found.words] == [(0.2, 0.6, "cats"), (0.6, 1.1, "bark")]
        assert found.phones == (() if name.endswith("ctm") else CATS.phones)
        assert read("u2") is None


def test_phones_of_another_set_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "u1.TextGrid").write_text(TEXT_GRID.replace("AE1", "æ"))
    found = read_alignments(tmp_path)("u1")
    assert found is not None
    assert found.words == CATS.words
    assert found.phones == ()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.ctm", b"u1 1 zero 0.4 cats\n", "a.ctm, line 1: not `utterance channel start duration word`"),
        ("a.ctm", b"u1 1 0.2 0.4 caf\xe9\n", "a.ctm: not a text in UTF-8"),
        ("a.jsonl", b'{"words": []}\n', "a.jsonl, line 1: not "),
        ("a.jsonl", b'{"words": []}', "a.jsonl, line 1: not "),
        ("a.jsonl", b"shopping list", "a.jsonl, line 1: not "),
        ("a.jsonl", b'{"id": "caf\xe9"}\n', "a.jsonl, line 1: not "),
        ("a.jsonl", b'{"id": "a", "words": [["0.2 s", 0.4, "cats"]]}\n', "a.jsonl, line 1: not "),
        ("a.csv", b"u1,1\n", "word times are a folder of TextGrids"),
    ],
)
def test_damaged_word_times_are_named(tmp_path: Path, name: str, text: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(CorpusError, match=why):
        read_alignments(tmp_path / name)


def test_a_damaged_text_grid_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "u1.TextGrid").write_text(TEXT_GRID[:300])
    with pytest.raises(CorpusError, match=r"u1.TextGrid: not a TextGrid"):
        read_alignments(tmp_path)("u1")
    (tmp_path / "u1.TextGrid").write_bytes(TEXT_GRID.replace("Cats", "café").encode("latin-1"))
    with pytest.raises(CorpusError, match=r"u1.TextGrid: not a TextGrid"):
        read_alignments(tmp_path)("u1")
    with pytest.raises(CorpusError, match=r"no \.TextGrid files"):
        read_alignments(tmp_path / "empty")


def _said(*words: str) -> Alignment:
    return Alignment(tuple(Timed(0.1 * k, 0.1 * k + 0.1, word) for k, word in enumerate(words)), ())


@pytest.mark.parametrize(
    ("alignment", "text", "seconds", "why"),
    [
        (CATS, "Cats bark", 1.1, None),
        (CATS, "Cats never bark", 1.05, None),
        (CATS, "", 1.1, None),
        (CATS, "Cats bark", 0.9, "its alignment ends at 1.10 s, the audio at 0.90 s"),
        (
            Alignment((Timed(0.1, float("nan"), "cats"),), ()),
            "Cats",
            1.1,
            "its alignment has times that are no numbers",
        ),
        (CATS, "Dogs bark", 1.1, "its alignment has the words of another text: 'cats' is not in it"),
        (CATS, "Bark, cats!", 1.1, "its alignment has the words of another text: 'bark' is not in it, or not in this"),
        (_said("'tis", "the", "boys'", "well-known", "o'clock"), "’Tis the boys' well-known o'clock", 1, None),
        (_said("tis", "the", "boys", "well", "known"), "'Tis the boys’ well-known", 1, None),
        (
            _said(
                "2nd",
            ),
            "second",
            1,
            "its alignment has the words of another text: '2nd' is not in it",
        ),
        (Alignment((), ()), "Cats", 1.1, "its alignment holds no words"),
        (Alignment(CATS.words[::-1], ()), "bark cats", 1.1, "the times of its alignment are not in order"),
        (Alignment((Timed(0.5, 0.2, "cats"),), ()), "cats", 1.1, "the times of its alignment are not in order"),
    ],
)
def test_word_times_that_do_not_fit_are_told(alignment: Alignment, text: str, seconds: float, why: str | None) -> None:
    found = complaint(alignment, Transcript("u1", Path("u1.wav"), "s", "train", text), seconds)
    assert found is None if why is None else str(found).startswith(why)


def test_a_corpus_takes_given_times_and_keeps_what_lacks_them(librispeech: Path, tmp_path: Path) -> None:
    times = tmp_path / "times.jsonl"
    times.write_text(json.dumps({"id": "19-198-0000", "words": [[0.2, 0.6, "cats"], [0.6, 9.1, "bark"]]}) + "\n")
    (librispeech / "dev-clean" / "84" / "198" / "84-198-0000.wav").write_bytes(b"not audio")
    report = prepare(librispeech, tmp_path / "corpus", read_alignments(times))
    assert report.aligned == 0
    assert dict(report.left_out)["19-198-0000"] == "its alignment ends at 9.10 s, the audio at 1.50 s"
    assert "84-198-0000.wav" in dict(report.left_out)["84-198-0000"]
    times.write_text(json.dumps({"id": "19-198-0000", "words": [[0.2, 0.6, "cats"], [0.6, 1.1, "bark"]]}) + "\n")
    report = prepare(librispeech, tmp_path / "again", read_alignments(times))
    assert report.aligned == 1
    utterance = read_corpus(tmp_path / "again").utterances[0]
    assert (utterance.corpus, utterance.speaker, utterance.split) == ("again", "19", "train")
    assert utterance.words == CATS.words
    assert len(list(report.lines())) == 2
    same = read_alignments(tmp_path / "again" / "utterances.jsonl")("19-198-0000")
    assert same is not None and same.words == CATS.words


def test_word_times_given_later_take_the_place_of_those_in_a_corpus(librispeech: Path, tmp_path: Path) -> None:
    def given(**ends: float) -> Path:
        rows = ({"id": f"{k[1:]}-198-0000", "words": [[0.2, end, "cats"]]} for k, end in ends.items())
        (tmp_path / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "times.jsonl"

    folder = tmp_path / "corpus"

    def again(**ends: float) -> dict[str, tuple[Timed, ...]]:
        prepare(librispeech, folder, read_alignments(given(**ends)))
        return {u.speaker: u.words for u in read_corpus(folder).utterances}

    first = again(_19=0.6, _84=0.7)
    samples = (folder / "samples.i16").read_bytes()
    assert again(_19=0.9) == {**first, "19": (Timed(0.2, 0.9, "cats"),)}
    assert again(_19=9.9) == {**first, "19": ()}
    assert again(_19=0.6) == first
    assert (folder / "samples.i16").read_bytes() == samples
    assert sorted(path.name for path in folder.iterdir()) == ["samples.i16", "utterances.jsonl"]


def test_a_source_that_is_refused_leaves_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talk: Talk) -> None:
    def refusal() -> str:
        monkeypatch.setattr(sys, "argv", ["corpus", str(tmp_path / "speech"), str(tmp_path / "out")])
        with pytest.raises(SystemExit) as stopped:
            corpus.main()
        return str(stopped.value)

    talk("speech/a.wav", 1)
    assert refusal().startswith(f"corpus: {tmp_path / 'speech'}: no manifest.jsonl")
    (tmp_path / "speech" / "a.txt").write_text("cats")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    assert refusal() == "corpus: forced alignment needs pocketsphinx: pip install '.[train]'"
    assert not (tmp_path / "out").exists()


def test_a_corpus_of_single_words_of_any_language(tmp_path: Path, talk: Talk) -> None:
    talk("speech/anna/one.wav", 1)
    (tmp_path / "speech" / "anna" / "one.txt").write_text("أمام")
    assert prepare(tmp_path / "speech", tmp_path / "corpus", alone=True).aligned == 1
    (utterance,) = read_corpus(tmp_path / "corpus").utterances
    assert utterance.words == (Timed(0.5, 1.0, "أمام"),)
    assert utterance.phones == ()


def test_align_finds_words_goes_on_and_names_what_it_cannot(tmp_path: Path, talk: Talk) -> None:
    pytest.importorskip("pocketsphinx")
    from earshot.audio import load, write_wav
    from earshot.types import Clip

    speech, out = tmp_path / "speech", tmp_path / "times.jsonl"
    speech.mkdir()
    write_wav(speech / "said.wav", load(Clip(str(SAMPLES / "podcast.m4a"), 18.5, 19.6)))
    (speech / "said.txt").write_text("gradient")
    talk(speech / "noise.wav", 1)
    (speech / "noise.txt").write_text("room 12")
    shutil.copy(speech / "noise.wav", speech / "other.wav")
    (speech / "other.txt").write_text("Привет")
    report = align(speech, out)
    left_out = dict(report.left_out)
    assert left_out["noise"] == "its text holds digits, whose reading is unknown"
    assert "'привет'" in left_out["other"]
    assert report.aligned == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["said"]
    (start, end, word), *_ = rows[0]["words"]
    assert word == "gradient"
    assert 0 < start < end < 1.1
    found = read_alignments(out)("said")
    assert found is not None
    assert len(found.phones) > 4
    assert align(speech, out).aligned == 0
    np.testing.assert_equal(len(out.read_text().splitlines()), 1)
    whole = out.read_text()
    out.write_text(whole + whole[:30])
    assert align(speech, out).aligned == 0
    assert out.read_text() == whole
    out.write_text(whole.replace("said", "asid").rstrip())
    assert align(speech, out).aligned == 1
    assert out.read_text() == whole.replace("said", "asid") + whole


@pytest.mark.parametrize("held", [b'{"id": "a", "words": []}', b'{"notes": 1}', b"shopping list", b"a\nb", None])
def test_align_that_is_refused_leaves_what_was_there(tmp_path: Path, talk: Talk, held: bytes | None) -> None:
    out = tmp_path / "times.jsonl"
    if held is not None:
        out.write_bytes(held)
    talk("speech/a.wav", 1)
    with pytest.raises(CorpusError, match=r"no manifest\.jsonl"):
        align(tmp_path / "speech", out)
    assert (out.read_bytes() if out.exists() else None) == held
    (tmp_path / "speech" / "a.txt").write_text("room 12")
    if held is not None and b'"id"' not in held:
        with pytest.raises(CorpusError, match=r"times\.jsonl, line 1: not "):
            align(tmp_path / "speech", out)
        assert out.read_bytes() == held
    with pytest.raises(CorpusError, match=r"speech: cannot be read \(Is a directory\)"):
        align(tmp_path / "speech", tmp_path / "speech")


def test_align_into_a_folder_that_is_not_there_is_one_line(tmp_path: Path, talk: Talk) -> None:
    pytest.importorskip("pocketsphinx")
    talk("a.wav", 1)
    (tmp_path / "a.txt").write_text("room 12")
    with pytest.raises(CorpusError, match=r"times\.jsonl: cannot be written \(No such file or directory\)"):
        align(tmp_path, tmp_path / "none" / "times.jsonl")

"""Readers of spoken question answering corpora, on copies of their layouts made here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from earshot.train.clsr import questions
from earshot.train.transcripts import CorpusError, read_transcripts


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def librisqa(tmp_path: Path) -> Path:
    touch(tmp_path / "LibriSpeech/test-clean/19/198/19-198-0001.flac")
    told = [
        {"speech_path": f"/data/LibriSpeech/test-clean/19/198/19-198-000{k}.flac", "text": f"TEXT {k}", "duration": 3.0}
        for k in (1, 1, 2)
    ]
    for k, row in enumerate(told):
        row |= {"question": f"Why {k}?", "answer": "So."}
    (tmp_path / "LibriSQA-PartI-test.json").write_text(json.dumps(told))
    return tmp_path


def test_librisqa_asks_about_librispeech(
    librisqa: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, speech, out = librisqa / "LibriSQA-PartI-test.json", librisqa / "LibriSpeech", librisqa / "data/librisqa"
    monkeypatch.setattr(sys, "argv", ["questions", "librisqa", *map(str, (table, speech, out))])
    questions.main()
    assert capsys.readouterr().out.endswith("2 questions; of 1 more the speech is not there\n")
    (passage,) = read_transcripts(out)
    assert (passage.speaker, passage.split, passage.text) == ("19", "test", "TEXT 1")
    assert passage.audio.resolve() == (speech / "test-clean/19/198/19-198-0001.flac").resolve()
    asked = rows(out / "questions.jsonl")
    assert [row["question"] for row in asked] == ["Why 0?", "Why 1?"] and {row["id"] for row in asked} == {passage.id}


def test_slue_asks_aloud(tmp_path: Path) -> None:
    columns = "question_id raw_question_text normalized_question_text question_speaker_id document_id".split()
    columns += "raw_document_text normalized_document_text".split()
    values = ["q1", 'Who "is" it?', "who is it", "s1", "d1", "It's me.", "it's me"]
    for part in ("dev", "test"):
        (tmp_path / f"slue-sqa5_{part}.tsv").write_text("\t".join(columns) + "\n" + "\t".join(values) + "\n")
        touch(tmp_path / part / "document/d1.wav")
    assert questions.write(questions.slue(tmp_path), tmp_path / "out") == (2, 0)
    asked = rows(tmp_path / "out/questions.jsonl")
    assert [(row["question"], row["sentence"]) for row in asked] == [("who is it", "it's me")] * 2
    assert asked[0]["spoken"] == "../dev/question/q1.wav"
    assert {t.split for t in read_transcripts(tmp_path / "out")} == {"dev", "test"}


def test_what_is_no_such_corpus_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text('[{"speech_path": "a/b/c/d.flac"}]')
    with pytest.raises(CorpusError, match=r"table\.json: not LibriSQA's part I \(KeyError: 'text'\)$"):
        list(questions.librisqa(tmp_path / "table.json", tmp_path))
    with pytest.raises(CorpusError, match=r"no slue-sqa5_\*\.tsv in it"):
        list(questions.slue(tmp_path))
    (tmp_path / "slue-sqa5_dev.tsv").write_text("question\tanswer\na\tb\n")
    with pytest.raises(CorpusError, match=r"slue-sqa5_dev\.tsv: not a table of SLUE-SQA-5"):
        list(questions.slue(tmp_path))

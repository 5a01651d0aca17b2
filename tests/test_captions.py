"""Transcripts in the formats that people have, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earshot import captions
from earshot.captions import Caption
from earshot.types import EarshotError

SRT = "\ufeff1\n00:00:01,000 --> 00:00:02,500\n<i>Who paid</i>\nfor it?\n\n2\n00:01:00,000 --> 00:01:01,000\n\n"
VTT = "WEBVTT\n\nNOTE made by hand\n\n00:01.000 --> 00:02.500 align:start\nWho <b>paid</b> for it?\n"
WHISPER = json.dumps({"text": "..", "segments": [{"start": 1.0, "end": 2.5, "text": " Who paid for it?"}]})


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("a.json", WHISPER)])
def test_captions_of_every_kind_are_text_with_times(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert captions.read(tmp_path / name) == [Caption(1.0, 2.5, "Who paid for it?")]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.srt", b" ", "is empty"),
        ("a.srt", b"\xff\xfe\x00", "no readable SRT"),
        ("a.vtt", b"hello", "no readable SRT|no captions"),
        ("a.json", b"{", "no readable SRT"),
        ("a.json", b'{"text": "no segments"}', "no readable SRT"),
        ("a.json", b"[1]", "no readable SRT"),
        ("a.json", b"[]", "no captions with times"),
    ],
)
def test_files_that_are_none_are_one_line(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EarshotError, match=complaint) as error:
        captions.read(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(EarshotError, match="no readable SRT"):
        captions.read(tmp_path / "gone.srt")


@pytest.mark.parametrize("code", ["utf-16", "cp1252", "utf-8"])
def test_old_subtitles_are_read_in_what_they_were_written_in(tmp_path: Path, code: str) -> None:
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nthe café\n".encode(code))
    assert captions.read(tmp_path / "a.srt")[0].text == "the café"


def test_signs_of_web_captions_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.500\n<v Anna>bread &amp; butter\n")
    assert captions.read(tmp_path / "a.vtt")[0].text == "bread & butter"


def test_an_excerpt_is_the_words_between_two_times() -> None:
    told = [Caption(0, 30, "one two three four five six"), Caption(40, 41, "end")]
    assert captions.excerpt(told, 11, 24) == "three four five" and captions.excerpt(told, 28, 41) == "end"
    assert captions.excerpt(told, 30, 40) == "" and captions.excerpt(told, 4, 29) == told[0].text


def test_the_transcript_of_a_recording_has_its_name(tmp_path: Path) -> None:
    for name in (
        "talk.en.vtt",
        "talk.srt",
        "talk.json",
        "talk.mp3.json",
        "talks.srt",
        "talk.txt",
        "v1.2.en.vtt",
        "v1.srt",
    ):
        (tmp_path / name).touch()
    found, others = captions.by_name(tmp_path, ["talk", "v1", "v1.2", "none"])
    assert [path.name for path in found["talk"]] == ["talk.srt", "talk.en.vtt", "talk.json", "talk.mp3.json"]
    assert [path.name for path in others] == ["talks.srt"] and "none" not in found
    assert (found["v1"], found["v1.2"]) == ([tmp_path / "v1.srt"], [tmp_path / "v1.2.en.vtt"])
    found, _ = captions.by_name(tmp_path, ["v1", "v1.2.en"])
    assert found["v1.2.en"] == [tmp_path / "v1.2.en.vtt"]
    with pytest.raises(EarshotError, match="no folder of transcripts"):
        captions.by_name(tmp_path / "gone", [])


def test_captions_of_another_recording_are_refused() -> None:
    told = [Caption(0, 5, "a"), Caption(58, 61.5, "b"), Caption(60.5, 61, "c")]
    assert captions.within(told, 60.0) == [Caption(0, 5, "a"), Caption(58, 60.0, "b")]
    with pytest.raises(EarshotError, match=r"reaches 62 s, the recording 50 s; is it of another one\?"):
        captions.within(told, 50.0)

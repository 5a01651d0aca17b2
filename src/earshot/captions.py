"""Transcripts that people have: SRT, WebVTT, or the JSON of Whisper and its like, as text with times.

In: a file, or a folder of them. Out: captions, and which files may be of which recording. Read by pysubs2; knows
nothing of audio or libraries.
"""

from __future__ import annotations

import codecs
import html
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from earshot.types import EarshotError, Seconds

SUFFIXES = (".srt", ".vtt", ".json")
LATE: Seconds = 2.0
"""How far a caption may reach beyond the end of its recording: players round, and the last one often stays on."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said between two times."""

    start: Seconds
    end: Seconds
    text: str


def read(path: Path) -> list[Caption]:
    """The captions of a file that say something, in order of time.

    EarshotError, one line, where it cannot be read, is of no such kind, or holds none.
    """
    import pysubs2

    try:
        if path.suffix.lower() == ".json":
            made = pysubs2.load_from_whisper(json.loads(_text(path)))
        else:
            made = pysubs2.SSAFile.from_string(_text(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pysubs2.Pysubs2Error) as error:
        told = (str(error).splitlines() or [""])[0]
        raise EarshotError(
            f"{path}: no readable SRT, WebVTT or Whisper JSON ({told or type(error).__name__})"
        ) from error
    coded = path.suffix.lower() == ".vtt"
    texts = ((e, html.unescape(e.plaintext) if coded else e.plaintext) for e in made if not e.is_comment)
    found = [Caption(e.start / 1000, e.end / 1000, " ".join(text.split())) for e, text in texts]
    found = sorted((c for c in found if c.text and c.end > c.start), key=lambda caption: caption.start)
    if not found:
        raise EarshotError(f"{path}: no captions with times in it")
    return found


def _text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 with a mark, or else Windows-1252, which old subtitles are in."""
    data = path.read_bytes()
    if not data.strip():
        raise EarshotError(f"{path}: is empty")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def excerpt(captions: Sequence[Caption], start: Seconds, end: Seconds) -> str:
    """The captions of which most is between two times; of others the words there, as if they lay evenly in theirs."""
    words = []
    for caption in captions:
        said, length = caption.text.split(), caption.end - caption.start
        whole = min(caption.end, end) - max(caption.start, start) > length / 2
        middles = (caption.start + (k + 0.5) * length / len(said) for k in range(len(said)))
        words += [word for word, at in zip(said, middles, strict=True) if whole or start <= at <= end]
    return " ".join(words)


def by_name(folder: Path, names: Collection[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """What may be transcripts in a folder: those of each of some recordings, named without endings, and those of none.

    NAME.srt is of NAME; if there is no NAME, and for names such as NAME.EN.vtt and NAME.mp3.srt, what comes before the
    last dot of NAME counts. Of several of one recording the likeliest comes first. EarshotError where there is no such
    folder.
    """
    try:
        paths = [folder / name for name in os.listdir(folder)]
    except OSError as error:
        raise EarshotError(f"{folder}: no folder of transcripts ({error.strerror})") from error
    found: dict[str, list[Path]] = {}
    others = list[Path]()
    for path in sorted(paths, key=lambda path: (path.suffix.lower() == ".json", len(path.name), path.name)):
        if path.suffix.lower() in SUFFIXES:
            name = next((name for name in (path.stem, os.path.splitext(path.stem)[0]) if name in names), None)
            (others if name is None else found.setdefault(name, [])).append(path)
    return found, others


def within(captions: Sequence[Caption], seconds: Seconds) -> list[Caption]:
    """The captions, cut at the end of a recording. EarshotError where they are of a longer one."""
    if (end := max(caption.end for caption in captions)) > seconds + LATE:
        raise EarshotError(f"the transcript reaches {end:.0f} s, the recording {seconds:.0f} s; is it of another one?")
    return [Caption(c.start, min(c.end, seconds), c.text) for c in captions if c.start < seconds]

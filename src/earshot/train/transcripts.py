"""Transcribed speech in the layouts that people have: our manifest, LibriSpeech's folders, or a text beside each file.

In: a folder. Out: `Transcript`, one for each utterance. Knows nothing of word times (`alignments`) or of audio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from earshot.types import EarshotError

MANIFEST = "manifest.jsonl"
AUDIO = (".flac", ".wav", ".opus", ".ogg", ".mp3", ".m4a")
TEXTS = (".txt", ".lab")
SPLITS = ("train", "dev", "test")


class CorpusError(EarshotError):
    """Transcribed speech, an alignment or a prepared corpus that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """An utterance: its file, who says it, to which split it belongs ("train", "dev" or "test"), and what is said."""

    id: str
    audio: Path
    speaker: str
    split: str
    text: str


def read_transcripts(source: Path) -> Iterator[Transcript]:
    """The utterances of `source`, in order of their names. CorpusError where there are none, or a line is damaged.

    A `manifest.jsonl` (id, audio, speaker, text, split) is read if there is one. Else, below any folder, LibriSpeech's
    SUBSET/SPEAKER/CHAPTER/*.trans.txt; else each audio file that has a .txt or .lab of the same name beside it, its
    folder taken for the speaker.
    """
    if not source.is_dir():
        raise CorpusError(f"{source}: no such folder")
    if (source / MANIFEST).is_file():
        found = _manifest(source)
    elif lists := sorted(source.rglob("*.trans.txt")):
        found = (transcript for path in lists for transcript in _librispeech(path))
    else:
        found = _pairs(source)
    none = True
    for transcript in found:
        none = False
        yield transcript
    if none:
        raise CorpusError(f"{source}: no {MANIFEST}, no *.trans.txt, and no audio file with a .txt of the same name")


def words_of(text: str) -> list[str]:
    """Lower-case words of a transcript; empty when it holds digits, whose reading is unknown."""
    if re.search(r"\d", text):
        return []
    words = (word.strip("'") for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*'?", text.lower().replace("’", "'")))
    return [word for word in words if word]


def read_text(path: Path) -> str:
    """The text of a file. CorpusError where it is not UTF-8 or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: not a text in UTF-8 ({type(error).__name__})") from error


def _manifest(source: Path) -> Iterator[Transcript]:
    lines = read_text(source / MANIFEST).split("\n")
    for number, line in ((number, line) for number, line in enumerate(lines, 1) if line.strip()):
        try:
            row = json.loads(line)
            audio, split = source / row["audio"], str(row.get("split", "train"))
            yield Transcript(str(row["id"]), audio, str(row["speaker"]), split, str(row["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{source / MANIFEST}, line {number}: not an utterance ({error!r})") from error


def _librispeech(path: Path) -> Iterator[Transcript]:
    speaker, subset = path.parent.parent.name, path.parent.parent.parent.name
    split = next((split for split in SPLITS if subset.startswith(split)), "train")
    for line in read_text(path).splitlines():
        name, _, text = line.partition(" ")
        if name:
            yield Transcript(name, _audio(path.parent / name), speaker, split, text)


def _pairs(source: Path) -> Iterator[Transcript]:
    for path in sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO):
        beside = next((path.with_suffix(end) for end in TEXTS if path.with_suffix(end).is_file()), None)
        if beside is not None:
            name = path.relative_to(source).with_suffix("").as_posix()
            yield Transcript(name, path, path.parent.name, "train", read_text(beside).strip())


def _audio(stem: Path) -> Path:
    """The audio file of that name; the first ending of AUDIO where there is none."""
    paths = [stem.with_name(stem.name + end) for end in AUDIO]
    return next((path for path in paths if path.is_file()), paths[0])

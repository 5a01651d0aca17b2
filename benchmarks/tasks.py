"""The tasks, made from real speech on disk.

In: a folder with `librispeech-chapters`, `mini-librispeech` and `arabic-words` (a `manifest.jsonl` each: id, audio,
seconds, speaker, text, split, words = [[start, end, word], ...]). Out: `Chapters` (term detection) and `Words`
(same-different).
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.random import Generator

from benchmarks.conditions import Condition
from benchmarks.contract import SAMPLE_RATE, Audio, Query, Source
from earshot.metrics import Reference
from earshot.types import Clip, EarshotError, Seconds

MIN_QUERY_LETTERS = 5
MIN_OCCURRENCES = 2
MIN_EXAMPLE: Seconds = 0.25
MIN_WORD_LETTERS = 3
HELD_OUT = ("32", "1867")
"""Speakers of mini-librispeech train that the recipes hold out of training."""
SEED = 1
UNHEARD_SPEAKERS = ("00000006", "00000013", "00000017", "00000020", "00000024", "00000030")
UNHEARD_WORDS = frozenset("close,disable,enable,forward,move,no,open,receive,rotate,six,three,up,zoom in".split(","))
"""A third of the speakers and of the words of arabic-words: recipes/arabic.toml keeps them out of training."""
CLEAN = Condition("clean")
WORD = re.compile(r"[a-z']+")


@dataclass(frozen=True, slots=True)
class Chapters:
    """Term detection. `utterances` are the stretches the recordings were joined from: query="" and their times;
    `said` is every word said in them, in order."""

    recordings: list[Source]
    typed: list[Query]
    spoken: list[Query]
    references: list[Reference]
    utterances: list[Reference]
    said: list[Reference]

    @property
    def seconds(self) -> Seconds:
        return sum(recording.seconds for recording in self.recordings)

    def queries(self, kind: str) -> list[Query]:
        return {"typed": self.typed, "spoken": self.spoken}[kind]

    def __str__(self) -> str:
        words = Counter(reference.query for reference in self.references)
        examples = {query.word for query in self.spoken}
        return (
            f"chapters: {len(self.recordings)} recordings, {self.seconds / 3600:.2f} h, "
            f"{len(self.utterances)} utterances; "
            f"{len(self.typed)} typed queries ({sum(words.values())} references), "
            f"{len(self.spoken)} spoken queries ({sum(words[word] for word in examples)} references)"
        )


@dataclass(frozen=True, slots=True)
class Words:
    """Same-different: n spoken words, cut at their word times."""

    clips: list[Audio]
    labels: list[str]
    speakers: list[str]

    def __str__(self) -> str:
        n = len(self.clips)
        return (
            f"words: {n} spoken words, {len(set(self.labels))} types, {len(set(self.speakers))} speakers, "
            f"{n * (n - 1) // 2} pairs"
        )


def read(path: Path) -> Audio:
    """The samples of a mono file at 16 kHz."""
    samples: Audio
    samples, rate = soundfile.read(path, dtype="float32")
    if samples.ndim != 1 or rate != SAMPLE_RATE:
        raise EarshotError(f"{path}: {rate} Hz, {samples.ndim} dimensions; the benchmark reads 16 kHz mono")
    return samples


def chapters(speech: Path, work: Path, condition: Condition = CLEAN) -> Chapters:
    """The test: librispeech-chapters; spoken examples by the speakers of mini-librispeech dev."""
    root = speech / "librispeech-chapters"
    return _chapters(root, manifest(root), *rows_of(speech, "chapters"), work / "chapters", condition)


def rows_of(speech: Path, task: str) -> tuple[Path, list[dict[str, Any]]]:
    """The manifest rows that the spoken examples of "chapters" or "development" come from, and their folder."""
    root = speech / "mini-librispeech"
    if task == "development":
        return root, [row for row in manifest(root) if str(row["speaker"]) in HELD_OUT]
    return root, list(_dev(root))


def development(speech: Path, work: Path, condition: Condition = CLEAN) -> Chapters:
    """To choose by: mini-librispeech dev; spoken examples by the HELD_OUT speakers of its training part.

    Its word times come from forced alignment; utterances without them are left out.
    """
    root = speech / "mini-librispeech"
    rows = [row for row in _dev(root) if row["words"]]
    return _chapters(root, rows, *rows_of(speech, "development"), work / "development", condition)


def transfer(speech: Path, work: Path, condition: Condition = CLEAN) -> Chapters:
    """Spoken examples in a language that the encoder was not trained on: Arabic words, one clip each.

    Of every speaker of UNHEARD_SPEAKERS all clips are joined into one recording, but one of each of UNHEARD_WORDS: that
    is an example. A query is called WORD/SPEAKER, so each example counts by itself.
    """
    root, folder = speech / "arabic-words", work / "transfer"
    rows = [row for row in manifest(root) if str(row["speaker"]) in UNHEARD_SPEAKERS]
    random.Random(SEED).shuffle(rows)
    left_out: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["text"] in UNHEARD_WORDS:
            left_out.setdefault((row["text"], str(row["speaker"])), row)
    examples = {id(row) for row in left_out.values()}
    rows = [row for row in rows if id(row) not in examples]
    voices = _voices(root, rows) if condition.kind == "babble" else {}
    recordings, said = [], []
    for speaker in UNHEARD_SPEAKERS:
        parts, offset = [], 0
        for row in (row for row in rows if str(row["speaker"]) == speaker):
            samples = condition.apply(read(root / row["audio"]), voices.get(speaker, []), _random(row))
            start, offset = offset / SAMPLE_RATE, offset + len(samples)
            said.append(Reference(row["text"], speaker, start, offset / SAMPLE_RATE))
            parts.append(samples)
        path = _write(folder / str(condition) / f"{speaker}.flac", parts)
        recordings.append(Source(speaker, path, offset / SAMPLE_RATE))
    spoken = []
    for (word, speaker), row in sorted(left_out.items(), key=lambda item: item[0]):
        clip = Clip(str(root / row["audio"]))
        path = _write(folder / "examples" / f"{word} {speaker}.wav", [read(Path(clip.path))])
        spoken.append(Query(f"{word}/{speaker}", path, clip))
    references = [replace(r, query=query.word) for query in spoken for r in said if r.query == query.word.split("/")[0]]
    return Chapters(recordings, [], spoken, references, [replace(r, query="") for r in said], said)


def _chapters(
    root: Path,
    rows: list[dict[str, Any]],
    examples: Path,
    said: Iterable[dict[str, Any]],
    folder: Path,
    condition: Condition,
) -> Chapters:
    """Joins the consecutive utterances of each chapter, each under `condition`, and cuts the spoken examples, which
    stay clean; writes both below `folder`."""
    voices = _voices(root, rows) if condition.kind == "babble" else {}
    recordings, utterances, spoken_words = [], [], []
    for name, lines in _by_chapter(rows).items():
        parts, offset = [], 0
        for row in lines:
            samples = condition.apply(read(root / row["audio"]), voices.get(str(row["speaker"]), []), _random(row))
            start = offset / SAMPLE_RATE
            offset += len(samples)
            utterances.append(Reference("", name, start, offset / SAMPLE_RATE))
            spoken_words += [Reference(w, name, start + s, start + e) for s, e, w in row["words"] if WORD.fullmatch(w)]
            parts.append(samples)
        recordings.append(Source(name, _write(folder / str(condition) / f"{name}.flac", parts), offset / SAMPLE_RATE))
    counts = Counter(word.query for word in spoken_words)
    queries = sorted(word for word, n in counts.items() if n >= MIN_OCCURRENCES and _letters(word) >= MIN_QUERY_LETTERS)
    return Chapters(
        recordings,
        [Query(word) for word in queries],
        _spoken(examples, said, queries, folder / "examples"),
        [word for word in spoken_words if word.query in set(queries)],
        utterances,
        spoken_words,
    )


def words(speech: Path) -> Words:
    """The words of at least three letters in mini-librispeech dev that have word times."""
    root, clips, labels, speakers = speech / "mini-librispeech", [], [], []
    for row in _dev(root):
        samples = read(root / row["audio"])
        for start, end, word in row["words"]:
            if WORD.fullmatch(word) and _letters(word) >= MIN_WORD_LETTERS:
                clips.append(cut(samples, start, end))
                labels.append(word)
                speakers.append(row["speaker"])
    return Words(clips, labels, speakers)


def _random(row: dict[str, Any]) -> Generator:
    """An utterance's own noise, whichever others there are."""
    return np.random.default_rng([SEED, zlib.crc32(str(row["id"]).encode())])


def _voices(root: Path, rows: list[dict[str, Any]]) -> dict[str, list[Audio]]:
    """For each speaker some utterances of the others."""
    speakers = sorted({str(row["speaker"]) for row in rows})
    some = {s: [read(root / row["audio"]) for row in rows if str(row["speaker"]) == s][:40] for s in speakers}
    return {s: [samples for other in speakers if other != s for samples in some[other]] for s in speakers}


def _spoken(root: Path, rows: Iterable[dict[str, Any]], queries: list[str], folder: Path) -> list[Query]:
    """One spoken example for each query that `rows` have one of MIN_EXAMPLE or longer for."""
    candidates: dict[str, list[Clip]] = defaultdict(list)
    for row in rows:
        for start, end, word in row["words"]:
            if end - start >= MIN_EXAMPLE:
                candidates[word].append(Clip(str(root / row["audio"]), start, end))
    spoken = []
    for word in queries:
        if word in candidates:
            clip = random.Random(f"{SEED} {word}").choice(candidates[word])
            samples = cut(read(Path(clip.path)), clip.start or 0.0, clip.end or 0.0)
            spoken.append(Query(word, _write(folder / f"{word}.wav", [samples]), clip))
    return spoken


def _dev(root: Path) -> Iterator[dict[str, Any]]:
    return (row for row in manifest(root) if row["split"] == "dev")


def manifest(root: Path) -> list[dict[str, Any]]:
    path = root / "manifest.jsonl"
    if not path.is_file():
        raise EarshotError(f"{path} is not there: --speech must name the folder that holds {root.name}/")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**row, "words": row.get("words") or []} for row in rows]


def _by_chapter(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    chapter_rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["id"])):
        chapter_rows[row["id"].rsplit("-", 1)[0]].append(row)
    return chapter_rows


def _letters(word: str) -> int:
    return sum(letter.isalpha() for letter in word)


def cut(samples: Audio, start: Seconds, end: Seconds) -> Audio:
    return samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def _write(path: Path, parts: list[Audio]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(parts), SAMPLE_RATE, subtype="PCM_16")
    return path

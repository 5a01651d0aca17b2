"""Streams to listen to: chapters of real speech with keywords by other speakers put into their pauses.

In: a folder with `librispeech-chapters` and `mini-librispeech`. Out: a `Stream`: samples, keywords with an example of
each, and every place where a keyword is said. Knows nothing of who listens.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import tasks
from benchmarks.contract import SAMPLE_RATE, Audio
from earshot.metrics import Reference
from earshot.types import Seconds

ROOTS = {"chapters": "librispeech-chapters", "development": "mini-librispeech"}
SEED = 1
MOST = {"word": 16, "phrase": 8}
"""Keywords of each kind in a task."""
MOST_INSERTED = 6
"""Instances of a keyword that are put into the stream."""
MIN_LETTERS = {"word": 6, "phrase": 10}
MIN_INSTANCE: dict[str, Seconds] = {"word": 0.3, "phrase": 0.45}
GAP: Seconds = 0.3
"""A pause at least so long takes a keyword; the words of a phrase are closer together."""
AROUND: Seconds = 0.03
"""What is cut out before and after a keyword, and faded in and out."""
LEVEL_OF: Seconds = 4.0
"""A keyword is made as loud as so much on each side of its place."""


@dataclass(frozen=True, slots=True)
class Said:
    """A word or phrase said in a file: its words, [start s, end s, word] from the file's start."""

    path: Path
    speaker: str
    words: tuple[tuple[Seconds, Seconds, str], ...]

    @property
    def text(self) -> str:
        return " ".join(word for _, _, word in self.words)

    @property
    def start(self) -> Seconds:
        return self.words[0][0]

    @property
    def end(self) -> Seconds:
        return self.words[-1][1]

    def moved(self, by: Seconds) -> Said:
        return Said(self.path, self.speaker, tuple((start + by, end + by, word) for start, end, word in self.words))

    def reference(self) -> Reference:
        return Reference(self.text, "stream", self.start, self.end)

    def samples(self, around: Seconds) -> Audio:
        """The sound of it, with a little `around` it faded in and out."""
        cut = tasks.cut(tasks.read(self.path), max(0.0, self.start - around), self.end + around).copy()
        if n := round(around * SAMPLE_RATE):
            cut[:n] *= np.linspace(0, 1, n, dtype=np.float32)
            cut[-n:] *= np.linspace(1, 0, n, dtype=np.float32)
        return cut


@dataclass(frozen=True, slots=True)
class Stream:
    """`samples` (n,) at 16 kHz; `examples`: of each keyword a clip that is not in them; `references`: where keywords
    are said, of which `inserted` by other speakers."""

    samples: Audio
    examples: dict[str, Path]
    references: tuple[Reference, ...]
    inserted: tuple[Reference, ...]

    @property
    def seconds(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE

    def __str__(self) -> str:
        phrases = sum(" " in text for text in self.examples)
        return (
            f"{self.seconds / 3600:.2f} h, {len(self.examples)} keywords ({phrases} of two words), said "
            f"{len(self.references)} times, {len(self.inserted)} of them by other speakers, put into pauses"
        )


def stream(speech: Path, work: Path, task: str) -> Stream:
    """The stream of "chapters", the test, or of "development": mini-librispeech dev, with other keywords.

    Keywords are cut from mini-librispeech dev: for the development stream by another speaker than the one who reads.
    """
    root = speech / ROOTS[task]
    rows = [r for r in tasks.manifest(root) if r["split"] == "dev" and r["words"]]
    read = [(_said(row, root), tasks.read(root / row["audio"])) for row in sorted(rows, key=lambda r: str(r["id"]))]
    pick = random.Random(f"{SEED} {task}")
    examples, waiting = dict[str, Path](), list[Said]()
    for text, instances in keywords(speech)[task].items():
        shuffled = pick.sample(instances, len(instances))
        examples[text] = work / f"listen-{task}" / f"{text}.wav"
        examples[text].parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(examples[text], shuffled[0].samples(0.0), SAMPLE_RATE, subtype="PCM_16")
        waiting += shuffled[1 : 1 + MOST_INSERTED]
    samples, words, inserted = _joined(read, waiting, pick)
    references = [run.reference() for run in _runs(words) if run.text in examples]
    return Stream(samples, examples, tuple(references), tuple(said.reference() for said in inserted))


def keywords(speech: Path) -> dict[str, dict[str, list[Said]]]:
    """For each task its keywords, each with its instances in mini-librispeech dev; no keyword is in both."""
    root = speech / "mini-librispeech"
    instances: dict[str, list[Said]] = defaultdict(list)
    for row in tasks.manifest(root):
        for run in _runs([_said(row, root)] if row["split"] == "dev" and row["words"] else []):
            if run.end - run.start >= MIN_INSTANCE[_kind(run.text)]:
                instances[run.text].append(run)
    chosen: dict[str, dict[str, list[Said]]] = {task: {} for task in ROOTS}
    for kind, most in MOST.items():
        known = sorted(text for text, of in instances.items() if _kind(text) == kind and _suits(text, of))
        drawn = random.Random(f"{SEED} {kind}").sample(known, min(len(known), most * len(ROOTS)))
        for k, task in enumerate(ROOTS):
            chosen[task] |= {text: instances[text] for text in drawn[k :: len(ROOTS)]}
    return chosen


def _suits(text: str, instances: Sequence[Said]) -> bool:
    kind = _kind(text)
    if sum(map(str.isalpha, text)) < MIN_LETTERS[kind] or min(map(len, text.split())) < 3:
        return False
    return len(instances) >= 2 if kind == "phrase" else len({said.speaker for said in instances}) >= 2 < len(instances)


def _kind(text: str) -> str:
    return "phrase" if " " in text else "word"


def _said(row: dict[str, Any], root: Path) -> Said:
    """An utterance as one run of words."""
    return Said(root / row["audio"], str(row["speaker"]), tuple((s, e, w) for s, e, w in row["words"]))


def _runs(said: Sequence[Said]) -> Iterator[Said]:
    """Each word of what is said, and each two with no pause between."""
    for one in said:
        for k, word in enumerate(one.words):
            yield Said(one.path, one.speaker, (word,))
            after = one.words[k + 1 : k + 2]
            if after and after[0][0] - word[1] < GAP:
                yield Said(one.path, one.speaker, (word, *after))


def _joined(
    read: Sequence[tuple[Said, Audio]], waiting: Sequence[Said], pick: random.Random
) -> tuple[Audio, list[Said], list[Said]]:
    """Utterances joined, with each of those that wait in a pause of another speaker's; what is said, what of it was
    put in."""
    pauses = [(n, len(samples)) for n, (_, samples) in enumerate(read)]
    for n, (said, _) in enumerate(read):
        pauses += [(n, _sample((a[1] + b[0]) / 2)) for a, b in pairwise(said.words) if b[0] - a[1] >= GAP]
    pick.shuffle(pauses)
    taken: dict[tuple[int, int], Said] = {}
    for said in waiting:
        place = next((p for p in pauses if p not in taken and read[p[0]][0].speaker != said.speaker), None)
        if place is not None:
            taken[place] = said
    everything = np.concatenate([samples for _, samples in read])
    parts, words, inserted = list[Audio](), list[Said](), list[Said]()
    before = length = 0
    for n, (said, samples) in enumerate(read):
        done = 0
        for at in (*sorted(at for number, at in taken if number == n), None):
            parts.append(samples[done:at])
            shift = (length - done) / SAMPLE_RATE
            within = [w for w in said.words if done <= _sample(w[0]) < (len(samples) if at is None else at)]
            words.append(Said(said.path, said.speaker, tuple(within)).moved(shift))
            length += len(parts[-1])
            if at is not None:
                new = taken[n, at]
                around = everything[max(0, before + at - _sample(LEVEL_OF)) : before + at + _sample(LEVEL_OF)]
                sound = new.samples(AROUND)
                parts.append(sound * np.float32(_rms(around) / max(_rms(sound), 1e-6)))
                inserted.append(new.moved(length / SAMPLE_RATE + min(AROUND, new.start) - new.start))
                words.append(inserted[-1])
                length += len(sound)
                done = at
        before += len(samples)
    return np.concatenate(parts), words, inserted


def _sample(time: Seconds) -> int:
    return round(time * SAMPLE_RATE)


def _rms(samples: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))

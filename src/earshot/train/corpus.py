"""Corpora for training: transcribed speech becomes one memory-mapped file of samples with word and phone times.

In: folders in the layout of `manifest.jsonl` (id, audio, seconds, speaker, text, split). Out: `samples.i16` and
`utterances.jsonl` in a folder of their own, appended utterance by utterance so that a killed run goes on where it was.
Knows nothing of features, augmentation or networks.

    python -m earshot.train.corpus SPEECH/mini-librispeech data/corpora/mini-librispeech
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.audio import SAMPLE_RATE, load
from earshot.pronounce import pronounce_word
from earshot.train.align import Aligner, Timed
from earshot.types import AudioError, Clip

SAMPLES, UTTERANCES = "samples.i16", "utterances.jsonl"


class CorpusError(ValueError):
    """A corpus, a transcript or an alignment that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One transcribed utterance: samples [offset, offset + length) of its corpus, with word and phone spans."""

    id: str
    corpus: str
    speaker: str
    split: str
    offset: int
    length: int
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]

    @property
    def seconds(self) -> float:
        return self.length / SAMPLE_RATE


@dataclass(frozen=True)
class Corpus:
    """Utterances and the memory-mapped int16 samples they point into."""

    utterances: tuple[Utterance, ...]
    samples: NDArray[np.int16]

    def read(self, utterance: Utterance) -> NDArray[np.float32]:
        """Samples (length,) of `utterance`, float32 in [-1, 1]."""
        stretch = self.samples[utterance.offset : utterance.offset + utterance.length]
        return np.divide(stretch, 32768, dtype=np.float32)


def read_corpus(folder: Path) -> Corpus:
    """The corpus made in `folder` so far, without a last line cut short by a kill. CorpusError where there is none."""
    if not (folder / SAMPLES).is_file():
        raise CorpusError(f"{folder}: no prepared corpus; make it with python -m earshot.train.corpus SOURCE {folder}")
    utterances = tuple(_utterances(folder))
    return Corpus(utterances, np.memmap(folder / SAMPLES, np.int16, mode="r"))


def prepare(source: Path, folder: Path) -> None:
    """Decode and align every utterance of `source` that `folder` does not hold yet. Prints one line when done."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {u.id: u for u in _utterances(folder)}
    end = max((u.offset + u.length for u in done.values()), default=0)
    aligner = Aligner(pronounce_word)
    with open(folder / SAMPLES, "ab") as samples, open(folder / UTTERANCES, "ab") as lines:
        samples.truncate(end * 2)
        lines.truncate(_complete_bytes(folder / UTTERANCES))
        for row in _manifest(source):
            if row["id"] in done:
                continue
            utterance, pcm = _align_row(row, source, end, aligner)
            samples.write(pcm.tobytes())
            samples.flush()
            lines.write(json.dumps(asdict(utterance)).encode() + b"\n")
            lines.flush()
            end += len(pcm)
    print(f"{folder}: {end / SAMPLE_RATE / 3600:.2f} h")


def words_of(text: str) -> list[str]:
    """Lower-case words of a transcript; empty when it holds digits, whose reading is unknown."""
    if re.search(r"\d", text):
        return []
    words = (word.strip("'") for word in re.findall(r"[a-z']+", text.lower().replace("’", "'")))
    return [w for w in words if re.search("[a-z]", w)]


def _align_row(row: dict[str, str], source: Path, offset: int, aligner: Aligner) -> tuple[Utterance, NDArray[np.int16]]:
    try:
        audio = load(Clip(str(source / row["audio"])))
    except AudioError:
        audio = np.zeros(0, np.float32)
    found = aligner.align(audio, words_of(row["text"]))
    words, phones = (found.words, found.phones) if found else ((), ())
    pcm = (np.clip(audio, -1, 1) * 32767).astype(np.int16)
    utterance = Utterance(row["id"], source.name, row["speaker"], row["split"], offset, len(pcm), words, phones)
    return utterance, pcm


def _manifest(source: Path) -> Iterator[dict[str, str]]:
    with open(source / "manifest.jsonl") as lines:
        yield from (json.loads(line) for line in lines)


def _utterances(folder: Path) -> Iterator[Utterance]:
    path = folder / UTTERANCES
    if not path.exists():
        return
    for line in path.read_bytes()[: _complete_bytes(path)].splitlines():
        row = json.loads(line)
        for key in ("words", "phones"):
            row[key] = tuple(Timed(**t) for t in row[key])
        yield Utterance(**row)


def _complete_bytes(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    prepare(arguments.source, arguments.folder)

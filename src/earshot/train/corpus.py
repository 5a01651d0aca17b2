"""Corpora for training: transcribed speech becomes one memory-mapped file of samples with word and phone times.

In: transcribed speech (`transcripts`) and, where there are, its word times (`alignments`). Out: `samples.i16` and
`utterances.jsonl` in a folder of their own, appended utterance by utterance so that a killed run goes on where it was.
Knows nothing of features, augmentation or networks.

    python -m earshot.train.corpus SPEECH/mini-librispeech data/corpora/mini-librispeech
    python -m earshot.train.corpus LibriSpeech/train-clean-100 data/corpora/train-clean-100 --alignments TextGrids/
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.audio import SAMPLE_RATE, load
from earshot.train.align import Alignment, Timed
from earshot.train.alignments import Alignments, Finder, Report, complete_bytes, read_alignments
from earshot.train.transcripts import CorpusError, Transcript, read_transcripts
from earshot.types import AudioError, Clip, EarshotError

SAMPLES, UTTERANCES = "samples.i16", "utterances.jsonl"


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
    try:
        return Corpus(tuple(_utterances(folder)), np.memmap(folder / SAMPLES, np.int16, mode="r"))
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder}: no utterances in it, or damaged ({error}); make it anew") from None


def prepare(source: Path, folder: Path, alignments: Alignments | None = None, alone: bool = False) -> Report:
    """Decode every utterance of `source` that `folder` does not hold yet, with its word times: the given ones, else
    those of forced alignment. An utterance that has none is kept without; what cannot be read is left out.

    Utterances that `folder` holds take the word times given now; those for which none are given keep theirs. `alone`:
    each utterance is one word, in any language, and its text the word's name.
    """
    transcripts, done = list(read_transcripts(source)), {u.id: u for u in _utterances(folder)}
    stored = {u.id: Alignment(u.words, u.phones) for u in done.values() if u.words}
    finder = Finder(alignments and (lambda name: alignments(name) or stored.get(name)), alone)
    folder.mkdir(parents=True, exist_ok=True)
    if alignments and not alone:
        _retime(folder, done, transcripts, finder)
    end = max((u.offset + u.length for u in done.values()), default=0)
    with open(folder / SAMPLES, "ab") as samples, open(folder / UTTERANCES, "ab") as lines:
        samples.truncate(end * 2)
        lines.truncate(complete_bytes(folder / UTTERANCES))
        for transcript in transcripts:
            if transcript.id in done:
                continue
            try:
                audio = load(Clip(str(transcript.audio)))
            except AudioError as error:
                finder.report.left_out.append((transcript.id, str(error)))
                continue
            pcm, found = (np.clip(audio, -1, 1) * 32767).astype(np.int16), finder(transcript, audio)
            samples.write(pcm.tobytes())
            samples.flush()
            who = (transcript.id, folder.name, transcript.speaker, transcript.split)
            lines.write(_line(Utterance(*who, end, len(pcm), found.words, found.phones)))
            lines.flush()
            end += len(pcm)
    return finder.report


def _retime(folder: Path, utterances: dict[str, Utterance], transcripts: Sequence[Transcript], finder: Finder) -> None:
    """Store the utterances again with the word times that are given now: all of them, or none where it is stopped."""
    for transcript in transcripts:
        if (old := utterances.get(transcript.id)) is not None:
            found = finder.given(transcript, old.seconds)
            utterances[old.id] = replace(old, words=found.words, phones=found.phones)
    whole = folder / f"{UTTERANCES}.part"
    whole.write_bytes(b"".join(map(_line, utterances.values())))
    os.replace(whole, folder / UTTERANCES)


def _line(utterance: Utterance) -> bytes:
    return json.dumps(asdict(utterance)).encode() + b"\n"


def _utterances(folder: Path) -> Iterator[Utterance]:
    path = folder / UTTERANCES
    if not path.exists():
        return
    for line in path.read_bytes()[: complete_bytes(path)].splitlines():
        row = json.loads(line)
        for key in ("words", "phones"):
            row[key] = tuple(Timed(**t) for t in row[key])
        yield Utterance(**row)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="transcribed speech")
    parser.add_argument("folder", type=Path, help="where the corpus is made; its name is the corpus's")
    parser.add_argument("--alignments", type=Path, help="word times: a folder of TextGrids, a .ctm or a .jsonl file")
    parser.add_argument("--alone", action="store_true", help="each file is one word, of any language; its text a name")
    arguments = parser.parse_args()
    try:
        made = read_alignments(arguments.alignments) if arguments.alignments else None
        report = prepare(arguments.source, arguments.folder, made, arguments.alone)
    except EarshotError as error:
        raise SystemExit(f"corpus: {error}") from None
    for line in report.lines():
        print(f"{arguments.folder}: {line}")


if __name__ == "__main__":
    main()

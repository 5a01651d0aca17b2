"""Spoken question answering corpora, from their own layouts to ours: speech with a manifest, questions beside it.

In: a local copy of LibriSQA and of the LibriSpeech that it asks about, or of SLUE-SQA-5. Out: a folder with
`manifest.jsonl`, which `earshot.train.corpus` reads, and `questions.jsonl`: `id` of the passage, `question`, `sentence`
(its text), and `spoken`, the question's own recording, where there is one. Audio stays where it is. Knows nothing of
models.

    python -m earshot.train.clsr.questions librisqa LibriSQA-PartI-test.json LibriSpeech data/librisqa
    python -m earshot.train.clsr.questions slue slue-sqa5 data/slue
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earshot.train.transcripts import MANIFEST, CorpusError
from earshot.types import EarshotError

QUESTIONS = "questions.jsonl"
SLUE = {"fine-tune": "train", "train": "train", "dev": "dev", "test": "test", "verified-test": "test"}
"""Names of SLUE's parts, and the split that each is here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A spoken passage and a question that it answers."""

    id: str
    audio: Path
    speaker: str
    split: str
    text: str
    question: str
    spoken: Path | None = None


def librisqa(table: Path, librispeech: Path) -> Iterator[Asked]:
    """Part I of LibriSQA (arXiv 2308.10390): a JSON list of `speech_path`, `text`, `question`, below LibriSpeech.

    CorpusError where the table is none. Training data where its name says so, else a test.
    """
    split = "train" if "train" in table.stem else "test"
    try:
        rows: list[dict[str, Any]] = json.loads(table.read_text(encoding="utf-8"))
        for number, row in enumerate(rows):
            audio = _below(librispeech, str(row["speech_path"]))
            speaker = audio.stem.partition("-")[0]
            yield Asked(f"{audio.stem}-{number}", audio, speaker, split, str(row["text"]), str(row["question"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{table}: not LibriSQA's part I ({type(error).__name__}: {error})") from None


def _below(root: Path, told: str) -> Path:
    """The file that a path of the corpus's authors means: its last four parts, SUBSET/SPEAKER/CHAPTER/FILE."""
    return root.joinpath(*Path(told).parts[-4:])


def slue(folder: Path) -> Iterator[Asked]:
    """SLUE-SQA-5 (arXiv 2212.10525): `slue-sqa5_PART.tsv` beside PART/document and PART/question.

    CorpusError where there is no table, or one without the columns.
    """
    tables = [(part, folder / f"slue-sqa5_{part}.tsv") for part in SLUE]
    if not any(table.exists() for _, table in tables):
        raise CorpusError(f"{folder}: no slue-sqa5_*.tsv in it")
    for part, table in ((part, table) for part, table in tables if table.exists()):
        try:
            with open(table, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                    question, document = row["question_id"], row["document_id"]
                    yield Asked(
                        f"{document}-{question}",
                        folder / part / "document" / f"{document}.wav",
                        row.get("document_speaker_id") or document,
                        SLUE[part],
                        row["normalized_document_text"],
                        row["normalized_question_text"],
                        folder / part / "question" / f"{question}.wav",
                    )
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise CorpusError(f"{table}: not a table of SLUE-SQA-5 ({type(error).__name__}: {error})") from None


def write(asked: Iterable[Asked], out: Path) -> tuple[int, int]:
    """Write the manifest, each passage once, and the questions; how many questions there are, and how many were left
    out as their passage is not there."""
    passages: dict[Path, str] = {}
    manifest, questions, missing = [], [], 0
    for one in asked:
        if not one.audio.is_file():
            missing += 1
            continue
        if one.audio not in passages:
            passages[one.audio] = one.id
            row = {"id": one.id, "audio": os.path.relpath(one.audio, out), "speaker": one.speaker, "split": one.split}
            manifest.append({**row, "text": one.text})
        told = {"id": passages[one.audio], "question": one.question, "sentence": one.text}
        questions.append(told if one.spoken is None else {**told, "spoken": os.path.relpath(one.spoken, out)})
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in ((MANIFEST, manifest), (QUESTIONS, questions)):
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(questions), missing


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_librisqa, of_slue = kinds.add_parser("librisqa"), kinds.add_parser("slue")
    of_librisqa.add_argument("table", type=Path)
    of_librisqa.add_argument("librispeech", type=Path)
    of_slue.add_argument("folder", type=Path)
    for each in (of_librisqa, of_slue):
        each.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        found = librisqa(options.table, options.librispeech) if options.kind == "librisqa" else slue(options.folder)
        asked, missing = write(found, options.out)
        print(f"{options.out}: {asked} questions" + (f"; of {missing} more the speech is not there" if missing else ""))
    except EarshotError as error:
        raise SystemExit(f"questions: {error}") from None


if __name__ == "__main__":
    main()

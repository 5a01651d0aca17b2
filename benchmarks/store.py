"""Raw results on disk: one file of JSON lines for each contender and kind of query, one for the trials.

In and out: `Run` and `Trials`. The first line of a run says how it was made; scoring needs these files, no speech.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from earshot.metrics import Detection, Reference
from earshot.types import EarshotError, Seconds

FOLDER = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a figure. `threads` is OMP_NUM_THREADS, `load` the machine's load average when it began."""

    command: str
    commit: str
    machine: str
    threads: str
    load: float


@dataclass(frozen=True, slots=True)
class Run:
    """One contender on one kind of query. `_seconds` is wall time, `_cpu` processor time.

    `prepare_stored`: the work was done in an earlier run and only loaded; both times are that run's processor time.
    `probabilities`: the detections' scores are the probability that each is right.
    """

    contender: str
    kind: str
    origin: Origin
    speech_seconds: Seconds
    queries: int
    skipped: list[str]
    prepare_seconds: Seconds
    prepare_cpu: Seconds
    prepare_stored: bool
    search_seconds: Seconds
    search_cpu: Seconds
    detections: list[Detection]
    probabilities: bool = False


@dataclass(frozen=True, slots=True)
class Trials:
    """What the chapters ask: the words of each kind of query, the places where they are said, and the utterances."""

    speech_seconds: Seconds
    words: dict[str, list[str]]
    references: list[Reference]
    utterances: list[Reference]


def save_run(folder: Path, run: Run) -> Path:
    head = {name: value for name, value in asdict(run).items() if name != "detections"}
    rows = [[d.query, d.recording, round(d.start, 3), round(d.end, 3), float(f"{d.score:.5g}")] for d in run.detections]
    return _write(folder / f"{run.contender}.{run.kind}.jsonl.gz", [head, *rows])


def load_runs(folder: Path) -> list[Run]:
    """All runs stored in a folder, by contender."""
    runs = []
    for path in sorted([*folder.glob("*.typed.jsonl.gz"), *folder.glob("*.spoken.jsonl.gz")]):
        head, *rows = _read(path)
        head["origin"] = Origin(**head["origin"])
        runs.append(Run(**head, detections=[Detection(*row) for row in rows]))
    return runs


def save_trials(folder: Path, trials: Trials) -> Path:
    def rows(places: list[Reference]) -> list[list[Any]]:
        return [[p.query, p.recording, round(p.start, 4), round(p.end, 4)] for p in places]

    lines = [trials.speech_seconds, trials.words, rows(trials.references), rows(trials.utterances)]
    return _write(folder / "trials.jsonl.gz", lines)


def load_trials(folder: Path) -> Trials:
    path = folder / "trials.jsonl.gz"
    if not path.exists():
        raise EarshotError(f"{path} is not there: run `python -m benchmarks.run --speech DIR --work DIR` first")
    seconds, words, references, utterances = _read(path)
    return Trials(seconds, words, [Reference(*row) for row in references], [Reference(*row) for row in utterances])


def _write(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    return path


def _read(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def put(path: Path, row: dict[str, Any], key: tuple[str, ...]) -> None:
    """Put a row into a file of JSON lines, in the place of an earlier one with the same values of `key`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [one for one in rows if any(one[name] != row[name] for name in key)]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(one) + "\n" for one in [*rows, row]))
    part.replace(path)

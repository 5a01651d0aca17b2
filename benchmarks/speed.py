"""Speed, size and memory of the main job, measured on the command line as a user runs it.

In: a folder of real speech. Out: one JSON object in `benchmarks/results/speed.json`. Wall times on a shared machine are
noisy: CPU seconds stand beside them, and the contenders are measured in the same run.

    python -m benchmarks.speed --speech DIR --work DIR
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import earshot
from benchmarks import store
from benchmarks.run import current_origin
from earshot.audio import SAMPLE_RATE, load
from earshot.types import Clip

QUERIES = ("gradient", "liberty", "mountain", "president", "beautiful", "climate change", "question", "captain")
QUESTIONS = ("Who paid for it?", "Why did the mission fail?", "What did the captain say about the weather?")
LONG_QUESTIONS = (
    "Which mountain did the captain and his officers climb before the terrible winter storm?",
    "Why was the president of the railway company asked to explain the accident near the harbour?",
    "What beautiful present did the children carry through the forest to their grandmother?",
)
"""With seven or eight words that are sought."""
AROUND = 1.5
"""Seconds on each side of a hit that are asked as a spoken question."""
LONG_HOURS = 10
COLD_STARTS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished command: wall and CPU seconds of it and its children, and its largest resident set in bytes."""

    wall: float
    cpu: float
    memory: int
    output: str


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of real speech.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--long/--no-long", default=True, help="Also index one recording of ten hours.")
def main(speech: Path, work: Path, long: bool) -> None:
    """Measure indexing, queries, cold start, size on disk and peak memory."""
    work.mkdir(parents=True, exist_ok=True)
    origin = current_origin("benchmarks.speed")
    row: dict[str, Any] = {"command": origin.command, "commit": origin.commit, "machine": origin.machine}
    row["load"] = origin.load
    row["folder"] = indexing(speech, work / "speed-library")
    row["queries"] = queries(work / "speed-library")
    row["cold start"] = cold_start(work / "speed-library")
    if long:
        row["one long file"] = indexing(long_recording(speech, work / "long.wav"), work / "long-library")
    path = store.FOLDER / "speed.json"
    path.write_text(json.dumps(row, indent=1) + "\n")
    click.echo(json.dumps(row, indent=1))


def indexing(source: Path, library: Path) -> dict[str, Any]:
    """Index `source` into a new library by the command line."""
    subprocess.run(["rm", "-rf", str(library)], check=True)
    done = run("index", str(source), "--library", str(library))
    with earshot.open(library) as opened:
        totals = opened.status().totals
    return {
        "recordings": totals.recordings,
        "hours": totals.seconds / 3600,
        "hours of speech": totals.speech_seconds / 3600,
        "wall seconds": done.wall,
        "cpu seconds": done.cpu,
        "x real time (wall)": totals.seconds / done.wall,
        "x real time (cpu of one core)": totals.seconds / done.cpu,
        "peak memory MB": done.memory / 1e6,
        "library MB": totals.bytes / 1e6,
        "MB per hour": totals.bytes_per_hour / 1e6,
        "MB per hour of speech": totals.bytes_per_speech_hour / 1e6,
    }


def queries(library: Path) -> dict[str, Any]:
    """Wall milliseconds once the library is open: of typed queries, the best hit of each as a spoken one, questions,
    and the best hits with what is around them as spoken ones."""
    with earshot.open(library) as opened:
        best = [opened.find(query, top=1)[0] for query in QUERIES]
        clips = [Clip(hit.recording.path, hit.start, hit.end) for hit in best]
        aloud = [
            Clip(hit.recording.path, max(0.0, hit.start - AROUND), min(hit.end + AROUND, hit.recording.seconds))
            for hit in best
        ]
        opened.ask(QUESTIONS[0])
        return {
            "typed": timed(opened.find, QUERIES * 3),
            "spoken": timed(opened.find, clips * 3),
            "asked": timed(opened.ask, QUESTIONS * 6),
            "asked at length": timed(opened.ask, LONG_QUESTIONS * 6),
            "asked aloud": timed(opened.ask, aloud * 2),
        }


def timed(ask: Callable[[Any], object], asked: Sequence[Any]) -> dict[str, Any]:
    """Wall milliseconds of a call with each of `asked`."""
    times = []
    for query in asked:
        began = time.perf_counter()
        ask(query)
        times.append(1000 * (time.perf_counter() - began))
    return {
        "queries": len(asked),
        "median ms": statistics.median(times),
        "slowest ms": max(times),
        "fastest ms": min(times),
    }


def cold_start(library: Path) -> dict[str, Any]:
    """Seconds of `earshot find` from nothing."""
    runs = [run("find", QUERIES[k], "--library", str(library)) for k in range(COLD_STARTS)]
    return {
        "runs": len(runs),
        "median wall seconds": statistics.median(r.wall for r in runs),
        "median cpu seconds": statistics.median(r.cpu for r in runs),
    }


def long_recording(speech: Path, path: Path) -> Path:
    """A recording of LONG_HOURS made of the utterances of `speech`, over and over, 16-bit wav."""
    files = sorted((speech / "librispeech-chapters").rglob("*.opus"))
    pieces = [(load(Clip(str(file))) * 32767).astype(np.int16).tobytes() for file in files]
    left = LONG_HOURS * 3600 * SAMPLE_RATE * 2
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        while left > 0:
            for piece in pieces:
                out.writeframesraw(piece[:left])
                left -= min(left, len(piece))
    return path


def run(*arguments: str) -> Measured:
    """Run `earshot` with the arguments in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "from earshot.cli import main; main()", *arguments], stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate()
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 1):
        raise click.ClickException(f"earshot {' '.join(arguments)}: exit code {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall, cpu, _peak(after), output)


def _peak(usage: resource.struct_rusage) -> int:
    """Largest resident set of any child so far, in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()

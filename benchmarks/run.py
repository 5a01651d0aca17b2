"""Runs contenders on the tasks and stores what they return: `python -m benchmarks.run --speech DIR --work DIR`.

In: real speech and names of contenders. Out: raw results below `benchmarks/results/`. It computes no score of the
chapters; `benchmarks.score` does that later, from the files alone.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import store, tasks
from benchmarks.conditions import Condition
from benchmarks.contract import Contender, Setup, SpeechEncoder
from earshot import metrics
from earshot.types import EarshotError

FINDERS = ("earshot", "dtw_mfcc", "pocketsphinx_kws", "pocketsphinx_text", "fixed_windows")
SEARCHES = {"chapters": tasks.chapters, "development": tasks.development, "transfer": tasks.transfer}
FOLDERS = ("--speech", "--work", "--results", "--corpora")
"""Options whose values are folders of this machine."""
ENCODERS = ("downsampled_mfcc", "word_encoder")


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of real speech.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option(
    "--contender", "names", multiple=True,
    help="Name of a module in contenders/, as NAME=FOLDER with the word encoder of that folder; all by default.",
)  # fmt: skip
@click.option("--task", type=click.Choice([*SEARCHES, "words"]), help="By default chapters and words.")
@click.option("--condition", default="clean", help="The recordings' noise or room: babble@5, music@10, room@0.6 ...")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(speech: Path, work: Path, names: tuple[str, ...], task: str | None, condition: str, folder: Path) -> None:
    """Run contenders on the tasks and store their raw results."""
    search = task if task in SEARCHES else "chapters"
    setup = Setup(work, folder / (search if condition == "clean" else f"{search}-{condition}"))
    try:
        disturbed = Condition.parse(condition)
        names = names or FINDERS + ENCODERS
        built = {_label(name): _build(name, setup) for name in names}
        if len(built) < len(names):
            raise click.ClickException("two contenders have the same name: name the encoders' folders differently")
        if task != "words":
            made = SEARCHES[search](speech, work, disturbed)
            run_chapters({n: c for n, c in built.items() if hasattr(c, "prepare")}, made, setup)
        if task in ("words", None) and condition == "clean":
            run_words({n: e for n, e in built.items() if hasattr(e, "embed_speech")}, tasks.words(speech), folder)
    except EarshotError as error:
        raise click.ClickException(str(error)) from None


def run_chapters(contenders: dict[str, Contender], task: tasks.Chapters, setup: Setup) -> None:
    click.echo(str(task))
    words = {kind: [query.word for query in task.queries(kind)] for kind in ("typed", "spoken")}
    trials = store.Trials(task.seconds, words, task.references, task.utterances)
    store.save_trials(setup.results, trials)
    for name, contender in contenders.items():
        origin = current_origin()
        clock = _Clock()
        stored = contender.prepare(task.recordings)
        prepare_seconds, prepare_cpu = clock.read() if stored is None else (stored, stored)
        for kind in contender.kinds:
            queries = task.queries(kind)
            if not queries:
                continue
            skipped = contender.skipped(queries)
            clock = _Clock()
            detections = contender.search(queries)
            seconds, cpu = clock.read()
            run = store.Run(
                contender=name,
                kind=kind,
                origin=origin,
                speech_seconds=task.seconds,
                queries=len(queries),
                skipped=skipped,
                prepare_seconds=prepare_seconds,
                prepare_cpu=prepare_cpu,
                prepare_stored=stored is not None,
                search_seconds=seconds,
                search_cpu=cpu,
                detections=detections,
                probabilities=getattr(contender, "probabilities", False),
            )
            click.echo(f"{store.save_run(setup.results, run)}: {len(detections)} detections, {seconds:.1f} s")


def run_words(encoders: dict[str, SpeechEncoder], task: tasks.Words, folder: Path) -> None:
    """Scores at once: the vectors are too large to store. One line for each encoder in `words.jsonl`."""
    click.echo(str(task))
    path = folder / "words.jsonl"
    rows = {row["contender"]: row for row in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    for name, encoder in encoders.items():
        clock = _Clock()
        spoken = encoder.embed_speech(task.clips)
        seconds, cpu = clock.read()
        origin = current_origin()
        row: dict[str, Any] = {"contender": name, "clips": len(task.clips), "seconds": seconds, "cpu": cpu}
        row |= {"command": origin.command, "commit": origin.commit, "machine": origin.machine}
        row["all pairs"] = metrics.same_different(spoken, task.labels)
        row["across speakers"] = metrics.same_different(spoken, task.labels, task.speakers, different_speaker=True)
        if hasattr(encoder, "embed_text"):
            types = sorted(set(task.labels))
            written = np.asarray(encoder.embed_text(types))
            row["typed to spoken"] = metrics.cross_modal_ap(spoken, written, task.labels, types)
        rows[name] = row
        click.echo(json.dumps(row))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)))


def current_origin(module: str = "benchmarks.run") -> store.Origin:
    """The command, commit and machine of this run."""
    models = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return store.Origin(
        command=command_line(module),
        commit=_git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        machine=f"{model.rpartition(': ')[2]}, {os.cpu_count()} cores",
        threads=os.environ.get("OMP_NUM_THREADS", "default"),
        load=round(os.getloadavg()[0], 1),
    )


def command_line(module: str) -> str:
    """The command of this run; folders of this machine are called DIR."""
    words = [module, *sys.argv[1:]]
    plain = ["DIR" if words[k - 1] in FOLDERS else word for k, word in enumerate(words)]
    plain = [re.sub("^/.*/|(?<==)[^=]*/", "DIR/", word) for word in plain]
    return f"python -m {shlex.join(plain)}"


class _Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        wall, cpu = self._began
        return round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2)


def _label(name: str) -> str:
    """The name in the results: the contender's, and its encoder's where it is given one."""
    name, _, encoder = name.partition("=")
    return f"{name}-{Path(encoder).resolve().name}" if encoder else name


def _build(name: str, setup: Setup) -> Any:
    name, _, encoder = name.partition("=")
    setup = replace(setup, encoder=encoder or setup.encoder)
    try:
        module = importlib.import_module(f"benchmarks.contenders.{name}")
    except ModuleNotFoundError as error:
        raise EarshotError(f"contender {name} cannot be loaded: {error}") from error
    return module.build(setup)


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()

"""From transcribed speech to paper A's tables: all its systems, trained and scored by its protocol.

    cd recipes/jmcl-librispeech
    python run.py LibriSpeech WORK --recipe paper.toml --alignments TEXTGRIDS
    python run.py SPEECH WORK --recipe laptop.toml --seeds 1 2 3
    python run.py SPEECH WORK --recipe mini.toml

SPEECH holds one folder for each corpus that the recipe names; LibriSpeech's own folder is one. Word times are looked
for in --alignments (Montreal Forced Aligner's TextGrids); without it pocketsphinx aligns. Prepared speech, checkpoints,
weights and results go below WORK; what is done is not done again, so the same command goes on where it was stopped.
Trainings run --jobs at a time, each on a GPU of its own where there are any; one at a time with
--launch "torchrun --standalone --nproc-per-node 4", which gives each several GPUs or processes. Needs
pip install -e '.[train,bench]' and, for synthetic speech, the Debian packages that recipes/synthesise.py names.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from earshot.train.recipe import read_recipe, with_base
from earshot.types import EarshotError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", type=Path, default=HERE / "laptop.toml")
    parser.add_argument("--systems", nargs="*", help="those of the recipe's `table`, or all, unless told")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--alignments", type=Path)
    parser.add_argument("--encoder", nargs="*", default=["word"], help="NAME or NAME=FOLDER scored beside the systems")
    parser.add_argument("--jobs", type=int, help="one for each GPU, else processor, unless told; one with --launch")
    parser.add_argument("--launch", help='what runs a training: "torchrun --standalone --nproc-per-node 4"')
    options = parser.parse_args()
    for name in ("speech", "work", "recipe", "alignments"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    named = (encoder.partition("=") for encoder in options.encoder)
    options.encoder = [f"{name}={Path(folder).resolve()}" if folder else name for name, _, folder in named]
    try:
        recipe = with_base(options.recipe)
    except EarshotError as error:
        raise SystemExit(f"run: {error}") from None
    if missing := [table for table in ("corpora", "systems", "tests") if table not in recipe]:
        raise SystemExit(f"run: {options.recipe} says no {' and no '.join(missing)}; the recipes beside run.py do")
    corpora = options.work / "corpora"
    for corpus in dict.fromkeys([*recipe["corpora"], *(test.partition(":")[0] for test in recipe["tests"])]):
        prepare(corpus, options.speech, options.work, options.alignments, recipe)
    systems = options.systems or recipe.get("table") or recipe["systems"]
    names = [f"{name}@{seed}" for seed in options.seeds for name in systems]
    train_all(names, options)
    encoders = [f"{name}={options.work / 'weights' / name}" for name in names]
    results = options.work / "results"
    for test in recipe["tests"]:
        arguments = ["--corpora", corpora, "--recipe", options.recipe, "--test", test, "--results", results]
        scored = (f"--encoder={encoder}" for encoder in [*encoders, *options.encoder])
        run(sys.executable, "-m", "benchmarks.protocol", *arguments, *scored)
    run(sys.executable, "-m", "benchmarks.score", "--results", results)


def prepare(corpus: str, speech: Path, work: Path, alignments: Path | None, recipe: dict) -> None:
    """Bring a corpus up to date: what is there already costs nothing, and word times may have been corrected."""
    source, folder = speech / corpus, work / "corpora" / corpus
    if corpus == "synth":
        source = work / "synth"
        run(sys.executable, "recipes/synthesise.py", source, "--hours", recipe["synthetic_hours"])
    given = ["--alignments", alignments] if alignments and corpus != "synth" else []
    run(sys.executable, "-m", "earshot.train.corpus", source, folder, *given)


def train_all(names: list[str], options: argparse.Namespace) -> None:
    """Train all systems, so many at a time; each on the GPU that has been free for longest."""
    gpus = [] if options.launch else visible_gpus()
    jobs = options.jobs or (1 if options.launch else len(gpus) or os.cpu_count() or 1)
    free: SimpleQueue[str | None] = SimpleQueue()
    for k in range(jobs):
        free.put(gpus[k % len(gpus)] if gpus else None)

    def one(name: str) -> None:
        gpu = free.get()
        try:
            train(name, options.recipe, options.work, options.launch, gpu)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, names))


def visible_gpus() -> list[str]:
    """The GPUs there are, as CUDA_VISIBLE_DEVICES calls them."""
    n = torch.cuda.device_count()
    return os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n)))).split(",")[:n]


def train(name: str, recipe: Path, work: Path, launch: str | None = None, gpu: str | None = None) -> None:
    """One system with one seed, to its exported weights; on one GPU, if that is given."""
    folder, weights, corpora = work / "runs" / name, work / "weights" / name, work / "corpora"
    system, _, seed = name.partition("@")
    said, kept = json.dumps(read_recipe(recipe, system), sort_keys=True), folder / "recipe.json"
    if kept.exists() and kept.read_text() != said:
        raise SystemExit(f"run: {folder} is of another recipe than {recipe} is now; take it and {weights} away")
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(said)
    if (weights / "word.toml").exists():
        return
    chosen = ["--system", system, "--seed", seed, "--corpora", corpora, "--out", folder]
    python = shlex.split(launch) if launch else [sys.executable]
    run(*python, "-m", "earshot.train.word", recipe, *chosen, log=work / f"{name}.log", gpu=gpu)
    files = ["--card", HERE / "card.toml", "--out", weights]
    run(sys.executable, "-m", "earshot.train.export", folder / "last.pt", *files, log=work / f"{name}.log")


def run(*command: object, log: Path | None = None, gpu: str | None = None) -> None:
    """Run a command to its end, on one GPU and with its output in `log`, if those are given.

    SystemExit where it fails: trainings that run beside it come to their end first, and then all stops.
    """
    words, environment = [str(word) for word in command], {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
    print("+", shlex.join(words), flush=True)
    output = open(log, "a") if log else None  # noqa: SIM115
    try:
        subprocess.run(words, check=True, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"failed: {shlex.join(words)}{f'; see {log}' if log else ''}") from error
    finally:
        if output:
            output.close()


if __name__ == "__main__":
    main()

"""From transcribed speech to paper A's tables: all its systems, trained and scored by its protocol.

    cd recipes/jmcl-librispeech
    python run.py LibriSpeech WORK --recipe paper.toml --alignments TEXTGRIDS
    python run.py SPEECH WORK --recipe laptop.toml --seeds 1 2 3
    python run.py SPEECH WORK --recipe mini.toml

SPEECH holds one folder for each corpus that the recipe names; LibriSpeech's own folder is one. Word times are looked
for in --alignments (Montreal Forced Aligner's TextGrids); without it pocketsphinx aligns. Prepared speech, checkpoints,
weights and results go below WORK; what is done is not done again, so the same command goes on where it was stopped.
Trainings run on the GPU where there is one, --jobs of them at a time; --launch "torchrun --nproc-per-node 4" gives each
several GPUs or processes. Needs pip install -e '.[train,bench]' and, for synthetic speech, the Debian packages that
recipes/synthesise.py names.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from earshot.train.word import with_base

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
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--launch", default=sys.executable, help="what runs a training: torchrun --nproc-per-node 4")
    options = parser.parse_args()
    for name in ("speech", "work", "recipe", "alignments"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    recipe = with_base(options.recipe)
    corpora = options.work / "corpora"
    for corpus in {*recipe["corpora"], *(test.partition(":")[0] for test in recipe["tests"])}:
        prepare(corpus, options.speech, options.work, options.alignments, recipe)
    systems = options.systems or recipe.get("table") or recipe["systems"]
    names = [f"{name}@{seed}" for seed in options.seeds for name in systems]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda name: train(name, options.recipe, options.work, options.launch), names))
    encoders = [f"{name}={options.work / 'weights' / name}" for name in names]
    results = options.work / "results"
    for test in recipe["tests"]:
        arguments = ["--corpora", corpora, "--recipe", options.recipe, "--test", test, "--results", results]
        scored = (f"--encoder={encoder}" for encoder in [*encoders, *options.encoder])
        run(sys.executable, "-m", "benchmarks.protocol", *arguments, *scored)
    run(sys.executable, "-m", "benchmarks.score", "--results", results)


def prepare(corpus: str, speech: Path, work: Path, alignments: Path | None, recipe: dict) -> None:
    source, folder = speech / corpus, work / "corpora" / corpus
    if (folder / "done").exists():
        return
    if corpus == "synth":
        source = work / "synth"
        run(sys.executable, "recipes/synthesise.py", source, "--hours", recipe["synthetic_hours"])
    given = ["--alignments", alignments] if alignments and corpus != "synth" else []
    run(sys.executable, "-m", "earshot.train.corpus", source, folder, *given)
    (folder / "done").touch()


def train(name: str, recipe: Path, work: Path, launch: str) -> None:
    """One system with one seed, to its exported weights."""
    folder, weights, corpora = work / "runs" / name, work / "weights" / name, work / "corpora"
    if (weights / "word.toml").exists():
        return
    system, _, seed = name.partition("@")
    chosen = ["--system", system, "--seed", seed, "--corpora", corpora, "--out", folder]
    run(*shlex.split(launch), "-m", "earshot.train.word", recipe, *chosen, log=work / f"{name}.log")
    files = ["--card", HERE / "card.toml", "--out", weights]
    run(sys.executable, "-m", "earshot.train.export", folder / "last.pt", *files, log=work / f"{name}.log")


def run(*command: object, log: Path | None = None) -> None:
    """Run a command to its end; its output goes to `log`, if that is given. Stops everything when it fails."""
    words, environment = [str(word) for word in command], {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
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

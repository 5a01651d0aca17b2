"""What each part of a search is worth: `python -m benchmarks.ablation --help`.

In: an encoder, held-out speech to fit probabilities on, and the task "development". Out: a table of searches that use
fewer of the features of a place (`results/ablation.md`), each with probabilities of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import earshot
from benchmarks import store, tasks
from benchmarks.contenders.earshot import Earshot
from benchmarks.run import current_origin
from earshot import encoders, metrics, query
from earshot.encoders import WordEncoder
from earshot.train import calibrate
from earshot.train.recipe import held_out, read_recipe
from earshot.types import EarshotError

COSINE, ALIGNMENT, BORDERS, RIVALS = (0, 6, 8, 9), (1, 2, 3, 7), (4,), (5,)
"""Columns of the features of `earshot.places.measure`."""


@dataclass(frozen=True, slots=True)
class Step:
    """A search by some features; of an example by its sound alone, or also as the words that it may be."""

    name: str
    columns: tuple[int, ...]
    as_words: bool = True


STEPS = {
    "typed": (
        Step("cosine of the pooled span", COSINE),
        Step("and how well its phones align", COSINE + ALIGNMENT),
        Step("and word borders", COSINE + ALIGNMENT + BORDERS),
        Step("and similar words of the lexicon", COSINE + ALIGNMENT + BORDERS + RIVALS),
    ),
    "spoken": (
        Step("cosine of the pooled span", COSINE, as_words=False),
        Step("and how well its phones align", COSINE + ALIGNMENT, as_words=False),
        Step("and word borders", COSINE + ALIGNMENT + BORDERS, as_words=False),
        Step("and words that it, or the place, may be", COSINE + ALIGNMENT + BORDERS + RIVALS, as_words=False),
        Step("and sought as the words that it may be", COSINE + ALIGNMENT + BORDERS + RIVALS),
    ),
}


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of real speech.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--corpora", type=click.Path(exists=True, path_type=Path), required=True, help="Prepared corpora.")
@click.option("--recipe", type=click.Path(exists=True, path_type=Path), required=True, help="Says who is held out.")
@click.option("--encoder", default="word", help="'word', or the folder of another encoder.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(speech: Path, work: Path, corpora: Path, recipe: Path, encoder: str, folder: Path) -> None:
    """Search with fewer features; a Markdown table."""
    try:
        origin = current_origin("benchmarks.ablation")
        loaded = encoders.load(encoder)
        read = read_recipe(recipe)
        held = calibrate.encode(loaded, corpora, list(read["corpora"]), held_out(read))
        task = tasks.development(speech, work)
        finder = Earshot(work / "ablation-library", encoder)
        finder.prepare(task.recordings)
        sought = {
            "typed": calibrate.typed_sought(loaded, held, np.random.default_rng(0)),
            "spoken": calibrate.spoken_sought(loaded, held, np.random.default_rng(0)),
        }
        lines = ["# What each part of a search is worth\n", f"{task}\n"]
        lines += ["| queries | a place is judged by | MAP | MTWV | MTWV kst |", "|---" * 5 + "|"]
        for kind, steps in STEPS.items():
            features, right = calibrate.candidates(loaded, held, sought[kind])
            for step in steps:
                weights = fit_some(features, right, step.columns)
                lines.append(f"| {kind} | {step.name} | {figures(finder, loaded, task, kind, step, weights)} |")
                click.echo(lines[-1], err=True)
    except EarshotError as error:
        raise click.ClickException(str(error)) from None
    page = "\n".join([*lines, "", f"`{origin.command}` at {origin.commit}, {origin.machine}", ""])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.md").write_text(page, encoding="utf-8")
    click.echo(page)


def fit_some(features: NDArray[np.float32], right: NDArray[np.bool_], columns: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights of all features, and the bias, where all but some columns count nothing."""
    weights = np.zeros(features.shape[1] + 1, np.float32)
    weights[[*columns, -1]] = calibrate.fit(features[:, list(columns)], right)
    return weights


def figures(
    finder: Earshot, encoder: WordEncoder, task: tasks.Chapters, kind: str, step: Step, weights: NDArray[np.float32]
) -> str:
    """MAP, MTWV, and MTWV with keyword-specific thresholds of a search with these weights."""
    same = np.array([1, 0, 0], np.float32)
    changed = replace(encoder, **{f"{kind}_calibration": weights, f"{kind}_outcome": same})
    finder.library = earshot.open(finder.folder, encoder=changed)
    with _as_words(step.as_words):
        found = finder.search(task.queries(kind))
    words = {one.word for one in task.queries(kind)}
    references = [reference for reference in task.references if reference.query in words]
    plain = metrics.match(references, found, task.seconds)
    specific = metrics.match(references, metrics.keyword_specific(found, task.seconds), task.seconds)
    values = (metrics.mean_average_precision(plain), metrics.mtwv(plain)[0], metrics.mtwv(specific)[0])
    return " | ".join(f"{value:.3f}" for value in values)


@contextmanager
def _as_words(wanted: bool) -> Iterator[None]:
    """Whether examples are also sought as the words that they may be."""
    before = query.HEARD
    query.HEARD = before if wanted else 0
    try:
        yield
    finally:
        query.HEARD = before


if __name__ == "__main__":
    main()

"""A recipe: one TOML file of what a training needs besides the speech; and which of the speech it may hear.

In: a path. Out: tables, options made of them, parts of corpora. Knows nothing of models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from earshot.train.corpus import Corpus
from earshot.types import EarshotError, Seconds

T = TypeVar("T")
WHOLE = ("losses", "pretrain_losses", "corpora")
"""Tables of a recipe that are not joined with those of its base."""


class TrainingError(EarshotError):
    """Training cannot go on; the message says at which step and what to do."""


def read_recipe(path: Path, system: str | None = None) -> dict[str, Any]:
    """The tables of a recipe, with those of one of its [systems] over them. TrainingError where it cannot be read.

    A recipe with a `base`, the name of one beside it, is that one with its own tables over it.
    """
    recipe = with_base(path)
    systems = recipe.pop("systems", {})
    if system is not None and system not in systems:
        raise TrainingError(f'{path} has no system "{system}"; it has: {", ".join(systems) or "none"}')
    if "corpora" not in recipe:
        raise TrainingError(f"{path} names no [corpora] to train on")
    return _over(recipe | {"train": recipe.get("train", {})}, systems[system] if system else {})


def with_base(path: Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """All tables of a recipe over those of its base; `above`: names of the recipes that it is a base of."""
    try:
        recipe = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: no readable recipe ({error})") from None
    if "base" not in recipe:
        return recipe
    base, seen = str(recipe.pop("base")), (*above, path.name)
    if base != Path(base).name or base in seen:
        raise TrainingError(f'{path}: base "{base}" is not the name of another recipe beside it')
    return _over(with_base(path.with_name(base), seen), recipe)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables joined, `above` first; WHOLE ones take each other's place."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _over(below.get(key, {}), value) if isinstance(value, dict) and key not in WHOLE else value
    return merged


def made(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Options of a recipe as what they are for. TrainingError where one is unknown."""
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    except TypeError as error:
        raise TrainingError(f"the recipe has an option that is not known: {error}") from None


def held_out(recipe: dict[str, Any]) -> set[str]:
    """What a recipe keeps out of training, as CORPUS/SPEAKER or CORPUS/WORD."""
    return {f"{corpus}/{name}" for corpus, names in recipe.get("held_out", {}).items() for name in names}


def training_part(corpus: Corpus, without: set[str]) -> Corpus:
    """Only the utterances of split "train", none by a CORPUS/SPEAKER or with a CORPUS/WORD of `without`."""
    kept = (
        u
        for u in corpus.utterances
        if u.split == "train"
        and f"{u.corpus}/{u.speaker}" not in without
        and without.isdisjoint(f"{u.corpus}/{w.label}" for w in u.words)
    )
    return replace(corpus, utterances=tuple(kept))


def at_most(corpus: Corpus, seconds: Seconds | None) -> Corpus:
    """Some utterances, drawn at random, that last no longer than so many seconds; all where that is None."""
    if seconds is None:
        return corpus
    order = np.random.default_rng(0).permutation(len(corpus.utterances))
    total = np.cumsum([corpus.utterances[int(k)].seconds for k in order])
    return replace(corpus, utterances=tuple(corpus.utterances[int(k)] for k in np.sort(order[total <= seconds])))

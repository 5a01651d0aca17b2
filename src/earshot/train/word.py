"""Train the word encoder from one TOML file of options and the corpora it names.

In: a recipe such as recipes/word.toml and a folder of prepared corpora. Out: a folder with checkpoints and a log.

    python -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
    torchrun --standalone --nproc-per-node 2 -m earshot.train.word recipes/word.toml --corpora ... --out ...
    python -m earshot.train.word recipes/jmcl-librispeech/laptop.toml --system clap-dwd --corpora ... --out ...
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from earshot.encoders.isolated import ENERGIES, LOG_MEL, Front
from earshot.features import N_MELS
from earshot.train.augment import Augmentation
from earshot.train.batches import Batcher, BatchOptions
from earshot.train.corpus import Corpus, read_corpus
from earshot.train.isolated import DECODER_LOSSES, TEXT_LOSSES, IsolatedConfig
from earshot.train.isolated_batches import IsolatedBatcher, IsolatedOptions
from earshot.train.loop import LAST, MODELS, Batches, Config, TrainingError, TrainOptions, checkpoint, train
from earshot.train.model import WordConfig
from earshot.train.priors import Priors, measured
from earshot.types import EarshotError, Seconds

T = TypeVar("T")
WHOLE = ("losses", "pretrain_losses", "corpora")
"""Tables of a recipe that are not joined with those of its base."""


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--system", help="one of the recipe's [systems]")
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--from", dest="start", type=Path, help="begin with the weights of this checkpoint, to train them further"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        recipe = read_recipe(arguments.recipe, arguments.system)
        if arguments.seed is not None:
            recipe["seed"] = arguments.seed
        if arguments.steps:
            recipe["train"]["steps"] = arguments.steps
        options, config = _made(TrainOptions, recipe["train"]), configuration(recipe)
        last = arguments.out / LAST
        begun = last if last.exists() else arguments.start
        priors = checkpoint(begun).priors if begun else None
        train(batcher(recipe, config, arguments.corpora, priors), config, options, arguments.out, arguments.start)
    except EarshotError as error:
        raise SystemExit(f"train: {error}") from None


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


def with_base(path: Path) -> dict[str, Any]:
    """All tables of a recipe over those of its base."""
    try:
        recipe = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: no readable recipe ({error})") from None
    return _over(with_base(path.with_name(recipe.pop("base"))), recipe) if "base" in recipe else recipe


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables joined, `above` first; WHOLE ones take each other's place."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _over(below.get(key, {}), value) if isinstance(value, dict) and key not in WHOLE else value
    return merged


def _made(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """Options of a recipe as what they are for. TrainingError where one is unknown."""
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    except TypeError as error:
        raise TrainingError(f"the recipe has an option that is not known: {error}") from None


def configuration(recipe: dict[str, Any]) -> Config:
    """The model that a recipe describes; towers that its losses do not ask for are left out."""
    model = recipe.get("model", {})
    if (kind := recipe.get("kind", "spans")) not in MODELS:
        raise TrainingError(f'kind "{kind}" is none of: {", ".join(MODELS)}')
    if kind == "spans":
        return _made(WordConfig, model)
    if (features := model.get("features", ENERGIES)) not in (ENERGIES, LOG_MEL):
        raise TrainingError(f'features "{features}" are neither "{ENERGIES}" nor "{LOG_MEL}"')
    if features == LOG_MEL:
        model = {**model, "n_mels": N_MELS}
    train = recipe["train"]
    losses = {*train.get("losses", {}), *train.get("pretrain_losses", {})}
    text, decoder = (not losses.isdisjoint(of) for of in (TEXT_LOSSES, DECODER_LOSSES))
    instances = recipe.get("batch", {}).get("instances", 4)
    return _made(IsolatedConfig, {**model, "text": text, "decoder": decoder, "instances": instances})


def batcher(recipe: dict[str, Any], config: Config, folder: Path, priors: Priors | None = None) -> Batches:
    """What makes the batches of a recipe, over the training speakers of the corpora it names, prepared in `folder`.

    `priors`: those of weights that are trained further; measured on the corpora unless given.
    """
    weights, seed = recipe["corpora"], recipe.get("seed", 0)
    corpora = [training_part(read_corpus(folder / name), held_out(recipe)) for name in weights]
    corpora = [
        at_most(corpus, recipe.get("limit", {}).get(name)) for name, corpus in zip(weights, corpora, strict=True)
    ]
    batch = dict(recipe.get("batch", {}))
    augmentation = batch.pop("augmentation", None)
    changes = None if augmentation is None else _made(Augmentation, augmentation)
    if not isinstance(config, IsolatedConfig):
        options = _made(BatchOptions, {**batch, "weights": weights, "augmentation": changes or Augmentation()})
        return Batcher(corpora, options, priors or measured(corpora, folder), seed)
    if config.features == LOG_MEL:
        priors = priors or measured(corpora, folder)
        front = Front(config.features, config.n_mels, config.stack, priors.mean, priors.std)
    else:
        priors, none = None, np.zeros(0, np.float32)
        front = Front(config.features, config.n_mels, config.stack, none, none)
    chosen = _made(IsolatedOptions, {**batch, "augmentation": changes})
    made = IsolatedBatcher(corpora, front, chosen, priors, seed, folder)
    if out := made.unpronounceable:
        print(f"left out for want of a pronunciation: {', '.join(out[:10])}{' ...' if len(out) > 10 else ''}")
    return made


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


if __name__ == "__main__":
    main()

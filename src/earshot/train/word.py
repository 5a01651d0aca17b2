"""Train the word encoder from one TOML file of options and the corpora it names.

In: a recipe such as recipes/word.toml and a folder of prepared corpora. Out: a folder with checkpoints and a log.

    python -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
    torchrun --standalone --nproc-per-node 2 -m earshot.train.word recipes/word.toml --corpora ... --out ...
    python -m earshot.train.word recipes/jmcl-librispeech/laptop.toml --system clap-dwd --corpora ... --out ...
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earshot.encoders.isolated import ENERGIES, LOG_MEL, Front
from earshot.features import N_MELS
from earshot.train.augment import Augmentation
from earshot.train.batches import Batcher, BatchOptions
from earshot.train.corpus import read_corpus
from earshot.train.isolated import DECODER_LOSSES, TEXT_LOSSES, IsolatedConfig
from earshot.train.isolated_batches import IsolatedBatcher, IsolatedOptions
from earshot.train.loop import LAST, Batches, Config, TrainOptions, checkpoint, train
from earshot.train.model import WordConfig
from earshot.train.priors import Priors, measured
from earshot.train.recipe import TrainingError, at_most, held_out, made, read_recipe, training_part
from earshot.types import EarshotError

KINDS = ("spans", "isolated")
"""Those of `loop.MODELS` that embed words."""


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
        options, config = made(TrainOptions, recipe["train"]), configuration(recipe)
        last = arguments.out / LAST
        begun = last if last.exists() else arguments.start
        priors = checkpoint(begun).priors if begun else None
        train(batcher(recipe, config, arguments.corpora, priors), config, options, arguments.out, arguments.start)
    except EarshotError as error:
        raise SystemExit(f"train: {error}") from None


def configuration(recipe: dict[str, Any]) -> Config:
    """The model that a recipe describes; towers that its losses do not ask for are left out."""
    model = recipe.get("model", {})
    if (kind := recipe.get("kind", "spans")) not in KINDS:
        raise TrainingError(f'kind "{kind}" is none of: {", ".join(KINDS)}')
    if kind == "spans":
        return made(WordConfig, model)
    if (features := model.get("features", ENERGIES)) not in (ENERGIES, LOG_MEL):
        raise TrainingError(f'features "{features}" are neither "{ENERGIES}" nor "{LOG_MEL}"')
    if features == LOG_MEL:
        model = {**model, "n_mels": N_MELS}
    train = recipe["train"]
    losses = {*train.get("losses", {}), *train.get("pretrain_losses", {})}
    text, decoder = (not losses.isdisjoint(of) for of in (TEXT_LOSSES, DECODER_LOSSES))
    instances = recipe.get("batch", {}).get("instances", 4)
    return made(IsolatedConfig, {**model, "text": text, "decoder": decoder, "instances": instances})


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
    changes = None if augmentation is None else made(Augmentation, augmentation)
    if not isinstance(config, IsolatedConfig):
        options = made(BatchOptions, {**batch, "weights": weights, "augmentation": changes or Augmentation()})
        return Batcher(corpora, options, priors or measured(corpora, folder), seed)
    if config.features == LOG_MEL:
        priors = priors or measured(corpora, folder)
        front = Front(config.features, config.n_mels, config.stack, priors.mean, priors.std)
    else:
        priors, none = None, np.zeros(0, np.float32)
        front = Front(config.features, config.n_mels, config.stack, none, none)
    chosen = made(IsolatedOptions, {**batch, "augmentation": changes})
    batches = IsolatedBatcher(corpora, front, chosen, priors, seed, folder)
    if out := batches.unpronounceable:
        print(f"left out for want of a pronunciation: {', '.join(out[:10])}{' ...' if len(out) > 10 else ''}")
    return batches


if __name__ == "__main__":
    main()

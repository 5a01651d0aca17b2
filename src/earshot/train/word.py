"""Train the word encoder from one TOML file of options and the corpora it names.

In: a recipe such as recipes/word.toml and a folder of prepared corpora. Out: a folder with checkpoints and a log.

    python -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
    torchrun --nproc-per-node 2 -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
    python -m earshot.train.word recipes/jmcl-librispeech/laptop.toml --system clap-dwd --corpora ... --out ...
"""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earshot.encoders.isolated import ENERGIES, LOG_MEL, Front
from earshot.features import N_MELS, Floats, log_mel
from earshot.pronounce import PHONES
from earshot.train.augment import Augmentation
from earshot.train.batches import Batcher, BatchOptions
from earshot.train.corpus import Corpus, Utterance, read_corpus
from earshot.train.isolated import DECODER_LOSSES, TEXT_LOSSES, IsolatedConfig
from earshot.train.isolated_batches import IsolatedBatcher, IsolatedOptions
from earshot.train.loop import Batches, Config, TrainingError, TrainOptions, train
from earshot.train.model import WordConfig
from earshot.types import EarshotError, Seconds

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
        options, config = TrainOptions(**recipe["train"]), configuration(recipe)
        train(batcher(recipe, config, arguments.corpora), config, options, arguments.out, arguments.start)
    except EarshotError as error:
        raise SystemExit(f"train: {error}") from None
    except TypeError as error:
        raise SystemExit(f"train: {arguments.recipe}: an unknown option, or one of the wrong type: {error}") from None


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


def configuration(recipe: dict[str, Any]) -> Config:
    """The model that a recipe describes; towers that its losses do not ask for are left out."""
    model = recipe.get("model", {})
    if recipe.get("kind", "spans") == "spans":
        return WordConfig(**model)
    if (features := model.get("features", ENERGIES)) not in (ENERGIES, LOG_MEL):
        raise TrainingError(f'features "{features}" are neither "{ENERGIES}" nor "{LOG_MEL}"')
    if features == LOG_MEL:
        model = {**model, "n_mels": N_MELS}
    train = recipe["train"]
    losses = {*train.get("losses", {}), *train.get("pretrain_losses", {})}
    text, decoder = (not losses.isdisjoint(of) for of in (TEXT_LOSSES, DECODER_LOSSES))
    return IsolatedConfig(**model, text=text, decoder=decoder, instances=recipe.get("batch", {}).get("instances", 4))


def batcher(recipe: dict[str, Any], config: Config, folder: Path) -> Batches:
    """What makes the batches of a recipe, over the training speakers of the corpora it names, prepared in `folder`."""
    weights, seed = recipe["corpora"], recipe.get("seed", 0)
    held_out = {str(speaker) for speaker in recipe.get("held_out", [])}
    corpora = [training_part(read_corpus(folder / name), held_out) for name in weights]
    corpora = [
        at_most(corpus, recipe.get("limit", {}).get(name)) for name, corpus in zip(weights, corpora, strict=True)
    ]
    batch = dict(recipe.get("batch", {}))
    augmentation = batch.pop("augmentation", None)
    if isinstance(config, IsolatedConfig):
        none = np.zeros(0, np.float32)
        mean, std = priors(folder, corpora) if config.features == LOG_MEL else (none, none)
        front = Front(config.features, config.n_mels, config.stack, mean, std)
        changes = None if augmentation is None else Augmentation(**_tuples(augmentation))
        made = IsolatedBatcher(corpora, front, IsolatedOptions(augmentation=changes, **batch), seed, folder)
        if out := made.unpronounceable:
            print(f"left out for want of a pronunciation: {', '.join(out[:10])}{' ...' if len(out) > 10 else ''}")
        return made
    options = BatchOptions(weights=weights, augmentation=Augmentation(**_tuples(augmentation or {})), **batch)
    return Batcher(corpora, options, priors(folder, corpora), seed)


def training_part(corpus: Corpus, held_out: set[str]) -> Corpus:
    """Only the utterances of split "train", without those by CORPUS/SPEAKER or with CORPUS/WORD that are held out."""
    kept = (
        u
        for u in corpus.utterances
        if u.split == "train"
        and f"{u.corpus}/{u.speaker}" not in held_out
        and held_out.isdisjoint(f"{u.corpus}/{w.label}" for w in u.words)
    )
    return replace(corpus, utterances=tuple(kept))


def at_most(corpus: Corpus, seconds: Seconds | None) -> Corpus:
    """Some utterances, drawn at random, that last no longer than so many seconds; all where that is None."""
    if seconds is None:
        return corpus
    order = np.random.default_rng(0).permutation(len(corpus.utterances))
    total = np.cumsum([corpus.utterances[int(k)].seconds for k in order])
    return replace(corpus, utterances=tuple(corpus.utterances[int(k)] for k in np.sort(order[total <= seconds])))


def priors(folder: Path, corpora: list[Corpus]) -> tuple[Floats, Floats]:
    """Mean and standard deviation (N_MELS,) of log-mels over 2,000 utterances at -26 dB; kept in `folder`."""
    path = folder / "priors.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        rows = [(c, u) for c in corpora for u in c.utterances if u.words]
        chosen = rng.choice(len(rows), min(2000, len(rows)), replace=False)
        mels = [_level_mels(rows[int(k)][0].read(rows[int(k)][1])) for k in chosen]
        frames = np.concatenate(mels)
        centred = np.concatenate([m - m.mean(axis=0) for m in mels])
        phone_seconds = _phone_seconds([u for _, u in rows])
        whole = path.with_name(f"priors-{os.getpid()}.npz")  # several processes may get here at once
        np.savez(whole, mean=frames.mean(axis=0), std=centred.std(axis=0), phone_seconds=phone_seconds)
        os.replace(whole, path)
    stored = np.load(path)
    return stored["mean"].astype(np.float32), stored["std"].astype(np.float32)


def _phone_seconds(utterances: list[Utterance]) -> Floats:
    """Mean duration of each of PHONES."""
    total, count = np.zeros(len(PHONES)), np.zeros(len(PHONES))
    for phone in (p for u in utterances for p in u.phones):
        total[PHONES.index(phone.label)] += phone.end - phone.start
        count[PHONES.index(phone.label)] += 1
    return (total / np.maximum(count, 1)).astype(np.float32)


def _level_mels(samples: Floats) -> Floats:
    return log_mel(samples * np.float32(0.05 / (np.sqrt(np.mean(samples**2)) + 1e-5)))


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


if __name__ == "__main__":
    main()

"""Train the word encoder from one TOML file of options and the corpora it names.

In: a recipe such as recipes/word.toml and a folder of prepared corpora. Out: a folder with checkpoints and a log.

    python -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
    torchrun --nproc-per-node 2 -m earshot.train.word recipes/word.toml --corpora data/corpora --out runs/word
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

from earshot.features import Floats, log_mel
from earshot.pronounce import PHONES
from earshot.train.augment import Augmentation
from earshot.train.batches import Batcher, BatchOptions
from earshot.train.corpus import Corpus, Utterance, read_corpus
from earshot.train.isolated import IsolatedBatcher, IsolatedConfig, IsolatedOptions
from earshot.train.loop import Batches, Config, TrainingError, TrainOptions, train
from earshot.train.model import WordConfig


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = tomllib.loads(arguments.recipe.read_text())
    options = TrainOptions(**recipe.get("train", {}))
    if arguments.steps:
        options = replace(options, steps=arguments.steps)
    config, batcher = read_recipe(recipe, arguments.corpora)
    try:
        train(batcher, config, options, arguments.out)
    except TrainingError as error:
        raise SystemExit(f"train: {error}") from None


def read_recipe(recipe: dict[str, Any], folder: Path) -> tuple[Config, Batches]:
    """The model's configuration and the batcher of a recipe, over the training speakers of the corpora it names."""
    weights, seed = recipe["corpora"], recipe.get("seed", 0)
    held_out = {str(speaker) for speaker in recipe.get("held_out", [])}
    corpora = [training_part(read_corpus(folder / name), held_out) for name in weights]
    batch = dict(recipe.get("batch", {}))
    if recipe.get("kind", "spans") == "isolated":
        config = IsolatedConfig(**recipe.get("model", {}))
        return config, IsolatedBatcher(corpora, config, IsolatedOptions(**batch), seed)
    batch["augmentation"] = Augmentation(**_tuples(batch.pop("augmentation", {})))
    options = BatchOptions(weights=weights, **batch)
    return WordConfig(**recipe.get("model", {})), Batcher(corpora, options, priors(folder, corpora), seed)


def training_part(corpus: Corpus, held_out: set[str]) -> Corpus:
    """Only the utterances of split "train" by speakers that are not held out."""
    kept = (u for u in corpus.utterances if u.split == "train" and f"{u.corpus}/{u.speaker}" not in held_out)
    return replace(corpus, utterances=tuple(kept))


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

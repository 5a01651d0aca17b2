r"""Train the passage model from one TOML file of options, the frames and the texts that it names.

In: a recipe such as recipes/passage.toml, prepared corpora and their frames, sentences. Out: a folder with checkpoints
and a log; a stage of paper B is a run, which begins with the weights of the one before (--from).

    python -m earshot.train.clsr.train recipes/passage.toml --stage pretrain --data data --out runs/first
    python -m earshot.train.clsr.train recipes/passage.toml --stage joint --data data --out runs/joint \
        --from runs/first/last.pt
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earshot import encoders
from earshot.encoders.passage import STACKED
from earshot.features import Floats
from earshot.train.clsr.batches import PassageBatcher, PassageOptions, Text, read_text
from earshot.train.clsr.frames import Take, read
from earshot.train.clsr.model import PassageConfig, PassageModel
from earshot.train.clsr.text import MINILM, TextModel, load
from earshot.train.clsr.tokens import sound_and_meaning, sound_of_frames, sound_of_tokens
from earshot.train.corpus import read_corpus
from earshot.train.loop import LAST, TrainOptions, checkpoint, save, train
from earshot.train.recipe import TrainingError, held_out, made, read_recipe
from earshot.train.transcripts import CorpusError
from earshot.types import EarshotError

QUESTIONS = "questions.jsonl"
"""In the folder of a corpus beside corpora/: questions that its utterances answer."""
FIRST = "first.pt"
"""In a run's folder: the weights that it begins with, where it begins anew."""


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--stage", help="one of the recipe's [systems]")
    parser.add_argument("--data", type=Path, required=True, help="holds corpora/, frames/ and sentences/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--from", dest="start", type=Path, help="begin with the weights of this checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        recipe = read_recipe(arguments.recipe, arguments.stage)
        if arguments.steps:
            recipe["train"]["steps"] = arguments.steps
        batcher, text = prepared(recipe, arguments.data)
        config = configuration(recipe, text, batcher)
        first = arguments.out / FIRST
        if not (arguments.out / LAST).exists():
            model = begun(config, text, batcher, recipe)
            if arguments.start:
                take_over(model, arguments.start)
            arguments.out.mkdir(parents=True, exist_ok=True)
            save(first, model, None, 0)
        train(batcher, config, made(TrainOptions, recipe["train"]), arguments.out, first)
    except EarshotError as error:
        raise SystemExit(f"train: {error}") from None


def prepared(recipe: dict[str, Any], data: Path) -> tuple[PassageBatcher, TextModel]:
    """What makes the batches of a recipe, and the text encoder whose word pieces are in them."""
    word, text = encoders.load(recipe.get("word", "word")), load(recipe["model"].get("text", MINILM))
    without = held_out(recipe)
    takes: list[Take] = []
    for name in recipe["corpora"]:
        corpus = read_corpus(data / "corpora" / name)
        takes += read(
            data / "frames" / name,
            corpus,
            lambda u: u.split == "train" and f"{u.corpus}/{u.speaker}" not in without,
            word.digest,
        )
    texts = [read_text(data / "sentences" / f"{name}.txt") for name in recipe.get("texts", {})]
    options = made(PassageOptions, recipe.get("batch", {}) | {"weights": recipe["corpora"] | recipe.get("texts", {})})
    asked = questions(path for name in recipe["corpora"] if (path := data / name / QUESTIONS).exists())
    return PassageBatcher(takes, texts, text.pieces, options, asked, seed=recipe.get("seed", 0)), text


def questions(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Those that utterances answer, by the id of each, from lines of JSON with an `id` and a `question`."""
    asked = defaultdict[str, list[str]](list)
    for path in paths:
        try:
            for line in path.read_text().splitlines():
                row = json.loads(line)
                asked[row["id"]].append(row["question"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}: no lines of JSON with an id and a question ({error!r})") from None
    return dict(asked)


def configuration(recipe: dict[str, Any], text: TextModel, batcher: PassageBatcher) -> PassageConfig:
    """The model that a recipe describes, for these word pieces and frames."""
    inputs = STACKED * batcher.takes[0].frames.shape[1]
    return made(PassageConfig, recipe["model"] | {"vocabulary": len(text.pieces.pieces), "inputs": inputs})


def begun(config: PassageConfig, text: TextModel, batcher: PassageBatcher, recipe: dict[str, Any]) -> PassageModel:
    """A new model; where its output layer is a frozen table, with that, and with how often each piece is written."""
    torch.manual_seed(batcher.seed)
    model = PassageModel(config)
    if config.table:
        embeddings = text.word_embeddings.detach().numpy()
        word = encoders.load(recipe.get("word", "word"))
        layer: Any = model.speech.decoder.output_layer
        layer.table.copy_(torch.as_tensor(sound_and_meaning(text.pieces, embeddings, word, config.table)))
        layer.bias.data.copy_(torch.as_tensor(written(batcher.texts, text)))
        if model.speech.sound is not None:
            if config.sound != word.dim:
                raise TrainingError(
                    f"[model] sound is {config.sound}, the embeddings of {word.name} have {word.dim} values"
                )
            layer.into.weight.data.zero_()
            frequent = model.speech.sound.frequent
            frequent.copy_(layer.bias.data.topk(len(frequent)).indices)
            model.speech.sound.projection.copy_(torch.as_tensor(sound_of_frames(word, STACKED)))
            model.speech.sound.onto.weight.data.copy_(torch.as_tensor(sound_of_tokens(word, config.table)))
    return model


def take_over(model: PassageModel, path: Path) -> None:
    """Give a model the weights of a checkpoint: its speech branch, and what else both have, for stages differ.

    TrainingError where it has another speech branch, or a text encoder that was trained and would be lost.
    """
    other = checkpoint(path).model
    try:
        left = model.load_state_dict(other.state_dict(), strict=False)
        strange = [name for name in left.missing_keys if name.startswith("speech")]
        strange += [name for name in left.unexpected_keys if name.startswith(("speech", "reader"))]
    except RuntimeError:
        strange = ["speech"]
    if strange:
        raise TrainingError(f"{path} holds another architecture than the recipe; begin without --from")


def written(texts: Sequence[Text], text: TextModel) -> Floats:
    """(pieces,): log of how often each word piece is in texts, as a share of all; one is added to each."""
    words = Counter(w for of in texts for line in of.sentences for w in re.findall("[a-z']+", line[0].lower()))
    counts = np.ones(len(text.pieces.pieces), np.float32)
    for word, n in words.items():
        for k in text.pieces.ids(word):
            counts[k] += n
    shares: Floats = np.log(counts / counts.sum())
    return shares


if __name__ == "__main__":
    main()

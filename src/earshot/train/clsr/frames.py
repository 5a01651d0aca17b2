"""Speech as the word encoder hears it: prepared corpora become its frames, which is what the passage model reads.

In: prepared corpora (`earshot.train.corpus`), a word encoder. Out: `frames.i8` and `takes.npz` in a folder for each
corpus: every utterance as recorded, then again with noise, rooms and other speeds. Knows nothing of the passage model.

    python -m earshot.train.clsr.frames recipes/passage.toml --corpora data/corpora --out data/frames
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.encoders import WordEncoder, load
from earshot.encoders.clock import FRAME_SECONDS
from earshot.features import Floats, log_mel
from earshot.train import augment
from earshot.train.augment import Augmentation
from earshot.train.batches import VOICES, other_speech
from earshot.train.corpus import Corpus, Utterance, read_corpus
from earshot.train.recipe import made, read_recipe
from earshot.train.transcripts import CorpusError
from earshot.types import EarshotError

FRAMES, TAKES = "frames.i8", "takes.npz"
AT_ONCE = 64
"""Utterances that are encoded together."""


@dataclass(frozen=True)
class Take:
    """An utterance in frames (n, dim) of int8, said `factor` times as fast as it was recorded."""

    utterance: Utterance
    frames: NDArray[np.int8]
    factor: float

    @property
    def seconds(self) -> float:
        return len(self.frames) * FRAME_SECONDS


def prepare(corpus: Corpus, encoder: WordEncoder, folder: Path, takes: int, options: Augmentation, seed: int) -> None:
    """Write the frames of a corpus: each utterance `takes` times, all but the first changed. Not where they are."""
    if (folder / TAKES).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lengths, factors = [], []
    plan = [(take, k) for take in range(takes) for k in range(len(corpus.utterances))]
    with open(folder / FRAMES, "wb") as out:
        for some in (plan[k : k + AT_ONCE] for k in range(0, len(plan), AT_ONCE)):
            mels = []
            for take, k in some:
                factor, mel = _take(corpus, k, options, np.random.default_rng((seed, take, k)), take > 0)
                factors.append(factor)
                mels.append(mel)
            for frames in encoder.frames(mels):
                lengths.append(len(frames))
                out.write(np.ascontiguousarray(frames[:, : encoder.frame_dim]).tobytes())
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    utterances = np.array([k for _, k in plan])
    part = folder / f"part-{TAKES}"
    np.savez(part, offsets=offsets, utterances=utterances, factors=factors, digest=encoder.digest)
    os.replace(part, folder / TAKES)


def _take(
    corpus: Corpus, k: int, options: Augmentation, rng: np.random.Generator, changed: bool
) -> tuple[float, Floats]:
    """How much faster utterance k is said, and its raw log-mels."""
    utterance = corpus.utterances[k]
    samples, factor = corpus.read(utterance), 1.0
    if not changed:
        return factor, log_mel(samples)
    if rng.random() < options.speed_probability:
        factor = rng.uniform(*options.speed)
        samples = augment.change_speed(samples, factor)

    def babble() -> Floats:
        drawn = rng.integers(len(corpus.utterances), size=2 * VOICES)
        return other_speech([(corpus, int(j)) for j in drawn], utterance.speaker)

    mel = log_mel(augment.degrade(samples, rng, options, babble))
    return factor, augment.warp_mels(
        mel, rng.uniform(*options.warp)
    ) if rng.random() < options.warp_probability else mel


def read(folder: Path, corpus: Corpus, kept: Callable[[Utterance], bool], digest: str) -> list[Take]:
    """The takes of the utterances of a corpus that are `kept`, whose frames are in `folder` as memory-mapped file.

    CorpusError where there are none, or they are by another word encoder than the one with this digest.
    """
    if not (folder / TAKES).exists():
        raise CorpusError(f"{folder}: no frames; make them with python -m earshot.train.clsr.frames")
    with np.load(folder / TAKES) as stored:
        offsets, utterances, factors = stored["offsets"], stored["utterances"], stored["factors"]
        if str(stored["digest"]) != digest:
            raise CorpusError(f"{folder}: frames by another word encoder; take the folder away to make them anew")
    values = np.memmap(folder / FRAMES, np.int8, mode="r").reshape(offsets[-1], -1)
    return [
        Take(corpus.utterances[k], values[offsets[j] : offsets[j + 1]], float(factors[j]))
        for j, k in enumerate(utterances)
        if kept(corpus.utterances[k])
    ]


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        recipe = read_recipe(arguments.recipe)
        encoder = load(recipe.get("word", "word"))
        options = made(Augmentation, recipe.get("augmentation", {}))
        for name in recipe["corpora"]:
            corpus, takes = read_corpus(arguments.corpora / name), recipe.get("takes", {}).get(name, 1)
            prepare(corpus, encoder, arguments.out / name, takes, options, recipe.get("seed", 0))
            print(f"{name}: {takes} x {sum(u.seconds for u in corpus.utterances) / 3600:.1f} h", flush=True)
    except EarshotError as error:
        raise SystemExit(f"frames: {error}") from None


if __name__ == "__main__":
    main()

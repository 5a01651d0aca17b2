"""Paper A as it is published: towers that are given isolated words, and the batches of words that train them.

In: batches of N words, M spoken instances each, cut at their exact times. Out: unit vectors and the paper's losses.
arXiv 2512.14115, sections on the model and the losses; raw mel energies as in the authors' code.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn.functional import normalize

from earshot.encoders.clock import N_CLASSES, SILENCE
from earshot.features import SAMPLE_RATE, Floats, mel_energies
from earshot.train.batches import Batch, pronunciation
from earshot.train.corpus import Corpus
from earshot.train.losses import clap_views, dwd
from earshot.train.model import BiLSTM, in_groups
from earshot.types import Seconds


@dataclass(frozen=True, slots=True)
class IsolatedConfig:
    """Dimensions of the paper's towers: 8.7 million parameters."""

    n_mels: int = 128
    hidden: int = 256
    layers: int = 3
    dim: int = 512
    phone_embedding: int = 256
    dropout: float = 0.2
    instances: int = 4


@dataclass(frozen=True, slots=True)
class IsolatedOptions:
    """Batches of `words` different words; which spoken words are taken."""

    words: int = 128
    instances: int = 4
    shortest: Seconds = 0.5
    longest: Seconds = 2.0


class FinalStates(nn.Module):
    """A stack of bidirectional LSTMs (b, t, i) -> the final states of the last, both ways, projected: unit (b, dim)."""

    def __init__(self, inputs: int, config: IsolatedConfig) -> None:
        super().__init__()
        sizes = [inputs, *[2 * config.hidden] * (config.layers - 1)]
        self.lstm = nn.ModuleList(BiLSTM(size, config.hidden) for size in sizes)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, config.dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        for k, lstm in enumerate(self.lstm):
            x = lstm(self.dropout(x) if k else x, lengths)
        hidden = x.shape[2] // 2
        rows = torch.arange(len(x), device=x.device)
        x = self.out(torch.cat([x[rows, lengths - 1, :hidden], x[:, 0, hidden:]], 1))
        return normalize(x.float(), dim=1)


class IsolatedModel(nn.Module):
    """The paper's audio and text tower, and its one learned scale."""

    def __init__(self, config: IsolatedConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = FinalStates(config.n_mels, config)
        self.embedding = nn.Embedding(N_CLASSES, config.phone_embedding)
        self.text_tower = FinalStates(config.phone_embedding, config)
        self.clap_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def text(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """Phone ids (b, n), padded with SILENCE -> unit vectors (b, dim)."""
        x = self.embedding(phones)
        return self.text_tower(x + sinusoids(x.shape[1], x.shape[2]).to(x), lengths)  # type: ignore[no-any-return]

    def losses(self, batch: dict[str, Tensor], precision: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The paper's two losses of one batch: the rows of a word stand together, `instances` of each.

        The towers compute in `precision`, the losses in float32.
        """
        audio = in_groups(self.audio, batch["mel"], batch["lengths"], precision)
        texts = in_groups(self.text, batch["texts"], batch["text_lengths"], precision)
        views = audio.view(len(texts), self.config.instances, -1)
        return {
            "clap": clap_views(views, texts, self.clap_scale.exp().clamp(max=100)),
            "dwd": dwd(audio, batch["labels"], torch.ones((), device=audio.device)),
        }


def sinusoids(n: int, dim: int) -> Tensor:
    """Fixed positions (n, dim): sines in even columns, cosines in odd ones, of wavelengths up to 10,000 * 2 pi."""
    angles = torch.arange(n).unsqueeze(1) * torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :dim]


class IsolatedBatcher:
    """Makes batch number `step`: words drawn at random, as many instances of each."""

    def __init__(self, corpora: Sequence[Corpus], config: IsolatedConfig, options: IsolatedOptions, seed: int = 0):
        self.corpora, self.config, self.options, self.seed = corpora, config, options, seed
        said: dict[tuple[int, ...], list[tuple[int, int, int]]] = defaultdict(list)
        for c, corpus in enumerate(corpora):
            for u, utterance in enumerate(corpus.utterances):
                for w, word in enumerate(utterance.words):
                    if options.shortest <= word.end - word.start <= options.longest:
                        said[pronunciation(word.label)].append((c, u, w))
        self._said = {phones: places for phones, places in sorted(said.items()) if len(places) >= options.instances}

    def __len__(self) -> int:
        return len(self._said)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """The batch of this step; the same for the same seed, step and rank."""
        rng = np.random.default_rng((self.seed, step, rank))
        words = list(self._said)
        chosen = rng.choice(len(words), min(self.options.words, len(words)), replace=False)
        names = sorted(words[int(k)] for k in chosen)
        mels = [self._mel(place) for name in names for place in self._instances(name, rng)]
        lengths = np.array([len(mel) for mel in mels])
        mel = np.zeros((len(mels), lengths.max(), self.config.n_mels), np.float32)
        for row, one in enumerate(mels):
            mel[row, : len(one)] = one
        texts = np.full((len(names), max(map(len, names))), SILENCE)
        for row, name in enumerate(names):
            texts[row, : len(name)] = name
        rows, none = np.arange(len(mels)), np.zeros(0, np.int64)
        labels = np.repeat(np.arange(len(names)), self.options.instances)
        text_lengths = np.array([len(name) for name in names])
        return Batch(mel, lengths, none, none, rows, 0 * rows, lengths, labels, texts, text_lengths, none.reshape(4, 0))

    def _instances(self, name: tuple[int, ...], rng: Generator) -> list[tuple[int, int, int]]:
        places = self._said[name]
        return [places[int(k)] for k in rng.choice(len(places), self.options.instances, replace=False)]

    def _mel(self, place: tuple[int, int, int]) -> Floats:
        c, u, w = place
        utterance = self.corpora[c].utterances[u]
        word = utterance.words[w]
        samples = self.corpora[c].read(utterance)[round(word.start * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)]
        return mel_energies(samples, self.config.n_mels)

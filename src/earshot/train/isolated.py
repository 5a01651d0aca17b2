"""Encoders of isolated words: paper A's, and the six that it compares itself with, as one network and its losses.

In: batches of N words, M spoken instances each, cut at their exact times. Out: unit vectors and losses by name.
arXiv 2512.14115, sections on the model, the losses and the compared systems. Which losses are taken makes the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from earshot.encoders.clock import N_CLASSES
from earshot.train.losses import (
    chosen,
    clap,
    clap_views,
    distillation,
    dwd,
    multiview,
    nt_xent,
    reconstruction,
    siamese,
)
from earshot.train.model import BiLSTM, in_groups

TEXT_LOSSES = ("clap", "clap_words", "distillation", "multiview_0", "multiview_1", "multiview_2", "multiview_3")
GROUP = 100
"""Words that a CPU runs at a time: fewer or more are slower."""
DECODER_LOSSES = ("reconstruction", "correspondence")


@dataclass(frozen=True, slots=True)
class IsolatedConfig:
    """Dimensions, the paper's unless told otherwise: 8.7 million parameters. `text` and `decoder`: which towers there
    are beside that of speech."""

    features: str = "energies"
    n_mels: int = 128
    stack: int = 1
    hidden: int = 256
    layers: int = 3
    dim: int = 512
    phone_embedding: int = 256
    dropout: float = 0.2
    instances: int = 4
    text: bool = True
    decoder: bool = False
    margin: float = 0.5
    """Of the triplet losses."""
    temperature: float = 0.1
    """Of `nt_xent`."""
    dwd_scale: float = 1.0
    """1 is the paper's; any other is where a learned scale begins."""


class FinalStates(nn.Module):
    """A stack of bidirectional LSTMs (b, t, i) -> the final states of the last, both ways, projected: (b, dim)."""

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
        return self.out(torch.cat([x[rows, lengths - 1, :hidden], x[:, 0, hidden:]], 1)).float()  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """An embedding (b, dim), given at every step, -> features (b, t, inputs) of a spoken word."""

    def __init__(self, inputs: int, config: IsolatedConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.dim, config.hidden, config.layers, batch_first=True)
        self.out = nn.Linear(config.hidden, inputs)

    def forward(self, embedding: Tensor, n_steps: int) -> Tensor:
        if embedding.is_cuda and torch.is_autocast_enabled("cuda"):  # as in `BiLSTM`
            with torch.autocast("cuda", enabled=False):
                return self(embedding.float(), n_steps)  # type: ignore[no-any-return]
        return self.out(self.lstm(embedding.unsqueeze(1).expand(-1, n_steps, -1))[0]).float()  # type: ignore[no-any-return]


class IsolatedModel(nn.Module):
    """A tower of speech, one of text and a decoder where the configuration asks for them, and the learned scales."""

    def __init__(self, config: IsolatedConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.n_mels * config.stack
        self.audio = FinalStates(inputs, config)
        if config.text:
            self.embedding = nn.Embedding(N_CLASSES, config.phone_embedding)
            self.text_tower = FinalStates(config.phone_embedding, config)
            self.clap_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if config.decoder:
            self.decoder = Decoder(inputs, config)
        if config.dwd_scale != 1.0:
            self.dwd_scale = nn.Parameter(torch.tensor(math.log(config.dwd_scale)))

    def text(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """Phone ids (b, n), padded with SILENCE -> (b, dim)."""
        x = self.embedding(phones)
        return self.text_tower(x + sinusoids(x.shape[1], x.shape[2]).to(x), lengths)  # type: ignore[no-any-return]

    def losses(
        self, batch: dict[str, Tensor], names: Collection[str], precision: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """The losses called `names` of one batch: the rows of a word stand together, `instances` of each.

        The towers compute in `precision`, the losses in float32. UnknownLoss for one that the model does not have.
        """
        made = _Vectors(self, batch, precision)
        config, labels = self.config, batch["labels"]
        audio, mel = made.audio, batch["mel"]
        one = torch.ones((), device=audio.device)
        losses: dict[str, Callable[[], Tensor]] = {
            "dwd": lambda: dwd(audio, labels, one if config.dwd_scale == 1.0 else _bounded(self.dwd_scale)),
            "siamese": lambda: siamese(audio, labels, config.margin),
            "nt_xent": lambda: nt_xent(audio, labels, config.temperature),
        }
        if config.text:
            views = audio.view(-1, config.instances, config.dim)
            losses["clap"] = lambda: clap_views(views, made.text, _bounded(self.clap_scale))
            losses["distillation"] = lambda: distillation(audio, made.text, labels, _bounded(self.clap_scale))
            losses["clap_words"] = lambda: clap(audio, made.text, labels, _bounded(self.clap_scale))
            for k in range(4):
                losses[f"multiview_{k}"] = lambda k=k: multiview(audio, made.text, labels, config.margin, k)  # type: ignore[misc]
        if config.decoder:
            other = _next_instance(len(labels), config.instances, labels.device)
            losses["reconstruction"] = lambda: reconstruction(made.decoded, mel, batch["lengths"])
            losses["correspondence"] = lambda: reconstruction(made.decoded, mel[other], batch["lengths"][other])
        return chosen(losses, names)


class _Vectors:
    """What the towers make of a batch, each when it is first asked for."""

    def __init__(self, model: IsolatedModel, batch: dict[str, Tensor], precision: torch.dtype) -> None:
        self.model, self.batch, self.precision = model, batch, precision
        self.raw = in_groups(model.audio, batch["mel"], batch["lengths"], precision, size=GROUP)
        self.audio = normalize(self.raw, dim=1)

    @cached_property
    def text(self) -> Tensor:
        """(u, dim) unit vectors of the texts."""
        texts, lengths = self.batch["texts"], self.batch["text_lengths"]
        return normalize(in_groups(self.model.text, texts, lengths, self.precision, size=GROUP), dim=1)

    @cached_property
    def decoded(self) -> Tensor:
        """(b, t, inputs) what the decoder makes of each embedding."""
        with torch.autocast(self.raw.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.model.decoder(self.raw, self.batch["mel"].shape[1])  # type: ignore[no-any-return]


def _bounded(log_scale: Tensor) -> Tensor:
    return log_scale.exp().clamp(max=100)


def _next_instance(n: int, instances: int, device: torch.device) -> Tensor:
    """(n,): for each row another instance of its word, the rows of a word standing together."""
    row = torch.arange(n, device=device)
    return row // instances * instances + (row + 1) % instances


def sinusoids(n: int, dim: int) -> Tensor:
    """Fixed positions (n, dim): sines in even columns, cosines in odd ones, of wavelengths up to 10,000 * 2 pi."""
    angles = torch.arange(n).unsqueeze(1) * torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :dim]

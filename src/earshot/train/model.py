"""The networks of the word encoder: an audio tower that is run once over running speech, and a phone tower.

In: normalised log-mels and spans, or phone ids. Out: unit vectors in one space, and phone scores for every frame.
Knows nothing of data or files. Dimensions travel with the weights (`WordConfig`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, pad

from earshot.encoders.clock import BORDER, HALVES, N_CLASSES, SUBSAMPLING
from earshot.features import N_MELS
from earshot.train.losses import chosen, clap, dwd
from earshot.train.span_losses import Spans, border_cross_entropy, detection, one_example, phone_cross_entropy

GROUP = 20
"""Rows that a CPU runs at a time: more gain nothing."""


@dataclass(frozen=True, slots=True)
class WordConfig:
    """Dimensions of both towers."""

    front: int = 256
    hidden: int = 256
    layers: int = 2
    frame_dim: int = 80
    """Values kept for each frame in a library (int8)."""
    dim: int = 80
    phone_embedding: int = 128
    text_hidden: int = 128
    dropout: float = 0.1


class BiLSTM(nn.Module):
    """A bidirectional LSTM over padded rows, (b, t, i) -> (b, t, 2 h), whose padding never reaches a real frame.

    Two unpacked LSTMs, the second over rows reversed by a gather: packed sequences of unequal length spend most of
    their backward pass filling zeros (measured: four times slower).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(inputs, hidden, batch_first=True)
        self.back = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if x.is_cuda and torch.is_autocast_enabled("cuda"):  # there it would be float16, whatever is asked for
            with torch.autocast("cuda", enabled=False):
                return self(x.float(), lengths)  # type: ignore[no-any-return]
        step = torch.arange(x.shape[1], device=x.device)
        reverse = torch.where(step < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - step, step).unsqueeze(2)
        back = self.back(x.gather(1, reverse.expand(-1, -1, x.shape[2])))[0]
        back = back.gather(1, reverse.expand(-1, -1, back.shape[2]))
        return torch.cat([self.ahead(x)[0], back], 2)


class AudioTower(nn.Module):
    """Log-mels (b, t, N_MELS) -> frame outputs (b, ceil(t / SUBSAMPLING), frame_dim) in (-1, 1).

    Two convolutions of stride 2, then a bidirectional LSTM over the whole stretch: it is run once, and any span is
    pooled from its outputs (`pool`), where paper A runs it on every window. Linear maps of the same outputs give scores
    of phones and of word borders for each half frame, so what a library stores serves both the embedding and the
    re-ranking.
    """

    def __init__(self, config: WordConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(N_MELS, config.front, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(config.front, config.front, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(config.front)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.ModuleList(
            BiLSTM(config.front if k == 0 else 2 * config.hidden, config.hidden) for k in range(config.layers)
        )
        self.out = nn.Linear(2 * config.hidden, config.frame_dim)
        self.project = nn.Linear(config.frame_dim, config.dim, bias=False)
        self.phone = nn.Linear(config.frame_dim, HALVES * N_CLASSES)
        self.border = nn.Linear(config.frame_dim, HALVES)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """`lengths` (b,) counts the mel frames that are not padding."""
        x = mel * _mask(lengths, mel.shape[1]).unsqueeze(2)
        x = gelu(self.conv1(x.transpose(1, 2)))
        half = (lengths + 1) // 2
        x = gelu(self.conv2(x * _mask(half, x.shape[2]).unsqueeze(1))).transpose(1, 2)
        quarter = (half + 1) // 2
        x = self.dropout(self.norm(x))
        for lstm in self.lstm:
            x = self.dropout(lstm(x, quarter))
        return torch.tanh(self.out(x).float())

    def pool(self, frames: Tensor, rows: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Unit vectors (s, dim) of spans: sum of frames [start, end) of their row, projected and normalised."""
        sums = torch.cumsum(frames, 1)
        sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)
        return normalize(self.project(sums[rows, ends] - sums[rows, starts]), dim=1)


class TextTower(nn.Module):
    """Phone ids (b, n), padded with SILENCE -> unit vectors (b, dim)."""

    def __init__(self, config: WordConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BORDER + 1, config.phone_embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = BiLSTM(config.phone_embedding, config.text_hidden)
        self.hidden = nn.Linear(2 * config.text_hidden, 2 * config.text_hidden)
        self.out = nn.Linear(2 * config.text_hidden, config.dim)

    def forward(self, phones: Tensor, lengths: Tensor) -> Tensor:
        x = self.lstm(self.dropout(self.embedding(phones)), lengths)
        x = self.out(gelu(self.hidden(x))).float()
        return normalize((x * _mask(lengths, x.shape[1]).unsqueeze(2)).sum(1), dim=1)


class WordModel(nn.Module):
    """Both towers and the learned scales of the contrastive losses (as logarithms)."""

    def __init__(self, config: WordConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioTower(config)
        self.text = TextTower(config)
        self.clap_scale = nn.Parameter(torch.tensor(math.log(14.0)))
        self.dwd_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def losses(
        self, batch: dict[str, Tensor], names: Collection[str], precision: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """The losses called `names` of one `batches.Batch`, in float32; the towers compute in `precision`.

        UnknownLoss for one that the model does not have.
        """
        longest = -(-batch["mel"].shape[1] // SUBSAMPLING)
        frames = in_groups(self.audio, batch["mel"], batch["lengths"], precision, n_frames=longest)
        spans = self.audio.pool(frames, batch["rows"], batch["starts"], batch["ends"])
        texts = in_groups(self.text, batch["texts"], batch["text_lengths"], precision, size=8 * GROUP)
        scale, dwd_scale = (s.exp().clamp(max=100) for s in (self.clap_scale, self.dwd_scale))
        instances, said = Spans(batch["rows"], batch["starts"], batch["ends"], batch["labels"]), Spans(*batch["said"])
        written = instances.texts < len(texts)
        with_text, texts_said = (of.chosen(of.texts < len(texts)) for of in (instances, said))
        n_frames = (batch["lengths"] + SUBSAMPLING - 1) // SUBSAMPLING
        projected, offset = self.audio.project(frames), len(texts) % 2
        half_frames = (len(frames), HALVES * frames.shape[1], -1)

        def example() -> Tensor:
            single = one_example(instances, batch["lengths"][batch["rows"]], said)
            return detection(projected, n_frames, spans[single.examples], *single[1:], dwd_scale, offset)

        losses: dict[str, Callable[[], Tensor]] = {
            "clap": lambda: clap(spans[written], texts, with_text.texts, scale),
            "detection": lambda: detection(projected, n_frames, texts, with_text, texts_said, scale, offset),
            "example": example,
            "dwd": lambda: dwd(spans, batch["labels"], dwd_scale),
            "phone": lambda: phone_cross_entropy(self.audio.phone(frames).view(half_frames), batch["targets"]),
            "border": lambda: border_cross_entropy(self.audio.border(frames).view(half_frames[:2]), batch["borders"]),
        }
        return chosen(losses, names)


def in_groups(
    tower: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    lengths: Tensor,
    precision: torch.dtype,
    *,
    size: int = GROUP,
    n_frames: int = 0,
) -> Tensor:
    """`tower` for `size` rows of like length at a time: on a CPU, padding costs as much as speech.

    It computes in `precision`, but for what it does in float32 itself: its last step. Where the tower gives frames,
    `n_frames` says how many each row gets.
    """
    order = lengths.argsort(descending=True)
    groups = torch.split(order, size if x.device.type == "cpu" else len(x))
    with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
        out = [tower(x[group, : int(lengths[group].max())], lengths[group]) for group in groups]
    if n_frames:
        out = [pad(rows, (0, 0, 0, n_frames - rows.shape[1])) for rows in out]
    return torch.cat(out)[order.argsort()]


def _mask(lengths: Tensor, n: int) -> Tensor:
    return (torch.arange(n, device=lengths.device) < lengths.unsqueeze(1)).float()

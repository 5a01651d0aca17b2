"""Continuous integrate-and-fire on batches, with gradients, and the network that weighs the frames.

In: encoder frames (b, t, d) and how many are real; in training how many tokens there are to be. Out: token vectors.
Knows nothing of encoders, vocabularies or losses. Names are those of FunASR's `CifPredictorV2`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from earshot.encoders.cif import BLANK, HALVES, ROUNDING, find_ends
from earshot.train.clsr.config import SpeechConfig
from earshot.train.clsr.sanm import real

NEAR = 1.5
"""Frames that a found end may be off the end of a token."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What fired in a batch: n is the largest count, and at least 1."""

    vectors: Tensor
    """(b, n, d), zero after a row's count"""
    counts: Tensor
    """(b,) integers"""
    fires: Tensor
    """(b, n) the frame in which each token is complete, a row's length for the tail; -1 after a row's count"""


def cif(hidden: Tensor, alphas: Tensor, counts: Tensor | None = None) -> Tokens:
    """Tokens in frames `hidden` (b, t, d) with weights `alphas` (b, t): not negative, zero on padding.

    `earshot.encoders.cif.integrate_and_fire` says what a token is; there is no tail here. `counts` (b,) says how many
    each row has, where the weights were scaled to come to that; else it is what they come to, rounded down. Where a
    weight above 1 ends several tokens in one frame each gets its share, while FunASR makes one of them. Sums are
    float64; the shares are (b, n, t).
    """
    line = pad(alphas.double(), (1, 0)).cumsum(1)
    if counts is None:
        counts = (line[:, -1] + ROUNDING).floor().long()
    token = torch.arange(max(int(counts.max()), 1), dtype=torch.float64, device=hidden.device)
    there = token < counts.unsqueeze(1)
    until = torch.minimum(line[:, None, 1:], token.unsqueeze(1) + 1)
    since = torch.maximum(line[:, None, :-1], token.unsqueeze(1))
    shares = (until - since).clamp(min=0) * there.unsqueeze(2)
    ends = (token + 1 - ROUNDING).expand(len(line), -1).contiguous()
    fires = torch.searchsorted(line.detach()[:, 1:].contiguous(), ends)
    return Tokens(shares.to(hidden.dtype) @ hidden, counts, fires.masked_fill(~there, -1))


def aligned(hidden: Tensor, alphas: Tensor, ends: Tensor) -> Tensor:
    """Token vectors (b, n, d) of frames `hidden` (b, t, d), where it is known when each token ends: (b, n), in frames.

    A token is the sum of the frames from the end of the one before to its own, weighed by `alphas` (b, t). Ours; what
    `earshot.encoders.cif.pool` does.
    """
    frame = torch.arange(hidden.shape[1], device=hidden.device)
    begins = pad(ends, (1, 0))[:, :-1]
    inside = torch.minimum(ends.unsqueeze(2), frame + 1) - torch.maximum(begins.unsqueeze(2), frame)
    vectors: Tensor = (inside.clamp(min=0) * alphas.unsqueeze(1)).to(hidden.dtype) @ hidden
    return vectors


def found(borders: Tensor, alphas: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Ends (b, n) of tokens, in frames, and how many each row has (b,), by `earshot.encoders.cif.find_ends`.

    After a row's count stands its last end. n is at least 1.
    """
    rows = [
        find_ends(row[: HALVES * n], weights[:n])
        for row, weights, n in zip(
            *(x.detach().float().cpu().numpy() for x in (borders, alphas)), lengths.tolist(), strict=True
        )
    ]
    counts = torch.tensor([len(row) for row in rows], device=borders.device)
    ends = torch.zeros(len(rows), max(int(counts.max()), 1), device=borders.device)
    for out, row in zip(ends, rows, strict=True):
        out[:] = float(row[-1]) / HALVES if len(row) else 0.0
        out[: len(row)] = torch.as_tensor(row / HALVES)
    return ends, counts


def labels(ends: Tensor, counts: Tensor, true_ends: Tensor, tokens: Tensor, true_counts: Tensor) -> Tensor:
    """(b, n): the token that ends where each of the `found` ends is, BLANK where none does.

    Each token goes to the nearest end after that of the token before, at most NEAR frames off; else to none.
    """
    out = torch.full(ends.shape, BLANK, dtype=torch.long)
    for row in range(len(out)):
        free = 0
        found_ends = ends[row, : int(counts[row])].cpu().numpy()
        for end, token in zip(true_ends[row, : int(true_counts[row])].tolist(), tokens[row].tolist(), strict=False):
            if free == len(found_ends):
                break
            nearest = free + int(np.abs(found_ends[free:] - end).argmin())
            if abs(found_ends[nearest] - end) <= NEAR:
                out[row, nearest] = token
                free = nearest + 1
    return out.to(tokens.device)


class Predictor(nn.Module):
    """Weighs each frame: the part of a token that it holds."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.tail = config.tail
        self.cif_conv1d = nn.Conv1d(config.dim, config.dim, 3)
        self.cif_output = nn.Linear(config.dim, 1)
        self.borders = nn.Linear(config.dim, HALVES) if config.sound else None

    def forward(self, hidden: Tensor, lengths: Tensor, counts: Tensor | None = None) -> tuple[Tokens, Tensor]:
        """Tokens of frames `hidden` (b, t, d), `lengths` (b,) of them real; and the weights (b, t) as they come.

        With `counts` (b,) the weights are scaled to come to that many, else each row gets its tail. In float32 at
        least, whatever the encoder computes in. Two things differ from FunASR: padding counts as zeros, where there
        it reaches the last real frame and the tail; and no last token is lost to rounding of the scaled weights.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            mask = real(lengths, hidden.shape[1])
            hidden = (hidden if hidden.dtype == torch.float64 else hidden.float()) * mask.unsqueeze(2)
            alphas = self.alphas(hidden) * mask
            if counts is not None:
                scale = counts / alphas.double().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
                return cif(hidden, alphas * scale.unsqueeze(1), counts), alphas
            with_tail = pad(alphas, (0, 1)).scatter(1, lengths.long().unsqueeze(1), self.tail)
            return cif(pad(hidden, (0, 0, 0, 1)), with_tail), alphas

    def find(self, hidden: Tensor, lengths: Tensor, beside: Tensor) -> tuple[Tokens, Tensor, Tensor, Tensor]:
        """The same by ends that are `found`: tokens, weights (b, t), the log odds of ends (b, HALVES * t), ends (b, n).

        What is `beside` (b, t, e) the frames goes into the vectors behind them.
        """
        assert self.borders is not None
        with torch.autocast(hidden.device.type, enabled=False):
            mask = real(lengths, hidden.shape[1])
            hidden = (hidden if hidden.dtype == torch.float64 else hidden.float()) * mask.unsqueeze(2)
            alphas = self.alphas(hidden) * mask
            borders = self.borders(hidden).flatten(1)
            ends, counts = found(borders, alphas, lengths)
            there = real(counts, ends.shape[1])
            hidden = torch.cat([hidden, beside.to(hidden.dtype) * mask.unsqueeze(2)], 2)
            vectors = aligned(hidden, alphas, ends.to(hidden.dtype)) * there.unsqueeze(2)
            fires = ((ends * HALVES).long() - 1).div(HALVES, rounding_mode="floor").masked_fill(~there, -1)
            return Tokens(vectors, counts, fires), alphas, borders, ends

    def alphas(self, hidden: Tensor) -> Tensor:
        """Weights (b, t) in (0, 1) of frames (b, t, d)."""
        context = relu(self.cif_conv1d(pad(hidden.transpose(1, 2), (1, 1)))).transpose(1, 2)
        return self.cif_output(context).squeeze(2).sigmoid()  # type: ignore[no-any-return]

"""Continuous integrate-and-fire on batches, with gradients, and the network that weighs the frames.

In: encoder frames (b, t, d) and how many are real; in training how many tokens there are to be. Out: token vectors.
Knows nothing of encoders, vocabularies or losses. Names are those of FunASR's `CifPredictorV2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from earshot.encoders.cif import HALVES, ROUNDING
from earshot.train.clsr.config import SpeechConfig
from earshot.train.clsr.sanm import real


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

    A token is the mean of the frames from the end of the one before to its own, weighed by `alphas` (b, t). Ours: what
    is learned early does not wait for the weights to keep time.
    """
    frame = torch.arange(hidden.shape[1], device=hidden.device)
    begins = pad(ends, (1, 0))[:, :-1]
    inside = torch.minimum(ends.unsqueeze(2), frame + 1) - torch.maximum(begins.unsqueeze(2), frame)
    shares = inside.clamp(min=0) * alphas.unsqueeze(1)
    vectors: Tensor = (shares / shares.sum(2, keepdim=True).clamp(min=ROUNDING)).to(hidden.dtype) @ hidden
    return vectors


class Predictor(nn.Module):
    """Weighs each frame: the part of a token that it holds."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.tail = config.tail
        self.cif_conv1d = nn.Conv1d(config.dim, config.dim, 3)
        self.cif_output = nn.Linear(config.dim, 1)
        self.borders = nn.Linear(config.dim, HALVES) if config.borders else None

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        counts: Tensor | None = None,
        beside: Tensor | None = None,
        ends: Tensor | None = None,
        told: float = 0.0,
    ) -> tuple[Tokens, Tensor]:
        """Tokens of frames `hidden` (b, t, d), `lengths` (b,) of them real; and the weights (b, t) as they come.

        What is `beside` (b, t, e) the frames goes into the vectors behind them. With `ends` (b, n), a share `told` of
        the rows are `aligned`.
        With `counts` (b,) the weights are scaled to come to that many, else each row gets its tail. In float32 at
        least, whatever the encoder computes in. Two things differ from FunASR: padding counts as zeros, where there
        it reaches the last real frame and the tail; and no last token is lost to rounding of the scaled weights.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            mask = real(lengths, hidden.shape[1])
            hidden = (hidden if hidden.dtype == torch.float64 else hidden.float()) * mask.unsqueeze(2)
            alphas = self.alphas(hidden) * mask
            if beside is not None:
                hidden = torch.cat([hidden, beside.to(hidden.dtype) * mask.unsqueeze(2)], 2)
            if counts is not None:
                scale = counts / alphas.double().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
                tokens = cif(hidden, alphas * scale.unsqueeze(1), counts)
                if ends is not None and told > 0:
                    rows = torch.rand(len(hidden), 1, 1, device=hidden.device) < told
                    known = aligned(hidden, alphas, ends[:, : tokens.vectors.shape[1]])
                    tokens = replace(tokens, vectors=torch.where(rows, known, tokens.vectors))
                return tokens, alphas
            with_tail = pad(alphas, (0, 1)).scatter(1, lengths.long().unsqueeze(1), self.tail)
            return cif(pad(hidden, (0, 0, 0, 1)), with_tail), alphas

    def alphas(self, hidden: Tensor) -> Tensor:
        """Weights (b, t) in (0, 1) of frames (b, t, d)."""
        context = relu(self.cif_conv1d(pad(hidden.transpose(1, 2), (1, 1)))).transpose(1, 2)
        return self.cif_output(context).squeeze(2).sigmoid()  # type: ignore[no-any-return]

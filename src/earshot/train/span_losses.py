"""Losses of spans in running speech: our own, beside those of isolated words (`losses`).

In: projected frames, unit vectors, spans and a scale; or scores of frames and targets. Out: a scalar. Pure functions;
they know nothing of towers, batches or files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, softplus

from earshot.encoders.clock import GRID


class Spans(NamedTuple):
    """Spans of frames: frames [start, end) of a row, and the number of the text said there; each (s,)."""

    rows: Tensor
    starts: Tensor
    ends: Tensor
    texts: Tensor

    def chosen(self, kept: Tensor) -> Spans:
        """Those that are `kept` (s,)."""
        return Spans(*(values[kept] for values in self))


class Examples(NamedTuple):
    """Instances that stand for their text as spoken queries, and the other `spans` and places `said` of those texts,
    whose `texts` now count the examples."""

    examples: Tensor
    spans: Spans
    said: Spans


def detection(
    projected: Tensor, lengths: Tensor, text: Tensor, spans: Spans, said: Spans, scale: Tensor, offset: int = 0
) -> Tensor:
    """Each text against every stretch of running speech that is as long as it, wherever it is not said.

    Not in the paper, whose negatives are whole words: a detector must also turn down what lies across words (open
    question 2). projected (b, t, d): projected frames; lengths (b,) counts real ones; text (u, d). `spans` are the
    instances of the texts, `said` all places where they are said. For the instances of a text the loss is the mean of
    -log p(instance) among the instance and all windows of the three lengths of GRID that are nearest to the text's
    mean, every second frame from `offset` on, whose middle is not within two frames of where the text is said.
    """
    sums = torch.cat([torch.zeros_like(projected[:, :1]), projected.cumsum(1)], 1)
    own = (normalize(sums[spans.rows, spans.ends] - sums[spans.rows, spans.starts], dim=1) * text[spans.texts]).sum(1)
    counts = torch.bincount(spans.texts, minlength=len(text))
    mean = torch.bincount(spans.texts, (spans.ends - spans.starts).float(), minlength=len(text)) / counts.clamp(min=1)
    parts = [torch.full((len(text),), -torch.inf, device=text.device)]
    nearest = (mean.unsqueeze(1).clamp(min=1) / torch.tensor(GRID, device=text.device)).log().abs().argmin(1)
    for k, length in enumerate(GRID):
        of = torch.nonzero(((nearest - k).abs() <= 1) & (counts > 0)).squeeze(1)
        if len(of) == 0 or length > projected.shape[1]:
            continue
        windows = normalize((sums[:, length:] - sums[:, :-length])[:, offset::2], dim=2)
        begins = torch.arange(windows.shape[1], device=text.device) * 2 + offset
        real = begins + length <= lengths.unsqueeze(1)
        scores = torch.einsum("ud,bnd->ubn", scale * text[of], windows)
        scores = scores.masked_fill(~real | _is_said(said, of, begins + length / 2, *windows.shape[:2]), -torch.inf)
        parts.append(torch.full_like(parts[0], -torch.inf).index_put((of,), scores.flatten(1).logsumexp(1)))
    rest = torch.stack(parts).logsumexp(0)[spans.texts]
    loss = softplus(rest - scale * own)
    return (loss / counts[spans.texts]).sum() / (counts > 0).sum().clamp(min=1)


def one_example(spans: Spans, lengths: Tensor, said: Spans) -> Examples:
    """Of each text with several instances the one whose row is shortest (`lengths` (s,)): an example often comes alone.

    For `detection` with examples as queries, so that audio–audio scores also learn to turn down running speech.
    """
    n = int(spans.texts.max()) + 1
    rank = lengths.argsort(stable=True).argsort()
    shortest = torch.full((n,), len(rank), device=rank.device).scatter_reduce(0, spans.texts, rank, "amin")
    repeated = torch.bincount(spans.texts, minlength=n) > 1
    number = torch.where(repeated, repeated.cumsum(0) - 1, -1)
    chosen = rank == shortest[spans.texts]
    queries = torch.nonzero(chosen & repeated[spans.texts]).squeeze(1)
    examples = queries[number[spans.texts[queries]].argsort()]

    def of(spans: Spans, kept: Tensor) -> Spans:
        chosen = spans.chosen(kept)
        return chosen._replace(texts=number[chosen.texts])

    return Examples(examples, of(spans, ~chosen & repeated[spans.texts]), of(said, repeated[said.texts]))


def _is_said(said: Spans, of: Tensor, middles: Tensor, rows: int, n: int) -> Tensor:
    """(u, rows, n): whether text `of[u]` is said around the middle of window n of a row."""
    mask = torch.zeros(len(of), rows, n, dtype=torch.int32, device=of.device)
    number = torch.full((int(max(of.max(), said.texts.max())) + 1,), -1, device=of.device)
    number[of] = torch.arange(len(of), device=of.device)
    here = number[said.texts] >= 0
    near = (middles >= said.starts[here].unsqueeze(1) - 2) & (middles <= said.ends[here].unsqueeze(1) + 2)
    mask.index_put_((number[said.texts[here]], said.rows[here]), near.int(), accumulate=True)
    return mask > 0


def border_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (b, t) logits that a word begins or ends against 0 or 1; targets below 0 are left out."""
    known = targets >= 0
    return binary_cross_entropy_with_logits(logits[known], targets[known].to(logits.dtype))


def phone_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of frames (b, t, classes) against phone ids (b, t); targets below 0 are left out."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, label_smoothing=0.05)

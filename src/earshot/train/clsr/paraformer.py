"""The speech branch of paper B: speech -> tokens -> word embeddings that a text encoder can read.

In: stacked, normalised log-mel frames, in training also the tokens said; then token scores and a table of embeddings.
Out: scores of tokens and their times; then embeddings. Knows nothing of files, losses, or text encoders but the table.

arXiv 2511.09282, section on the model; Paraformer is that of Gao et al., arXiv 2206.08317.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, pad

from earshot.train.clsr.cif import Predictor, labels
from earshot.train.clsr.config import SpeechConfig
from earshot.train.clsr.sanm import Decoder, Encoder, real

VQ_TEMPERATURE = 0.1
SPANS = 3
"""Pieces of speech that may be one token."""
BLANK_SCORE = 8.0
"""Of BLANK, to begin with: about that of the best word."""
FREQUENT = 6_000
"""Tokens that the decoder is told of before it has heard."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the speech branch makes of a batch of b stretches with at most n tokens, n at least 1."""

    scores: Tensor
    """(b, n, vocabulary) before the softmax; they mean nothing after a row's count"""
    counts: Tensor
    """(b,) tokens of each row"""
    fires: Tensor
    """(b, n) the input frame in which each token ends, a row's length for the tail; -1 after a row's count"""
    weights: Tensor
    """(b, t) of the frames, neither scaled nor with a tail"""
    borders: Tensor | None = None
    """(b, HALVES * t) log odds that a token ends in each half of a frame, where that is told"""
    labels: Tensor | None = None
    """(b, n) the tokens to be told, where ends were found and the right ones are known"""

    @property
    def expected(self) -> Tensor:
        """(b,) float64: the tokens that the weights come to."""
        return self.weights.double().sum(1)


class SpeechBranch(nn.Module):
    """SAN-M encoder, continuous integrate-and-fire, SAN-M decoder: Paraformer.

    Names and shapes of weights are those of FunASR's `Paraformer`. Where that was trained with an end token, targets
    here need one too, and it is told at the end of each row.
    """

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.predictor = Predictor(config)
        self.decoder = Decoder(config)
        self.sound = Sound(config) if config.sound else None

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor | None = None,
        counts: Tensor | None = None,
        ends: Tensor | None = None,
    ) -> Heard:
        """Recognise `features` (b, t, inputs), `lengths` (b,) of whose frames are real, t at least 1.

        With `counts` (b,) that many tokens are made of each row; in training some of those that come out wrong are
        given from `tokens` (b, at least the largest count), whose padding may hold any number. Where ends are found,
        there are as many tokens as these, and with `ends` (b, as many as `tokens`), in frames, `labels` for them.
        """
        frames = self.encoder(features, lengths)
        if self.sound is not None:
            fired, weights, borders, found = self.predictor.find(frames, lengths, self.sound(features))
            known = tokens is not None and counts is not None and ends is not None
            told = labels(found, fired.counts, ends, tokens, counts) if known else None  # type: ignore[arg-type]
            scores, _ = self.tell(fired.vectors, fired.counts, frames, lengths)
            return Heard(scores, fired.counts, fired.fires, weights, borders, told)
        fired, weights = self.predictor(frames, lengths, counts)
        vectors = fired.vectors
        if tokens is not None and self.training and self.config.sampling > 0:
            with torch.no_grad():
                guessed = self.decoder(vectors, fired.counts, frames, lengths).argmax(2)
            tokens = tokens[:, : guessed.shape[1]]
            given = hints(guessed, tokens, fired.counts, self.config.sampling)
            right = self.decoder.vectors(tokens.masked_fill(~given, 0)).to(vectors.dtype)
            vectors = torch.where(given.unsqueeze(2), right, vectors)
        scores = self.decoder(vectors, fired.counts, frames, lengths)
        return Heard(scores, fired.counts, fired.fires, weights)

    def tell(self, vectors: Tensor, counts: Tensor, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Of a branch with sounds: scores (b, n, vocabulary) of vectors (b, n, dim + sound) that were found in frames
        (b, t, dim), and log probabilities (b, n, SPANS) of how many pieces each token is."""
        assert self.sound is not None
        table: Any = self.decoder.output_layer
        queries = self.sound.queries(vectors[..., self.config.dim :])
        told = self.sound.guessed(table.expected(queries, self.sound.frequent).flatten(2))
        x = self.decoder.hidden(vectors[..., : self.config.dim] + told, counts, frames, lengths)
        which = self.sound.which(x).log_softmax(2)
        query = (which.exp().unsqueeze(3) * queries).sum(2)
        return torch.cat([self.sound.blank(x), table(x, query)[..., 1:]], 2), which


class Sound(nn.Module):
    """The word encoder's own view of a token: its embedding of the frames that the token is, beside their vector.

    Ours. A word cut out at the right places is known by that alone three times in four; what is left to learn is when
    tokens end, pieces of words, and what the words around tell. As ends are found eagerly, a token may be up to SPANS
    of the pieces between them, of which the last is told as the token and the others as BLANK. So that the decoder
    need not learn the vocabulary, it is told the mean of what each of these spans may be, as in self-conditioned CTC
    (Nozaki and Komatsu, arXiv 2104.02724).
    """

    projection: Tensor
    frequent: Tensor

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(config.sound, config.inputs))
        self.register_buffer("frequent", torch.arange(min(FREQUENT, config.vocabulary)))
        self.onto = nn.Linear(config.sound, config.table, bias=False)
        """What it is in the terms of the table that the output layer compares with."""
        self.guessed = nn.Linear(SPANS * config.table, config.dim, bias=False)
        self.which = nn.Linear(config.dim, SPANS)
        self.blank = nn.Linear(config.dim, 1)
        for layer, bias in (
            (self.guessed, None),
            (self.which, torch.tensor([2.0, 0.0, -1.0])),
            (self.blank, BLANK_SCORE),
        ):
            nn.init.zeros_(layer.weight)
            if bias is not None:
                layer.bias.data[:] = bias

    def forward(self, features: Tensor) -> Tensor:
        """Of features (b, t, inputs) what adds up to embeddings (b, t, sound)."""
        return linear(features, self.projection)

    def queries(self, sums: Tensor) -> Tensor:
        """(b, n, SPANS, table) of what the frames of each piece add up to (b, n, sound): of it, and of those before
        it together with it."""
        before = [pad(sums, (0, 0, k, 0))[:, : sums.shape[1]] for k in range(SPANS)]
        return self.onto(normalize(torch.stack(before, 2).cumsum(2), dim=3))  # type: ignore[no-any-return]


def hints(guessed: Tensor, tokens: Tensor, counts: Tensor, share: float) -> Tensor:
    """Which tokens (b, n) the second pass is given: `share` of as many as were `guessed` wrong, rounded down.

    Drawn from all tokens of the row, right or wrong, as FunASR and arXiv 2206.08317 (section on the sampler) do.
    """
    there = real(counts, tokens.shape[1])
    wrong = ((guessed != tokens) & there).sum(1)
    drawn = torch.rand(tokens.shape, device=tokens.device).masked_fill(~there, 2.0).argsort(1).argsort(1)
    return drawn < (wrong * share).long().unsqueeze(1)


class VectorQuantiser(nn.Module):
    """Token scores (b, n, v) -> embeddings (b, n, d): the likeliest token's row of a frozen `table` (v, d).

    The gradient is that of the mean of all rows under softmax(scores / 0.1): the one-hot passes it straight through
    (arXiv 2511.09282, section on the VQ adaptor). The value is the row to the last bit, so that a text encoder meets
    nothing that it was not trained on.
    """

    table: Tensor

    def __init__(self, table: Tensor, temperature: float = VQ_TEMPERATURE) -> None:
        super().__init__()
        self.register_buffer("table", table.detach(), persistent=False)
        self.temperature = temperature

    def forward(self, scores: Tensor) -> Tensor:
        rows = self.table[scores.argmax(2)]
        if not (torch.is_grad_enabled() and scores.requires_grad):
            return rows
        mean = torch.softmax(scores.to(self.table.dtype) / self.temperature, 2) @ self.table
        return rows + (mean - mean.detach())

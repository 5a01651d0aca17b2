"""SAN-M: attention with a memory, as encoder and as non-autoregressive decoder of Paraformer.

In: frames, or token vectors and frames, and how many of each row are real. Out: frames, or scores of tokens. Knows
nothing of features, of where tokens come from, or of losses. What padding holds never reaches a real frame.

Gao et al., arXiv 2006.01713 and 2206.08317; order of operations and names of weights are those of FunASR's
`SANMEncoder` and `ParaformerSANMDecoder`, whose checkpoints fit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, relu, scaled_dot_product_attention

from earshot.train.clsr.config import SpeechConfig


def real(lengths: Tensor, n: int) -> Tensor:
    """(b, n) where rows of `lengths` (b,) are not padding."""
    return torch.arange(n, device=lengths.device) < lengths.unsqueeze(1)


def positions(n: int, dim: int) -> Tensor:
    """Sinusoids (n, dim) in float64: of positions 1 to n the sines, then the cosines, wavelengths 2 pi to 20,000 pi."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(1, n + 1, dtype=torch.float64).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Norm(nn.LayerNorm):
    """Layer normalisation with FunASR's epsilon."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-12)


class Memory(nn.Module):
    """FSMN memory: each value plus a weighted sum of its neighbours, (b, n, dim) -> (b, n, dim)."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.fsmn_block = nn.Conv1d(config.dim, config.dim, config.kernel, groups=config.dim, bias=False)
        behind = (config.kernel - 1) // 2 + config.shift
        self.sides = (behind, config.kernel - 1 - behind)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """`mask` (b, n); the memory of padding is zero."""
        values = values * mask.unsqueeze(2)
        around = self.fsmn_block(pad(values.transpose(1, 2), self.sides)).transpose(1, 2)
        return self.dropout(around + values) * mask.unsqueeze(2)  # type: ignore[no-any-return]


class SelfAttention(Memory):
    """Attention among frames (b, t, inputs) -> (b, t, dim), plus a memory of their values."""

    def __init__(self, config: SpeechConfig, inputs: int) -> None:
        super().__init__(config)
        self.heads = config.heads
        self.linear_q_k_v = nn.Linear(inputs, 3 * config.dim)
        self.linear_out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = self.linear_q_k_v(x).chunk(3, 2)
        rate = self.dropout.p if self.training else 0.0
        attended: Tensor = self.linear_out(attend(queries, keys, values, mask, self.heads, rate))
        return attended + super().forward(values, mask)


class CrossAttention(nn.Module):
    """Attention of tokens (b, n, dim) to frames (b, t, dim) -> (b, n, dim)."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.heads, self.rate = config.heads, config.dropout
        self.linear_q = nn.Linear(config.dim, config.dim)
        self.linear_k_v = nn.Linear(config.dim, 2 * config.dim)
        self.linear_out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        keys, values = self.linear_k_v(frames).chunk(2, 2)
        rate = self.rate if self.training else 0.0
        return self.linear_out(attend(self.linear_q(x), keys, values, mask, self.heads, rate))  # type: ignore[no-any-return]


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, dropout: float) -> Tensor:
    """Scaled dot-product attention: (b, n, dim) of queries (b, n, dim) to keys and values (b, t, dim).

    Only what `mask` (b, t) leaves is seen, but where it leaves nothing: there all is, and the row means nothing.
    """
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (queries, keys, values))
    seen = (mask | ~mask.any(1, keepdim=True))[:, None, None]
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Two linear layers, (.., dim) -> (.., dim); the decoder's normalises between them and has no last bias."""

    def __init__(self, config: SpeechConfig, decoder: bool = False) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.dim, config.hidden)
        self.norm = Norm(config.hidden) if decoder else nn.Identity()
        self.w_2 = nn.Linear(config.hidden, config.dim, bias=not decoder)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.norm(self.dropout(relu(self.w_1(x)))))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Self-attention, then a feed-forward layer, each normalised first; around the first a residual if sizes agree."""

    def __init__(self, config: SpeechConfig, inputs: int) -> None:
        super().__init__()
        self.residual = inputs == config.dim
        self.norm1 = Norm(inputs)
        self.self_attn = SelfAttention(config, inputs)
        self.norm2 = Norm(config.dim)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        attended: Tensor = self.dropout(self.self_attn(self.norm1(x), mask))
        x = x + attended if self.residual else attended
        return x + self.dropout(self.feed_forward(self.norm2(x)))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Feature frames (b, t, inputs), t at least 1, -> frames (b, t, dim)."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.dim)
        self.encoders0 = nn.ModuleList([EncoderBlock(config, config.inputs)])
        self.encoders = nn.ModuleList(EncoderBlock(config, config.dim) for _ in range(config.encoder_blocks - 1))
        self.after_norm = Norm(config.dim)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """`lengths` (b,) counts the frames that are not padding."""
        mask = real(lengths, features.shape[1])
        x = features * self.scale + positions(*features.shape[1:]).to(features)
        for block in (*self.encoders0, *self.encoders):
            x = block(x, mask)
        return self.after_norm(x)  # type: ignore[no-any-return]


class DecoderBlock(nn.Module):
    """A feed-forward layer, a memory of the tokens, attention to the frames; or, if `last`, the first alone."""

    def __init__(self, config: SpeechConfig, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.norm1 = Norm(config.dim)
        self.feed_forward = FeedForward(config, decoder=True)
        if not last:
            self.norm2 = Norm(config.dim)
            self.self_attn = Memory(config)
            self.norm3 = Norm(config.dim)
            self.src_attn = CrossAttention(config)
            self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, frames: Tensor, frame_mask: Tensor) -> Tensor:
        inner: Tensor = self.feed_forward(self.norm1(x))
        if self.last:
            return inner
        x = x + self.dropout(self.self_attn(self.norm2(inner), mask))
        return x + self.dropout(self.src_attn(self.norm3(x), frames, frame_mask))  # type: ignore[no-any-return]


class TableOutput(nn.Module):
    """An output layer (.., dim) -> (.., vocabulary) whose rows are a frozen table, seen through a learned matrix.

    So tokens that are seldom or never said are scored by what they share with others. Ours.
    """

    table: Tensor

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(config.vocabulary, config.table))
        self.into = nn.Linear(config.dim, config.table, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """What is `beside` (.., table) the token is compared with the table as it is."""
        query = self.into(x)
        return linear(query if beside is None else query + beside, self.table, self.bias)

    @torch.no_grad()
    def expected(self, query: Tensor, among: Tensor) -> Tensor:
        """(.., table): the mean of some rows, `among` (k,), by the softmax of their scores for a query (.., table)."""
        rows = self.table[among]
        return linear(query, rows, self.bias[among]).softmax(-1) @ rows

    def rows(self, tokens: Tensor) -> Tensor:
        """(.., dim): the rows of `tokens` as those of the whole layer are."""
        return self.table[tokens] @ self.into.weight


class Decoder(nn.Module):
    """Token vectors (b, n, dim) and encoder frames (b, t, dim) -> scores (b, n, vocabulary), all tokens at once."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.embed = None if config.shared else nn.ModuleList([nn.Embedding(config.vocabulary, config.dim)])
        self.decoders = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_blocks))
        self.decoders3 = nn.ModuleList([DecoderBlock(config, last=True)])
        self.after_norm = Norm(config.dim)
        self.output_layer = TableOutput(config) if config.table else nn.Linear(config.dim, config.vocabulary)

    def forward(self, vectors: Tensor, counts: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        """`counts` (b,) and `lengths` (b,) count the tokens and the frames that are not padding."""
        return self.output_layer(self.hidden(vectors, counts, frames, lengths))  # type: ignore[no-any-return]

    def hidden(self, vectors: Tensor, counts: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        """(b, n, dim): what the output layer sees."""
        mask, frame_mask = real(counts, vectors.shape[1]), real(lengths, frames.shape[1])
        x = vectors
        for block in (*self.decoders, *self.decoders3):
            x = block(x, mask, frames, frame_mask)
        return self.after_norm(x)  # type: ignore[no-any-return]

    def vectors(self, tokens: Tensor) -> Tensor:
        """(b, n, dim): what stands for each of `tokens` (b, n) where the sampler gives it."""
        if self.embed is not None:
            return self.embed[0](tokens)  # type: ignore[no-any-return]
        if isinstance(self.output_layer, TableOutput):
            return self.output_layer.rows(tokens)
        return self.output_layer.weight[tokens]

"""The passage model: the speech branch, its bridge into a frozen text encoder, and what they are trained for.

In: a batch of `batches`. Out: losses by name. Knows nothing of files, corpora, or steps.

arXiv 2511.09282, sections on the model and on training. Ours: `clock` and `echo`; the frozen table of the output layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, pad

from earshot.encoders.cif import BLANK, HALVES
from earshot.train.clsr.config import SpeechConfig
from earshot.train.clsr.paraformer import Heard, SpeechBranch, VectorQuantiser
from earshot.train.clsr.sanm import real
from earshot.train.losses import UnknownLoss, chosen, clap

if TYPE_CHECKING:
    from earshot.train.clsr.text import TextModel

SMOOTHING = 0.01
"""Of the labels of the cross-entropy."""
SCALE = 20.0
"""Of cosines in a contrastive loss, a temperature of .05, to begin with; learned. MiniLM itself was trained with 20."""


@dataclass(frozen=True, slots=True)
class PassageConfig(SpeechConfig):
    """The speech branch, and the text encoder that it speaks to."""

    text: str = "all-MiniLM-L6-v2"
    quantised: bool = True
    """Whether tokens go through the VQ adaptor; else the mean embedding under their softmax does."""
    tuned: bool = False
    """Whether the text encoder is trained and the speech branch is not: the text half of stage 1, and stage 3."""
    dual: int = 0
    """Values of the vector that is made of the mean of the frames, as many as the text encoder's have, by a dual
    encoder without tokens (CLAP, SpeechDPR: arXiv 2401.13463); 0: tokens are read by the text encoder."""


class PassageModel(nn.Module):
    """Speech branch, VQ adaptor, text encoder. The last is frozen and no part of the state, unless it is `tuned`."""

    def __init__(self, config: PassageConfig) -> None:
        super().__init__()
        self.config = config
        self.speech = SpeechBranch(config)
        self.scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.pooled = nn.Linear(config.dim, config.dual) if config.dual else None
        self._frozen: list[TextModel] = []
        self.reader = self._read_text() if config.tuned else None
        if self.reader is not None:
            self.speech.requires_grad_(False)

    @property
    def text(self) -> TextModel:
        """The text encoder; a frozen one is read when first asked for."""
        if self.reader is not None:
            return self.reader
        if not self._frozen:
            self._frozen.append(self._read_text().to(self.scale.device))
        return self._frozen[0]

    def _read_text(self) -> TextModel:
        from earshot.train.clsr.text import load  # transformers, which word encoders do without

        return load(self.config.text, frozen=not self.config.tuned)

    def train(self, mode: bool = True) -> PassageModel:
        """What is not trained stays without dropout."""
        super().train(mode)
        self.speech.train(mode and not self.config.tuned)
        return self

    def losses(
        self, batch: dict[str, Tensor], names: Collection[str], precision: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """The losses called `names` of one `batches.PassageBatch`, in float32; networks compute in `precision`.

        UnknownLoss for one that the model does not have.
        """
        device = batch["features"].device.type
        features = batch["features"].float() / 127

        def in_precision(compute: Callable[[], Any]) -> Any:
            with torch.autocast(device, precision, enabled=precision != torch.float32):
                return compute()

        @cache
        def heard() -> Heard:
            told = batch["tokens"], batch["counts"], batch["ends"]
            with torch.set_grad_enabled(not self.config.tuned):
                return in_precision(lambda: self.speech(features, batch["lengths"], *told))  # type: ignore[no-any-return]

        @cache
        def embedded() -> Tensor:
            if self.pooled is not None:
                return in_precision(lambda: self.embed_frames(features, batch["lengths"]))  # type: ignore[no-any-return]
            return in_precision(lambda: self.embed(heard()))  # type: ignore[no-any-return]

        @cache
        def told() -> Tensor:
            return self.embed_text(batch["tokens"], batch["counts"])

        scale = self.scale.exp().clamp(max=100)

        def answers(passages: Tensor) -> Tensor:
            if not len(batch["questions"]):
                zero: Tensor = passages.sum() * 0.0
                return zero
            asked = self.embed_text(batch["questions"], batch["question_lengths"])
            return clap(asked, passages, batch["asked"], scale)

        losses: dict[str, Callable[[], Tensor]] = {
            "retrieval": lambda: answers(embedded()),
            "reading": lambda: answers(told()),
            "echo": lambda: clap(told(), embedded(), torch.arange(len(told()), device=scale.device), scale),
            "distillation": lambda: (1 - (told() * embedded()).sum(1)).mean(),
        }
        if self.pooled is None:
            losses |= {
                "asr": lambda: recognition(heard(), batch["tokens"]),
                "length": lambda: (heard().expected - batch["counts"]).abs().mean().float(),
                "clock": lambda: clock(heard().weights, batch["ends"], batch["counts"]),
                "borders": lambda: borders(heard(), batch["lengths"], batch["ends"], batch["counts"]),
            }
        return chosen(losses, names)

    def embed_frames(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Unit vectors (b, dual) of features (b, t, inputs) without tokens: by a dual encoder."""
        assert self.pooled is not None
        frames = self.speech.encoder(features, lengths)
        there = real(lengths, frames.shape[1]).unsqueeze(2)
        mean = (frames * there).sum(1) / lengths.clamp(min=1).unsqueeze(1)
        return normalize(self.pooled(mean).float(), dim=1)

    def embed(self, heard: Heard) -> Tensor:
        """Unit vectors (b, text dim) of what was heard, with gradients through the text encoder."""
        scores, counts = (heard.scores, heard.counts) if heard.borders is None else without_blanks(heard)
        adaptor = VectorQuantiser(self.text.word_embeddings)
        if self.config.quantised:
            words = adaptor(scores)
        else:
            words = torch.softmax(scores.float(), 2) @ self.text.word_embeddings
        vectors: Tensor = self.text(*self.text.enclosed(words, counts)).float()
        return vectors

    def embed_text(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Unit vectors (n, text dim) of word pieces (n, m), of each row of which `counts` (n,) count."""
        with torch.set_grad_enabled(self.config.tuned and torch.is_grad_enabled()):
            words = self.text.word_embeddings[tokens]
            vectors: Tensor = self.text(*self.text.enclosed(words, counts)).float()
        return vectors


def without_blanks(heard: Heard) -> tuple[Tensor, Tensor]:
    """Scores (b, n, vocabulary) of the tokens that are none, first in each row, and how many these are (b,)."""
    there = real(heard.counts, heard.scores.shape[1]) & (heard.scores.argmax(2) != BLANK)
    order = (~there).long().argsort(dim=1, stable=True)
    return heard.scores.gather(1, order.unsqueeze(2).expand_as(heard.scores)), there.sum(1)


def recognition(heard: Heard, tokens: Tensor) -> Tensor:
    """Cross-entropy of the tokens said (b, n), labels smoothed, averaged over all of the batch. B2's L_ASR.

    Where ends were found the tokens are those of `heard.labels`.
    """
    tokens = tokens if heard.labels is None else heard.labels
    there = real(heard.counts, heard.scores.shape[1])
    return cross_entropy(heard.scores[there].float(), tokens[:, : there.shape[1]][there], label_smoothing=SMOOTHING)


def borders(heard: Heard, lengths: Tensor, ends: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of whether a token ends in each half of a frame, averaged over all of the batch. Ours.

    UnknownLoss where the branch does not tell.
    """
    if heard.borders is None:
        raise UnknownLoss("the loss 'borders' needs [model] sound")
    half = (ends * HALVES).round().long() - 1
    there = real(counts, ends.shape[1]) & (half >= 0) & (half < heard.borders.shape[1])
    ended = torch.zeros_like(heard.borders, dtype=torch.float32)
    ended.scatter_reduce_(1, half.clamp(0, ended.shape[1] - 1), there.float(), "amax")
    inside = real(lengths * HALVES, ended.shape[1])
    return binary_cross_entropy_with_logits(heard.borders[inside].float(), ended[inside])


def clock(weights: Tensor, ends: Tensor, counts: Tensor) -> Tensor:
    """How far the weights (b, t) between the ends of two tokens are from one, averaged over all tokens. Ours.

    ends (b, n): the time, in frames, at which each token ends, of which `counts` (b,) count. Where a word's time is
    known, the firing need not be found by recognition alone.
    """
    line = pad(weights.float(), (1, 0)).cumsum(1)
    times = pad(ends, (1, 0)).clamp(max=weights.shape[1])
    whole = times.floor().long().clamp(max=weights.shape[1] - 1)
    low, high = line.gather(1, whole), line.gather(1, whole + 1)
    until = low + (high - low) * (times - whole)
    off = (until.diff(dim=1) - 1).abs()
    return off[real(counts, off.shape[1])].mean()

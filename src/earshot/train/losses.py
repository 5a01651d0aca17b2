"""Losses over acoustic word embeddings: paper A's, those of the systems it compares itself with, and ours.

In: unit vectors (n, d), integer labels, and a scale, temperature or margin. Out: a scalar. Pure functions; they know
nothing of towers, batches or files. Distance is 1 - cosine. Equal labels mean equal pronunciations, so homophones are
positives of each other and never negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize, relu, softplus


class UnknownLoss(Exception):
    """A model has no loss of that name."""


def chosen(losses: Mapping[str, Callable[[], Tensor]], names: Collection[str]) -> dict[str, Tensor]:
    """Those called `names`, worked out. UnknownLoss where there is none of a name."""
    for name in names:
        if name not in losses:
            raise UnknownLoss(f'no loss "{name}"')
    return {name: losses[name]() for name in names}


def clap(audio: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Audio–text contrastive loss (arXiv 2512.14115, section on CLAP) for several spoken instances of a text.

    audio (s, d), text (u, d): one row per distinct pronunciation, labels (s,) in [0, u), scale: a positive scalar.
    Audio to text is a cross-entropy over the u texts. Text to audio is the mean over a text's instances of
    -log p(instance), where the other instances of that text are left out of the denominator.
    """
    logits = scale * audio @ text.T
    to_text = cross_entropy(logits, labels)
    positive = labels.unsqueeze(1) == torch.arange(len(text), device=labels.device)
    negatives = logits.masked_fill(positive, -torch.inf).T
    rest = torch.logsumexp(negatives, 1)[labels]
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    to_audio = softplus(rest - own)
    counts = positive.sum(0)[labels]
    return (to_text + (to_audio / counts).sum() / positive.any(0).sum()) / 2


def clap_views(audio: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """The paper's audio–text loss: audio (n, m, d), m spoken instances of each of n texts (n, d).

    For each of the m views a symmetric cross-entropy on the diagonal of scale * text @ audio.T; the mean over views.
    """
    target = torch.arange(len(text), device=text.device)
    views = [scale * text @ audio[:, k].T for k in range(audio.shape[1])]
    return torch.stack([(cross_entropy(c, target) + cross_entropy(c.T, target)) / 2 for c in views]).mean()


def dwd(audio: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Deep word discrimination (arXiv 2512.14115, section on DWD; the family of GE2E): instances against centroids.

    audio (s, d), labels (s,): any integers. Each instance of a word said at least twice is drawn to the centroid of
    the others and away from the centroids of other words: softmax loss of cosines times `scale`, plus contrast loss of
    cosines alone, both averaged over the instances (the paper has no scale; without one the softmax term can hardly
    move). Zero if no word repeats.
    """
    words, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(words), audio.shape[1], device=audio.device, dtype=audio.dtype).index_add(0, index, audio)
    repeated = counts[index] > 1
    if not bool(repeated.any()):
        return audio.sum() * 0
    audio, index = audio[repeated], index[repeated]
    cosine = audio @ normalize(sums, dim=1).T
    own = (audio * normalize(sums[index] - audio, dim=1)).sum(1)
    rows = torch.arange(len(audio), device=audio.device)
    cosine = cosine.index_put((rows, index), own)
    softmax = -log_softmax(scale * cosine, 1)[rows, index]
    if len(words) == 1:
        return softmax.mean()
    other = cosine.index_put((rows, index), torch.full_like(own, -torch.inf)).amax(1)
    return (softmax + (1 - own) + other).mean()


def distillation(audio: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Spoken words as like each other as their texts are: from the cross-modal view to the acoustic one. Ours.

    audio (s, d), text (u, d), labels (s,) rows of text. For each instance, cross-entropy of the softmax of scale times
    its cosines with the other instances, against that of their texts' cosines, through which no gradient goes.
    """
    own = torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    texts = text.detach()[labels]
    wanted = (scale.detach() * texts @ texts.T).masked_fill(own, -torch.inf).softmax(1)
    log_found = log_softmax((scale * audio @ audio.T).masked_fill(own, -torch.inf), 1).masked_fill(own, 0)
    return -(wanted * log_found).sum(1).mean()


def siamese(audio: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Triplet loss of spoken words (Siamese-RNN: Settle and Livescu, SLT 2016; Kamper et al., ICASSP 2016).

    audio (s, d), labels (s,). For every ordered pair of one word: hinge of margin + distance of the pair - distance to
    a `semi_hard` instance of another word. Zero if no word repeats.
    """
    cosine = audio @ audio.T
    same = labels.unsqueeze(1) == labels
    wrong = ~same
    anchor, positive = torch.nonzero(same.fill_diagonal_(False), as_tuple=True)
    return _hinge(cosine[anchor, positive], cosine[anchor], wrong[anchor], margin)


def nt_xent(audio: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy (Contrastive-RNN: Jacobs, Matusevych and Kamper, SLT 2021).

    audio (s, d), labels (s,). For every ordered pair of one word: -log of the pair's share among itself and the pairs
    of its first word with every other word, on cosines over `temperature`. Zero if no word repeats.
    """
    logits = audio @ audio.T / temperature
    same = labels.unsqueeze(1) == labels
    rest = logits.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    pairs = same.clone().fill_diagonal_(False)
    return softplus(rest - logits)[pairs].sum() / pairs.sum().clamp(min=1)


def multiview(audio: Tensor, text: Tensor, labels: Tensor, margin: float, objective: int) -> Tensor:
    """One of the four objectives of multi-view embeddings (Multiview-RNN: He, Wang and Livescu, ICLR 2017, section 3).

    audio (s, d), text (u, d), labels (s,) rows of text. Hinge of margin + distance of a spoken word x to its text c -
    distance of a wrong pair, `semi_hard`: x to another text (objective 0), c to another text (1), c to the speech of
    another word (2), x to the speech of another word (3).
    """
    own = (audio * text[labels]).sum(1)
    anchor = audio if objective in (0, 3) else text[labels]
    other, of = (text, torch.arange(len(text), device=text.device)) if objective in (0, 1) else (audio, labels)
    return _hinge(own, anchor @ other.T, of != labels.unsqueeze(1), margin)


def semi_hard(own: Tensor, cosine: Tensor, wrong: Tensor) -> Tensor:
    """(p,): in each row of `cosine` (p, n) the column of the greatest that is `wrong` (p, n) and below `own` (p,).

    Schroff et al., CVPR 2015. Where none is below, the least of the wrong ones; any column where none is wrong.
    """
    below = cosine.masked_fill(~wrong | (cosine >= own.unsqueeze(1)), -torch.inf).max(1)
    least = cosine.masked_fill(~wrong, torch.inf).argmin(1)
    return torch.where(below.values > -torch.inf, below.indices, least)


def reconstruction(made: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared error of features made (b, t, f) against target (b, t, f), over the first `lengths` (b,) frames.

    The loss of autoencoders and, where the target is another instance of the word, of correspondence autoencoders
    (CAE-RNN: Kamper, ICASSP 2019).
    """
    real = torch.arange(target.shape[1], device=target.device) < lengths.unsqueeze(1)
    return (made - target).square()[real].mean()


def _hinge(own: Tensor, cosine: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Mean over rows of relu(margin - own (p,) + the semi-hard of its wrong cosines (p, n)); 0 where none is wrong."""
    if not len(own):
        return cosine.sum() * 0
    column = semi_hard(own.detach(), cosine.detach(), wrong)
    rows = torch.arange(len(own), device=own.device)
    return (relu(margin - own + cosine[rows, column]) * wrong.any(1)).mean()

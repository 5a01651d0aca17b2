"""Losses of paper A and ours: pure functions of vectors, labels and a scale.

In: unit vectors (n, d) and integer labels. Out: a scalar. Knows nothing of towers, batches or files.
Equal labels mean equal pronunciations, so homophones are positives of each other and never negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize, softplus


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


def dwd(audio: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Deep word discrimination (arXiv 2512.14115, section on DWD; the family of GE2E): instances against centroids.

    audio (s, d), labels (s,): any integers. Each instance of a word said at least twice is drawn to the centroid of
    the others and away from the centroids of other words: softmax loss plus contrast loss of the paper, on cosines
    times `scale` (the paper has no scale; without one the softmax term can hardly move). Zero if no word repeats.
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
    return (softmax + (1 - own) + other.clamp(min=0)).mean()


def phone_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of frames (b, t, classes) against phone ids (b, t); targets below 0 are left out."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, label_smoothing=0.05)

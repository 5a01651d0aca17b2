"""Where there is speech: a tiny network over the log-mels that the encoder needs anyway (numpy alone).

In: blocks of 16 kHz samples. Out: stretches of detected speech with their log-mels, in bounded memory however long the
recording. Knows nothing of files, words or the encoders; how the network was made is in `data/speech.toml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.features import HOP, N_MELS, SAMPLE_RATE, WINDOW, Floats, log_mel
from earshot.types import Seconds

STEP = 4
"""Feature frames to one frame of the detector."""
FRAME_SECONDS: Seconds = STEP * HOP / SAMPLE_RATE
MAX_STRETCH: Seconds = 15.0

SPEECH, PERHAPS = 0.8, 0.3
"""Probabilities: a stretch reaches as far as speech is at least possible, and needs frames where it is likely."""
SHORTEST: Seconds = 0.16
"""Likely speech that a stretch must hold, all its frames together."""
BRIDGED: Seconds = 0.4
"""Pauses shorter than this stay inside a stretch."""
MARGIN: Seconds = 0.16
"""What is kept before and after the possible speech: at most half of BRIDGED, so that stretches never overlap."""

QUIETEST = -13.0
"""Levels are taken to be at least this (log-mel): a recording of silence has nothing loud in it."""
_RANGE = 10.0  # log-mels this far below the level of their surroundings are as good as silence
_LOUD = 95  # percentile of the frames' mean log-mel that counts as the level of their surroundings
_CHUNK = 500  # detector frames scored at a time, on a grid that the sizes of the blocks do not move
_READ = 5 * SAMPLE_RATE  # samples gathered before log-mels are computed


@dataclass(frozen=True, slots=True, eq=False)
class SpeechStretch:
    """Speech: `mel`, raw log-mels (n, N_MELS), whose frame k begins at `start + k * 10 ms` of the recording."""

    start: Seconds
    mel: Floats


def stretches(blocks: Iterable[Floats]) -> Iterator[SpeechStretch]:
    """Yield the stretches of speech in a recording that comes as `blocks` of samples (n,) of any length.

    In order, apart from each other or touching, each at most MAX_STRETCH long: longer speech is cut where it is least
    like speech. Neither the sizes of the blocks nor the recording's length change what is found.
    """
    origin, mel, logits = 0, np.zeros((0, N_MELS), np.float32), np.zeros(0, np.float32)
    for new_mel, new_logits, final in _scored(_log_mels(blocks)):
        mel, logits = np.concatenate([mel, new_mel]), np.concatenate([logits, new_logits])
        pieces, done = _pieces(logits, final)
        for first, last in pieces:
            # a copy: a stretch that is kept must not keep the whole buffer
            yield SpeechStretch((origin + first) * STEP * HOP / SAMPLE_RATE, mel[first * STEP : last * STEP].copy())
        origin, mel, logits = origin + done, mel[done * STEP :], logits[done:]


def detect(mel: Floats) -> Floats:
    """Probability of speech in each frame of FRAME_SECONDS, (ceil(n / STEP),), given raw log-mels (n, N_MELS).

    Frame k stands for the feature frames [k * STEP, (k + 1) * STEP).
    """
    logits = [scores for _, scores, _ in _scored([mel])]
    return np.asarray(1 / (1 + np.exp(-np.concatenate([np.zeros(0, np.float32), *logits]))), np.float32)


def level(mel: Floats) -> float:
    """The loudness that log-mels (n, N_MELS) are seen relative to: that of their loudest few percent of frames."""
    return max(float(np.percentile(mel.mean(axis=1), _LOUD)), QUIETEST)


def scaled(mel: Floats, level: float) -> Floats:
    """What the network sees: log-mels relative to `level`, limited below, about in [-1, 2]."""
    return np.asarray(np.maximum(mel - level, -_RANGE) / 4 + 1, np.float32)


def _log_mels(blocks: Iterable[Floats]) -> Iterator[Floats]:
    """Log-mels of the whole recording piece by piece; the samples that the next frame still needs are carried over."""
    waiting: list[Floats] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= _READ:
            samples = np.concatenate(waiting)
            mel = log_mel(samples)
            yield mel
            waiting = [samples[len(mel) * HOP :]]
            held = len(waiting[0])
    if held >= WINDOW:
        yield log_mel(np.concatenate(waiting))


def _scored(mels: Iterable[Floats]) -> Iterator[tuple[Floats, Floats, bool]]:
    """Log-mels (n, N_MELS) with the logit of each detector frame (ceil(n / STEP),), and whether they are the last."""
    context = 1 << len(_weights()["dilated"])  # detector frames that the network sees on each side
    held, before = np.zeros((0, N_MELS), np.float32), 0  # `before`: frames at the front of `held` that are context
    for mel in mels:
        held = np.concatenate([held, mel])
        while len(held) > (before + _CHUNK + context) * STEP:
            end = before + _CHUNK
            logits = _network(held[: (end + context) * STEP])[before:end]
            yield held[before * STEP : end * STEP], logits, False
            held, before = held[(end - context) * STEP :], context
    if len(held):
        yield held[before * STEP :], _network(held)[before:], True


def _network(mel: Floats) -> Floats:
    """Logits (ceil(n / STEP),) of raw log-mels (n, N_MELS), n > 0: a convolution over 80 ms, then dilated ones."""
    weights = _weights()
    n = -(-len(mel) // STEP)
    rows = scaled(mel, level(mel))
    half = STEP // 2
    rows = np.pad(rows, ((half, (n + 1) * STEP - half - len(mel)), (0, 0)), mode="edge").reshape(n + 1, STEP * N_MELS)
    hidden = np.maximum(rows[:-1] @ weights["front"][0] + rows[1:] @ weights["front"][1] + weights["front_bias"], 0)
    for layer, (kernel, bias) in enumerate(zip(weights["dilated"], weights["dilated_bias"], strict=True)):
        reach = 1 << layer
        padded = np.zeros((n + 2 * reach, hidden.shape[1]), np.float32)
        padded[reach : reach + n] = hidden
        taps = sum(padded[k * reach : k * reach + n] @ tap for k, tap in enumerate(kernel))
        hidden = hidden + np.maximum(taps + bias, 0)
    return np.asarray(hidden @ weights["out"] + weights["out_bias"], np.float32)


@cache
def _weights() -> dict[str, Floats]:
    """front (2, STEP * N_MELS, c), dilated (layers, 3, c, c) with dilations 1, 2, 4 ..., out (c,), and their biases."""
    with np.load(Path(__file__).with_name("data") / "speech.npz", allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def _pieces(logits: Floats, final: bool) -> tuple[list[tuple[int, int]], int]:
    """Frames [first, last) of the stretches whose extent is certain, and how many frames need not be seen again.

    `final`: no frames come after these.
    """
    shortest, bridged, margin = (round(seconds / FRAME_SECONDS) for seconds in (SHORTEST, BRIDGED, MARGIN))
    longest, rest = round(MAX_STRETCH / FRAME_SECONDS), round(1 / FRAME_SECONDS)
    likely = np.concatenate([[0], np.cumsum(logits > _logit(SPEECH))])
    n, found = len(logits), []
    for first, last in _runs(logits > _logit(PERHAPS), bridged):
        goes_on = not final and last + bridged + margin >= n
        begin, end = max(first - margin, 0), min(last + margin, n)
        cuts = [begin]
        while end - cuts[-1] > longest + (rest if goes_on else 0):
            cuts.append(_cut(logits, cuts[-1] + longest * 2 // 3, min(cuts[-1] + longest, end - rest)))
        if not goes_on:
            cuts.append(end)
        found += [(a, b) for a, b in pairwise(cuts) if likely[b] - likely[a] >= shortest]
        if goes_on:
            return found, cuts[-1]
    return found, n if final else max(n - margin, 0)


def _runs(speech: NDArray[np.bool_], bridged: int) -> list[tuple[int, int]]:
    """[first, last) of the runs of True, joined where fewer than `bridged` frames lie between them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech, [False]]).astype(np.int8)))
    between = edges[1:-1].reshape(-1, 2)
    apart = between[between[:, 1] - between[:, 0] >= bridged]
    joined = np.concatenate([edges[:1], apart.reshape(-1), edges[-1:]]).reshape(-1, 2)
    return [(int(first), int(last)) for first, last in joined]


def _cut(logits: Floats, low: int, high: int) -> int:
    """The frame in [low, high) around which speech is least likely."""
    around = np.convolve(logits[low - 2 : high + 2], np.ones(5, np.float32), mode="valid")
    return low + int(np.argmin(around))


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))

"""Log-mel features, the same for training and search: our own, and Kaldi's for networks that FunASR trained.

In: 16 kHz mono samples, float32 in [-1, 1]. Out: (n_frames, 80) float32, 100 frames a second, raw or normalised; or
Kaldi's, stacked to one frame every 60 ms. Knows nothing of files, speech or networks; numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAMPLE_RATE = 16_000
WINDOW = 400
"""Samples in a frame: 25 ms."""
HOP = 160
"""Samples between frames: 10 ms."""
FFT_SIZE = 512
N_MELS = 80
LOWEST_HZ, HIGHEST_HZ = 60.0, 7_600.0
FLOOR = 1e-7
"""Added to every mel energy before the logarithm: a little above the noise of 16-bit quantisation."""
PRIOR_FRAMES = 150
"""How many frames of evidence the prior mean is worth in `normalise`."""
KALDI_LOWEST_HZ, KALDI_HIGHEST_HZ = 20.0, 8_000.0
KALDI_PREEMPHASIS = 0.97
KALDI_FLOOR = float(np.finfo(np.float32).eps)
STACK, STRIDE = 7, 6
"""Low frame rate: so many frames in one, so many from one to the next."""
STACKED = STACK * N_MELS
STRIDE_SECONDS = STRIDE * HOP / SAMPLE_RATE
_BATCH = 2_000


def log_mel(samples: Floats) -> Floats:
    """Natural-log mel energies of `samples` (n,): ((n - WINDOW) // HOP + 1, N_MELS); no rows where n < WINDOW."""
    energies = mel_energies(samples)
    energies += np.float32(FLOOR)
    return np.log(energies, out=energies)


def mel_energies(samples: Floats, n_mels: int = N_MELS) -> Floats:
    """Mel energies of `samples` (n,): (frames, n_mels).

    Hann window, power spectrum, triangular filters with unit peak on HTK's mel scale, 2595 log10(1 + f/700). Frame k
    covers samples [k*HOP, k*HOP + WINDOW).
    """
    n_frames = frame_count(len(samples))
    out = np.empty((n_frames, n_mels), np.float32)
    if n_frames == 0:
        return out
    window, filters = _window(), _mel_filters(n_mels)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    for begin in range(0, n_frames, _BATCH):
        spectrum = np.fft.rfft(frames[begin : begin + _BATCH] * window, FFT_SIZE)
        power = spectrum.real**2 + spectrum.imag**2
        np.matmul(power, filters, out=out[begin : begin + _BATCH])
    return out


def frame_count(n_samples: int) -> int:
    """How many frames `log_mel` makes of `n_samples` samples."""
    return max(0, (n_samples - WINDOW) // HOP + 1)


def normalise(mel: Floats, prior_mean: Floats, prior_std: Floats) -> Floats:
    """Cepstral-mean-style normalisation of a stretch `mel` (n, N_MELS), safe for stretches of any length.

    The mean taken away is the maximum a posteriori estimate of the stretch's own mean under the training data's
    `prior_mean` (N_MELS,), shifted to the stretch's loudness and worth PRIOR_FRAMES frames: a long stretch is
    normalised by itself, a half-second clip mostly by the prior. The scale is the training data's `prior_std`.
    """
    if len(mel) == 0:
        return mel
    own = mel.mean(axis=0)
    prior = prior_mean + (own.mean() - prior_mean.mean())
    mean = (len(mel) * own + PRIOR_FRAMES * prior) / (len(mel) + PRIOR_FRAMES)
    normalised: Floats = ((mel - mean) / prior_std).astype(np.float32)
    return normalised


def fbank(samples: Floats) -> Floats:
    """Kaldi's log-mel filter bank of `samples` (n,), as FunASR sets it: (frame_count(n), N_MELS); no dither.

    For each frame: samples on the scale of 16-bit integers, less their mean, pre-emphasis, Hamming window, power
    spectrum, triangular filters that are straight on the mel scale 1127 ln(1 + f/700), natural logarithm.
    """
    out = np.empty((frame_count(len(samples)), N_MELS), np.float32)
    if len(out) == 0:
        return out
    window, filters = np.hamming(WINDOW).astype(np.float32), _kaldi_filters()
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    for begin in range(0, len(out), _BATCH):
        batch = frames[begin : begin + _BATCH] * np.float32(1 << 15)
        batch -= batch.mean(axis=1, keepdims=True)
        before = np.concatenate([batch[:, :1], batch[:, :-1]], axis=1)
        spectrum = np.fft.rfft((batch - np.float32(KALDI_PREEMPHASIS) * before) * window, FFT_SIZE)
        np.matmul(spectrum.real**2 + spectrum.imag**2, filters, out=out[begin : begin + _BATCH])
    return np.log(np.maximum(out, KALDI_FLOOR, out=out), out=out)


def low_frame_rate(mel: Floats) -> Floats:
    """Stack `mel` (n, N_MELS) to (ceil(n / STRIDE), STACKED): frame k is frames 6k - 3 to 6k + 3, one after another.

    Where there is none, before the first and after the last, that one is repeated: FunASR's `apply_lfr`.
    """
    centres = np.arange(0, len(mel), STRIDE)
    around = centres[:, None] + np.arange(STACK) - STACK // 2
    stacked: Floats = mel[np.clip(around, 0, len(mel) - 1)].reshape(len(centres), STACK * mel.shape[1])
    return stacked


@dataclass(frozen=True, slots=True)
class Cmvn:
    """Mean and variance normalisation by constants of the training data: (x + shift) * scale."""

    shift: Floats
    """(dim,): minus the mean"""
    scale: Floats
    """(dim,): one over the standard deviation"""

    def __call__(self, x: Floats) -> Floats:
        """Normalise `x` (n, dim)."""
        normalised: Floats = (x + self.shift) * self.scale
        return normalised


@cache
def _window() -> Floats:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _mel_filters(n_mels: int) -> Floats:
    """(FFT_SIZE // 2 + 1, n_mels): column m is the triangle of mel filter m, straight between hertz."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    return _triangles(_bins(), 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1))


@cache
def _kaldi_filters() -> Floats:
    """(FFT_SIZE // 2 + 1, N_MELS): column m is the triangle of Kaldi's mel filter m, straight between mels."""
    low, high = (1127 * np.log1p(hz / 700) for hz in (KALDI_LOWEST_HZ, KALDI_HIGHEST_HZ))
    return _triangles(1127 * np.log1p(_bins() / 700), np.linspace(low, high, N_MELS + 2))


def _bins() -> NDArray[np.float64]:
    """The frequencies of a spectrum, in hertz."""
    return np.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)


def _triangles(at: NDArray[np.float64], edges: NDArray[np.float64]) -> Floats:
    """(len(at), n): triangle m rises from edge m to a peak of 1 at edge m + 1 and falls to edge m + 2."""
    rising = (at[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)

"""Log-mel features, the same for training and search.

In: 16 kHz mono samples, float32 in [-1, 1]. Out: (n_frames, 80) float32, 100 frames a second, raw or normalised.
Knows nothing of files, speech or networks; numpy only.
"""

from __future__ import annotations

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


@cache
def _window() -> Floats:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _mel_filters(n_mels: int) -> Floats:
    """(FFT_SIZE // 2 + 1, n_mels): column m is the triangle of mel filter m."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1)
    bins = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)

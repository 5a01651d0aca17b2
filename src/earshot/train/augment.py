"""Augmentation: one clean recording becomes many rooms, microphones, voices and speeds.

In: samples (n,) float32 at 16 kHz, or log-mels, and a random generator. Out: the same kind. Knows no corpora.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
from numpy.random import Generator

from earshot.features import HIGHEST_HZ, LOWEST_HZ, N_MELS, SAMPLE_RATE, Floats
from earshot.train.codecs import any_codec


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How often and how strongly each change is made; probabilities are per chunk."""

    speed_probability: float = 0.6
    speed: tuple[float, float] = (0.86, 1.17)
    room_probability: float = 0.3
    filter_probability: float = 0.5
    band_limit_probability: float = 0.15
    codec_probability: float = 0.1
    noise_probability: float = 0.5
    noise_db: tuple[float, float] = (3.0, 40.0)
    warp_probability: float = 0.5
    warp: tuple[float, float] = (0.88, 1.14)
    mask_probability: float = 0.5
    time_masks: int = 2
    longest_time_mask: int = 12
    mel_masks: int = 2
    widest_mel_mask: int = 10


def change_speed(samples: Floats, factor: float) -> Floats:
    """Resample so that speech is `factor` times as fast and as high."""
    changed: Floats = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ").astype(np.float32)
    return changed


def nobody() -> Floats:
    """No speech of other people."""
    return np.zeros(0, np.float32)


def degrade(samples: Floats, rng: Generator, options: Augmentation, others: Callable[[], Floats] = nobody) -> Floats:
    """Room, microphone, noise or babble (`others` gives samples of other people's speech), band limit, codec, level."""
    if rng.random() < options.room_probability:
        samples = _convolve(samples, _room(rng))
    if rng.random() < options.filter_probability:
        samples = _equalise(samples, rng)
    if rng.random() < options.noise_probability:
        noise = _noise(len(samples), others, rng)
        gain = _rms(samples) / _rms(noise) * 10 ** (-rng.uniform(*options.noise_db) / 20)
        samples = samples + gain * noise
    if rng.random() < options.band_limit_probability:
        samples = _band_limit(samples, rng)
    if rng.random() < options.codec_probability:
        samples = any_codec(samples / max(1.0, float(np.abs(samples).max())), rng)
    level = 10 ** (rng.uniform(-36, -16) / 20) / _rms(samples)
    levelled: Floats = np.clip(samples * level, -1, 1).astype(np.float32)
    return levelled


def warp_mels(mel: Floats, factor: float) -> Floats:
    """Vocal tract length perturbation: stretch the frequency axis of log-mels (n, N_MELS) by `factor`."""
    warped: Floats = mel @ _warp_matrix(round(factor, 2))
    return warped


def mask_mels(mel: Floats, rng: Generator, options: Augmentation) -> Floats:
    """SpecAugment on normalised log-mels: some bands and short stretches set to their mean, 0."""
    mel = mel.copy()
    for _ in range(int(rng.integers(0, options.mel_masks + 1))):
        width = int(rng.integers(1, options.widest_mel_mask + 1))
        begin = int(rng.integers(0, N_MELS - width))
        mel[:, begin : begin + width] = 0
    for _ in range(int(rng.integers(0, options.time_masks + 1))):
        width = int(rng.integers(1, min(options.longest_time_mask, len(mel) // 8 + 1) + 1))
        begin = int(rng.integers(0, max(1, len(mel) - width)))
        mel[begin : begin + width] = 0
    return mel


def _fft_size(n: int) -> int:
    """A power of two: transforms of other lengths can take ten times as long."""
    return 1 << (n - 1).bit_length()


def _rms(samples: Floats) -> float:
    return float(np.sqrt(np.mean(samples**2)) + 1e-5)


def _convolve(samples: Floats, impulse: Floats) -> Floats:
    size = _fft_size(len(samples) + len(impulse) - 1)
    product = np.fft.rfft(samples, size) * np.fft.rfft(impulse, size)
    return np.fft.irfft(product, size)[: len(samples)].astype(np.float32)


def _room(rng: Generator) -> Floats:
    """A room's impulse response: the direct sound and exponentially decaying noise (reverberation time 0.1-0.7 s)."""
    reverberation = rng.uniform(0.1, 0.7)
    n = int(reverberation * SAMPLE_RATE * 0.7)
    tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / (reverberation * SAMPLE_RATE))
    tail[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0
    tail *= 10 ** (-rng.uniform(-3, 12) / 20) / np.sqrt(np.sum(tail**2) + 1e-9)
    tail[0] = 1
    impulse: Floats = tail.astype(np.float32)
    return impulse


def _equalise(samples: Floats, rng: Generator) -> Floats:
    """A smooth random frequency response of up to +-10 dB."""
    gains = rng.uniform(-10, 10, 6)
    size = _fft_size(len(samples))
    spectrum = np.fft.rfft(samples, size)
    curve = np.interp(np.linspace(0, 5, 129), np.arange(6), gains)
    curve = np.interp(np.linspace(0, 128, len(spectrum)), np.arange(129), 10 ** (curve / 20))
    return np.fft.irfft(spectrum * curve, size)[: len(samples)].astype(np.float32)


def _band_limit(samples: Floats, rng: Generator) -> Floats:
    """Telephone-like: only 200-400 Hz up to 3.2-4 kHz, or a low-pass as a poor codec has it."""
    size = _fft_size(len(samples))
    spectrum = np.fft.rfft(samples, size)
    hz = np.arange(len(spectrum)) * SAMPLE_RATE / size
    low = rng.uniform(150, 400) if rng.random() < 0.5 else 0.0
    high = rng.uniform(3200, 6000)
    gain = 1 / (1 + (hz / high) ** 16) * (1 - 1 / (1 + (hz / max(low, 1)) ** 8) if low else 1)
    return np.fft.irfft(spectrum * gain, size)[: len(samples)].astype(np.float32)


def _noise(n: int, others: Callable[[], Floats], rng: Generator) -> Floats:
    """White, pink or brown noise, hum and chords, or babble made of `others`."""
    kind = rng.random()
    if kind < 0.5 and len(speech := others()) > n:
        voices = [np.roll(speech, -int(rng.integers(len(speech))))[:n] for _ in range(int(rng.integers(1, 6)))]
        babble: Floats = np.sum(voices, axis=0, dtype=np.float32)
        return babble
    if kind < 0.62:
        return _chords(n, rng)
    size = _fft_size(n)
    spectrum = np.fft.rfft(rng.standard_normal(size, np.float32))
    tilt = rng.uniform(0, 1.2)
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** tilt
    return np.fft.irfft(spectrum, size)[:n].astype(np.float32)


def _chords(n: int, rng: Generator) -> Floats:
    """Music-like: chords of decaying harmonic tones."""
    out = np.zeros(n, np.float32)
    begin = 0
    while begin < n:
        length = min(n - begin, int(rng.uniform(0.15, 0.8) * SAMPLE_RATE))
        time = np.arange(length) / SAMPLE_RATE
        for _ in range(int(rng.integers(1, 4))):
            tone = 55 * 2 ** (rng.integers(0, 48) / 12)
            for harmonic in range(1, int(rng.integers(2, 7))):
                out[begin : begin + length] += np.sin(2 * np.pi * tone * harmonic * time) / harmonic
        out[begin : begin + length] *= np.exp(-time * rng.uniform(0, 6))
        begin += length
    return out


@cache
def _warp_matrix(factor: float) -> Floats:
    """(N_MELS, N_MELS): column m reads the mel axis where the filter of m stands after scaling its frequency."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    mels = np.linspace(low, high, N_MELS + 2)[1:-1]
    hz = 700 * (10 ** (mels / 2595) - 1)
    source = 2595 * np.log10(1 + np.minimum(hz * factor, HIGHEST_HZ) / 700)
    position = np.clip((source - mels[0]) / (mels[1] - mels[0]), 0, N_MELS - 1)
    left = np.minimum(position.astype(int), N_MELS - 2)
    matrix = np.zeros((N_MELS, N_MELS), np.float32)
    columns = np.arange(N_MELS)
    matrix[left, columns] = 1 - (position - left)
    matrix[left + 1, columns] += position - left
    return matrix

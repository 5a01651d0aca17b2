"""Log-mels: shapes, frequency axis, loudness, and normalisation of long and short stretches."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.features import HOP, N_MELS, SAMPLE_RATE, WINDOW, frame_count, log_mel, normalise


def tone(hertz: float, seconds: float = 0.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, WINDOW - 1, WINDOW, WINDOW + HOP - 1, WINDOW + HOP, 50_000])
def test_one_frame_for_each_whole_window(n: int) -> None:
    mel = log_mel(np.zeros(n, np.float32))
    assert mel.shape == (frame_count(n), N_MELS)
    assert mel.dtype == np.float32
    assert frame_count(n) == sum(1 for k in range(n) if k % HOP == 0 and k + WINDOW <= n)


def test_higher_tones_peak_in_higher_bands() -> None:
    peaks = [int(log_mel(tone(hertz)).mean(axis=0).argmax()) for hertz in (200, 500, 1000, 2000, 4000, 7000)]
    assert peaks == sorted(set(peaks))


def test_frames_do_not_depend_on_how_the_samples_are_batched() -> None:
    samples = np.random.default_rng(0).standard_normal(16_000 * 25).astype(np.float32)
    whole = log_mel(samples)
    np.testing.assert_allclose(log_mel(samples[1000 * HOP :]), whole[1000:], atol=1e-4)


def test_normalisation_takes_away_level_and_colour_of_a_long_stretch() -> None:
    rng = np.random.default_rng(1)
    mel = rng.standard_normal((3000, N_MELS)).astype(np.float32)
    coloured = mel + np.linspace(-4, 4, N_MELS, dtype=np.float32) + 3
    prior = (np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32))
    assert np.abs(normalise(coloured, *prior) - normalise(mel, *prior)).max() < 0.25


def test_normalisation_of_a_short_clip_keeps_what_is_in_it() -> None:
    """A 0.2 s clip normalised by itself alone would lose its spectrum: the prior must hold it."""
    vowel = np.tile(np.linspace(-2, 2, N_MELS, dtype=np.float32), (20, 1))
    prior = (np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32))
    kept = normalise(vowel, *prior)
    assert np.corrcoef(kept[0], vowel[0])[0, 1] > 0.99
    assert kept[0].std() > 0.8 * vowel[0].std()


def test_nothing_normalised_is_nothing() -> None:
    empty = np.zeros((0, N_MELS), np.float32)
    assert normalise(empty, empty.sum(axis=0), empty.sum(axis=0) + 1).shape == (0, N_MELS)

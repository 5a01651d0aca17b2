"""Log-mels: shapes, frequency axis, loudness, and normalisation of long and short stretches; Kaldi's filter bank."""

from __future__ import annotations

import math

import numpy as np
import pytest

from earshot.features import (
    HOP,
    N_MELS,
    SAMPLE_RATE,
    STACKED,
    WINDOW,
    Cmvn,
    fbank,
    frame_count,
    log_mel,
    low_frame_rate,
    normalise,
)


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


def speechlike(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    tones = sum(np.sin(2 * np.pi * hertz * np.arange(n) / 16_000) for hertz in (130, 700, 2_500))
    return (0.1 * tones + 0.01 * rng.standard_normal(n) + 0.02).astype(np.float32)


def fbank_by_the_book(samples: np.ndarray) -> np.ndarray:
    """Float64, a discrete Fourier transform by its definition, and each triangle by its corners."""
    mel = lambda hertz: 1127 * math.log(1 + hertz / 700)  # noqa: E731
    corners = np.linspace(mel(20), mel(8_000), N_MELS + 2)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(400)) / 512)
    out = []
    for begin in range(0, len(samples) - 399, 160):
        frame = samples[begin : begin + 400].astype(np.float64) * 32_768
        frame -= frame.mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(400)]) * window
        power, row = np.abs(waves @ frame) ** 2, []
        for left, centre, right in zip(corners, corners[1:], corners[2:], strict=False):
            at = [mel(k * 16_000 / 512) for k in range(256)]
            weights = [max(0, min((m - left) / (centre - left), (right - m) / (right - centre))) for m in at]
            row.append(math.log(max(float(np.dot(weights, power)), 2.0**-23)))
        out.append(row)
    return np.array(out)


def test_filter_bank_agrees_with_its_definition() -> None:
    samples = speechlike(4_000)
    np.testing.assert_allclose(fbank(samples), fbank_by_the_book(samples), atol=5e-4)
    np.testing.assert_allclose(fbank(np.zeros(400, np.float32)), np.log(2.0**-23), atol=1e-6)


@pytest.mark.parametrize("n", [0, WINDOW - 1, WINDOW, WINDOW + HOP])
def test_filter_bank_has_one_frame_for_each_whole_window(n: int) -> None:
    mel = fbank(np.zeros(n, np.float32))
    assert mel.shape == (frame_count(n), N_MELS)
    assert low_frame_rate(mel).shape == (math.ceil(frame_count(n) / 6), STACKED)


@pytest.mark.parametrize("n", range(1, 20))
def test_stacked_frames_repeat_the_first_and_the_last(n: int) -> None:
    mel = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    row = [mel[0]] * 3 + list(mel) + [mel[-1]] * 20
    expected = [np.concatenate(row[k : k + 7]) for k in range(0, n, 6)]
    np.testing.assert_array_equal(low_frame_rate(mel), expected)


def test_constants_are_added_then_multiplied() -> None:
    cmvn = Cmvn(np.array([-1.0, 2.0], np.float32), np.array([10.0, 0.5], np.float32))
    assert cmvn(np.array([[3.0, 4.0]], np.float32)).tolist() == [[20.0, 3.0]]


def test_filter_bank_agrees_with_kaldi() -> None:
    knf = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type = 0.0, "hamming"
    options.mel_opts.num_bins, options.energy_floor = N_MELS, 0.0
    online, samples = knf.OnlineFbank(options), speechlike(16_000)
    online.accept_waveform(16_000, (samples * 32_768).tolist())
    online.input_finished()
    kaldi = np.array([online.get_frame(k) for k in range(online.num_frames_ready)])
    np.testing.assert_allclose(fbank(samples), kaldi, atol=5e-4)

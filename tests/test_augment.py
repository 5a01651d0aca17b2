"""Augmentation: codecs keep length and time, warps and masks keep shape, the same seed makes the same speech."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.features import SAMPLE_RATE, Floats
from earshot.train import augment
from earshot.train.augment import Augmentation
from earshot.train.codecs import CODECS, any_codec, through


@pytest.fixture
def speech() -> Floats:
    """Two seconds of a gliding buzz with pauses: something with an onset."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * k * (120 * time + 20 * time**2)) / k for k in range(1, 20))
    return (0.1 * buzz * (np.sin(2 * np.pi * 1.5 * time) > 0)).astype(np.float32)


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_changes_speech_and_keeps_its_length_and_times(name: str, speech: Floats) -> None:
    heard = through(speech, name, np.random.default_rng(0))
    assert heard.shape == speech.shape
    assert not np.allclose(heard, speech, atol=1e-3)
    spectrum = np.fft.rfft(heard, 1 << 16) * np.conj(np.fft.rfft(speech, 1 << 16))
    delay = int(np.fft.irfft(spectrum).argmax())
    assert min(delay, (1 << 16) - delay) < 0.005 * SAMPLE_RATE
    assert np.corrcoef(heard, speech)[0, 1] > 0.8


def test_codecs_are_drawn_by_their_shares_and_of_any_length() -> None:
    assert sum(codec.share for codec in CODECS.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    for n in (1, 300, 5_001):
        assert any_codec(rng.uniform(-0.1, 0.1, n).astype(np.float32), rng).shape == (n,)


def test_degraded_speech_can_be_made_again(speech: Floats) -> None:
    often = Augmentation(
        room_probability=1, filter_probability=1, noise_probability=1, band_limit_probability=1, codec_probability=1
    )
    one, two = (augment.degrade(speech, np.random.default_rng(4), often, lambda: speech) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == speech.shape
    assert np.isfinite(one).all()
    assert np.abs(one).max() <= 1


def test_faster_speech_is_shorter_and_higher(speech: Floats) -> None:
    faster = augment.change_speed(speech, 1.25)
    assert len(faster) == pytest.approx(len(speech) / 1.25, abs=2)

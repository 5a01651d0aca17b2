"""Speech detection: speech is kept whole, silence and music yield nothing, blocks of any size give the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot.features import HOP, N_MELS, SAMPLE_RATE, log_mel
from earshot.speech import FRAME_SECONDS, MAX_STRETCH, SPEECH, STEP, SpeechStretch, detect, stretches
from earshot.types import Seconds

Samples = NDArray[np.float32]
FORMANTS = np.array([(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)])


def voice(seconds: Seconds, *, pitch: float = 120.0, seed: int = 0, loudness: float = 0.1) -> Samples:
    """Babble of a formant synthesiser: four syllables a second, vowels that glide, hisses and closures between them."""
    rng = np.random.default_rng(seed)
    n, syllables = round(seconds * SAMPLE_RATE), round(seconds * 4) + 2
    place = np.arange(n) * 4 / SAMPLE_RATE
    melody = pitch * np.interp(place, np.arange(syllables), np.exp(rng.normal(0, 0.12, syllables)))
    phase = np.cumsum(melody) / SAMPLE_RATE
    source = np.diff(np.floor(phase), prepend=0) + 0.01 * rng.standard_normal(n)
    targets = FORMANTS[rng.integers(0, len(FORMANTS), syllables)]
    hz = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(source, 256), 512)[::128]
    at = np.minimum(np.arange(len(frames)) * 128, n - 1) * 4 / SAMPLE_RATE
    gain = np.full((len(frames), len(hz)), 0.003)
    for k in range(3):
        formant = np.interp(at, np.arange(syllables), targets[:, k])
        gain += 1 / (1 + ((hz - formant[:, None]) / 60) ** 2) / (1 + k)
    pieces = np.fft.irfft(np.fft.rfft(frames * np.hanning(512)) * gain, 512)
    out = np.zeros(len(frames) * 128 + 512)
    for k in range(0, 512, 128):
        out[k : k + len(frames) * 128] += pieces[:, k : k + 128].reshape(-1)
    out = out[256 : 256 + n]
    vowels = np.clip(3 * np.sin(np.pi * (place % 1)) - 0.4, 0, 1)
    hiss = np.diff(rng.standard_normal(n + 1)) * (rng.random(syllables) < 0.5)[place.astype(int)] * (place % 1 < 0.2)
    out = out * vowels / np.std(out) + 0.15 * hiss
    return np.asarray(out * loudness / np.std(out), np.float32)


def music(seconds: Seconds, seed: int = 0) -> Samples:
    """Chords of decaying harmonic tones, two a second, with a beat."""
    rng = np.random.default_rng(seed)
    beat = SAMPLE_RATE // 2
    time = np.arange(beat) / SAMPLE_RATE
    out = []
    for _ in range(round(seconds * 2)):
        tones = 110 * 2 ** (rng.integers(0, 4, 3) * 3 / 12 + rng.integers(0, 3, 3))
        chord = sum(np.sin(2 * np.pi * tone * k * time) / k for tone in tones for k in range(1, 6))
        out.append(chord * np.exp(-2 * time) + rng.standard_normal(beat) * np.exp(-60 * time))
    return np.asarray(0.1 * np.concatenate(out) / np.std(out), np.float32)


def quiet(seconds: Seconds, level: float = 0.0) -> Samples:
    noise = np.random.default_rng(1).standard_normal(round(seconds * SAMPLE_RATE))
    return np.asarray(level * noise, np.float32)


def spans(found: list[SpeechStretch]) -> list[tuple[Seconds, Seconds]]:
    return [(s.start, s.start + len(s.mel) * HOP / SAMPLE_RATE) for s in found]


def blocks(samples: Samples, size: int) -> Iterator[Samples]:
    return (samples[k : k + size] for k in range(0, len(samples), size))


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-4, 1e-3], ids=["digital", "dithered", "faint noise", "noise"])
def test_silence_yields_nothing(level: float) -> None:
    assert list(stretches([quiet(30, level)])) == []


@pytest.mark.parametrize("name", ["music", "white noise", "hum", "clicks"])
def test_what_is_not_speech_yields_nothing(name: str) -> None:
    time = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    sound = {
        "music": music(30),
        "white noise": quiet(30, 0.1),
        "hum": np.asarray(sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 9)) * 0.1, np.float32),
        "clicks": np.asarray(0.5 * (np.arange(len(time)) % 4000 == 0), np.float32),
    }[name]
    assert list(stretches([sound])) == []


@pytest.mark.parametrize("loudness", [0.3, 0.03, 0.0015], ids=["loud", "soft", "57 dB below full scale"])
@pytest.mark.parametrize("pitch", [90, 210, 320], ids=["low", "high", "child"])
def test_speech_between_silence_is_kept(pitch: float, loudness: float) -> None:
    talk = voice(6, pitch=pitch, loudness=loudness)
    found = spans(list(stretches([np.concatenate([quiet(4, 1e-5), talk, quiet(4, 1e-5)])])))
    assert found[0][0] == pytest.approx(4, abs=0.4)
    assert found[-1][1] == pytest.approx(10, abs=0.4)
    assert sum(end - start for start, end in found) > 5.6


def test_speech_over_noise_is_kept() -> None:
    talk = np.concatenate([quiet(3), voice(6), quiet(3)])
    found = spans(list(stretches([talk + quiet(12, 0.05)])))
    assert sum(end - start for start, end in found) > 5.5


def test_speech_after_music_is_kept_and_the_music_is_not() -> None:
    found = spans(list(stretches([np.concatenate([music(25), voice(6), music(25, seed=2)])])))
    assert found[0][0] > 24
    assert found[-1][1] < 32
    assert sum(end - start for start, end in found) > 5.5


def test_a_long_pause_parts_stretches_and_a_short_one_does_not() -> None:
    def found(pause: Seconds) -> int:
        return len(list(stretches([np.concatenate([voice(3), quiet(pause, 1e-4), voice(3, seed=4)])])))

    assert found(0.15) == 1
    assert found(2.0) == 2


def test_log_mels_are_those_of_the_recording_from_the_stretch_on() -> None:
    talk = np.concatenate([quiet(7.3, 1e-4), voice(25, seed=5), quiet(3, 1e-4), voice(4, seed=6)])
    mel = log_mel(talk)
    for stretch in stretches(blocks(talk, 12_345)):
        first = round(stretch.start * SAMPLE_RATE / HOP)
        assert first * HOP / SAMPLE_RATE == pytest.approx(stretch.start, abs=1e-9)
        np.testing.assert_allclose(stretch.mel, mel[first : first + len(stretch.mel)], atol=1e-4)


@pytest.mark.parametrize("size", [160, 7_001, 16_000 * 60])
def test_the_size_of_the_blocks_changes_nothing(size: int) -> None:
    talk = np.concatenate([voice(21), quiet(1.3, 1e-4), music(5), voice(27, seed=3, pitch=200), quiet(2)])
    assert spans(list(stretches(blocks(talk, size)))) == spans(list(stretches([talk])))


def test_endless_speech_is_cut_into_touching_stretches() -> None:
    found = spans(list(stretches([voice(70)])))
    assert len(found) >= 5
    assert all(end - start <= MAX_STRETCH + 1e-9 for start, end in found)
    assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(found))
    assert sum(end - start for start, end in found) > 69


def test_speech_is_cut_in_a_pause_where_there_is_one() -> None:
    pause = 12.4
    talk = np.concatenate([voice(pause), quiet(0.3, 1e-4), voice(9, seed=8)])
    first, second = spans(list(stretches([talk])))[:2]
    assert pause - 0.05 <= first[1] <= pause + 0.35
    assert second[0] >= first[1]


@pytest.mark.parametrize("sound", ["speech", "music"])
def test_memory_does_not_grow_with_length(sound: str) -> None:
    minute = voice(60) if sound == "speech" else music(60)

    def peak(minutes: int) -> int:
        tracemalloc.start()
        for _ in stretches(minute for _ in range(minutes)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1)
    assert peak(8) < 1.2 * peak(2)


@pytest.mark.parametrize("n", [0, 1, 399, 400, 1_000])
def test_recordings_too_short_to_say_anything_yield_nothing(n: int) -> None:
    assert list(stretches([voice(1)[:n]])) == []
    assert list(stretches([])) == []


def test_a_word_alone_is_kept() -> None:
    assert len(list(stretches([voice(0.6)]))) == 1


def test_broken_samples_are_no_speech() -> None:
    broken = np.full(5 * SAMPLE_RATE, np.nan, np.float32)
    assert list(stretches([broken])) == []


def test_detect_gives_one_probability_for_four_feature_frames() -> None:
    mel = log_mel(np.concatenate([quiet(3, 1e-4), voice(3), quiet(3, 1e-4)]))
    probability = detect(mel)
    assert probability.shape == (-(-len(mel) // STEP),)
    assert probability.dtype == np.float32
    found = np.flatnonzero(probability > SPEECH) * FRAME_SECONDS
    assert found[0] == pytest.approx(3, abs=0.3)
    assert found[-1] == pytest.approx(6, abs=0.3)
    assert detect(np.zeros((0, N_MELS), np.float32)).shape == (0,)

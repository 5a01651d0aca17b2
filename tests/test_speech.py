"""Speech detection: speech is kept whole, silence and music yield nothing, blocks of any size give the same."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot import audio
from earshot.features import HOP, N_MELS, SAMPLE_RATE, log_mel
from earshot.speech import FRAME_SECONDS, MAX_STRETCH, SPEECH, STEP, SpeechStretch, detect, stretches
from earshot.types import Clip, Seconds

Samples = NDArray[np.float32]
SAMPLES = Path(__file__).parents[1] / "samples"
TRUTH = {row["audio"]: row for row in map(json.loads, (SAMPLES / "truth.jsonl").read_text().splitlines())}


@cache
def sample(name: str) -> Samples:
    """A sample recording, spoken by synthetic voices."""
    return audio.load(Clip(str(SAMPLES / name)))


def voice(seconds: Seconds, begin: Seconds = 0.1, loudness: float = 0.1) -> Samples:
    """Speech without a pause of its own."""
    words = np.array([word[:2] for word in TRUTH["lecture.opus"]["words"]])
    talk = sample("lecture.opus")
    pieces = [talk[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in spoken(words, 0.2)]
    out = np.concatenate(pieces)[round(begin * SAMPLE_RATE) :]
    out = np.resize(out, round(seconds * SAMPLE_RATE))
    return np.asarray(out * loudness / np.std(out), np.float32)


def spoken(words: NDArray[np.float64], pause: Seconds) -> NDArray[np.float64]:
    """Times (n, 2) of words joined where less than `pause` lies between them, (m, 2)."""
    apart = words[1:, 0] - words[:-1, 1] >= pause
    return np.stack([words[np.append(True, apart), 0], words[np.append(apart, True), 1]], axis=1)


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


@pytest.mark.parametrize("gain", [1.0, 0.005], ids=["as recorded", "46 dB quieter"])
@pytest.mark.parametrize("name", sorted(TRUTH))
def test_words_of_the_sample_recordings_are_kept(name: str, gain: float) -> None:
    words = np.array([word[:2] for word in TRUTH[name]["words"]])
    kept = np.zeros(100 * 100, np.bool_)
    for start, end in spans(list(stretches([sample(name) * np.float32(gain)]))):
        kept[round(start * 100) : round(end * 100)] = True
    said = np.concatenate([np.arange(round(start * 100), round(end * 100)) for start, end in words])
    assert kept[said].mean() > 0.995
    # most of the rest is gone
    assert kept.sum() / 100 < sum(end - start + 0.6 for start, end in spoken(words, 0.4))


def test_a_jingle_and_a_silence_before_a_talk_are_not_kept() -> None:
    assert spans(list(stretches([sample("radio-news.opus")])))[0][0] > TRUTH["radio-news.opus"]["words"][0][0] - 0.5


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
        return len(list(stretches([np.concatenate([voice(3), quiet(pause, 1e-4), voice(3, begin=4.0)])])))

    assert found(0.15) == 1
    assert found(2.0) == 2


def test_log_mels_are_those_of_the_recording_from_the_stretch_on() -> None:
    talk = np.concatenate([quiet(7.3, 1e-4), voice(25, begin=5.0), quiet(3, 1e-4), voice(4, begin=6.0)])
    mel = log_mel(talk)
    for stretch in stretches(blocks(talk, 12_345)):
        first = round(stretch.start * SAMPLE_RATE / HOP)
        assert first * HOP / SAMPLE_RATE == pytest.approx(stretch.start, abs=1e-9)
        np.testing.assert_allclose(stretch.mel, mel[first : first + len(stretch.mel)], atol=1e-4)


@pytest.mark.parametrize("size", [160, 7_001, 16_000 * 60])
def test_the_size_of_the_blocks_changes_nothing(size: int) -> None:
    talk = np.concatenate([voice(21), quiet(1.3, 1e-4), music(5), voice(27, begin=3.0), quiet(2)])
    assert spans(list(stretches(blocks(talk, size)))) == spans(list(stretches([talk])))


def test_endless_speech_is_cut_into_touching_stretches() -> None:
    found = spans(list(stretches([voice(70)])))
    assert len(found) >= 5
    assert all(end - start <= MAX_STRETCH + 1e-9 for start, end in found)
    assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(found))
    assert sum(end - start for start, end in found) > 69


def test_speech_is_cut_in_a_pause_where_there_is_one() -> None:
    pause = 12.4
    talk = np.concatenate([voice(pause), quiet(0.3, 1e-4), voice(9, begin=8.0)])
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
    assert len(list(stretches([np.concatenate([quiet(2, 1e-4), voice(0.5), quiet(2, 1e-4)])]))) == 1


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

"""Noise and rooms for tests: what they are called is what they are, "babble@5" or "room@0.6".

In: clean speech at 16 kHz. Out: the same speech with babble, music or white noise at a signal-to-noise ratio in dB, or
in a simulated room with a reverberation time in seconds. Made by other means than the augmentation of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from benchmarks.contract import SAMPLE_RATE, Audio
from earshot.types import EarshotError

KINDS = ("clean", "babble", "music", "white", "room")
VOICES = 6
"""Talkers of a babble."""
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
"""Semitones of a major scale."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A kind of disturbance and its strength: dB for noise, seconds for a room."""

    kind: str
    strength: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Condition:
        """EarshotError for anything but "clean" or KIND@NUMBER."""
        kind, _, strength = text.partition("@")
        try:
            if kind in KINDS and (kind == "clean") == (not strength):
                return cls(kind, float(strength or 0))
        except ValueError:
            pass
        raise EarshotError(f'condition "{text}" is neither "clean" nor one of {", ".join(KINDS[1:])} with @NUMBER')

    def __str__(self) -> str:
        return self.kind if self.kind == "clean" else f"{self.kind}@{self.strength:g}"

    def apply(self, samples: Audio, voices: Sequence[Audio], rng: Generator) -> Audio:
        """`samples` (n,) under this condition; `voices` are other people's utterances, for babble."""
        if self.kind == "clean":
            return samples
        if self.kind == "room":
            return _in_room(samples, self.strength, rng)
        made = {"babble": lambda: _babble(len(samples), voices, rng), "music": lambda: _music(len(samples), rng)}
        noise = made.get(self.kind, lambda: rng.standard_normal(len(samples), np.float32))()
        gain = _rms(samples) / max(_rms(noise), 1e-9) * 10 ** (-self.strength / 20)
        mixed = samples + np.float32(gain) * noise
        return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def _rms(samples: Audio) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def _babble(n: int, voices: Sequence[Audio], rng: Generator) -> Audio:
    """Six people who talk at once, each as loud as the others."""
    out = np.zeros(n, np.float32)
    for _ in range(VOICES):
        voice = np.zeros(0, np.float32)
        while len(voice) < n:
            voice = np.concatenate([voice, voices[int(rng.integers(len(voices)))]])
        voice = voice[int(rng.integers(len(voice) - n + 1)) :][:n]
        out += voice / max(_rms(voice), 1e-9)
    return out


def _music(n: int, rng: Generator) -> Audio:
    """A tune over a bass and chords, 100 beats a minute, with a drum: tones of eight falling partials."""
    beat, out = round(0.6 * SAMPLE_RATE), np.zeros(n, np.float32)
    for begin in range(0, n, beat):
        root = int(rng.integers(7))
        chord = [(36 + SCALE[root % 7], 1.0)]
        chord += [(60 + SCALE[(root + step) % 7], 0.5) for step in (0, 2, 4)]
        chord += [(72 + SCALE[int(rng.integers(7))], 0.8)]
        time = np.arange(min(beat, n - begin)) / SAMPLE_RATE
        for note, loud in chord:
            hertz = 440 * 2 ** ((note - 69) / 12)
            for partial in range(1, 9):
                out[begin : begin + len(time)] += (
                    loud / partial**1.2 * np.exp(-2.5 * time) * np.sin(2 * np.pi * hertz * partial * time)
                )
        out[begin : begin + len(time)] += np.exp(-40 * time) * rng.standard_normal(len(time))
    return out


def _in_room(samples: Audio, reverberation: float, rng: Generator) -> Audio:
    """The speech as a microphone 2 m away hears it in a room of about 6 x 5 x 3 m (image sources)."""
    import pyroomacoustics

    size = np.array([6.0, 5.0, 3.0]) * rng.uniform(0.9, 1.1, 3)
    absorption, order = pyroomacoustics.inverse_sabine(reverberation, size)
    room = pyroomacoustics.ShoeBox(
        size, fs=SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=min(order, 40)
    )
    mouth = np.array([2.0, 2.0, 1.6]) + rng.uniform(-0.3, 0.3, 3)
    angle = rng.uniform(0, np.pi / 2)
    room.add_source(mouth)
    room.add_microphone(mouth + np.array([2 * np.cos(angle), 2 * np.sin(angle), -0.4]))
    room.compute_rir()
    impulse = np.asarray(room.rir[0][0])
    impulse = impulse[int(np.abs(impulse).argmax()) :]  # the direct sound comes at once, so that word times hold
    size_fft = 1 << (len(samples) + len(impulse)).bit_length()
    heard = np.fft.irfft(np.fft.rfft(samples, size_fft) * np.fft.rfft(impulse, size_fft), size_fft)[: len(samples)]
    level = _rms(samples) / max(_rms(heard), 1e-9)
    return np.clip(heard * level, -1, 1).astype(np.float32)

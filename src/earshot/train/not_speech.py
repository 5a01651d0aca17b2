"""Sound that is not speech, made from nothing: silence, noises and music, to teach the speech detector what to leave.

In: a length and a random generator. Out: samples (n,) float32 at 16 kHz, at most about 1 loud; or music rendered by the
program fluidsynth with a General MIDI sound font. Knows nothing of features or networks.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from earshot.audio import load
from earshot.features import SAMPLE_RATE, Floats
from earshot.types import Clip, Seconds

Made = Callable[[int, Generator], Floats]
ROLES = np.array(["chords", "arpeggio", "melody", "bass", "drums"])
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10))


def coloured(n: int, rng: Generator, tilt: float | None = None) -> Floats:
    """White (tilt 0) to brown (1) noise and beyond, sometimes only a band of it."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hz = np.arange(len(spectrum)) * SAMPLE_RATE / n
    spectrum /= np.maximum(hz, 30) ** (rng.uniform(-0.3, 1.3) if tilt is None else tilt)
    if tilt is None and rng.random() < 0.4:
        centre, width = np.exp(rng.uniform(np.log(100), np.log(6000))), rng.uniform(0.1, 1.2)
        spectrum *= np.exp(-(((np.log(np.maximum(hz, 1)) - np.log(centre)) / width) ** 2))
    return _loud(np.fft.irfft(spectrum, n))


def swelling(n: int, rng: Generator) -> Floats:
    """Noise whose level moves: wind and surf (slowly), or as fast as syllables do."""
    rate = np.exp(rng.uniform(np.log(0.2), np.log(12)))
    steps = rng.standard_normal(int(n / SAMPLE_RATE * rate) + 3) * rng.uniform(0.5, 2)
    envelope = np.exp(np.interp(np.arange(n) * rate / SAMPLE_RATE, np.arange(len(steps)), steps))
    return _loud(coloured(n, rng) * envelope)


def hum(n: int, rng: Generator) -> Floats:
    """Mains, a fan or a motor: harmonics of a steady or slowly drifting low tone."""
    base = rng.choice([50.0, 60.0, rng.uniform(20, 250)])
    drift = np.interp(np.arange(n), np.linspace(0, n, 6), 1 + rng.choice([0, 0.002, 0.15]) * rng.standard_normal(6))
    phase = 2 * np.pi * np.cumsum(base * drift) / SAMPLE_RATE
    out = rng.uniform(0, 1) * coloured(n, rng)
    for k in range(1, 16):
        out = out + rng.uniform(0, 0.1) / k ** rng.uniform(0, 1.5) * np.sin(k * phase + rng.uniform(0, 6))
    return _loud(out)


def knocks(n: int, rng: Generator) -> Floats:
    """Clicks, typing, steps, knocking, crackle: short bursts and ringing bodies, regular or not."""
    out = np.zeros(n, np.float32)
    rate, regular = np.exp(rng.uniform(np.log(0.5), np.log(25))), rng.random() < 0.4
    hz, decay, spread = np.exp(rng.uniform(np.log(80), np.log(5000))), np.exp(rng.uniform(1.5, 6)), rng.uniform(0, 0.3)
    at = 0.0
    while at < n:
        length = min(n - int(at), int(SAMPLE_RATE * min(0.5, 5 / decay)) + 20)
        time = np.arange(length) / SAMPLE_RATE
        ring = np.sin(2 * np.pi * hz * np.exp(spread * rng.standard_normal()) * time) * rng.uniform(0, 1)
        burst = (ring + rng.standard_normal(length) * rng.uniform(0.1, 1)) * np.exp(-decay * time)
        out[int(at) : int(at) + length] += burst * np.exp(rng.normal(0, 0.5))
        at += SAMPLE_RATE / rate * (1 if regular else rng.exponential())
    return _loud(out)


def beeps(n: int, rng: Generator) -> Floats:
    """Dialling tones, alarms, sirens, sweeps: one or two tones, switched or gliding."""
    rate = rng.uniform(0.5, 10)
    steps = np.exp(rng.uniform(np.log(200), np.log(3500), int(n / SAMPLE_RATE * rate) + 3))
    place = np.arange(n) * rate / SAMPLE_RATE
    glides = rng.random() < 0.4
    hz = np.interp(place, np.arange(len(steps)), steps) if glides else steps[place.astype(int)]
    tones = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE)
    tones = tones + rng.integers(0, 2) * np.sin(2 * np.pi * np.cumsum(hz * rng.uniform(1.1, 1.9)) / SAMPLE_RATE)
    return _loud(tones * (place % 1 < rng.uniform(0.3, 1.3)))


def silence(n: int, rng: Generator) -> Floats:
    """Digital silence, or the faintest noise."""
    return np.asarray(rng.choice([0, 1e-5, 1e-4]) * rng.standard_normal(n), np.float32)


NOISES: tuple[Made, ...] = (coloured, coloured, swelling, swelling, hum, knocks, knocks, beeps, beeps)


def music(n: int, rng: Generator) -> Floats:
    """One to four of chords, arpeggios, melodies with vibrato, bass and drums, on synthesised or plucked strings."""
    scale, root, beat = SCALES[rng.integers(len(SCALES))], int(rng.integers(36, 60)), rng.uniform(0.2, 0.9)
    parts = rng.permutation(ROLES)[: rng.integers(1, 5)]
    out = np.zeros(n)
    for part in parts:
        gain = np.exp(rng.normal(0, 0.5))
        out += gain * (_drums(n, beat, rng) if part == "drums" else _part(str(part), n, scale, root, beat, rng))
    return _loud(out)


def _part(role: str, n: int, scale: Sequence[int], root: int, beat: Seconds, rng: Generator) -> Floats:
    note = _pluck if rng.random() < 0.35 else _Tone(rng)
    out = np.zeros(n)
    for begin, length, pitch, loud in notes(role, n / SAMPLE_RATE, scale, root, beat, rng):
        first = int(begin * SAMPLE_RATE)
        sound = note(max(1, min(int(length * SAMPLE_RATE), n - first)), 440 * 2 ** ((pitch - 69) / 12), rng)
        out[first : first + len(sound)] += loud * sound[: n - first]
    return _loud(out)


def notes(
    role: str, seconds: Seconds, scale: Sequence[int], root: int, beat: Seconds, rng: Generator
) -> Iterable[tuple[Seconds, Seconds, int, float]]:
    """(start, length, MIDI pitch, loudness) of the notes of a part, in order of their starts."""
    at, degree = 0.0, 0
    pattern = rng.integers(0, 8, 4)
    while at < seconds:
        length = beat * float(rng.choice([1, 2, 4] if role == "chords" else [0.25, 0.5, 1, 1, 2]))
        if role == "arpeggio":
            length = beat / 4 if pattern[0] % 2 else beat / 2
        degree = int(np.clip(degree + rng.integers(-3, 4), -5, 12))
        if role == "chords":
            degrees, octave = [degree, degree + 2, degree + 4][: rng.integers(2, 4)], 12
        elif role == "arpeggio":
            degrees, octave = [int(pattern[round(at / length) % 4]) + degree // 4], 12
        else:
            degrees, octave = [degree], 24 if role == "melody" else -12
        if role != "melody" or rng.random() > 0.15:
            for d in degrees:
                pitch = root + octave + scale[d % len(scale)] + 12 * (d // len(scale))
                yield at, length * rng.uniform(0.6, 1.3), int(np.clip(pitch, 24, 100)), rng.uniform(0.5, 1)
        at += length


class _Tone:
    """An instrument: harmonics with a fixed spectrum or fixed resonances, an attack, a decay and a vibrato."""

    def __init__(self, rng: Generator) -> None:
        self._slope, self._n = rng.uniform(0.3, 2), int(rng.integers(1, 20))
        self._odd = rng.random() < 0.2
        self._resonances = np.exp(rng.uniform(np.log(300), np.log(4000), 3)) if rng.random() < 0.4 else np.zeros(0)
        self._attack = np.exp(rng.uniform(np.log(0.003), np.log(0.2)))
        self._decay = rng.choice([0, rng.uniform(0.5, 8)])
        self._vibrato = rng.choice([0, rng.uniform(0.002, 0.03)])
        self._rate, self._bell = rng.uniform(4, 7.5), rng.choice([0.0, 0.0, rng.uniform(0, 0.02)])

    def __call__(self, n: int, hz: float, rng: Generator) -> Floats:
        time = np.arange(n) / SAMPLE_RATE
        swing = self._vibrato * np.minimum(time * 3, 1) * np.sin(2 * np.pi * self._rate * time)
        phase = 2 * np.pi * np.cumsum(hz * (1 + swing)) / SAMPLE_RATE
        out = np.zeros(n)
        for k in range(1, self._n + 1, 2 if self._odd else 1):
            ratio = k * (1 + self._bell * k * k)
            if ratio * hz > 7500:
                break
            distances = np.log(self._resonances / (ratio * hz)) / 0.25
            body = np.exp(-(distances**2)).sum() if len(distances) else 1
            out += np.sin(ratio * phase) * k**-self._slope * (body + 0.05)
        release = np.minimum(1, (n - np.arange(n)) / 400)
        return np.asarray(out * np.minimum(1, time / self._attack) * np.exp(-self._decay * time) * release, np.float32)


def _pluck(n: int, hz: float, rng: Generator) -> Floats:
    """Karplus-Strong: a burst of noise in a loop that damps its treble (one array operation a period)."""
    period = max(2, round(SAMPLE_RATE / hz))
    loop, turns = rng.uniform(-1, 1, period), []
    for _ in range(n // period + 1):
        turns.append(loop)
        loop = 0.996 * 0.5 * (loop + np.roll(loop, 1))
    return np.asarray(np.concatenate(turns)[:n], np.float32)


def _drums(n: int, beat: Seconds, rng: Generator) -> Floats:
    out = np.zeros(n)
    for hz, decay, hiss in ((60, 12, 0.02), (190, 20, 0.7), (0, rng.uniform(20, 60), 1.0)):
        hits = rng.random(16) < rng.uniform(0.15, 0.6)
        time = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * (hz * time - 3 * np.exp(-30 * time)))
        noise = np.diff(rng.standard_normal(len(time) + 1)) if hz == 0 else rng.standard_normal(len(time))
        sound = ((1 - hiss) * tone + hiss * noise) * np.exp(-decay * time) * rng.uniform(0.3, 1)
        for k in range(int(n / SAMPLE_RATE / beat * 4) + 1):
            first = int(k * beat / 4 * SAMPLE_RATE)
            if hits[k % 16] and first < n:
                out[first : first + len(sound)] += sound[: n - first]
    return _loud(out)


def render(programs: Sequence[int], seconds: Seconds, soundfont: Path, rng: Generator) -> Floats:
    """Random General MIDI music of about `seconds`, a new piece every 12 s, on the instruments `programs` (0-127).

    Needs the program fluidsynth. A quarter of the pieces have one part only.
    """
    events: list[tuple[float, bytes]] = []
    for piece in np.arange(0, seconds, 12.0):
        roles = rng.permutation(ROLES)[: max(1, rng.integers(0, 5))]
        scale, root, beat = SCALES[rng.integers(len(SCALES))], int(rng.integers(40, 60)), rng.uniform(0.25, 0.9)
        for channel, role in enumerate(str(r) for r in roles):
            if role == "drums":
                events += _hits(piece, beat, rng)
                continue
            events.append((piece, bytes([0xC0 | channel, int(rng.choice(programs))])))
            events.append((piece, bytes([0xB0 | channel, 1, int(rng.integers(128) * rng.integers(2))])))  # vibrato
            for begin, length, pitch, loud in notes(role, 11.0, scale, root, beat, rng):
                events.append((piece + begin, bytes([0x90 | channel, pitch, int(50 + 75 * loud)])))
                events.append((min(piece + begin + length, piece + 11.5), bytes([0x80 | channel, pitch, 0])))
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "music.mid", Path(folder) / "music.wav"
        midi.write_bytes(_midi(events))
        rate = str(SAMPLE_RATE)
        subprocess.run(["fluidsynth", "-niq", "-g", "0.5", "-r", rate, "-F", wav, soundfont, midi], check=True)
        return load(Clip(str(wav)))


def _hits(piece: Seconds, beat: Seconds, rng: Generator) -> Iterable[tuple[float, bytes]]:
    for drum in rng.integers(35, 82, 4):
        pattern = rng.random(16) < rng.uniform(0.1, 0.6)
        for k in range(int(11 / beat * 4)):
            if pattern[k % 16]:
                yield piece + k * beat / 4, bytes([0x99, int(drum), int(rng.integers(50, 127))])


def _midi(events: Sequence[tuple[float, bytes]]) -> bytes:
    """A standard MIDI file of one track whose ticks are milliseconds."""
    track, now = b"\x00\xff\x51\x03\x0f\x42\x40", 0  # one second a quarter note
    for at, message in sorted(events, key=lambda event: event[0]):
        tick = round(at * 1000)
        delta, now = tick - now, tick
        digits = [delta & 0x7F]
        while delta := delta >> 7:
            digits.append(0x80 | (delta & 0x7F))
        track += bytes(digits[::-1]) + message
    track += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1000) + b"MTrk" + struct.pack(">I", len(track)) + track


def _loud(samples: Floats | np.ndarray) -> Floats:
    """Scaled to a root mean square of 0.1."""
    return np.asarray(samples * (0.1 / (np.sqrt(np.mean(np.square(samples))) + 1e-9)), np.float32)

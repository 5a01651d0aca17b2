"""Real codecs as augmentation: speech through a telephone's mu-law, ADPCM, Opus or MP3 at low bit rates, and back.

In: samples (n,) float32 at 16 kHz. Out: as many, not delayed (PyAV's encoders, in memory). Knows nothing of batches.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
import soxr
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.random import Generator

from earshot.features import SAMPLE_RATE, Floats


@dataclass(frozen=True, slots=True)
class Codec:
    """A container and encoder of FFmpeg, its sample rate, the bit rates it is used at, how often it is drawn."""

    container: str
    encoder: str
    rate: int
    bits_per_second: tuple[int, int] | None
    share: float


CODECS = {
    "mu-law": Codec("wav", "pcm_mulaw", 8_000, None, 0.5),
    "adpcm": Codec("wav", "adpcm_ima_wav", 16_000, None, 0.1),
    "opus": Codec("ogg", "libopus", 16_000, (6_000, 16_000), 0.2),
    "mp3": Codec("mp3", "libmp3lame", 16_000, (16_000, 32_000), 0.2),
}


def any_codec(samples: Floats, rng: Generator) -> Floats:
    """`samples` through one of CODECS, drawn by their shares."""
    names = list(CODECS)
    name = names[int(rng.choice(len(names), p=[CODECS[name].share for name in names]))]
    return through(samples, name, rng)


def through(samples: Floats, name: str, rng: Generator) -> Floats:
    """`samples` (n,) encoded and decoded by a codec at one of its bit rates: (n,)."""
    codec, coded = CODECS[name], io.BytesIO()
    lower = soxr.resample(samples, SAMPLE_RATE, codec.rate) if codec.rate != SAMPLE_RATE else samples
    pcm = (np.clip(lower, -1, 1) * 32767).astype(np.int16)[None]
    with av.open(coded, "w", format=codec.container) as out:
        track = out.add_stream(codec.encoder, rate=codec.rate, layout="mono")
        assert isinstance(track, AudioStream)
        if codec.bits_per_second is not None:
            track.bit_rate = int(rng.integers(*codec.bits_per_second))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = codec.rate
        for packet in (*track.encode(frame), *track.encode(None)):
            out.mux(packet)
    coded.seek(0)
    with av.open(coded, "r") as container:
        resampler = AudioResampler("flt", "mono", SAMPLE_RATE)
        frames = [frame for whole in (*container.decode(audio=0), None) for frame in resampler.resample(whole)]
    parts = [frame.to_ndarray()[0] for frame in frames] or [np.zeros(0, np.float32)]
    decoded = np.concatenate(parts)[: len(samples)]
    return np.pad(decoded, (0, len(samples) - len(decoded))).astype(np.float32)

"""Trains the network of earshot.speech and writes `speech.npz`.

In: corpora with phone times, and sound that is not speech (earshot.train.not_speech). Out: the weights; what they are
worth, earshot.train.speech_trial tells. Knows nothing of words. Eight minutes of one core; needs fluidsynth for music.

    python -m earshot.train.speech_detector data/corpora --soundfont FluidR3_GM.sf2 --out DIR
"""

from __future__ import annotations

import argparse
import io
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from earshot.features import HOP, N_MELS, SAMPLE_RATE, WINDOW, Floats, frame_count, log_mel
from earshot.speech import FRAME_SECONDS, STEP, level, scaled
from earshot.train import not_speech
from earshot.train.augment import Augmentation, change_speed, degrade, warp_mels
from earshot.train.corpus import read_corpus
from earshot.types import Seconds

PAUSE: Seconds = 0.2
"""Shorter gaps between phones are speech."""
SCENE = 5 << 15
"""Samples in a scene: 10.24 s, a length that Fourier transforms like."""
SCENE_FRAMES = frame_count(SCENE) // STEP
HELD_OUT_PROGRAMS = range(2, 128, 5)
"""General MIDI instruments that are never trained on: the test's music is played on these."""
NEVER = frozenset({"mini-librispeech/32", "mini-librispeech/1867"})
"""Speakers left for development."""
CHANNEL = Augmentation(noise_probability=0.0)  # rooms, responses and band limits; the noise is our own
Spans = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """Size of the network and length of its training."""

    channels: int = 32
    layers: int = 6
    epochs: int = 20
    batch: int = 32
    learning_rate: float = 4e-3
    missed: float = 1.5
    """Weight of a frame of speech beside one of anything else."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Samples int16 (n,) of one utterance and the seconds (m, 2) where speech begins and ends."""

    speaker: str
    samples: NDArray[np.int16]
    spans: Spans

    def read(self) -> Floats:
        """The samples as float32 in [-1, 1]."""
        return np.divide(self.samples, 32768, dtype=np.float32)


class Detector(nn.Module):
    """The network as earshot.speech computes it."""

    def __init__(self, options: DetectorOptions) -> None:
        super().__init__()
        c = options.channels
        self.front = nn.Linear(2 * STEP * N_MELS, c)
        layers = [nn.Conv1d(c, c, 3, dilation=1 << k, padding=1 << k) for k in range(options.layers)]
        self.dilated = nn.Sequential(*layers)
        self.out = nn.Linear(c, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits (b, n) of scaled log-mels (b, n * STEP, N_MELS)."""
        half = STEP // 2
        rows = F.pad(rows.transpose(1, 2), (half, half), mode="replicate").transpose(1, 2)
        groups = rows.reshape(len(rows), -1, STEP * N_MELS)
        hidden = F.relu(self.front(torch.cat([groups[:, :-1], groups[:, 1:]], dim=2))).transpose(1, 2)
        for convolution in self.dilated:
            hidden = hidden + F.relu(convolution(hidden))
        logits: Tensor = self.out(hidden.transpose(1, 2))
        return logits[..., 0]

    def weights(self) -> dict[str, NDArray[np.float16]]:
        """As `speech.npz` holds them."""
        layers = [layer for layer in self.dilated if isinstance(layer, nn.Conv1d)]
        arrays = {
            "front": self.front.weight.T.reshape(2, STEP * N_MELS, -1),
            "front_bias": self.front.bias,
            "dilated": torch.stack([layer.weight.permute(2, 1, 0) for layer in layers]),
            "dilated_bias": torch.stack([cast(Tensor, layer.bias) for layer in layers]),
            "out": self.out.weight[0],
            "out_bias": self.out.bias,
        }
        return {name: array.detach().numpy().astype(np.float16) for name, array in arrays.items()}


# --- sound


def aligned_voices(corpora: Path) -> Iterator[Voice]:
    """Every aligned utterance of the training splits below `corpora`."""
    for folder in sorted(path for path in corpora.iterdir() if (path / "utterances.jsonl").exists()):
        corpus = read_corpus(folder)
        for u in corpus.utterances:
            if u.phones and u.split == "train" and u.length > WINDOW:
                times = np.array([(phone.start, phone.end) for phone in u.phones])
                samples = np.asarray(corpus.samples[u.offset : u.offset + u.length])
                yield Voice(f"{u.corpus}/{u.speaker}", samples, bridged(times))


def bridged(times: Spans) -> Spans:
    """Spans (m, 2) in order of time, joined where less than PAUSE lies between them."""
    edges = times.reshape(-1)
    between = edges[1:-1].reshape(-1, 2)
    apart = between[between[:, 1] - between[:, 0] >= PAUSE]
    return np.concatenate([edges[:1], apart.reshape(-1), edges[-1:]]).reshape(-1, 2)


def is_held_out(speaker: str) -> bool:
    """One speaker in eight, and NEVER."""
    return speaker in NEVER or zlib.crc32(speaker.encode()) % 8 == 0


def negatives(programs: Sequence[int], minutes: float, soundfont: Path | None, rng: Generator) -> list[list[Floats]]:
    """Noises, and music, as samples of 12 s: `minutes` of each or more; half went through Opus, as speech has."""
    n, clips = 12 * SAMPLE_RATE, round(minutes * 60 / 12)
    noises = [not_speech.NOISES[k % len(not_speech.NOISES)](n, rng) for k in range(clips)]
    songs = [not_speech.music(n, rng) for _ in range(clips // 2)]
    if soundfont is not None:
        rendered = not_speech.render(programs, minutes * 60, soundfont, rng)
        songs += [rendered[k : k + n] for k in range(0, len(rendered) - n, n)]
    return [[through_opus(clip, rng) if k % 2 else clip for k, clip in enumerate(kind)] for kind in (noises, songs)]


def through_opus(samples: Floats, rng: Generator) -> Floats:
    """Encoded at 12-32 kb/s and decoded, as most of the speech was."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        track = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        track.bit_rate = int(rng.choice([12_000, 16_000, 16_000, 32_000]))
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        for piece in (frame, None):
            container.mux(track.encode(piece))
    file.seek(0)
    with av.open(file, "r") as coded:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        pieces = [out.to_ndarray()[0] for frame in coded.decode(audio=0) for out in resampler.resample(frame)]
    return np.asarray(np.concatenate(pieces)[: len(samples)], np.float32)


# --- scenes


@dataclass(frozen=True, slots=True)
class Scene:
    """Ten seconds: raw log-mels (n * STEP, N_MELS), which frames are speech (n,), and which count in the loss (n,)."""

    mel: NDArray[np.float16]
    speech: NDArray[np.bool_]
    counts: NDArray[np.bool_]


def scene(voices: Sequence[Voice], pool: Sequence[Sequence[Floats]], rng: Generator) -> Scene:
    """Utterances with pauses, or none; over, between or without noise and music; through some room and channel."""
    n = SCENE
    track, spans = np.zeros(n, np.float32), np.zeros((0, 2))
    if rng.random() < 0.7:
        track, spans = _talk(voices, n, rng)
    speech = inside(spans, SCENE_FRAMES)
    talks = np.repeat(speech, STEP * HOP)
    talks = np.pad(talks, (0, n - len(talks)), mode="edge")
    loud = np.sqrt(np.mean(track[talks] ** 2)) if talks.any() else 0.1
    if rng.random() < 0.8 or not talks.any():
        track = track + _background(talks, loud, pool, rng)
    track = degrade(track, rng, CHANNEL)
    track = track * np.float32(10 ** (-rng.choice([0, 0, 0, rng.uniform(0, 25)]) / 20))
    if rng.random() < 0.3:
        track = track + not_speech.silence(n, rng)
    if rng.random() < 0.7:
        track = np.round(track * 32767) / np.float32(32767)
    before, after = np.roll(speech, -1), speech | np.roll(speech, 1) | np.roll(speech, 2) | np.roll(speech, 3)
    unsure = (speech & ~(np.roll(speech, 1) & np.roll(speech, -1))) | (~speech & (before | after))
    mel = log_mel(track.astype(np.float32))[: SCENE_FRAMES * STEP]
    return Scene(mel.astype(np.float16), speech, ~unsure)


def inside(spans: Spans, frames: int) -> NDArray[np.bool_]:
    """Which of the detector's frames have their middle in one of the spans (m, 2), in seconds."""
    middles = (np.arange(frames) + 0.5) * FRAME_SECONDS + (WINDOW - HOP) / 2 / SAMPLE_RATE
    begun, ended = (np.searchsorted(spans[:, side], middles, "right") for side in (0, 1))
    return np.asarray(begun > ended)


def _talk(voices: Sequence[Voice], n: int, rng: Generator) -> tuple[Floats, Spans]:
    track, spans = np.zeros(n, np.float32), [np.zeros((0, 2))]
    at = int(rng.uniform(-4, 3) * SAMPLE_RATE)
    same = rng.random() < 0.5
    voice = voices[int(rng.integers(len(voices)))]
    while at < n:
        factor = rng.uniform(0.86, 1.17) if rng.random() < 0.6 else 1.0
        samples = voice.read()
        samples = change_speed(samples, factor) if factor != 1 else samples
        gain = 0.1 / (np.sqrt(np.mean(samples**2)) + 1e-5) * np.exp(rng.normal(0, 0.15 if same else 0.6))
        first, last = max(0, at), max(0, min(n, at + len(samples)))
        track[first:last] += gain * samples[first - at : last - at]
        spans.append(voice.spans / factor + at / SAMPLE_RATE)
        at += len(samples) + int(rng.choice([rng.uniform(0, 0.5), rng.exponential(3)]) * SAMPLE_RATE)
        voice = voice if same and rng.random() < 0.5 else voices[int(rng.integers(len(voices)))]
    return track, np.concatenate(spans)


def _background(talks: NDArray[np.bool_], loud: float, pool: Sequence[Sequence[Floats]], rng: Generator) -> Floats:
    """Noise 0-35 dB or music 0-20 dB under speech of root mean square `loud`, often louder where nobody talks."""
    n = len(talks)
    kind = int(rng.random() < (0.4 if talks.any() else 0.6))
    clip = pool[kind][int(rng.integers(len(pool[kind])))]
    if rng.random() < 0.5:
        clip = change_speed(clip, rng.uniform(0.8, 1.25))
    clip = np.roll(np.resize(clip, max(n, len(clip))), int(rng.integers(n)))[:n]
    under = rng.uniform(0, 20 if kind else 35)
    over = under - rng.uniform(0, 25) if rng.random() < 0.5 else under
    decibels = np.where(talks, under, max(over, -10.0))
    decibels = np.convolve(decibels[:: HOP * 4], np.ones(3) / 3, mode="same").repeat(HOP * 4)[:n]
    begin, end = sorted(rng.integers(0, n, 2)) if rng.random() < 0.3 else (0, n)
    out = np.zeros(n, np.float32)
    out[begin:end] = (clip * loud / (np.sqrt(np.mean(clip**2)) + 1e-9) * 10 ** (-decibels / 20))[begin:end]
    return out


# --- training


def train(scenes: Sequence[Scene], options: DetectorOptions, seed: int = 0) -> Detector:
    """AdamW over all scenes, each time with another vocal tract, microphone and level. Prints a line an epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Detector(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=1e-3)
    steps = options.epochs * (len(scenes) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps, pct_start=0.15)
    for epoch in range(options.epochs):
        began, losses = time.process_time(), []
        order = rng.permutation(len(scenes))
        for first in range(0, len(order) - options.batch + 1, options.batch):
            batch = [scenes[k] for k in order[first : first + options.batch]]
            logits = model(torch.from_numpy(np.stack([_varied(s, rng) for s in batch])))
            speech = torch.from_numpy(np.stack([s.speech for s in batch])).float()
            counts = torch.from_numpy(np.stack([s.counts for s in batch])).float()
            weight = counts * (1 + (options.missed - 1) * speech)
            loss = F.binary_cross_entropy_with_logits(logits, speech, weight=weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.process_time() - began:.1f} CPU s", flush=True)
    return model.eval()


def _varied(scene: Scene, rng: Generator) -> Floats:
    mel = scene.mel.astype(np.float32)
    if rng.random() < 0.5:
        mel = warp_mels(mel, rng.uniform(0.85, 1.18))
    response = np.interp(np.arange(N_MELS), np.linspace(0, N_MELS - 1, 6), rng.normal(0, 0.5, 6))
    return scaled(mel, level(mel) + rng.normal(0, 0.5)) + (0.25 * response).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--soundfont", type=Path, help="General MIDI sound font for fluidsynth")
    parser.add_argument("--scenes", type=int, default=2600)
    parser.add_argument("--epochs", type=int, default=DetectorOptions().epochs)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    by_speaker: dict[str, list[Voice]] = {}
    for voice in aligned_voices(arguments.corpora):
        if not is_held_out(voice.speaker):
            # the variants of one synthesiser are one speaker
            by_speaker.setdefault("/".join(voice.speaker.split("/")[:2]), []).append(voice)
    heard: list[Voice] = []
    for said in by_speaker.values():
        seconds = sum(len(voice.samples) for voice in said) / SAMPLE_RATE
        heard += [said[k] for k in rng.integers(0, len(said), 1 + int(2 * math.sqrt(seconds)))]
    programs = [p for p in range(128) if p not in HELD_OUT_PROGRAMS]
    pool = negatives(programs, 50, arguments.soundfont, rng)
    scenes = [scene(heard, pool, rng) for _ in range(arguments.scenes)]
    options = DetectorOptions(epochs=arguments.epochs)
    print(f"{len(by_speaker)} speakers, {len(heard)} utterances, {len(scenes)} scenes: {time.process_time():.0f} CPU s")
    model = train(scenes, options)
    np.savez_compressed(arguments.out / "speech.npz", allow_pickle=False, **model.weights())


if __name__ == "__main__":
    main()

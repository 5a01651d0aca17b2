"""How much speech earshot.speech keeps and how much music, noise and silence it leaves, on sound it was not trained on.

In: the corpora of its training (held-out speakers only), chapters with word times, a sound font. Out: a table. Knows
nothing of the network.

    python -m earshot.train.speech_trial data/corpora --soundfont FluidR3_GM.sf2 --chapters CHAPTERS
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from earshot.audio import load
from earshot.features import HOP, SAMPLE_RATE, Floats, log_mel
from earshot.speech import FRAME_SECONDS, SPEECH, detect, stretches
from earshot.train import not_speech
from earshot.train.augment import Augmentation, degrade
from earshot.train.speech_detector import (
    HELD_OUT_PROGRAMS,
    Spans,
    Voice,
    aligned_voices,
    bridged,
    inside,
    is_held_out,
    through_opus,
)
from earshot.types import Clip, Seconds

LONG_PAUSE: Seconds = 0.5
TELEPHONE = Augmentation(room_probability=0, filter_probability=0, noise_probability=0, band_limit_probability=1)
Change = Callable[[Floats, Generator], Floats]


@dataclass(frozen=True, slots=True)
class Talk:
    """A recording: its samples (n,) and the seconds (m, 2) of its speech."""

    samples: Floats
    spans: Spans


@dataclass(frozen=True, slots=True)
class Kept:
    """Shares of a talk: frames of speech missed, frames of the rest taken for speech; after stretches(), speech lost
    and long pauses removed."""

    missed: float
    alarmed: float
    lost: float
    pauses_removed: float
    minutes: float


def measure(talks: Iterable[Talk]) -> Kept:
    """Kept over all `talks`, weighted by time (10 ms for what is lost and removed, frames for the detector)."""
    sums = np.zeros(8)
    for talk in talks:
        probability = detect(log_mel(talk.samples))
        speech = inside(talk.spans, len(probability))
        found = probability > SPEECH
        kept, said = covered(talk.samples), ticks(talk.spans, len(talk.samples))
        pauses = long_pauses(talk)
        sums += [
            (speech & ~found).sum(), speech.sum(), (~speech & found).sum(), (~speech).sum(),
            (said & ~kept).sum(), said.sum(), (pauses & ~kept).sum(), pauses.sum(),
        ]  # fmt: skip
    shares = sums[::2] / np.maximum(sums[1::2], 1)
    return Kept(*np.append(shares, (sums[1] + sums[3]) * FRAME_SECONDS / 60).tolist())


def covered(samples: Floats) -> NDArray[np.bool_]:
    """Which hundredths of a second lie in a stretch, (n // HOP,)."""
    size = 60 * SAMPLE_RATE
    spans = [
        (s.start, s.start + len(s.mel) * HOP / SAMPLE_RATE)
        for s in stretches(samples[k : k + size] for k in range(0, len(samples), size))
    ]
    return ticks(np.array(spans).reshape(-1, 2), len(samples))


def ticks(spans: Spans, n_samples: int) -> NDArray[np.bool_]:
    """Hundredths of a second (n_samples // HOP,) that lie in one of the spans (m, 2)."""
    out = np.zeros(n_samples // HOP, np.bool_)
    for start, end in spans:
        out[round(start * 100) : round(end * 100)] = True
    return out


def long_pauses(talk: Talk) -> NDArray[np.bool_]:
    """Hundredths of a second in pauses longer than LONG_PAUSE, also those before and after all speech."""
    edges = np.concatenate([[0.0], talk.spans.reshape(-1), [len(talk.samples) / SAMPLE_RATE]]).reshape(-1, 2)
    return ticks(edges[edges[:, 1] - edges[:, 0] > LONG_PAUSE], len(talk.samples))


def talk_of(voices: Iterable[Voice], change: Change, rng: Generator) -> Iterator[Talk]:
    """Each utterance between 1.5 s of near silence, and then changed."""
    rest = int(1.5 * SAMPLE_RATE)
    for voice in voices:
        samples = np.pad(voice.read(), rest)
        samples *= 0.1 / (np.sqrt(np.mean(samples**2)) + 1e-6)
        samples += 2e-4 * rng.standard_normal(len(samples), np.float32)
        yield Talk(change(samples, rng), voice.spans + 1.5)


def chapters(folder: Path) -> Iterator[Talk]:
    """Whole chapters, their consecutive utterances joined."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for chapter in sorted({row["id"].rsplit("-", 1)[0] for row in rows}):
        pieces, spans, at = [], [], 0
        for row in sorted((r for r in rows if r["id"].startswith(chapter + "-")), key=lambda r: r["id"]):
            pieces.append(load(Clip(str(folder / row["audio"]))))
            spans.append(np.array([word[:2] for word in row["words"]]).reshape(-1, 2) + at / SAMPLE_RATE)
            at += len(pieces[-1])
        words = np.concatenate(spans)
        yield Talk(np.concatenate(pieces), words)


def _noisy(decibels: float, kind: not_speech.Made) -> Change:
    def change(samples: Floats, rng: Generator) -> Floats:
        noise = kind(len(samples), rng)
        return np.asarray(samples + noise * 10 ** (-decibels / 20), np.float32)

    return change


def _telephone(samples: Floats, rng: Generator) -> Floats:
    return degrade(samples, rng, TELEPHONE)


CHANGES: dict[str, Change] = {
    "as they are": lambda samples, rng: samples,
    "40 dB quieter": lambda samples, rng: samples * np.float32(0.01),
    "noise at 5 dB": _noisy(5, not_speech.coloured),
    "music at 10 dB": _noisy(10, not_speech.music),
    "telephone band": _telephone,
}


def report_voices(name: str, voices: list[Voice], rng: Generator) -> None:
    for label, change in CHANGES.items():
        kept = measure(talk_of(voices, change, rng))
        print(
            f"{name + ', ' + label:44} {kept.minutes:5.1f} min  frames missed {kept.missed:6.2%}, "
            f"false {kept.alarmed:6.2%}; speech lost {kept.lost:6.2%}, long pauses removed {kept.pauses_removed:6.1%}"
        )


def report_rest(name: str, clips: Iterable[Floats]) -> None:
    masks = [covered(clip) for clip in clips]
    kept = sum(mask.sum() for mask in masks) / sum(len(mask) for mask in masks)
    print(f"{name:44} {sum(len(mask) for mask in masks) / 6000:5.1f} min  kept {kept:.2%}")


def report_chapters(folder: Path) -> None:
    for talk in chapters(folder):
        pauses = Talk(talk.samples, bridged(talk.spans))
        kept, word = measure([pauses]), ticks(talk.spans, len(talk.samples))
        found = covered(talk.samples)
        began = time.process_time()
        mel = log_mel(talk.samples)
        middle = time.process_time()
        detect(mel)
        end = time.process_time()
        seconds = len(talk.samples) / SAMPLE_RATE
        print(
            f"chapter of {seconds / 60:.1f} min: word time covered {1 - (word & ~found).sum() / word.sum():.3%}, "
            f"pauses > {LONG_PAUSE} s removed {kept.pauses_removed:.1%}, kept {found.mean():.1%} of all; "
            f"log-mel {seconds / (middle - began):.0f}x, detector {seconds / (end - middle):.0f}x real time"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--soundfont", type=Path)
    parser.add_argument("--chapters", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    groups: dict[str, list[Voice]] = {}
    for voice in aligned_voices(arguments.corpora):
        if is_held_out(voice.speaker):
            groups.setdefault(voice.speaker.split("/")[0], []).append(voice)
    for name, voices in groups.items():
        report_voices(name, voices[:: len(voices) // 25 + 1], rng)
    n = 30 * SAMPLE_RATE
    made = {kind.__name__: [kind(n, rng) for _ in range(4)] for kind in dict.fromkeys(not_speech.NOISES)}
    for name, clips in made.items():
        report_rest(name, clips)
    report_rest("silence", [not_speech.silence(n, rng) for _ in range(6)])
    songs = [not_speech.music(n, rng) for _ in range(10)]
    report_rest("synthesised music", songs)
    report_rest("synthesised music through Opus", [through_opus(song, rng) for song in songs])
    if arguments.soundfont:
        rendered = not_speech.render(HELD_OUT_PROGRAMS, 480, arguments.soundfont, rng)
        report_rest("music on instruments never trained on", [rendered])
        report_rest("the same through Opus", [through_opus(rendered, rng)])
    if arguments.chapters:
        report_chapters(arguments.chapters)


if __name__ == "__main__":
    main()

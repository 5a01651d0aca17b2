"""Live keyword spotting as wake-word people measure it: `python -m benchmarks.listen --help`.

In: real speech, played as a stream with keywords in its pauses (`listen_task`). Out: for Earshot, typed and by example,
and pocketsphinx's keyword spotting: recall against false alarms of a keyword in an hour over a sweep of thresholds,
latency and processor time; a line each in `results/listen.jsonl`, tables in `results/listen.md`.

A hit is right when its middle lies within 0.5 s of a place where its very keyword is said; a second hit of that place
is a false alarm. Every hit counts from the threshold at which it would have been told.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from pocketsphinx import Endpointer

from benchmarks import listen_page, store
from benchmarks.contenders.pocketsphinx_kws import FRAME, NATS, NATS_PER_PHONE, decoder_of
from benchmarks.contract import SAMPLE_RATE, Audio
from benchmarks.listen_task import ROOTS, Stream, stream
from benchmarks.run import current_origin
from earshot import metrics
from earshot.features import HOP, WINDOW
from earshot.listen import STEP, Once, Spotted, Spotter
from earshot.live import BLOCK
from earshot.metrics import Reference
from earshot.types import LISTEN_THRESHOLD, Clip, EarshotError, Seconds

MEASURES = ("typed", "spoken", "unsaid", "pocketsphinx")
UNSAID = (
    "hey computer", "okay telescope", "hello library", "wake up robot", "start recording", "stop recording",
    "emergency exit", "turn the lights on", "play some music", "good morning kitchen",
)  # fmt: skip
LOWEST = 0.01
"""The lowest probability of Earshot's that is looked at."""
SHOWN = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
MEASURED: Seconds = 60.0
"""So much of the stream is played block by block, as a microphone gives it, for latency and processor time."""
NONE = np.zeros(1, np.float32)
"""What it takes to compute, where that is not counted."""
FEW = 4
"""With so many keywords, and with one."""


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of real speech.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--task", type=click.Choice(list(ROOTS)), default="chapters", show_default=True)
@click.option("--only", type=click.Choice(MEASURES), multiple=True, help="By default all that the task has.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(speech: Path, work: Path, task: str, only: tuple[str, ...], folder: Path) -> None:
    """Listen to a stream and count what is told."""
    origin = current_origin("benchmarks.listen")
    try:
        played = stream(speech, work, task)
        click.echo(f"{task}: {played}")
        chosen = [name for name in MEASURES if name in only or not only]
        if task != "chapters" and not only:
            chosen.remove("pocketsphinx")  # nothing of it is chosen here
        rows = [measured(name, played) for name in chosen]
    except EarshotError as error:
        raise click.ClickException(str(error)) from None
    made = {"task": task, "stream": str(played), "command": origin.command, "commit": origin.commit}
    path = folder / "listen.jsonl"
    stored = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    new = {(task, row["contender"], row["kind"]) for row in rows}
    kept = [row for row in stored if (row["task"], row["contender"], row["kind"]) not in new]
    kept += [{**made, "machine": origin.machine, "load": origin.load, **row} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    page = listen_page.page(kept)
    (folder / "listen.md").write_text(page, encoding="utf-8")
    click.echo(page)


def measured(name: str, played: Stream) -> dict[str, Any]:
    """One of MEASURES."""
    if name == "pocketsphinx":
        return pocketsphinx_row(played)
    if name == "unsaid":
        return unsaid_row(played)
    by_name = {text if name == "typed" else str(Clip(str(path))): text for text, path in played.examples.items()}
    return earshot_row(name, played, by_name)


def unsaid_row(played: Stream) -> dict[str, Any]:
    """False alarms of phrases as one would choose to wake a machine, which nobody says."""
    places = Spotter(UNSAID, threshold=LOWEST).places(played.samples)
    hours = played.seconds / 3600 * len(UNSAID)
    told = {t: len(Once().new(place for place in places if place.probability >= t)) for t in SHOWN}
    alarms = [{"threshold": t, "wrong": wrong, "false alarms": round(wrong / hours, 3)} for t, wrong in told.items()]
    return {"contender": "earshot", "kind": "unsaid", "queries": list(UNSAID), "alarms": alarms}


def earshot_row(kind: str, played: Stream, names: dict[str, str]) -> dict[str, Any]:
    """Everything measured of Earshot; names: the label of each query and its keyword."""
    queries: list[str | Clip] = [label if kind == "typed" else Clip(label) for label in names]
    few = [listening(Spotter(some), played.samples) for some in (queries[:1], queries[:FEW])]
    spotter = Spotter(queries, threshold=LOWEST)
    began = time.process_time()
    places = spotter.places(played.samples)
    cpu = time.process_time() - began
    heard = [Spotted(names[p.query], p.start, p.end, p.score, p.probability, _told_at(p.heard)) for p in places]
    looks = few[1]["looks"]
    return {
        "contender": "earshot",
        "kind": kind,
        "cpu one": few[0]["cpu"],
        "cpu few": few[1]["cpu"],
        "compute ms": {
            name: round(1000 * float(np.percentile(looks, q)), 1) for name, q in (("median", 50), ("p95", 95))
        },
        "cpu all, read fast": round(cpu / played.seconds, 4),
        "shown": [{"threshold": t, **counted(heard, t, played, looks)} for t in SHOWN],
        **swept(heard, played, LISTEN_THRESHOLD, looks),
    }


def _told_at(heard: Seconds) -> Seconds:
    """When a microphone's block has come that completes the last feature frame."""
    return math.ceil((heard + (WINDOW - HOP) / SAMPLE_RATE) / BLOCK) * BLOCK


def listening(spotter: Spotter, samples: Audio) -> dict[str, Any]:
    """Processor seconds for a second of sound that comes in BLOCKs, and those of each look."""
    size, spent = round(BLOCK * SAMPLE_RATE), list[float]()
    spotter.hear(samples[: 4 * SAMPLE_RATE])  # what is loaded once
    for k in range(4 * SAMPLE_RATE, round(MEASURED * SAMPLE_RATE), size):
        began = time.process_time()
        spotter.hear(samples[k : k + size])
        spent.append(time.process_time() - began)
    looks = np.sort(spent)[-round(len(spent) * BLOCK / STEP) :]
    return {"cpu": round(sum(spent) / (len(spent) * BLOCK), 4), "looks": looks}


def pocketsphinx_row(played: Stream) -> dict[str, Any]:
    """PocketSphinx's keyword spotting behind its own endpointer, as its documentation has it for live use."""
    decoder, endpointer = decoder_of(list(played.examples)), Endpointer(vad_mode=2)
    pcm = np.rint(np.clip(played.samples, -1, 1) * 32767).astype("<i2").tobytes()
    size, found, seen, started = endpointer.frame_bytes, list[Spotted](), set[Any](), False
    begin = 0.0
    cpu = time.process_time()
    for n, k in enumerate(range(0, len(pcm) - size, size)):
        speech = endpointer.process(pcm[k : k + size])
        if speech is None:
            continue
        if not started:
            decoder.start_utt()
            begin, started = endpointer.speech_start, True
        decoder.process_raw(speech)
        heard = (n + 1) * endpointer.frame_length
        if not endpointer.in_speech:
            decoder.end_utt()
            started = False
        found += (hit for hit in _spotted(decoder, begin, heard) if _unseen(hit, seen))
    cpu = time.process_time() - cpu
    few = decoder_of(list(played.examples)[:FEW])
    return {
        "contender": "pocketsphinx",
        "kind": "typed",
        "cpu few": _decoding(few, pcm),
        "cpu one": _decoding(decoder_of(list(played.examples)[:1]), pcm),
        "cpu all, read fast": round(cpu / played.seconds, 4),
        **swept(found, played, None),
    }


def _decoding(decoder: Any, pcm: bytes) -> float:
    """Processor seconds for a second of sound."""
    began = time.process_time()
    decoder.start_utt()
    size = round(BLOCK * SAMPLE_RATE) * 2
    for k in range(0, round(MEASURED * SAMPLE_RATE) * 2, size):
        decoder.process_raw(pcm[k : k + size])
        decoder.hyp()
    decoder.end_utt()
    return round((time.process_time() - began) / MEASURED, 4)


def _spotted(decoder: Any, begin: Seconds, heard: Seconds) -> Iterable[Spotted]:
    for hit in decoder.seg() or []:
        word = hit.word.strip()
        phones = sum(len(decoder.lookup_word(part).split()) for part in word.split())
        score = NATS * math.log(hit.prob) + NATS_PER_PHONE * phones
        yield Spotted(word, begin + hit.start_frame * FRAME, begin + (hit.end_frame + 1) * FRAME, 0.0, score, heard)


def _unseen(hit: Spotted, seen: set[Any]) -> bool:
    """Whether the decoder did not list it, with this score, before."""
    key = (hit.query, hit.start, hit.probability)
    return key not in seen and not seen.add(key)


def swept(places: Sequence[Spotted], played: Stream, default: float | None, looks: Audio = NONE) -> dict[str, Any]:
    """Recall at some false alarms of a keyword in an hour, for all and for some; the curve; what the default gives."""
    groups = {
        "all": list(played.references),
        "inserted": list(played.inserted),
        "natural": [r for r in played.references if r not in set(played.inserted)],
        "words": [r for r in played.references if " " not in r.query],
        "phrases": [r for r in played.references if " " in r.query],
    }
    scores = np.array([place.probability for place in places])
    thresholds = np.unique(np.quantile(scores, np.linspace(0, 1, 60)).round(4)) if len(scores) else np.zeros(1)
    tail = np.sort(scores)[-400::8] if len(scores) else np.zeros(1)
    points = [{"threshold": float(t), **counted(places, t, played, looks)} for t in np.unique([*thresholds, *tail])]
    at = {}
    for allowed in listen_page.ALARMS:
        fit = [point for point in points if point["false alarms"] <= allowed]
        at[str(allowed)] = max(fit, key=lambda point: point["recall"]) if fit else None
    told = {name: {a: _recall(places, p, played, of) for a, p in at.items() if p} for name, of in groups.items()}
    row = {"counts": {name: len(of) for name, of in groups.items()}, "at": at, "recall": told}
    row["points"] = [[p["threshold"], p["false alarms"], p["recall"]] for p in points]
    return row | ({"default": {"threshold": default, **counted(places, default, played, looks)}} if default else {})


def counted(places: Sequence[Spotted], threshold: float, played: Stream, looks: Audio = NONE) -> dict[str, Any]:
    """Recall, false alarms of a keyword in an hour, and latency (median, 95 %), of what a threshold tells.

    looks: seconds that looks took to compute; any of them may come on top of when enough of the stream has come.
    """
    right, hits = _matched(places, threshold, played)
    late = np.add.outer([hit.heard - reference.end for hit, reference in right], looks)
    hours = played.seconds / 3600 * len(played.examples)
    return {
        "recall": round(len(right) / len(played.references), 4),
        "right": len(right),
        "wrong": hits - len(right),
        "false alarms": round((hits - len(right)) / hours, 3),
        "latency": [round(float(np.percentile(late, q)), 3) for q in (50, 95)] if right else None,
    }


def _recall(places: Sequence[Spotted], at: dict[str, Any], played: Stream, of: Sequence[Reference]) -> float | None:
    found = {reference for _, reference in _matched(places, at["threshold"], played)[0]}
    return round(len(found & set(of)) / len(of), 4) if of else None


def _matched(
    places: Sequence[Spotted], threshold: float, played: Stream
) -> tuple[list[tuple[Spotted, Reference]], int]:
    """What is told at a threshold, each right hit with its place, and how many are told."""
    told = Once().new(place for place in places if place.probability >= threshold)
    free = {r: None for r in played.references}
    right = []
    for hit in told:
        middle = (hit.start + hit.end) / 2
        near = [
            r for r in free
            if r.query == hit.query and r.start - metrics.HIT_TOLERANCE <= middle <= r.end + metrics.HIT_TOLERANCE
        ]  # fmt: skip
        if near:
            nearest = min(near, key=lambda r: abs((r.start + r.end) / 2 - middle))
            del free[nearest]
            right.append((hit, nearest))
    return right, len(told)


if __name__ == "__main__":
    main()

"""Questions to half-hour documents: what a retriever saves whoever has to read, or hear, for the answer.

In: `recipes/spoken_squad.py`'s folder, a passage encoder. Out: one line of JSON for each contender in
`results/longform.jsonl`. The sentences of a split are joined, article after article, to recordings of thirty minutes,
indexed by `Library.index` and asked by `Library.ask`: in the document that the answer is in, and in all of them. A
passage holds the answer where most of the answer's sentence is inside its time. Without a retriever all of the document
has to be read.

Contenders: `earshot`; `text` and `sphinx`, transcripts of each sentence that the library is given beside the sound.

    python -m benchmarks.longform --speech DIR --work DIR
"""

from __future__ import annotations

import json
import time
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np

import earshot
from benchmarks import store
from benchmarks.passages import Passages, pocketsphinx, read_passages, transcribed
from benchmarks.run import current_origin
from earshot import encoders
from earshot.audio import SAMPLE_RATE
from earshot.encoders.passage import load_passage
from earshot.types import EarshotError, Passage, Seconds

LONGEST: Seconds = 1800.0
PAUSE: Seconds = 0.6
"""Between sentences."""
DEPTHS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sentence is."""

    document: str
    start: Seconds
    end: Seconds


def documents(test: Passages, folder: Path) -> list[Place]:
    """Write the recordings; the place of each passage of the test."""
    folder.mkdir(parents=True, exist_ok=True)
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.int16)
    written: list[list[np.ndarray[Any, np.dtype[np.int16]]]] = [[]]
    places, at = [], 0.0
    for samples in test.samples:
        seconds = len(samples) / SAMPLE_RATE
        if at + seconds > LONGEST:
            written.append([])
            at = 0.0
        places.append(Place(f"document-{len(written)}", at, at + seconds))
        written[-1] += [(samples * 32767).astype(np.int16), pause]
        at += seconds + PAUSE
    for number, parts in enumerate(written, 1):
        with wave.open(str(folder / f"document-{number}.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes(np.concatenate(parts).tobytes())
    return places


def transcribe(places: Sequence[Place], texts: Sequence[str], folder: Path) -> None:
    """Write the texts as Whisper's JSON, a file for each document."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in {place.document for place in places}:
        segments = [
            {"start": place.start, "end": place.end, "text": text}
            for place, text in zip(places, texts, strict=True)
            if place.document == name
        ]
        (folder / f"{name}.json").write_text(json.dumps({"segments": segments}))


def holds(passage: Passage, place: Place) -> bool:
    """Whether most of a sentence is in a passage."""
    if Path(passage.recording.path).stem != place.document:
        return False
    return min(passage.end, place.end) - max(passage.start, place.start) > (place.end - place.start) / 2


def ask(library: earshot.Library, test: Passages, places: Sequence[Place], whole: bool) -> dict[str, Any]:
    """How often the answer is among the first passages, their share of a document, and the time of a question."""
    lengths = {Path(recording.path).stem: recording.seconds for recording in library.recordings()}
    found: dict[int, list[bool]] = {depth: [] for depth in DEPTHS}
    share: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    began = time.perf_counter()
    for question, place in zip(test.questions, places, strict=True):
        passages = library.ask(question, top=max(DEPTHS), within=None if whole else f"{place.document}.wav")
        for depth in DEPTHS:
            first = passages[:depth]
            found[depth].append(any(holds(passage, place) for passage in first))
            share[depth].append(sum(p.end - p.start for p in first) / lengths[place.document])
    wall = time.perf_counter() - began
    return {
        **{f"top{depth}": round(mean(found[depth]), 4) for depth in DEPTHS},
        **({} if whole else {f"share{depth}": round(mean(share[depth]), 4) for depth in DEPTHS}),
        "question_ms": round(1000 * wall / len(places), 2),
    }


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Holds the test's folder.")
@click.option("--test", "name", default="spoken-squad:test", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path), help="Of a passage encoder; Earshot's unless told.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--contender", "names", multiple=True, default=["earshot", "text", "sphinx"], show_default=True)
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER)
def main(speech: Path, name: str, weights: Path | None, work: Path, names: tuple[str, ...], folder: Path) -> None:
    """Score contenders on half-hour documents; one line of JSON each in longform.jsonl."""
    try:
        encoder = load_passage(weights, encoders.load("word")) if weights else encoders.load("passage")
        test = read_passages(name, speech)
        places = documents(test, work / "documents")
        for contender in names:
            transcripts = None
            if contender != "earshot":
                sphinx = transcribed(encoder.text, work, "sphinx", pocketsphinx)
                texts = list(test.texts) if contender == "text" else sphinx(test).texts
                transcripts = work / f"transcripts-{contender}"
                transcribe(places, texts, transcripts)
            with earshot.open(work / f"library-{contender}", passages=encoder) as library:
                began = time.process_time()
                report = library.index(work / "documents", transcripts=transcripts)
                indexing = time.process_time() - began
                hours = sum(recording.seconds for recording in library.recordings()) / 3600
                row = {"contender": contender, "test": name, "documents": len(library.recordings())}
                row |= {"hours": round(hours, 3), "questions": len(places)}
                row["document"] = ask(library, test, places, whole=False)
                row["library"] = ask(library, test, places, whole=True)
                if report.recordings:
                    row["seconds_per_hour"] = round(indexing / hours, 2)
            store.put(
                folder / "longform.jsonl", row | asdict(current_origin("benchmarks.longform")), ("contender", "test")
            )
            click.echo(json.dumps(row))
    except EarshotError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()

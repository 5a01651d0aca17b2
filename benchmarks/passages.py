"""Questions against spoken passages (paper B, CLSR, arXiv 2511.09282): `python -m benchmarks.passages --help`.

In: read speech with its text, questions or none, contenders. Out: one line of JSON for each contender and test in
`results/passages.jsonl`. One question for each passage, all passages are one pool: recall at 1, 5 and 10 and mean
reciprocal rank from question to passage and back; word error rate of what was heard; processor seconds.

Tests: a folder with `questions.jsonl` (recipes/spoken_squad.py) is asked its questions. Read speech without any is
asked for its rarest words: five of each passage, as few others of the pool have them.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bm25s
import click
import jiwer
import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Decoder

from benchmarks import store
from benchmarks.run import current_origin
from earshot import encoders, metrics
from earshot.audio import load
from earshot.encoders.passage import PassageEncoder, load_passage
from earshot.encoders.text import TextEncoder
from earshot.features import log_mel
from earshot.types import Clip, EarshotError

KEYWORDS = 5
SHORTEST = 6
"""Words of a passage that is asked for by its words."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Passages:
    """A pool of spoken passages, each with its text, and one question for each."""

    name: str
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def samples(self) -> list[Floats]:
        return [load(Clip(str(path))) for path in self.paths]


@dataclass(frozen=True)
class Found:
    """scores (q, p) of all passages for each question, what was heard of each, and processor seconds for the passages
    and for a question."""

    scores: NDArray[Any]
    heard: list[str]
    passages_seconds: float
    question_seconds: float


Contender = Callable[[Passages], Found]


def read_passages(name: str, folder: Path) -> Passages:
    """The test called CORPUS:SPLIT below `folder`. EarshotError where there is none."""
    corpus, _, split = name.partition(":")
    root = folder / corpus
    try:
        rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    except OSError as error:
        raise EarshotError(f"{root}: no speech with a manifest ({error})") from None
    rows = [row for row in rows if not split or row["split"] == split]
    asked = root / "questions.jsonl"
    if asked.exists():
        told = {line["id"]: line for line in map(json.loads, asked.read_text().splitlines())}
        texts = [told[row["id"]]["sentence"] for row in rows]
        questions = [told[row["id"]]["question"] for row in rows]
    else:
        rows = [row for row in rows if len(row["text"].split()) >= SHORTEST]
        texts = [row["text"].lower() for row in rows]
        questions = keywords(texts)
    if not rows:
        raise EarshotError(f"{root}: no speech of split '{split}'")
    paths = tuple(root / row["audio"] for row in rows)
    return Passages(name, tuple(row["id"] for row in rows), paths, tuple(texts), tuple(questions))


def keywords(texts: Sequence[str]) -> list[str]:
    """The KEYWORDS words of each text that fewest of the others have, the longer of two first, as they come in it."""
    words = [re.findall("[a-z']+", text) for text in texts]
    holding = Counter(word for of in words for word in set(of))
    chosen = [sorted(set(of), key=lambda w: (holding[w], -len(w), w))[:KEYWORDS] for of in words]
    return [" ".join(w for w in dict.fromkeys(of) if w in best) for of, best in zip(words, chosen, strict=True)]


def by_meaning(text: TextEncoder, read: Callable[[Passages], tuple[list[str], float]]) -> Contender:
    """Texts and questions as vectors of a text encoder."""

    def find(test: Passages) -> Found:
        heard, seconds = read(test)
        began = time.process_time()
        passages = text.embed(heard)
        between = time.process_time()
        scores = text.embed(test.questions) @ passages.T
        ended = time.process_time()
        return Found(scores, heard, seconds + between - began, (ended - between) / len(test.questions))

    return find


def by_words(read: Callable[[Passages], tuple[list[str], float]]) -> Contender:
    """BM25 over stemless words, stop words left out."""

    def find(test: Passages) -> Found:
        heard, seconds = read(test)
        began = time.process_time()
        index = bm25s.BM25()
        index.index(bm25s.tokenize([text or "-" for text in heard], show_progress=False), show_progress=False)
        between = time.process_time()
        asked = bm25s.tokenize(list(test.questions), return_ids=False, show_progress=False)
        scores = np.stack([index.get_scores(words) if words else np.zeros(len(heard)) for words in asked])
        ended = time.process_time()
        return Found(scores, heard, seconds + between - began, (ended - between) / len(test.questions))

    return find


def by_ear(encoder: PassageEncoder) -> Contender:
    """Earshot's passage encoder."""

    def find(test: Passages) -> Found:
        began = time.process_time()
        tokens = []
        for samples in test.samples:
            (frames,) = encoder.word.frames([log_mel(samples)])
            tokens.append(encoder.hear(frames).tokens)
        passages = encoder.embed_tokens(tokens)
        between = time.process_time()
        scores = encoder.embed_text(test.questions) @ passages.T
        ended = time.process_time()
        heard = [encoder.read(of) for of in tokens]
        return Found(scores, heard, between - began, (ended - between) / len(test.questions))

    return find


def written(test: Passages) -> tuple[list[str], float]:
    """What was said, from the transcript."""
    return list(test.texts), 0.0


def decoded(folder: Path) -> Callable[[Passages], tuple[list[str], float]]:
    """What pocketsphinx makes of it, with its own US English models; kept in `folder` for other runs."""

    def read(test: Passages) -> tuple[list[str], float]:
        path = folder / f"pocketsphinx-{test.name.replace(':', '-')}.json"
        if not path.exists():
            decoder, heard = Decoder(loglevel="FATAL"), {}
            began = time.process_time()
            for name, samples in zip(test.ids, test.samples, strict=True):
                decoder.start_utt()
                decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
                decoder.end_utt()
                best = decoder.hyp()
                heard[name] = best.hypstr if best else ""
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"cpu_seconds": time.process_time() - began, "heard": heard}))
        kept = json.loads(path.read_text())
        return [kept["heard"][name] for name in test.ids], kept["cpu_seconds"]

    return read


def score(name: str, contender: Contender, test: Passages, hours: float) -> dict[str, Any]:
    """A row of results."""
    found = contender(test)
    relevant = np.arange(len(test.ids))
    row: dict[str, Any] = {"contender": name, "test": test.name, "passages": len(test.ids), "hours": round(hours, 3)}
    for way, scores in (("question", found.scores), ("passage", found.scores.T)):
        ranks = metrics.ranks(scores, relevant)
        row |= {f"{way}_r{k}": round(metrics.recall_at(ranks, k), 4) for k in (1, 5, 10)}
        row[f"{way}_mrr"] = round(metrics.mean_reciprocal_rank(ranks), 4)
    plain = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip(), jiwer.RemoveMultipleSpaces()])
    row["wer"] = round(jiwer.wer(plain(list(test.texts)), plain(found.heard)), 4)
    row["seconds_per_hour"] = round(found.passages_seconds / hours, 2)
    row["question_ms"] = round(1000 * found.question_seconds, 2)
    return row | asdict(current_origin("benchmarks.passages"))


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folders with manifests.")
@click.option("--test", "tests", multiple=True, required=True, help="CORPUS:SPLIT, or CORPUS for all of it.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    required=True,
    help="Of a passage encoder and the text encoder beside it.",
)
@click.option("--contender", "names", multiple=True, help="earshot, text, text-bm25, sphinx, sphinx-bm25; all if none.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER)
@click.option("--show", type=int, default=0, help="Print what was heard of so many passages.")
def main(
    speech: Path,
    tests: tuple[str, ...],
    weights: Path,
    names: tuple[str, ...],
    work: Path,
    folder: Path,
    show: int,
) -> None:
    """Score contenders on pools of spoken passages; one line of JSON each in passages.jsonl."""
    try:
        encoder = load_passage(weights, encoders.load("word"))
        sphinx = decoded(work)
        contenders: dict[str, Contender] = {
            "text": by_meaning(encoder.text, written),
            "text-bm25": by_words(written),
            "sphinx": by_meaning(encoder.text, sphinx),
            "sphinx-bm25": by_words(sphinx),
            "earshot": by_ear(encoder),
        }
        for test in (read_passages(name, speech) for name in tests):
            hours = sum(len(samples) for samples in test.samples) / 16_000 / 3600
            for name in names or contenders:
                row = score(name, contenders[name], test, hours)
                store.put(folder / "passages.jsonl", row, ("contender", "test"))
                click.echo(json.dumps(row))
                if show:
                    for text, heard in list(zip(test.texts, contenders[name](test).heard, strict=True))[:show]:
                        click.echo(f"  said:  {text}\n  heard: {heard}")
    except EarshotError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()

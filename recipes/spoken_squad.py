"""SQuAD in paper B's one-to-one form, read by synthetic voices: each sentence that holds an answer, with one question.

In: SQuAD's JSON, a recipe that says which articles are held out, the engines of `synthesise.py`. Out: a folder as
`synthesise.py` makes it, and `questions.jsonl` (`id, article, number, paragraph, sentence, question`). Held-out
articles are read by voices that training never hears, and their questions by others of these, a split of their own
(`dev-questions`, with `-question` after each id). Knows nothing of models.

    python recipes/spoken_squad.py data/spoken-squad squad-36-articles.json.gz --recipe recipes/passage.toml --jobs 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sentences import answered, articles
from synthesise import Utterance, cast, synthesise

from earshot.pronounce import read_out
from earshot.types import QueryError

VOICES = {
    "dev": [("espeak", "en-us+m5"), ("espeak", "en-us+f5"), ("espeak", "en-gb+victor"), ("espeak", "en-us+Andrea")],
    "test": [("flite", "rms"), ("festival", "ked_diphone")],
}
BATCH = 24


@dataclass(frozen=True)
class Asked:
    """A sentence and the question that it answers."""

    article: str
    number: int
    """Of the sentence, among those of its article."""
    paragraph: int
    sentence: str
    question: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("squad", type=Path)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--splits", nargs="*", default=["train", "dev", "test"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    held = tomllib.loads(options.recipe.read_text())["articles"]
    split = {title: name for name, titles in held.items() for title in titles}
    options.out.mkdir(parents=True, exist_ok=True)
    planned = [
        (one, said)
        for one in read(options.squad)
        if (said := utterance(one, one.sentence, split.get(one.article, "train"))) is not None
    ]
    with open(options.out / "questions.jsonl", "w") as file:
        for one, said in planned:
            file.write(json.dumps({"id": said.id, **vars(one)}) + "\n")
    spoken = [said for _, said in planned]
    for one, said in planned:
        asked = utterance(one, one.question, said.split, said.speaker) if said.split != "train" else None
        if asked is not None:
            spoken.append(replace(asked, id=f"{said.id}-question", split=f"{said.split}-questions"))
    manifest = options.out / "manifest.jsonl"
    done = {json.loads(line)["id"] for line in manifest.read_text().splitlines()} if manifest.exists() else set()
    wanted = {*options.splits, *(f"{name}-questions" for name in options.splits)}
    left = iter([said for said in spoken if said.split in wanted and said.id not in done])
    batches = iter(lambda: list(itertools.islice(left, BATCH)), [])
    with ProcessPoolExecutor(options.jobs) as pool, manifest.open("a") as file:
        for lines in pool.map(synthesise, batches, itertools.repeat(options.out)):
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
    print(f"{len(planned)} sentences", file=sys.stderr)


def read(path: Path) -> Iterator[Asked]:
    """Each sentence that holds the first answer of a question, once, with the first such question."""
    for article in articles(path):
        said: list[str] = []
        for number, paragraph in enumerate(article["paragraphs"]):
            for sentence, questions in answered(paragraph):
                if questions and sentence not in said:
                    yield Asked(article["title"], len(said), number, sentence, questions[0])
                    said.append(sentence)


def utterance(asked: Asked, text: str, split: str, but: str = "") -> Utterance | None:
    """Who reads its sentence or its question, and how, any speaker `but` that one; None where it cannot be read."""
    try:
        words = tuple(word for word, _ in read_out(text))
    except QueryError:
        return None
    spoken = re.sub(r'["\\()\[\]{}]', " ", text)
    rng = random.Random(f"{asked.article} {text}")
    said = cast(f"{asked.article}-{asked.number:06d}", 0, words, spoken, rng)
    if split != "train":
        engine, voice = rng.choice([of for of in VOICES[split] if "/".join(of) != but])
        said = replace(said, engine=engine, voice=voice)
    return replace(said, split=split)


if __name__ == "__main__":
    main()

"""DRCD (questions in Mandarin) in paper B's one-to-one form, read by synthetic voices, and a small text encoder for it.

In: DRCD's JSON, which has SQuAD's layout; espeak-ng. Out: a folder as `spoken_squad.py` makes it, with
`alignments.jsonl` (the time of each character: clauses are spoken one by one, and characters lie evenly in them); and
`text/`, a text encoder in Hugging Face's format whose word pieces are characters, with random weights. Every eighth
article is held out, and read by voices that training never hears. Knows nothing of models.

    python recipes/drcd.py data/drcd drcd-dev.json.gz --hours 8

Needs `pip install pypinyin`, for espeak-ng reads pinyin, and the Debian package espeak-ng.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from sentences import articles

RATE = 16_000
VOICES = {
    "train": ["m1", "m2", "m3", "m4", "m6", "f1", "f2", "f3", "f5", "Alicia", "Annie", "Andy", "Gene", "Lee"],
    "test": ["m7", "f4", "Linda", "Max"],
}
HELD_OUT = 8
"""Every so manieth article."""
LONGEST = 60
"""Characters of a sentence."""
END = re.compile(r"(?<=[。！？；])")
CLAUSE = re.compile(r"[^\u4e00-\u9fff]+")
FIGURES = str.maketrans("0123456789", "〇一二三四五六七八九")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BATCH = 32


@dataclass(frozen=True)
class Sentence:
    """A sentence, where it is from, and the first question that it answers."""

    id: str
    split: str
    text: str
    question: str | None

    @property
    def clauses(self) -> list[str]:
        return [clause for clause in CLAUSE.split(self.text) if clause]

    @property
    def characters(self) -> list[str]:
        return list("".join(self.clauses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("drcd", type=Path)
    parser.add_argument("--hours", type=float, default=8.0, help="of speech to train on; at three characters a second")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    everything = list(read(options.drcd))
    learned = [one for one in everything if one.split == "train"]
    # Those with a question first: they are what training learns most of.
    learned.sort(key=lambda one: (one.question is None, random.Random(one.id).random()))
    sizes = np.cumsum([len(one.characters) for one in learned])
    learned = learned[: int(np.searchsorted(sizes, options.hours * 3600 * 3))]
    tested = [one for one in everything if one.split == "test" and one.question]
    planned = [*tested, *learned]
    asked = [one for one in planned if one.question]
    rows = ({"id": one.id, "sentence": spaced(one.text), "question": one.question} for one in asked)
    (options.out / "questions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_text_encoder(options.out / "text", [text for one in learned for text in (one.text, one.question or "")])
    manifest, alignments = options.out / "manifest.jsonl", options.out / "alignments.jsonl"
    done = {json.loads(line)["id"] for line in manifest.read_text().splitlines()} if manifest.exists() else set()
    left = iter([one for one in planned if one.id not in done])
    batches = iter(lambda: list(itertools.islice(left, BATCH)), [])
    with ProcessPoolExecutor(options.jobs) as pool, manifest.open("a") as rows_file, alignments.open("a") as times:
        for lines in pool.map(speak, batches, itertools.repeat(options.out)):
            for row, words in lines:
                times.write(json.dumps({"id": row["id"], "words": words}, ensure_ascii=False) + "\n")
                rows_file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(learned)} sentences to train on, {len(tested)} held out", file=sys.stderr)


def read(path: Path) -> Iterator[Sentence]:
    """The sentences of all articles that can be read aloud: in Chinese characters, years as their figures."""
    for number, article in enumerate(articles(path)):
        split = "test" if number % HELD_OUT == 0 else "train"
        seen: set[str] = set()
        for paragraph in article["paragraphs"]:
            begin = 0
            for sentence in END.split(paragraph["context"]):
                there = range(begin, begin + len(sentence))
                begin += len(sentence)
                text = readable(sentence)
                if not text or text in seen:
                    continue
                seen.add(text)
                answered = (q["question"] for q in paragraph["qas"] if q["answers"][0]["answer_start"] in there)
                yield Sentence(f"drcd-{number:03d}-{len(seen):04d}", split, text, next(answered, None))


def readable(sentence: str) -> str | None:
    """What is said, with punctuation; None where that is not plain from the characters."""
    text = re.sub(r"\d{4}(?=年)", lambda year: year.group().translate(FIGURES), sentence.strip())
    if re.search(r"[A-Za-z0-9]", text):
        return None
    return text if 6 <= len(CLAUSE.sub("", text)) <= LONGEST else None


def spaced(text: str) -> str:
    """Characters as words."""
    return " ".join(CLAUSE.sub("", text))


def speak(batch: list[Sentence], out: Path) -> list[tuple[dict[str, Any], list[tuple[float, float, str]]]]:
    """Say and store sentences -> rows of the manifest, each with the times of its characters."""
    from pypinyin import Style, lazy_pinyin

    lines = []
    with tempfile.TemporaryDirectory(prefix="drcd-") as folder:
        wav = Path(folder) / "clause.wav"
        for one in batch:
            rng = random.Random(one.id)
            voice = rng.choice(VOICES[one.split])
            how = ["-v", f"cmn-latn-pinyin+{voice}", "-s", str(rng.randint(130, 190)), "-p", str(rng.randint(30, 70))]
            parts, words, at = [np.zeros(RATE // 5, np.float32)], [], 0.2
            for clause in one.clauses:
                syllables = lazy_pinyin(clause, style=Style.TONE3, neutral_tone_with_five=True)
                command = ["espeak-ng", *how, "-a", "40", "-w", str(wav)]
                subprocess.run(command, input=" ".join(syllables).encode(), check=True, capture_output=True)
                samples = loud(wav)
                each = len(samples) / RATE / len(clause)
                words += [(round(at + k * each, 3), round(at + (k + 1) * each, 3), c) for k, c in enumerate(clause)]
                pause = np.zeros(round(rng.uniform(0.1, 0.35) * RATE), np.float32)
                parts += [samples, pause]
                at += (len(samples) + len(pause)) / RATE
            audio = Path("audio") / one.id[5:8] / f"{one.id}.flac"
            (out / audio).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(out / audio, np.concatenate(parts), RATE, subtype="PCM_16")
            row = {"id": one.id, "audio": str(audio), "seconds": round(at, 3), "speaker": f"espeak/{voice}"}
            lines.append((row | {"text": " ".join(one.characters), "split": one.split}, words))
    return lines


def loud(wav: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The samples of a clause at RATE, without silence before and after."""
    samples, rate = soundfile.read(wav, dtype="float32")
    samples = soxr.resample(samples, rate, RATE)
    there = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[there[0] : there[-1] + 1] if len(there) else samples


def write_text_encoder(folder: Path, texts: list[str]) -> None:
    """A BERT of three layers with random weights, for characters that are in the texts at least twice."""
    import torch
    from transformers import BertConfig, BertModel

    counts = Counter(character for text in texts for character in text if not character.isspace())
    pieces = [*SPECIAL, *sorted(c for c, n in counts.items() if n > 1)]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=768,
        max_position_embeddings=130,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))


if __name__ == "__main__":
    main()

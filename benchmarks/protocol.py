"""Paper A's protocol (JMCL, arXiv 2512.14115, section 4) for word encoders: `python -m benchmarks.protocol --help`.

In: prepared corpora (`earshot.train.corpus`), encoders by folder, a condition of noise. Out: one line of JSON for each
encoder and condition in `results/protocol.jsonl`. Word discrimination: same-different and cross-modal AP of spoken
words of 0.5 to 2 s and at least three letters, apart for words in the training text (IV) and out of it (OOV).
Detection: a spoken (STD) or typed (KWS) word against every fixed window of running speech.

What the paper leaves open is stated here. A trial is a query and a window: positive where the window's middle lies
within the word, negative where the window does not touch it; what lies between does not count. Queries are the words
of the test that are said at least twice; a spoken one is one instance of 0.5 to 2 s, whose own utterance is left out.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import store
from benchmarks.conditions import Condition
from benchmarks.contenders.fixed_windows import HOP, WINDOWS
from benchmarks.contenders.word_encoder import load
from benchmarks.contract import DETECTIONS_PER_QUERY, SAMPLE_RATE, Audio
from benchmarks.peaks import peaks
from benchmarks.run import current_origin
from earshot import metrics
from earshot.encoders import IsolatedEncoder, WordEncoder
from earshot.encoders.clock import frame_range
from earshot.features import log_mel
from earshot.metrics import Detection, Reference
from earshot.train.corpus import read_corpus
from earshot.train.recipe import held_out, read_recipe, training_part
from earshot.train.transcripts import words_of
from earshot.types import EarshotError, Seconds

SHORTEST, LONGEST = 0.5, 2.0
LETTERS = 3
SEED = 1
PRONOUNCEABLE = re.compile("[a-z'.-]+")
"""Others, of another script, are no words of the test."""
Floats = NDArray[np.float32]
Encoder = WordEncoder | IsolatedEncoder


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word of the test: in utterance number `utterance`."""

    label: str
    utterance: int
    start: Seconds
    end: Seconds

    @property
    def long_enough(self) -> bool:
        return SHORTEST <= self.end - self.start <= LONGEST


@dataclass(frozen=True)
class Test:
    """The utterances that encoders are tested on, under one condition, and what is said in them."""

    name: str
    condition: Condition
    samples: list[Audio]
    speakers: list[str]
    words: list[Word]
    vocabulary: frozenset[str]
    """The words of the training text."""

    def cut(self, word: Word) -> Audio:
        """The samples of a word."""
        samples = self.samples[word.utterance]
        return samples[round(word.start * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)]

    def part(self, words: Sequence[Word], name: str) -> NDArray[np.bool_]:
        """(n,) which words belong to "IV", "OOV" or "all"."""
        inside = np.array([word.label in self.vocabulary for word in words], bool)
        return {"IV": inside, "OOV": ~inside, "all": np.ones(len(words), bool)}[name]


@click.command()
@click.option("--corpora", type=click.Path(exists=True, path_type=Path), required=True, help="Prepared corpora.")
@click.option("--recipe", type=click.Path(exists=True, path_type=Path), required=True, help="Says what was trained on.")
@click.option(
    "--test", "name", default="mini-librispeech:dev", show_default=True, help="CORPUS:SPLIT or CORPUS:held-out."
)
@click.option("--encoder", "names", multiple=True, help="NAME=FOLDER; 'word' is the one that Earshot ships.")
@click.option(
    "--condition", "conditions", multiple=True, default=["clean"], help="clean, babble@5, white@0, room@0.6 ..."
)
@click.option("--windows/--no-windows", default=True, help="Detection in fixed windows, which takes most of the time.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(
    corpora: Path,
    recipe: Path,
    name: str,
    names: tuple[str, ...],
    conditions: tuple[str, ...],
    windows: bool,
    folder: Path,
) -> None:
    """Score word encoders by paper A's protocol; one line of JSON each in protocol.jsonl."""
    try:
        encoders = {n.partition("=")[0]: load(n.partition("=")[2] or n) for n in names}
        for condition in conditions:
            test = read_test(corpora, recipe, name, Condition.parse(condition))
            click.echo(f"{name}, {condition}: {len(test.samples)} utterances, {len(test.words)} words", err=True)
            for label, encoder in encoders.items():
                row = score(label, encoder, test, windows)
                store.put(folder / "protocol.jsonl", row, ("encoder", "test", "condition"))
                click.echo(json.dumps(row))
    except EarshotError as error:
        raise click.ClickException(str(error)) from None


def read_test(corpora: Path, recipe_path: Path, name: str, condition: Condition) -> Test:
    """The test called CORPUS:SPLIT; split "held-out" is the speakers that the recipe keeps out of training."""
    recipe = read_recipe(recipe_path)
    without = held_out(recipe)
    trained = [training_part(read_corpus(corpora / corpus), without) for corpus in recipe["corpora"]]
    vocabulary = frozenset(word.label for corpus in trained for u in corpus.utterances for word in u.words)
    corpus_name, _, split = name.partition(":")
    corpus = read_corpus(corpora / corpus_name)
    chosen = [
        u
        for u in corpus.utterances
        if u.words and (f"{u.corpus}/{u.speaker}" in without if split == "held-out" else u.split == split)
    ]
    if not chosen:
        raise EarshotError(f"{corpora / corpus_name} has no aligned utterances of split {split}")
    clean = [corpus.read(u) for u in chosen]
    samples = []
    for k, u in enumerate(chosen):
        others = [clean[j] for j, other in enumerate(chosen) if other.speaker != u.speaker] or clean
        samples.append(condition.apply(clean[k], others, np.random.default_rng((SEED, k))))
    words = [
        Word(word.label, k, word.start, word.end)
        for k, u in enumerate(chosen)
        for word in u.words
        if sum(map(str.isalpha, word.label)) >= LETTERS and words_of(word.label) and PRONOUNCEABLE.fullmatch(word.label)
    ]
    return Test(name, condition, samples, [u.speaker for u in chosen], words, vocabulary)


def score(label: str, encoder: Encoder, test: Test, windows: bool) -> dict[str, Any]:
    """All figures of one encoder."""
    origin = current_origin("benchmarks.protocol")
    row: dict[str, Any] = {"encoder": label, "test": test.name, "condition": str(test.condition)}
    row |= {"hours": sum(map(len, test.samples)) / SAMPLE_RATE / 3600, "card": encoder.card.get("training", {})}
    row |= {"command": origin.command, "commit": origin.commit, "machine": origin.machine}
    began = time.process_time()
    spoken = encoder.embed_speech([test.cut(word) for word in test.words])
    row["embedding words/s"] = round(len(test.words) / (time.process_time() - began), 1)
    texts = _typed(encoder, sorted({word.label for word in test.words}))
    row["words"] = _parts(test, spoken, texts)
    if isinstance(encoder, WordEncoder):
        row["with lexicon"] = _parts(test, encoder.with_lexicon(spoken), {})
    if windows:
        row["windows"] = detection(encoder, test, spoken, texts)
    return row


def _parts(test: Test, spoken: Floats, texts: dict[str, Floats]) -> dict[str, Any]:
    """Word discrimination of each part of the words."""
    return {
        **{part: discrimination(test, spoken, texts, part, any_length=False) for part in ("IV", "OOV", "all")},
        "any length": discrimination(test, spoken, texts, "all", any_length=True),
    }


def discrimination(
    test: Test, spoken: Floats, texts: dict[str, Floats], part: str, any_length: bool
) -> dict[str, Any] | None:
    """Same-different AP, also across speakers, and cross-modal AP; None where no word is said twice."""
    chosen = test.part(test.words, part) & np.array([any_length or word.long_enough for word in test.words])
    words, vectors = [word for word, take in zip(test.words, chosen, strict=True) if take], spoken[chosen]
    labels, speakers = [word.label for word in words], [test.speakers[word.utterance] for word in words]
    if len(set(labels)) == len(labels):
        return None
    found: dict[str, Any] = {"words": len(words), "types": len(set(labels))}
    found["acoustic"] = metrics.same_different(vectors, labels)._asdict()
    try:
        found["across speakers"] = metrics.same_different(vectors, labels, speakers, different_speaker=True)._asdict()
    except ValueError:  # nobody says a word that another says
        found["across speakers"] = None
    if texts:
        types = sorted(set(labels))
        written = np.stack([texts[t] for t in types])
        found["cross-modal"] = metrics.cross_modal_ap(vectors, written, labels, types)._asdict()
    return found


@dataclass(frozen=True)
class Grid:
    """Windows of one length in all utterances: (n,) their utterance and start, (n, d) their vectors."""

    utterances: NDArray[np.int64]
    starts: NDArray[np.float64]
    vectors: Floats


def detection(encoder: Encoder, test: Test, spoken: Floats, texts: dict[str, Floats]) -> dict[str, Any]:
    """EER of each window length for spoken and typed queries; MTWV and mean average precision over all of them.

    For an encoder that can be run once over running speech also with windows pooled from that run. A spoken query all
    of whose other instances are in its own utterance (5 of 294 on Mini LibriSpeech dev) only gives negative trials.
    """
    said: dict[str, list[int]] = defaultdict(list)
    for k, word in enumerate(test.words):
        said[word.label].append(k)
    queries = sorted(label for label, of in said.items() if len(of) > 1)
    rng = np.random.default_rng(SEED)
    examples = {}
    for label in queries:
        if usable := [k for k in said[label] if test.words[k].long_enough]:
            examples[label] = usable[int(rng.integers(len(usable)))]
    kinds: dict[str, dict[str, Floats]] = {"spoken": {label: spoken[k] for label, k in examples.items()}}
    if texts:
        kinds["typed"] = {label: texts[label] for label in queries}
    own = {label: test.words[k].utterance for label, k in examples.items()}
    out: dict[str, Any] = {}
    ways = ["cut", "pooled"] if isinstance(encoder, WordEncoder) else ["cut"]
    for way in ways:
        grids = {length: _grid(encoder, test, length, pooled=way == "pooled") for length in WINDOWS}
        figures: dict[str, Any] = {}
        for kind, vectors in kinds.items():
            left_out = own if kind == "spoken" else {}
            of = {part: [q for q in vectors if (q in test.vocabulary) == (part == "IV")] for part in ("IV", "OOV")}
            found = {part: _detect(test, grids, said, {q: vectors[q] for q in of[part]}, left_out) for part in of}
            figures[kind] = {part: figures for part, figures in found.items() if figures}
        out[way] = figures
    return out


def _detect(
    test: Test,
    grids: dict[Seconds, Grid],
    said: dict[str, list[int]],
    queries: dict[str, Floats],
    left_out: dict[str, int],
) -> dict[str, Any]:
    """Figures for some queries; `left_out` is the utterance that a query's own example comes from.

    Empty where nothing is said elsewhere; no EER of a length whose windows all miss the words.
    """
    references = [
        Reference(label, str(word.utterance), word.start, word.end)
        for label in queries
        for word in (test.words[k] for k in said[label])
        if word.utterance != left_out.get(label, -1)
    ]
    if not references:
        return {}
    figures: dict[str, Any] = {"queries": len(queries), "references": len(references), "EER": {}}
    for length, grid in grids.items():
        middles, ends = grid.starts + length / 2, grid.starts + length

        def trials(grid: Grid = grid, middles: Any = middles, ends: Any = ends) -> Iterator[tuple[Any, Any, Any]]:
            for label, vector in queries.items():
                inside, touched = np.zeros(len(grid.starts), bool), grid.utterances == left_out.get(label, -1)
                excluded = touched.copy()
                for word in (test.words[k] for k in said[label]):
                    here = grid.utterances == word.utterance
                    inside |= here & (middles >= word.start) & (middles <= word.end)
                    touched |= here & (ends > word.start) & (grid.starts < word.end)
                yield grid.vectors @ vector, inside & ~excluded, ~touched & ~excluded

        try:
            found = metrics.discriminate(trials)
        except ValueError:  # no positive trial
            continue
        figures["EER"][f"{length:g}"] = {"EER": found.eer, "trials": found.n_pairs, "positive": found.n_positive}
    detections = [d for label, vector in queries.items() for d in _best(grids, label, vector, left_out.get(label, -1))]
    matching = metrics.match(references, detections, sum(map(len, test.samples)) / SAMPLE_RATE)
    return figures | {"MTWV": metrics.mtwv(matching)[0], "MAP": metrics.mean_average_precision(matching)}


def _best(grids: dict[Seconds, Grid], label: str, vector: Floats, left_out: int) -> list[Detection]:
    """The best windows of all lengths, one for each place."""
    utterances = np.concatenate([grid.utterances for grid in grids.values()])
    starts = np.concatenate([grid.starts for grid in grids.values()])
    ends = np.concatenate([grid.starts + length for length, grid in grids.items()])
    scores = np.concatenate([grid.vectors @ vector for grid in grids.values()])
    scores[utterances == left_out] = -np.inf
    apart = utterances * 10_000.0  # seconds: windows of other utterances never overlap
    best = peaks(starts + apart, ends + apart, scores, DETECTIONS_PER_QUERY)
    return [
        Detection(label, str(utterances[i]), float(starts[i]), float(ends[i]), float(scores[i]))
        for i in best
        if np.isfinite(scores[i])
    ]


def _grid(encoder: Encoder, test: Test, length: Seconds, pooled: bool) -> Grid:
    width, hop = round(length * SAMPLE_RATE), round(HOP * SAMPLE_RATE)
    utterances, starts, vectors = [], [], []
    for k, samples in enumerate(test.samples):
        if len(samples) < width:
            continue
        framed = np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]
        utterances.append(np.full(len(framed), k))
        starts.append(np.arange(len(framed)) * HOP)
        if pooled:
            assert isinstance(encoder, WordEncoder)
            vectors.append(_pooled(encoder, samples, starts[-1], length))
        else:
            vectors.append(encoder.embed_speech(list(framed)))
    if not vectors:
        raise EarshotError(f"{test.name}: no utterance is as long as a window of {length:g} s; give --no-windows")
    return Grid(np.concatenate(utterances), np.concatenate(starts), np.concatenate(vectors))


def _pooled(encoder: WordEncoder, samples: Audio, starts: NDArray[np.float64], length: Seconds) -> Floats:
    """Embeddings of windows, pooled from one run over the utterance."""
    frames = encoder.frames([log_mel(samples)])[0]
    spans = [frame_range(start, start + length, len(frames)) for start in starts]
    return np.stack([encoder.pool(frames[first:last]) for first, last in spans])


def _typed(encoder: Encoder, words: list[str]) -> dict[str, Floats]:
    """Embeddings of words; none where the encoder has none of writing."""
    if isinstance(encoder, IsolatedEncoder) and not encoder.has_text:
        return {}
    return dict(zip(words, encoder.embed_text(words), strict=True))


if __name__ == "__main__":
    main()

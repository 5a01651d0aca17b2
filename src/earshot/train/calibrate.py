"""Calibration: candidates found in held-out speech, and the truth -> the weights of the probability of a hit.

In: an encoder and prepared corpora with speakers that training never heard. Out: the `[calibration]` of its card.
Queries are words and phrases of the corpora, said and not said, typed and, cut out of other utterances, spoken. Knows
nothing of how towers are trained.

    python -m earshot.train.calibrate recipes/word.toml --corpora data/corpora --weights src/earshot/encoders/weights
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot import scores
from earshot.encoders import load
from earshot.encoders.clock import HALF_SECONDS, HALVES, frame_range
from earshot.encoders.towers import padded, phone_ids
from earshot.encoders.word import WordEncoder
from earshot.features import SAMPLE_RATE, Floats, log_mel
from earshot.frames import FrameTable
from earshot.places import CANDIDATES, EDGE, MARGIN_FEATURE, UNASKED, Haystack, find_places, measure, outcome_features
from earshot.pronounce import pronounce_word
from earshot.query import Query, example_queries, hypotheses, typed_query
from earshot.train.batches import pronunciation
from earshot.train.corpus import Corpus, Utterance, read_corpus
from earshot.train.recipe import held_out, read_recipe
from earshot.train.transcripts import CorpusError
from earshot.types import EarshotError, QueryError, Seconds

RIDGE = 1e-7
QUERIES = 400
OUTCOMES = 120
"""Spoken words of each kind that are sought for the outcome; fewer phrases."""
OWN = 4
"""Examples of one utterance in so many are also sought where they come from."""
LEAST = 0.002
"""What is less likely does not count for the outcome."""
LONG = 12
"""Letters of what is unlike nearly all that is said: such queries are sought too."""


@dataclass(frozen=True)
class Held:
    """Held-out speech, encoded: utterance k is stretch k of the table."""

    haystack: Haystack
    utterances: tuple[Utterance, ...]
    corpora: dict[str, Corpus]

    def cut(self, utterance: int, first: int, last: int, encoder: WordEncoder, alone: bool) -> NDArray[np.int8]:
        """Frames of words `first` to `last`, cut out and encoded alone, or within the utterance."""
        u = self.utterances[utterance]
        start, end = u.words[first].start, u.words[last].end
        if not alone:
            stretch = slice(*self.haystack.table.stretch_offsets[utterance : utterance + 2])
            frames = self.haystack.table.vectors[stretch]
            return encoder.trim(frames[slice(*frame_range(start, end, len(frames)))])
        samples = self.corpora[u.corpus].read(u)[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        return encoder.trim(encoder.frames([log_mel(padded(samples))])[0])


def encode(encoder: WordEncoder, folder: Path, names: Sequence[str], speakers: set[str]) -> Held:
    """The utterances of `speakers` ("corpus/speaker") in the corpora below `folder` whose phones are known.

    CorpusError where there is none.
    """
    utterances, mels = [], []
    corpora = {}
    for name in names:
        corpus = corpora[name] = read_corpus(folder / name)
        for u in corpus.utterances:
            if u.words and u.phones and f"{u.corpus}/{u.speaker}" in speakers:
                utterances.append(u)
                mels.append(log_mel(corpus.read(u)))
    if not mels:
        raise CorpusError(f"{folder}: no aligned speech by speakers that the recipe holds out; probabilities need such")
    frames = encoder.frames(mels)
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in frames])]).astype(np.int64)
    index = np.arange(len(frames))
    table = FrameTable(np.concatenate(frames), offsets, np.zeros(len(frames)), index, version=0)
    return Held(Haystack.of(table, encoder), tuple(utterances), corpora)


@dataclass(frozen=True)
class Sought:
    """Words that are sought in the held-out speech, the ways to seek them, and the utterance that an example is of."""

    words: tuple[str, ...]
    ways: list[Query]
    own: int | None = None
    """Left out, but now and then: an example is also sought in the recording that it was cut from."""


def typed_sought(encoder: WordEncoder, held: Held, rng: np.random.Generator) -> list[Sought]:
    """Typed words and phrases.

    Most are words that are said; there are also phrases, and words and phrases that others say and these speakers do
    not, so that what is long and unlike all that was said is not likely either.
    """
    here = [[w.label for w in u.words] for u in held.utterances]
    elsewhere = [[w.label for w in u.words] for corpus in held.corpora.values() for u in corpus.utterances]
    sought: list[tuple[str, ...]] = []
    for shortest, longest, share in ((1, 1, 1.0), (2, 4, 0.3)):
        said = _runs(here, shortest, longest)
        unsaid = _runs(elsewhere, shortest, longest) - said
        long = {run for run in unsaid if len("".join(run)) >= LONG}
        for runs, n in ((said, share * QUERIES), (unsaid, 0.3 * share * QUERIES), (long, 0.3 * share * QUERIES)):
            ordered = sorted(runs)
            sought += [ordered[k] for k in rng.choice(len(ordered), min(round(n), len(ordered)), replace=False)]
    return [Sought(words, typed_query(" ".join(words), encoder)) for words in sought if all(map(_pronounceable, words))]


def _pronounceable(word: str) -> bool:
    try:
        return bool(pronounce_word(word))
    except QueryError:
        return False


def _runs(texts: Sequence[Sequence[str]], shortest: int, longest: int) -> set[tuple[str, ...]]:
    """All runs of `shortest` to `longest` words that have a word of at least three letters."""
    runs = (t[k : k + n] for t in texts for n in range(shortest, longest + 1) for k in range(len(t) - n + 1))
    return {tuple(run) for run in runs if max(map(len, run)) >= 3}


def spoken_sought(encoder: WordEncoder, held: Held, rng: np.random.Generator) -> list[Sought]:
    """Spoken examples of words said twice or more, half of them cut out and encoded alone."""
    places = _spoken_words(held, 2, rng)
    return [_spoken(encoder, held, (word,), k, j, bool(rng.random() < 0.5)) for word, k, j in places]


def spoken_outcome_sought(encoder: WordEncoder, held: Held, rng: np.random.Generator) -> list[Sought]:
    """Spoken words and phrases, half of them said once, so nowhere else."""
    sought = []
    for n in (1, 2, 3):
        said: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for k, u in enumerate(held.utterances):
            for j in range(len(u.words) - n + 1):
                run = u.words[j : j + n]
                if run[-1].end - run[0].start >= 0.2 * n and max(len(w.label) for w in run) >= 4:
                    said[tuple(w.label for w in run)].append((k, j))
        once, often = (sorted(run for run in said if (len(said[run]) > 1) == twice) for twice in (False, True))
        for runs in (once, often):
            for chosen in rng.choice(len(runs), min(OUTCOMES // n, len(runs)), replace=False):
                k, j = said[runs[int(chosen)]][int(rng.integers(len(said[runs[int(chosen)]])))]
                sought.append(_spoken(encoder, held, runs[int(chosen)], k, j, bool(rng.random() < 0.5)))
    return sought


def _spoken(encoder: WordEncoder, held: Held, words: tuple[str, ...], k: int, j: int, alone: bool) -> Sought:
    """The example that words from number j of utterance k on are."""
    frames = held.cut(k, j, j + len(words) - 1, encoder, alone)
    return Sought(words, example_queries(" ".join(words), frames, encoder), None if k % OWN == 0 else k)


def heard_examples(encoder: WordEncoder, held: Held, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Features (n, hypotheses, f) of the words that examples may be, and which are right (n, hypotheses).

    One example in five is two words, which are no word of the lexicon.
    """
    found, right = [], []
    for word, k, j in _spoken_words(held, 1, rng):
        if not _pronounceable(word):
            continue
        two = bool(rng.random() < 0.2) and j + 1 < len(held.utterances[k].words)
        rows, features = hypotheses(held.cut(k, j, j + two, encoder, bool(rng.random() < 0.5)), encoder)
        said = set() if two else {tuple(phone_ids(phones)) for phones in pronounce_word(word)}
        found.append(features)
        right.append([tuple(encoder.lexicon.ids(row)) in said for row in rows])
    if not found:
        raise CorpusError("too little held-out speech to fit probabilities on: no word of four letters is said")
    return np.stack(found), np.array(right)


def outcomes(encoder: WordEncoder, held: Held, sought: Sequence[Sought]) -> tuple[Floats, NDArray[np.bool_]]:
    """Features (n, 2) of the places that searches come to, and which are right: what people get to see."""
    features, right = [], []
    for one in sought:
        places = find_places(held.haystack, one.ways, encoder)
        shown = places.chances >= LEAST
        true, other = _truth(held, one, places.starts[shown], places.ends[shown])
        features.append(outcome_features(places.chances[shown], one.ways[0])[other])
        right.append(true[other])
    return _together(features, right)


def fit_heard(features: Floats, right: NDArray[np.bool_], steps: int = 4000, rate: float = 0.05) -> Floats:
    """Weights of the evidence for each hypothesis and last the evidence for none.

    Adam on the likelihood of a softmax that one of the right hypotheses is chosen, or none where none is right.
    """
    scale = features.std(axis=(0, 1))
    x = np.concatenate([features / scale, np.zeros_like(features[:, :, :1])], axis=2)
    x = np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)
    x[:, -1, -1] = 1  # none of them
    true = np.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)
    weights, mean, square = np.zeros(x.shape[2]), np.zeros(x.shape[2]), np.zeros(x.shape[2])
    for step in range(1, steps + 1):
        evidence = x @ weights
        chance = np.exp(evidence - np.logaddexp.reduce(evidence, axis=1, keepdims=True))
        chosen = np.where(true, chance, 0)
        chosen /= chosen.sum(axis=1, keepdims=True) + 1e-12
        gradient = np.einsum("nh,nhf->f", chance - chosen, x) / len(x)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        weights -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-9)
    fitted: Floats = (weights / np.append(scale, 1)).astype(np.float32)
    return fitted


def _spoken_words(held: Held, least: int, rng: np.random.Generator) -> Iterator[tuple[str, int, int]]:
    """Words said at least `least` times, each with the utterance and the number of one place where it is."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for k, u in enumerate(held.utterances):
        for j, w in enumerate(u.words):
            if len(w.label) >= 4 and w.end - w.start >= 0.2:
                places[w.label].append((k, j))
    words = sorted(word for word, found in places.items() if len(found) >= least)
    for word in rng.choice(words, min(QUERIES, len(words)), replace=False):
        yield str(word), *places[word][int(rng.integers(len(places[word])))]


def fit(features: Floats, right: NDArray[np.bool_], steps: int = 50) -> Floats:
    """Logistic regression by Newton's method with a small ridge: weights (f + 1,), the bias last."""
    x = np.concatenate([features, np.ones((len(features), 1), np.float32)], 1).astype(np.float64)
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (chance - right) / len(x) + RIDGE * weights
        hessian = (x * (chance * (1 - chance))[:, None]).T @ x / len(x) + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(hessian, gradient)
    return weights.astype(np.float32)


def candidates(encoder: WordEncoder, held: Held, sought: Sequence[Sought]) -> tuple[Floats, NDArray[np.bool_]]:
    """Features (n, f) of the candidates, of an example's sound alone, and which are right."""
    features, right = [], []
    with ThreadPoolExecutor() as pool:
        for one in sought:
            ways = one.ways[:1] if one.ways[0].spoken else one.ways
            for spans, way in zip(held.haystack.scan(ways, encoder, pool, CANDIDATES), ways, strict=True):
                found = measure(held.haystack, spans, way, encoder)
                kept = found.features[:, MARGIN_FEATURE] > UNASKED
                true, other = _truth(held, one, found.starts[kept], found.ends[kept])
                features.append(found.features[kept][other])
                right.append(true[other])
    return _together(features, right)


def _together(features: list[Floats], right: list[NDArray[np.bool_]]) -> tuple[Floats, NDArray[np.bool_]]:
    """What was found of all that was sought. CorpusError where nothing was, or nothing right."""
    if not any(true.any() for true in right):
        raise CorpusError(
            "too little held-out speech to fit probabilities on: hold out speakers who say more words twice"
        )
    return np.concatenate(features), np.concatenate(right)


def _truth(
    held: Held, sought: Sought, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether spans of half frames are right, and whether they are outside the utterance that the example is of."""
    stretch = held.haystack.stretch_of(starts // HALVES)
    first = held.haystack.table.stretch_offsets[stretch] * HALVES
    spans = zip(stretch, *(EDGE + (edges - first) * HALF_SECONDS for edges in (starts, ends)), strict=True)
    right = [_said(held.utterances[s], sought.words, start, end) for s, start, end in spans]
    return np.array(right, bool), stretch != (-1 if sought.own is None else sought.own)


def _said(utterance: Utterance, words: tuple[str, ...], start: Seconds, end: Seconds) -> bool:
    """Whether the span shares at least half of the shorter of both with the words, or such as sound the same."""
    ids = [pronunciation(word) for word in words]
    for k in range(len(utterance.words) - len(words) + 1):
        run = utterance.words[k : k + len(words)]
        begin, stop = run[0].start, run[-1].end
        if min(end, stop) - max(start, begin) >= 0.5 * min(end - start, stop - begin) and all(
            w.label == word or pronunciation(w.label) == one for w, word, one in zip(run, words, ids, strict=True)
        ):
            return True
    return False


def _fitted(name: str, features: Floats, right: NDArray[np.bool_]) -> Floats:
    weights = fit(features, right)
    chance = scores.logistic(features, weights)
    print(f"{name}: {len(right)} places, {right.sum()} right; weights {weights.round(2)}")
    print(f"  mean probability of the right {chance[right].mean():.3f}, of the others {chance[~right].mean():.3f}")
    return weights


def write(card: Path, fitted: dict[str, Floats]) -> None:
    """Put the fitted weights into the card."""
    text = card.read_text()
    for name, weights in fitted.items():
        if not np.isfinite(weights).all():
            raise CorpusError(
                f"{card}: '{name}' could not be fitted; is there enough held-out speech? The card is as it was"
            )
        values = ", ".join(f"{w:.4f}" for w in weights)
        text, found = re.subn(rf"(?m)^{name} = \[.*\]$", f"{name} = [{values}]", text)
        if not found:
            raise CorpusError(f"{card}: no line '{name} = [...]' under [calibration]; export the weights again")
    card.write_text(text)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        calibrate(read_recipe(arguments.recipe), arguments.corpora, arguments.weights)
    except EarshotError as error:
        raise SystemExit(f"calibrate: {error}") from None


def calibrate(recipe: dict[str, Any], folder: Path, weights: Path) -> None:
    """Fit everything under [calibration] of the card in the folder `weights`, and write it there."""
    encoder = load(str(weights))
    held = encode(encoder, folder, list(recipe["corpora"]), held_out(recipe))
    fitted = {}
    options, true = heard_examples(encoder, held, np.random.default_rng(0))
    fitted["heard"] = fit_heard(options, true)
    first = np.take_along_axis(true, (options @ fitted["heard"][:-1]).argmax(axis=1)[:, None], axis=1)
    print(
        f"heard: {len(true)} examples, a right word first {first.mean():.3f}, among all {true.any(axis=1).mean():.3f}"
    )
    print(f"  weights {fitted['heard'].round(2)}")
    encoder = replace(encoder, heard_calibration=fitted["heard"])
    typed = typed_sought(encoder, held, np.random.default_rng(0))
    fitted["typed"] = _fitted("typed", *candidates(encoder, held, typed))
    spoken = spoken_sought(encoder, held, np.random.default_rng(0))
    fitted["spoken"] = _fitted("spoken", *candidates(encoder, held, spoken))
    encoder = replace(encoder, typed_calibration=fitted["typed"], spoken_calibration=fitted["spoken"])
    same = np.array([1, 0, 0], np.float32)
    encoder = replace(encoder, typed_outcome=same, spoken_outcome=same)
    spoken = spoken_outcome_sought(encoder, held, np.random.default_rng(1))
    fitted["typed_outcome"] = _fitted("typed_outcome", *outcomes(encoder, held, typed))
    fitted["spoken_outcome"] = _fitted("spoken_outcome", *outcomes(encoder, held, spoken))
    write(weights / "word.toml", fitted)


if __name__ == "__main__":
    main()

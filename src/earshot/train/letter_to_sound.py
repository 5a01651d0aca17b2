"""Makes what earshot.pronounce reads: the packed dictionary and the letter-to-sound model trained on it.

In: a dictionary in CMUdict's format. Out: cmudict.gz and letter_to_sound.npz, and the held-out error rates.
Knows nothing of audio. `python -m earshot.train.letter_to_sound cmudict-en-us.dict --out src/earshot/data`, a minute.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from earshot.pronounce import PHONES, LetterToSound, Pronunciation

ORDER = 9  # units, the last one included
PRUNING = 0.6  # nats of training likelihood an n-gram must be worth
STEP = 0.15  # nats, quantisation of log-probabilities
RAREST_UNIT = 4  # occurrences

Dictionary = dict[str, list[Pronunciation]]


def read_dictionary(path: str | Path) -> Dictionary:
    """Word -> its pronunciations in the order of the file, stress digits and comments removed."""
    words: Dictionary = defaultdict(list)
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        entry, _, phones = line.partition("#")[0].partition(" ")
        word = re.sub(r"\(\d+\)$", "", entry).lower()
        variant = tuple(re.sub(r"\d", "", phone) for phone in phones.split())
        if word.isascii() and variant and set(variant) <= set(PHONES) and variant not in words[word]:
            words[word].append(variant)
    return {word: variants for word, variants in words.items() if variants}


def pack_dictionary(words: Dictionary, path: str | Path) -> None:
    """Writes the dictionary as earshot.pronounce bisects it: sorted lines, one byte a phone, gzip."""
    code = {phone: chr(ord("A") + place) for place, phone in enumerate(PHONES)}
    lines = [f"{word}\t" + " ".join("".join(code[p] for p in v) for v in words[word]) for word in sorted(words)]
    Path(path).write_bytes(gzip.compress(("\n" + "\n".join(lines) + "\n").encode(), compresslevel=9, mtime=0))


# --- alignment: each letter says nothing, one phone or two

_N = len(PHONES)
_N_SAID = 1 + _N + _N * _N  # nothing, then every phone, then every pair


def _said(code: int) -> Pronunciation:
    if code == 0:
        return ()
    if code <= _N:
        return (PHONES[code - 1],)
    return PHONES[(code - 1 - _N) // _N], PHONES[(code - 1 - _N) % _N]


@dataclass(frozen=True)
class _SameShape:
    """Pairs with the same number of letters and of phones, so that one array operation serves all of them."""

    index: list[int]  # places in the list of pairs
    letters: np.ndarray  # (n, n_letters), 0-25
    one: np.ndarray  # (n, n_phones) the code of each phone
    two: np.ndarray  # (n, n_phones - 1) the code of each two phones in a row

    def arcs(self, table: np.ndarray, place: int) -> list[np.ndarray]:
        """What the letter at `place` scores for saying 0, 1 and 2 phones, at each phone where it may start."""
        letter = self.letters[:, place, None]
        nothing = np.repeat(table[letter, 0], self.one.shape[1] + 1, axis=1)
        return [nothing, table[letter, self.one], table[letter, self.two]]

    def codes(self) -> list[np.ndarray]:
        return [np.zeros((len(self.index), self.one.shape[1] + 1), int), self.one, self.two]


def _by_shape(pairs: list[tuple[str, Pronunciation]]) -> list[_SameShape]:
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (word, phones) in enumerate(pairs):
        if len(phones) <= 2 * len(word):
            groups[len(word), len(phones)].append(i)
    shapes = []
    for index in groups.values():
        letters = np.array([[ord(letter) - ord("a") for letter in pairs[i][0]] for i in index])
        phone = np.array([[PHONES.index(symbol) for symbol in pairs[i][1]] for i in index])
        shapes.append(_SameShape(index, letters, 1 + phone, 1 + _N + phone[:, :-1] * _N + phone[:, 1:]))
    return shapes


def _expected_counts(shape: _SameShape, table: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Forward-backward: for each letter and number of phones, unit numbers and their posterior probabilities."""
    n, n_letters = shape.letters.shape
    n_phones = shape.one.shape[1]
    forward, backward = np.zeros((2, n_letters + 1, n, n_phones + 1))
    forward[0, :, 0] = backward[n_letters, :, n_phones] = 1
    arcs = [shape.arcs(table, place) for place in range(n_letters)]
    for place in range(n_letters):
        for width, arc in enumerate(arcs[place]):
            forward[place + 1, :, width:] += forward[place, :, : n_phones + 1 - width] * arc
    for place in reversed(range(n_letters)):
        for width, arc in enumerate(arcs[place]):
            backward[place, :, : n_phones + 1 - width] += backward[place + 1, :, width:] * arc
    whole = forward[n_letters, :, n_phones, None]
    scale = np.divide(1, whole, out=np.zeros_like(whole), where=whole > 0)
    for place in range(n_letters):
        for width, (arc, code) in enumerate(zip(arcs[place], shape.codes(), strict=True)):
            weight = forward[place, :, : n_phones + 1 - width] * arc * backward[place + 1, :, width:] * scale
            yield shape.letters[:, place, None] * _N_SAID + code, weight


def _best_path(shape: _SameShape, log_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Viterbi: what each letter says, codes (n, n_letters), and the log-probability (n,)."""
    n, n_letters = shape.letters.shape
    n_phones = shape.one.shape[1]
    score = np.full((n, n_phones + 1), -np.inf)
    score[:, 0] = 0
    taken = np.zeros((n_letters, n, n_phones + 1), int)
    for place in range(n_letters):
        choice = np.full((3, n, n_phones + 1), -np.inf)
        for width, arc in enumerate(shape.arcs(log_table, place)):
            choice[width, :, width:] = score[:, : n_phones + 1 - width] + arc
        taken[place], score = choice.argmax(axis=0), choice.max(axis=0)
    row, at = np.arange(n), np.full(n, n_phones)
    said = np.zeros((n, n_letters), int)
    padded = [np.pad(code, ((0, 0), (0, n_phones + 1 - code.shape[1]))) for code in shape.codes()]
    for place in reversed(range(n_letters)):
        width = taken[place, row, at]
        at = at - width
        said[:, place] = np.stack(padded)[width, row, at]
    return said, score[:, n_phones]


def align(pairs: list[tuple[str, Pronunciation]], *, rounds: int = 8) -> list[np.ndarray | None]:
    """What each letter says in each (word, pronunciation), by expectation maximisation; None: cannot be aligned."""
    shapes = _by_shape(pairs)
    table = np.ones((26, _N_SAID))
    table[:, 0], table[:, 1 + _N :] = _N / 2, 1 / 50  # at first: silent letters are common, double ones rare
    table /= table.sum(axis=1, keepdims=True)
    for _ in range(rounds):
        counts = np.zeros(table.size)
        for shape in shapes:
            for unit, weight in _expected_counts(shape, table):
                counts += np.bincount(unit.ravel(), weight.ravel(), table.size)
        table = counts.reshape(table.shape)
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    aligned: list[np.ndarray | None] = [None] * len(pairs)
    log_table = np.log(np.maximum(table, 1e-300))
    for shape in shapes:
        for i, said, score in zip(shape.index, *_best_path(shape, log_table), strict=True):
            aligned[i] = said if score > -600 else None  # log(1e-300) is -690: a unit that the model gave up
    return aligned


# --- the joint n-gram


@dataclass
class _Level:
    """All n-grams of one length, sorted by prefix then last unit; prefixes and suffixes by place in the level below."""

    prefix: np.ndarray
    suffix: np.ndarray
    unit: np.ndarray
    count: np.ndarray
    opens: np.ndarray  # begins at the start of a word, so nothing can stand before it
    prob: np.ndarray  # of the last unit after the prefix
    back_off: np.ndarray  # for what the n-gram, as a history, does not list
    keep: np.ndarray


def _count(sequences: list[np.ndarray], n_units: int) -> list[_Level]:
    units = np.concatenate(sequences)
    lengths = np.array([len(sequence) for sequence in sequences])
    end = np.repeat(np.cumsum(lengths), lengths)
    place, node = np.arange(len(units)), units
    first = np.arange(n_units)
    count, nothing = np.bincount(units, minlength=n_units), np.zeros_like(first)
    levels = [_level(nothing, nothing, first, count, first == 0)]
    for length in range(2, ORDER + 1):
        start = place[place + length <= end]
        ngram = node[start] * n_units + units[start + length - 1]
        key, example, number, count = np.unique(ngram, return_index=True, return_inverse=True, return_counts=True)
        prefix = key // n_units
        levels.append(_level(prefix, node[start[example] + 1], key % n_units, count, levels[-1].opens[prefix]))
        node = np.full(len(units), -1)
        node[start] = number
    return levels


def _level(prefix: np.ndarray, suffix: np.ndarray, unit: np.ndarray, count: np.ndarray, opens: np.ndarray) -> _Level:
    n = len(unit)
    return _Level(prefix, suffix, unit, count, opens, np.zeros(n), np.ones(n), np.zeros(n, bool))


def _smooth(levels: list[_Level]) -> None:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1999): fills `prob` and `back_off`."""
    for i, level in enumerate(levels):
        count = level.count.astype(float)
        if i + 1 < len(levels):
            different = np.bincount(levels[i + 1].suffix, minlength=len(count))  # units seen before it
            count = np.where(level.opens, count, different)
        if i == 0:
            count[0] = 0  # the start of a word is given, not predicted
        n1, n2, n3, n4 = (max(int((count == times).sum()), 1) for times in (1, 2, 3, 4))
        ratio = n1 / (n1 + 2 * n2)
        discounts = np.array([0, 1 - 2 * ratio * n2 / n1, 2 - 3 * ratio * n3 / n2, 3 - 4 * ratio * n4 / n3])
        taken = np.clip(discounts, [0, 0.1, 0.2, 0.3], [0, 0.95, 1.9, 2.9])[np.minimum(count, 3).astype(int)]
        n_prefixes = len(levels[i - 1].unit) if i else 1
        total = np.maximum(np.bincount(level.prefix, count, n_prefixes), 1e-9)
        spare = np.minimum(np.bincount(level.prefix, taken, n_prefixes) / total, 1)
        below = levels[i - 1].prob[level.suffix] if i else 1 / len(level.unit)
        level.prob = (count - taken) / total[level.prefix] + spare[level.prefix] * below


def _prune(levels: list[_Level]) -> None:
    """Drops n-grams whose loss costs less than PRUNING (weighted difference, Seymore & Rosenfeld 1996)."""
    levels[0].keep[:] = True
    for below, level in reversed(list(pairwise(levels))):
        spared = 1 - np.bincount(level.prefix, level.prob, len(below.unit))
        unlisted = 1 - np.bincount(level.prefix, below.prob[level.suffix], len(below.unit))
        without = (np.maximum(spared, 1e-4) / np.maximum(unlisted, 1e-4))[level.prefix] * below.prob[level.suffix]
        level.keep |= np.abs(level.count * np.log(level.prob / without)) > PRUNING
        below.keep[level.prefix[level.keep]] = True
        below.keep[level.suffix[level.keep]] = True
    for below, level in pairwise(levels):
        prefix, n = level.prefix[level.keep], len(below.unit)
        listed = 1 - np.bincount(prefix, level.prob[level.keep], n)
        unlisted = 1 - np.bincount(prefix, below.prob[level.suffix[level.keep]], n)
        below.back_off = np.maximum(listed, 1e-4) / np.maximum(unlisted, 1e-4)


def train(words: Dictionary, path: str | Path) -> None:
    """Trains the letter-to-sound model on the words of letters a-z only and writes it for `LetterToSound`."""
    pairs = [(word, variant) for word in sorted(words) if re.fullmatch("[a-z]+", word) for variant in words[word]]
    units = [
        [*zip(word, said.tolist(), strict=True)]
        for (word, _), said in zip(pairs, align(pairs), strict=True)
        if said is not None
    ]
    seen = Counter(unit for sequence in units for unit in sequence)
    known = sorted(unit for unit, count in seen.items() if count >= RAREST_UNIT)
    number = {unit: place for place, unit in enumerate(known, start=2)}
    sequences = [np.array([0, *(number[u] for u in s), 1]) for s in units if all(u in number for u in s)]
    levels = _count(sequences, len(known) + 2)
    _smooth(levels)
    _prune(levels)
    kept = [np.flatnonzero(level.keep) for level in levels]
    children = [np.array([len(levels[0].unit)])]
    for i, level in enumerate(levels):
        above = levels[i + 1].prefix[kept[i + 1]] if i + 1 < len(levels) else np.zeros(0, int)
        children.append(np.bincount(above, minlength=len(level.unit))[kept[i]])
    probs = np.concatenate([[1.0], *(level.prob[k] for level, k in zip(levels, kept, strict=True))])
    back_offs = np.concatenate([[1.0], *(level.back_off[k] for level, k in zip(levels, kept, strict=True))])
    np.savez_compressed(
        path,
        order=np.array(ORDER),
        step=np.array(STEP),
        letters=np.array(["", "", *(letter for letter, _ in known)]),
        phones=np.array(["", "", *(" ".join(_said(code)) for _, code in known)]),
        unit=np.concatenate([level.unit[k] for level, k in zip(levels, kept, strict=True)]).astype(np.uint8),
        children=np.concatenate(children).astype(np.uint8),
        cost=np.clip(np.round(-np.log(probs) / STEP), 0, 255).astype(np.uint8),
        back_off=np.clip(np.round(np.log(back_offs) / STEP), -127, 127).astype(np.int8),
    )


# --- how good it is


def _distance(said: Pronunciation, true: Pronunciation) -> int:
    row = list(range(len(true) + 1))
    for i, phone in enumerate(said, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(true, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (phone != other))
    return row[-1]


def evaluate(model: LetterToSound, words: Dictionary) -> dict[str, float]:
    """Error rates against the nearest of a word's pronunciations: of phones, words, and words in the best three."""
    errors = phones = wrong = missed = 0
    started = time.perf_counter()
    for word, variants in words.items():
        guesses = [guess for guess, _ in model.guess(word)] or [()]
        nearest = min(variants, key=lambda variant: _distance(guesses[0], variant) / len(variant))
        errors += _distance(guesses[0], nearest)
        phones += len(nearest)
        wrong += guesses[0] not in variants
        missed += not set(guesses) & set(variants)
    return {
        "words": len(words),
        "phone_error_rate": round(errors / phones, 4),
        "word_error_rate": round(wrong / len(words), 4),
        "word_error_rate_best_3": round(missed / len(words), 4),
        "ms_per_word": round(1000 * (time.perf_counter() - started) / len(words), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path, help="a dictionary in CMUdict's format")
    parser.add_argument("--out", type=Path, required=True, help="folder for cmudict.gz and letter_to_sound.npz")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of words to measure on; 0: do not measure")
    options = parser.parse_args()
    words = read_dictionary(options.dictionary)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.held_out:
        plain = [word for word in words if re.fullmatch("[a-z]+", word)]
        chosen = np.random.default_rng(0).permutation(len(plain))[: int(options.held_out * len(plain))]
        held_out = {plain[i]: words[plain[i]] for i in chosen}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "held_out.npz"
            train({word: variants for word, variants in words.items() if word not in held_out}, path)
            print(json.dumps(evaluate(LetterToSound(path), held_out)))
    pack_dictionary(words, options.out / "cmudict.gz")
    train(words, options.out / "letter_to_sound.npz")


if __name__ == "__main__":
    main()

"""Written query -> phones: a dictionary, a letter-to-sound model for what it lacks, readings of numbers and signs.

In: a word or phrase as typed. Out: sequences of the 39 ARPAbet phones without stress, likeliest first.
Does not know audio, encoders, or any language but English.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from earshot.types import QueryError

# fmt: off
PHONES: tuple[str, ...] = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
Pronunciation = tuple[str, ...]
Reading = tuple[str, ...]  # how a piece of the query is said: dictionary words, a letter by its name as "b."

LONGEST_QUERY = 300  # characters

# --- the dictionary

_DATA = Path(__file__).with_name("data")
_FIRST = ord("A")  # the dictionary writes a phone as one byte: _FIRST + its place in PHONES


@lru_cache(maxsize=1)
def _dictionary() -> bytes:
    """Lines of `word<TAB>variant variant ...`, sorted by word in byte order, opened and closed by a newline."""
    return gzip.decompress((_DATA / "cmudict.gz").read_bytes())


@lru_cache(maxsize=1 << 16)
def _look_up(word: str) -> tuple[Pronunciation, ...]:
    """The dictionary's pronunciations of a lower-case word, () when it has none; bisects the sorted lines."""
    lines, key = _dictionary(), word.encode()
    low, high = 0, len(lines) - 1  # both always stand on a newline
    while low < high:
        start = lines.rfind(b"\n", low, (low + high) // 2 + 1)
        tab, end = lines.index(b"\t", start), lines.index(b"\n", start + 1)
        found = lines[start + 1 : tab]
        if found == key:
            return tuple(tuple(PHONES[code - _FIRST] for code in variant) for variant in lines[tab + 1 : end].split())
        low, high = (end, high) if found < key else (low, start)
    return ()


def dictionary_words() -> Iterator[str]:
    """Every word of the dictionary, in the order of its bytes."""
    for line in _dictionary().split(b"\n"):
        if line:
            yield line[: line.index(b"\t")].decode()


def spelled(pronunciation: Pronunciation) -> list[str]:
    """Words of the dictionary that may be pronounced so, the shortest first."""
    lines, code = _dictionary(), bytes(_FIRST + PHONES.index(phone) for phone in pronunciation)
    found, at = [], lines.find(code)
    while at >= 0:
        if lines[at - 1 : at] in b"\t " and lines[at + len(code) : at + len(code) + 1] in b" \n":
            start = lines.rfind(b"\n", 0, at) + 1
            found.append(lines[start : lines.index(b"\t", start)].decode())
        at = lines.find(code, at + 1)
    return sorted(found, key=lambda word: (len(word), word))


def in_dictionary(word: str) -> bool:
    """Whether the dictionary has this word, in any case."""
    return bool(_look_up(word.lower()))


# --- letters to sounds


class LetterToSound:
    """Joint n-gram over (letter, phones) units with back-off, decoded by beam search (Bisani & Ney 2008).

    The n-grams are a trie in breadth-first order whose root is node 0; the key of a node, `parent * n_units + unit`,
    grows with its number, so the child of a node is found by bisection. Unit 0 opens a word, unit 1 closes it.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as model:
            self.phones: list[Pronunciation] = [tuple(phones.split()) for phones in model["phones"].tolist()]
            letters = model["letters"]  # (n_units,) the letter of each unit, "" for the two word boundaries
            children = model["children"]  # (n_nodes,) including the root
            self.order = int(model["order"])
            step = float(model["step"])  # nats per quantisation step
            self.log_prob = model["cost"].astype(np.float32) * -step  # (n_nodes,) of a unit after its history
            self.back_off = model["back_off"].astype(np.float32) * step  # (n_nodes,) for leaving a history
            parent = np.repeat(np.arange(len(children), dtype=np.int64), children)
            self.key = np.concatenate([[-1], parent * len(letters) + model["unit"]])  # (n_nodes,)
        self.units = {letter: np.flatnonzero(letters == letter) for letter in "abcdefghijklmnopqrstuvwxyz"}

    def guess(self, word: str, *, most: int = 3, beam: int = 24) -> list[tuple[Pronunciation, float]]:
        """The likeliest pronunciations of a word of letters a-z, each with its share of the beam's probability."""
        context = np.full((1, self.order), -1)  # the trie node of the last 0, 1, 2 ... units; -1: never seen
        context[0, :2] = 0, 1
        total, said = np.zeros(1), [()]
        for letter in word:
            units = self.units[letter]
            log_prob, node = self._extend(context, units)
            score = total[:, None] + log_prob
            kept, unit = np.divmod(np.argsort(-score, axis=None)[:beam], len(units))
            total, said = score[kept, unit], [said[k] + self.phones[units[u]] for k, u in zip(kept, unit, strict=True)]
            context = np.concatenate([np.zeros((len(kept), 1), int), node[kept, :-1, unit]], axis=1)
        total = total + self._extend(context, np.array([1]))[0][:, 0]
        share = np.exp(total - np.logaddexp.reduce(total))
        pooled: dict[Pronunciation, float] = {}
        for phones, part in zip(said, share.tolist(), strict=True):
            if phones:
                pooled[phones] = pooled.get(phones, 0.0) + part
        return sorted(pooled.items(), key=lambda item: -item[1])[:most]

    def _extend(self, context: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For contexts (n, order) and units (m,): log-probabilities (n, m), and the nodes reached (n, order, m)."""
        key = context[:, :, None] * len(self.phones) + units
        node = np.searchsorted(self.key, key)
        node[node == len(self.key)] = 0
        node[(self.key[node] != key) | (context[:, :, None] < 0)] = -1
        longest = self.order - 1 - (node[:, ::-1] >= 0).argmax(axis=1)  # (n, m); the empty context always matches
        left = np.where(context >= 0, self.back_off[context], 0)
        left = np.concatenate([np.cumsum(left[:, ::-1], axis=1)[:, ::-1], np.zeros((len(left), 1))], axis=1)
        reached = np.take_along_axis(node, longest[:, None], axis=1)[:, 0]
        return self.log_prob[reached] + np.take_along_axis(left, longest + 1, axis=1), node


@lru_cache(maxsize=1)
def _model() -> LetterToSound:
    return LetterToSound(_DATA / "letter_to_sound.npz")


@lru_cache(maxsize=1 << 14)
def _sound_out(word: str) -> tuple[Pronunciation, ...]:
    """The model's best guess at a word of letters a-z, and others at least a quarter as likely."""
    guesses = _model().guess(word)
    return tuple(phones for phones, share in guesses if share >= guesses[0][1] / 4)


# --- words

_VOICELESS = {"P", "T", "K", "F", "TH"}
_SIBILANT = {"S", "Z", "SH", "ZH", "CH", "JH"}


def pronounce_word(word: str) -> list[Pronunciation]:
    """Pronunciations of one written word in any case, likeliest first: from the dictionary, or else sounded out.

    Letters a-z, apostrophes, hyphens and full stops only (`pronounce` reads the rest). Raises QueryError for others.
    """
    word = word.lower()
    if not re.fullmatch(r"[a-z'.-]*[a-z][a-z'.-]*", word):
        raise QueryError(f"'{_shown(word)}' is not a word Earshot can pronounce; spell it with the letters a to z")
    return list(_word(word))


def _word(word: str) -> tuple[Pronunciation, ...]:
    found = _look_up(word) or _look_up(word.rstrip("'.-")) or _look_up(word.strip("'.-"))
    if found:
        return found
    parts = re.findall(r"[a-z']*[a-z][a-z']*", word)
    if len(parts) > 1 or parts[0] != word:
        return tuple(_combine([_ranked(_word(part)) for part in parts], most=4))
    base, mark, ending = word.rpartition("'")
    if mark and base.strip("'") and ending in _ENDINGS:
        return tuple(way + _ending(ending, way[-1]) for way in _word(base))
    plain = word.replace("'", "")
    found = _look_up(plain)
    if found:
        return found
    sounds = _sound_out(plain)
    if sounds and re.search("[aeiouy]", plain):
        return sounds
    spelled = tuple(phone for letter in plain for phone in _look_up(f"{letter}.")[0])
    return (spelled, *sounds[:1])


_ENDINGS = {"": (), "s": ("Z",), "ll": ("AH", "L"), "ve": ("AH", "V"), "re": ("ER",), "d": ("D",)}


def _ending(ending: str, last: str) -> Pronunciation:
    """What 's, 'll, 've, 're or 'd adds to a word whose last phone is `last`."""
    if ending == "s" and last in _SIBILANT:
        return ("IH", "Z")
    if ending == "s" and last in _VOICELESS:
        return ("S",)
    if ending == "d" and last in {"T", "D"}:
        return ("IH", "D")
    return _ENDINGS[ending]


def _combine(slots: list[list[tuple[float, Pronunciation]]], most: int) -> list[Pronunciation]:
    """One pronunciation out of each slot, joined: the `most` with the lowest sum of ranks, best first."""
    ways: list[tuple[float, Pronunciation]] = [(0.0, ())]
    for slot in slots:
        best: dict[Pronunciation, float] = {}
        for rank, way in sorted(((r + s, way + more) for r, way in ways for s, more in slot), key=lambda pair: pair[0]):
            best.setdefault(way, rank)
        ways = [(rank, way) for way, rank in list(best.items())[: 4 * most]]
    return [way for _, way in ways[:most]]


def _ranked(ways: Iterable[Pronunciation]) -> list[tuple[float, Pronunciation]]:
    return [(float(rank), way) for rank, way in enumerate(ways)]


# --- numbers

# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {10**12: "trillion", 10**9: "billion", 10**6: "million", 10**3: "thousand", 100: "hundred"}
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
             "twelve": "twelfth"}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "yen")}
_PLURALS = {"penny": "pence", "yen": "yen"}


def _cardinal(n: int, link: Reading = ()) -> Reading:
    """The words of 0 <= n < 10**15; `link` goes before tens and ones that follow a hundred or more ("and")."""
    if n < 20:
        return (_ONES[n],)
    if n < 100:
        return (_TENS[n // 10 - 2], *((_ONES[n % 10],) if n % 10 else ()))
    size, scale = next(pair for pair in _SCALES.items() if n >= pair[0])
    rest = n % size
    tail = (*(link if rest < 100 else ()), *_cardinal(rest, link)) if rest else ()
    return (*_cardinal(n // size, link), scale, *tail)


def _whole(digits: str) -> list[Reading]:
    """Readings of a whole number: as a year, in full, with "and", digit by digit; the usual one first."""
    n = int(digits.replace(",", ""))
    one_by_one = tuple(_ONES[int(digit)] for digit in digits.replace(",", ""))
    if n >= 10**15 or (digits[0] == "0" and len(digits) > 1):
        return [one_by_one, tuple("oh" if word == "zero" else word for word in one_by_one)]
    full = [_cardinal(n), _cardinal(n, ("and",))]
    if "," in digits or n < 100 or n % 1000 == 0:
        return full
    if n >= 10_000:
        return [*full, one_by_one]
    left, right = divmod(n, 100)
    pairs = (*_cardinal(left), *(("hundred",) if not right else ("oh",) if right < 10 else ()))
    pairs += _cardinal(right) if right else ()
    return [*full, pairs] if n < 1000 or (left % 10 == 0 and right < 10) else [pairs, *full]


def _number(digits: str) -> list[Reading]:
    """Readings of a number with or without decimals."""
    whole, point, decimals = digits.partition(".")
    if not point:
        return _whole(whole)
    said = ("point", *(_ONES[int(digit)] for digit in decimals))
    readings = [(*reading, *said) for reading in _whole(whole)] if whole else [said]
    return [*readings, said] if whole == "0" else readings


def _money(sign: str, amount: str, scale: str) -> list[Reading]:
    """Readings of $20, $3.50, $1.5 million."""
    unit, small = _MONEY[sign]
    whole, _, decimals = amount.partition(".")
    if scale or len(decimals) != 2:
        plural = bool(scale) or amount != "1"
        return [(*r, *scale.lower().split(), _plural(unit) if plural else unit) for r in _number(amount)]
    units = [(*reading, unit if whole == "1" else _plural(unit)) for reading in _whole(whole or "0")]
    if decimals == "00":
        return units
    cents = (*_cardinal(int(decimals)), small if decimals == "01" else _plural(small))
    if whole in {"", "0"}:
        return [cents]
    return [reading for said in units for reading in ((*said, *cents[:-1]), (*said, "and", *cents))]


def _plural(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    return word[:-1] + "ies" if word.endswith("ty") else word + ("es" if word.endswith("x") else "s")


def _ordinal(word: str) -> str:
    return _ORDINALS.get(word) or (word[:-1] + "ieth" if word.endswith("ty") else word + "th")


# --- queries

_AMOUNT = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_PIECE = re.compile(
    rf"""(?P<sign>[$£€¥])\ ?(?P<amount>{_AMOUNT})(?:\ (?P<scale>(?:hundred|thousand|million|billion|trillion)\b))?
    | (?P<minus>(?<![\w)])-(?=[\d.]))
    | (?P<number>{_AMOUNT})(?P<tail>(?:st|nd|rd|th|'?s)(?![a-z]))?
    | (?P<initials>(?:[a-z]\.){{2,}}[a-z]?(?![a-z]))
    | (?P<word>[a-z']*[a-z][a-z']*)(?P<stop>\.)?
    | (?P<sharp>(?<=[a-z])\#)
    | (?P<symbol>[&@+=%°\#$£€¥\u2044])""",
    re.VERBOSE | re.IGNORECASE,
)
# fmt: off
_SYMBOLS = {
    "&": "and", "@": "at", "+": "plus", "=": "equals", "%": "percent", "°": "degrees", "#": "hashtag",
    "$": "dollars", "£": "pounds", "€": "euros", "¥": "yen", "\u2044": "over",
}
_LETTERS = str.maketrans({
    "ß": "ss", "ẞ": "SS", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "\u0131": "i",  # dotless i
    "\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2212": "-", "\u2013": " ", "\u2014": " ",  # quotes, dashes
})
# fmt: on


def pronounce(text: str, *, most: int = 4) -> list[Pronunciation]:
    """Pronunciations of a word or phrase as anyone may type it, likeliest first, at most `most`, at least one.

    Reads numbers ("1984", "$3.50", "42nd"), abbreviations ("FBI", "U.S.A."), accents, hyphens, "&" and other signs.
    Raises QueryError when nothing can be said: empty, only punctuation, too long, or in another script.
    """
    plain = _plain(text)
    shouted = plain.isupper() and len(plain.split()) > 1
    slots: list[list[tuple[float, Pronunciation]]] = []
    for piece in _PIECE.finditer(plain.lower() if shouted else plain):
        slot: list[tuple[float, Pronunciation]] = []
        for rank, reading in enumerate(dict.fromkeys(_readings(piece))):
            ways = _combine([_ranked(_word(word)) for word in reading], most)
            slot += [(0.9 * rank + r, way) for r, way in _ranked(ways)]
        slots.append(slot)
    if not slots:
        raise QueryError(f"there is nothing to pronounce in '{_shown(text)}'; type a word or a phrase")
    return _combine(slots, most)


def read_out(text: str) -> list[tuple[str, Pronunciation]]:
    """The words of a text of any length as a speaker would usually say them, each with its usual pronunciation.

    Lower case, without signs: "In 1984" gives in, nineteen, eighty, four; "BBC" is one word of seven phones. QueryError
    for a text in another script.
    """
    words: list[tuple[str, Pronunciation]] = []
    for piece in _PIECE.finditer(_latin(text)):
        reading = _readings(piece)[0]
        said = [(word, _word(word)[0]) for word in reading]
        if piece["word"] or piece["initials"]:
            written = piece.group().lower().replace(".", "")
            said = [(written, tuple(phone for _, phones in said for phone in phones))]
        words += said
    return words


def _plain(text: str) -> str:
    """The query without accents and fancy forms; raises QueryError for what is empty, too long or not Latin script."""
    if not text.strip():
        raise QueryError("the query is empty; type a word or a phrase")
    if len(text) > LONGEST_QUERY:
        raise QueryError(f"the query has {len(text)} characters; Earshot finds words and phrases up to {LONGEST_QUERY}")
    return _latin(text)


def _latin(text: str) -> str:
    """A text without accents and fancy forms. QueryError where it is in another script."""
    known = "".join(c for c in text.translate(_LETTERS) if unicodedata.category(c) != "So" or c in _SYMBOLS)
    plain = "".join(c for c in unicodedata.normalize("NFKD", known) if unicodedata.category(c) != "Mn")
    for letter in plain:
        if letter.isalpha() and not letter.isascii():
            script = unicodedata.name(letter, "unknown").split()[0].split("-")[0]
            script = {"CJK": "Chinese characters", "LATIN": f"the letter {letter}"}.get(script, script.title())
            raise QueryError(
                f"'{_shown(text)}' is written in a script Earshot cannot pronounce yet ({script}); "
                "spell it in Latin letters, or search by example"
            )
    return plain


def _shown(text: str) -> str:
    """The query on one printable line, for a message."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def _readings(piece: re.Match[str]) -> list[Reading]:
    """How a piece of the query may be said, the usual reading first."""
    group = piece.groupdict()
    if group["amount"]:
        return _money(group["sign"], group["amount"], group["scale"] or "")
    if group["number"]:
        tail, readings = (group["tail"] or "").lower(), _number(group["number"])
        if not tail:
            return readings
        change = _plural if tail in {"s", "'s"} else _ordinal  # "1990s", "42nd"
        return [(*reading[:-1], change(reading[-1])) for reading in readings]
    if group["initials"]:
        return [tuple(f"{letter}." for letter in group["initials"].lower().replace(".", ""))]
    if group["word"]:
        return _word_readings(group["word"], abbreviated=bool(group["stop"]))
    return [("minus" if group["minus"] else "sharp" if group["sharp"] else _SYMBOLS[piece.group()],)]


def _word_readings(word: str, *, abbreviated: bool) -> list[Reading]:
    """A word by itself, spelled out ("BBC", "DVDs"), or in its parts ("eBay"), as its letters and capitals suggest."""
    lower = word.lower()
    known = in_dictionary(word)
    if abbreviated and in_dictionary(lower + ".") and (not known or not re.search("[aeiouy]", lower)):
        return [(lower + ".",)]  # "vs.", "prof."
    spelled = tuple(f"{letter}." for letter in lower if letter != "'")
    if word.isupper() and len(word) > 1:
        return [(lower,), spelled] if len(word) <= (3 if known else 4) else [(lower,)]
    if known:
        return [(lower,)]
    if re.fullmatch(r"[A-Z]{2,5}'?s", word):
        return [(*spelled[:-2], spelled[-2] + "'s")]
    parts = tuple(part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word))
    return [parts, (lower,)] if len(parts) > 1 and all(map(in_dictionary, parts)) else [(lower,)]

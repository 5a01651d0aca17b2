"""earshot.pronounce from the outside: what is said for words, names, numbers, signs and bad input."""

from __future__ import annotations

import gzip
import random
import time
from pathlib import Path

import pytest

import earshot.pronounce
from earshot.pronounce import PHONES, LetterToSound, in_dictionary, pronounce, pronounce_word, spelled
from earshot.types import QueryError


def said(text: str, **options: int) -> list[str]:
    return [" ".join(phones) for phones in pronounce(text, **options)]


def same(written: str, spoken: str) -> bool:
    """Whether the first pronunciation of `written` is that of the words `spoken`."""
    return said(written)[0] == said(spoken)[0]


def test_phones_are_the_39_of_arpabet_in_a_fixed_order() -> None:
    assert len(set(PHONES)) == 39
    assert list(PHONES) == sorted(PHONES)


def test_words_are_found_by_how_they_are_said() -> None:
    assert spelled(("T", "EH", "L", "AH", "S", "K", "OW", "P")) == ["telescope"]
    assert spelled(("W", "EY")) == ["wy", "way", "wei", "wey", "waye", "whey", "weigh"]
    for word in ("'bout", "zywicki", "tomato", "either"):  # some have several pronunciations
        assert all(word in spelled(phones) for phones in pronounce_word(word))
    assert spelled(("NG", "NG", "ZH")) == []


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("earth", "ER TH"),
        ("Tomato", "T AH M EY T OW"),
        ("'bout", "B AW T"),  # the first word of the dictionary
        ("zywicki", "Z IH W IH K IY"),  # the last one
        ("don\N{RIGHT SINGLE QUOTATION MARK}t", "D OW N T"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "K AH F EY"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "K AH F EY"),
        ("Müller", "M AH L ER"),
        ("naïve", "N AY IY V"),
    ],
)
def test_dictionary_words(word: str, phones: str) -> None:
    assert said(word)[0] == phones


def test_variants_come_in_dictionary_order_and_are_capped() -> None:
    assert said("tomato") == ["T AH M EY T OW", "T AH M AA T OW"]
    assert said("tomato", most=1) == ["T AH M EY T OW"]
    assert len(said("the tomato either the tomato")) == 4
    assert len(set(said("the tomato either", most=8))) == 8


def test_phrase_is_its_words_in_a_row() -> None:
    assert said("climate change", most=1)[0] == f"{said('climate')[0]} {said('change')[0]}"
    assert said("state-of-the-art")[0].startswith("S T EY T AH V")


def test_in_dictionary_ignores_case() -> None:
    assert in_dictionary("NASA")
    assert in_dictionary("nasa")
    assert not in_dictionary("kubernetes")
    assert not in_dictionary("")


@pytest.mark.parametrize(
    ("word", "phones"),
    [("blorping", "B L AO R P IH NG"), ("thrimble", "TH R IH M B AH L"), ("zelensky's", "Z EH L IH N S K IY Z")],
)
def test_words_outside_the_dictionary_are_sounded_out(word: str, phones: str) -> None:
    assert not in_dictionary(word)
    assert phones in said(word)


def test_endings_follow_the_last_sound() -> None:
    blorp, flub, grish = (said(word, most=1)[0] for word in ("blorp", "flubbo", "grish"))
    assert said("blorp's")[0] == f"{blorp} S"
    assert said("flubbo's")[0] == f"{flub} Z"
    assert said("grish's")[0] == f"{grish} IH Z"
    assert said("grish'")[0] == grish
    assert said("flubbo'll")[0] == f"{flub} AH L"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("3.5", "three point five"),
        ("42nd", "forty second"),
        ("12th", "twelfth"),
        ("20th century", "twentieth century"),
        ("$20", "twenty dollars"),
        ("$1", "one dollar"),
        ("$3.50", "three dollars fifty"),
        ("$.50", "fifty cents"),
        ("£1.5 million", "one point five million pounds"),
        ("25%", "twenty five percent"),
        ("1,000,000", "one million"),
        ("1,234", "one thousand two hundred thirty four"),
        ("-5", "minus five"),
        ("007", "zero zero seven"),
        ("the 1990s", "the nineteen nineties"),
        ("1900", "nineteen hundred"),
        ("1905", "nineteen oh five"),
        ("0", "zero"),
        ("10:30", "ten thirty"),
        ("COVID-19", "covid nineteen"),
        ("mp3", "m p three"),
        ("R&B", "r and b"),
        ("C++", "c plus plus"),
        ("C#", "c sharp"),
        ("#1", "hashtag one"),
        ("user@example.com", "user at example com"),
    ],
)
def test_numbers_and_signs(written: str, spoken: str) -> None:
    assert same(written, spoken)


@pytest.mark.parametrize(
    ("written", "ways"),
    [
        ("1984", ["nineteen eighty four", "one thousand nine hundred eighty four"]),
        ("2005", ["two thousand five", "two thousand and five", "twenty oh five"]),
        ("747", ["seven hundred forty seven", "seven forty seven"]),
        ("90210", ["ninety thousand two hundred ten", "nine zero two one zero"]),
        ("US", ["us", "u s"]),
        ("ISRO", ["isro", "i s r o"]),
    ],
)
def test_ambiguous_readings_are_all_offered(written: str, ways: list[str]) -> None:
    offered = said(written)
    assert offered[0] == said(ways[0])[0]
    assert {said(way, most=1)[0] for way in ways} <= set(offered)


@pytest.mark.parametrize("written", ["FBI", "fbi", "F.B.I.", "f.b.i"])
def test_abbreviations_are_spelled(written: str) -> None:
    assert said(written) == ["EH F B IY AY"]


def test_capitals_guide_the_reading() -> None:
    assert said("XQZ")[0] == "EH K S K Y UW Z IY"
    assert said("CEOs")[0] == "S IY IY OW Z"
    assert said("NASA") == ["N AE S AH"]
    assert said("IT WORKS") == said("it works")
    assert said("vs.")[0] == "V ER S AH Z"
    assert same("OpenMouse", "open mouse")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("привет", "Cyrillic"),
        ("北京", "Chinese characters"),
        ("hello γεια", "Greek"),
        ("안녕", "Hangul"),
        ("かな", "Hiragana"),
    ],
)
def test_other_scripts_are_refused_with_a_way_out(text: str, script: str) -> None:
    with pytest.raises(QueryError) as refusal:
        pronounce(text)
    assert str(refusal.value) == (
        f"'{text}' is written in a script Earshot cannot pronounce yet ({script}); "
        "spell it in Latin letters, or search by example"
    )


@pytest.mark.parametrize("text", ["", " \n\t", "?!", "--", "''", "\N{GRINNING FACE}", "\ud800", "a" * 5000, "\x00\n."])
def test_nothing_to_say_is_one_printable_line(text: str) -> None:
    with pytest.raises(QueryError) as refusal:
        pronounce(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("word", ["", "'", "42", "two words", "é"])
def test_pronounce_word_wants_one_word_of_latin_letters(word: str) -> None:
    with pytest.raises(QueryError):
        pronounce_word(word)


def test_anything_typed_gives_phones_or_a_query_error() -> None:
    pick = random.Random(0)
    keys = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 '.,-$%&#+@éüßø£°/:;!?()½²\n\x00"
    for _ in range(500):
        text = "".join(pick.choices(keys, k=pick.randint(1, 12)))
        try:
            ways = pronounce(text)
        except QueryError as refusal:
            assert str(refusal).isprintable()
            continue
        assert 1 <= len(ways) <= 4
        assert len(set(ways)) == len(ways)
        assert all(way and set(way) <= set(PHONES) for way in ways)


def test_shares_of_guesses_are_probabilities_best_first() -> None:
    model = LetterToSound(Path(earshot.pronounce.__file__).with_name("data") / "letter_to_sound.npz")
    shares = [share for _, share in model.guess("kubernetes", most=50)]
    assert shares == sorted(shares, reverse=True)
    assert 0.3 < sum(shares) <= 1.0001
    assert len(model.guess("kubernetes", most=2)) == 2


def test_a_look_up_is_fast() -> None:
    pronounce("warmblorp")
    started = time.process_time()
    for word in ("grimblewick", "tantrophy", "velocimeter", "zanthorine", "earshotting"):
        pronounce(word)
    assert (time.process_time() - started) / 5 < 0.02


def test_training_learns_a_toy_language(tmp_path: Path) -> None:
    from earshot.train.letter_to_sound import evaluate, pack_dictionary, read_dictionary, train

    sounds = {"b": "B", "d": "D", "k": "K", "a": "AA1", "i": "IY0", "x": "K S"}
    pick = random.Random(0)
    words = sorted(
        {"".join(pick.choices("bdkx", k=1) + pick.choices("aibdkx", k=pick.randint(2, 5))) for _ in range(400)}
    )
    lines = [f"{word} {' '.join(sounds[letter] for letter in word)}" for word in words]
    (tmp_path / "toy.dict").write_text("\n".join([*lines, f"{words[0]}(2) D AA1 D", "bad NOTAPHONE", ""]))
    dictionary = read_dictionary(tmp_path / "toy.dict")
    assert dictionary[words[0]][1] == ("D", "AA", "D")
    held_out = {word: dictionary.pop(word) for word in words[10::20]}
    train(dictionary, tmp_path / "toy.npz")
    assert evaluate(LetterToSound(tmp_path / "toy.npz"), held_out)["phone_error_rate"] < 0.02
    pack_dictionary(dictionary, tmp_path / "toy.gz")
    lines = gzip.decompress((tmp_path / "toy.gz").read_bytes()).decode().strip().split("\n")
    assert [line.split("\t")[0] for line in lines] == sorted(dictionary)

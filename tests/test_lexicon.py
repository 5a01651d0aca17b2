"""The lexicon: which words are mistaken for one another, and what an example may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earshot import encoders
from earshot.encoders.lexicon import MISMATCH, PAD, Lexicon, load, phone_costs
from earshot.encoders.towers import phone_ids
from earshot.encoders.word import WordEncoder
from earshot.pronounce import pronounce
from earshot.types import EncoderError

WORDS = ([0, 1, 2, 3], [1, 2, 3], [1, 2, 4], [5, 6, 7], [1, 2])


@pytest.fixture
def lexicon() -> Lexicon:
    """Five words of eight phones, of which 3 and 4 sound alike; vectors are columns of a rotation."""
    phones = np.full((5, 4), PAD, np.uint8)
    for row, ids in enumerate(WORDS):
        phones[row, : len(ids)] = ids
    costs = 1 - np.eye(8, dtype=np.float32)
    costs[3, 4] = costs[4, 3] = 0.2
    vectors = (127 * np.eye(5)).astype(np.int8)
    return Lexicon(phones, np.array([-9, -8, -9, -2, -9], np.float32), vectors, costs)


def test_rivals_are_words_around_and_alike_weighed_by_how_common_they_are(lexicon: Lexicon) -> None:
    """1 2 3 lies within 0 1 2 3, differs little from 1 2 4 and much from 5 6 7, however common; 1 2 is a part."""
    assert lexicon.rivals([1, 2, 3], (), 5).tolist() == [0, 2, 3]
    assert lexicon.rivals([1, 2, 3], (), 2).tolist() == [0, 2]


@pytest.mark.parametrize("word", ["president", "a", "paper", "internationalization"])
def test_rivals_are_those_of_trying_every_word(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lexicon = encoders.load("word").lexicon
    ids = phone_ids(pronounce(word, most=1)[0])
    likely = lexicon.log_prior - MISMATCH * lexicon._cost_within(ids, np.arange(len(lexicon.phones)))
    found = {}
    for tried in (30, 2_000, len(likely)):
        monkeypatch.setattr("earshot.encoders.lexicon.FIRST_TRIED", tried)
        found[tried] = likely[lexicon.rivals(ids, (), 24)]
    np.testing.assert_allclose(found[30], found[len(likely)], atol=1e-4)
    np.testing.assert_allclose(found[2_000], found[len(likely)], atol=1e-4)


def test_no_pronunciation_of_a_word_is_its_rival(lexicon: Lexicon) -> None:
    assert sorted(lexicon.rivals([1, 2, 3], (), 9).tolist()) == [0, 2, 3]
    assert sorted(lexicon.rivals([1, 2, 3], [[1, 2, 4], [1, 2, 3]], 9).tolist()) == [0, 3]


def test_what_is_longer_than_every_word_is_not_in_the_lexicon(lexicon: Lexicon) -> None:
    long = [1, 2, 3, 4] * 10
    assert lexicon.prior(long) == lexicon.unknown == -9
    assert len(lexicon.rivals(long, (), 3)) == 0


def test_prior_is_that_of_the_same_phones(lexicon: Lexicon) -> None:
    assert lexicon.prior([5, 6, 7]) == -2
    assert lexicon.prior([5, 6]) == lexicon.unknown


def test_nearest_weighs_cosine_and_prior(lexicon: Lexicon) -> None:
    vector = np.array([0, 0.8, 0.6, 0, 0], np.float32)
    assert lexicon.nearest(vector, 25, 0.0, 2).tolist() == [1, 2]
    assert lexicon.nearest(vector, 1, 1.0, 1).tolist() == [3]


def test_a_spoken_word_is_expected_to_be_what_it_sounds_like_or_is_common(lexicon: Lexicon) -> None:
    vectors = np.array([[0, 1, 0, 0, 0], [0, 0.6, 0.6, 0, 0.5], [0.01, 0.01, 0.01, 0.01, 0.01]], np.float32)
    sure, either, common = lexicon.expected(vectors)
    np.testing.assert_allclose(sure, [0, 1, 0, 0, 0], atol=1e-6)
    # of two that sound alike the one that is e times as common counts e ** EXPECTED_PRIOR times as much
    np.testing.assert_allclose(either[1] / either[2], np.exp(0.5), rtol=1e-4)
    np.testing.assert_allclose(either[4] / either[2], np.exp(-40 * 0.1), rtol=1e-2)
    assert common.argmax() == 3
    assert lexicon.expected(np.zeros((0, 5), np.float32)).shape == (0, 5)


def test_costs_are_nothing_for_the_same_and_more_for_the_unlike() -> None:
    costs = phone_costs(np.array([[1, 0], [1, 0.1], [-1, 0], [9, 9]], np.float32), 3)
    np.testing.assert_allclose(np.diag(costs), 0, atol=1e-6)
    assert costs[0, 1] < costs[0, 2]


def test_the_shipped_lexicon_knows_words_and_their_neighbours() -> None:
    encoder = encoders.load("word")
    assert isinstance(encoder, WordEncoder)
    sight, beside, website = (phone_ids(pronounce(word)[0]) for word in ("sight", "beside", "website"))
    lexicon = encoder.lexicon
    rivals = [lexicon.ids(row) for row in lexicon.rivals(sight, (), 24)]
    assert website in rivals
    assert sight not in rivals
    assert lexicon.prior(sight) > lexicon.prior(phone_ids(pronounce("zymurgy")[0]))
    assert lexicon.prior([*beside, *beside, *beside]) == lexicon.unknown
    vector = encoder.embed_ids([beside])[0]
    assert lexicon.ids(lexicon.nearest(vector, 25, 0.0, 1)[0]) == beside


def test_a_damaged_lexicon_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "word-lexicon.npz").write_bytes(b"no arrays")
    with pytest.raises(EncoderError, match=r"word-lexicon\.npz: not the lexicon"):
        load(tmp_path / "word-lexicon.npz", np.zeros((1, 1), np.float32))

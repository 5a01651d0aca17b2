"""Search over a library whose frames say plainly which phone is heard: hits must be where the words were put."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earshot.encoders.clock import FRAME_SECONDS, HALVES, N_CLASSES, SILENCE
from earshot.encoders.lexicon import PAD, Lexicon
from earshot.encoders.towers import phone_ids
from earshot.encoders.word import WordEncoder
from earshot.features import N_MELS, Floats
from earshot.frames import FrameTable
from earshot.library import EncoderIdentity, Fingerprint, Store, Stretch
from earshot.pronounce import PHONES, pronounce
from earshot.query import Query, example_queries, typed_queries, typed_query
from earshot.search import Searcher
from earshot.types import Clip, EarshotError, QueryError

FRAMES_PER_PHONE = 3


@dataclass(frozen=True)
class PlainEncoder(WordEncoder):
    """Frames are one-hot phones, embeddings their mean."""

    def embed_ids(self, words: Sequence[Sequence[int]]) -> Floats:
        sums = np.stack([np.bincount(ids, minlength=N_CLASSES) for ids in words])
        vectors: Floats = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words that are said here, all as common, longest first."""
        words = {tuple(phone_ids(pronounce(word)[0])) for word in f"{TALK} {NEWS} telegraph".split()}
        ordered = sorted(words, key=lambda ids: (-len(ids), ids))
        phones = np.full((len(words), len(ordered[0])), PAD, np.uint8)
        for row, ids in enumerate(ordered):
            phones[row, : len(ids)] = ids
        vectors = np.rint(self.embed_ids(ordered) * 127).astype(np.int8)
        costs = 1 - np.eye(len(PHONES), dtype=np.float32)
        return Lexicon(phones, np.full(len(words), -4.0, np.float32), vectors, costs)


@pytest.fixture
def encoder() -> PlainEncoder:
    eye = np.eye(N_CLASSES, dtype=np.float32)
    return PlainEncoder(
        "plain", "0" * 16, Path("nowhere"), np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32),
        projection=eye, phone_weights=np.tile(6 * eye, (HALVES, 1)),
        phone_bias=np.zeros(HALVES * N_CLASSES, np.float32),
        border_weights=np.zeros((HALVES, N_CLASSES), np.float32), border_bias=np.zeros(HALVES, np.float32),
        phone_seconds=np.full(len(PHONES), FRAMES_PER_PHONE * FRAME_SECONDS, np.float32),
        typed_calibration=np.array([4, 2, 0, 0, 0, 0.1, 0, 0, 0, 0, -5], np.float32),
        spoken_calibration=np.array([4, 2, 0, 0, 0, 0.1, 0, 0, 0, 0, -5], np.float32),
        heard_calibration=np.array([30, 0, 0, 0, 20], np.float32),
        typed_outcome=np.array([1, 0, 0], np.float32),
        spoken_outcome=np.array([1, 0, 0], np.float32),
    )  # fmt: skip


def said(text: str) -> np.ndarray:
    """Frames (n, N_CLASSES) int8 of each word's phones, three frames a phone and three of silence between words."""
    ids = [SILENCE]
    for word in text.split():
        ids += [*phone_ids(pronounce(word)[0]), SILENCE]
    frames = np.zeros((len(ids) * FRAMES_PER_PHONE, N_CLASSES), np.int8)
    frames[np.arange(len(frames)), np.repeat(ids, FRAMES_PER_PHONE)] = 127
    return frames


def when(text: str, word: str) -> tuple[float, float]:
    """Seconds between which the first `word` of `text` is said."""
    before = text.split()[: text.split().index(word)]
    first = 1 + sum(len(pronounce(w)[0]) + 1 for w in before)
    unit = FRAMES_PER_PHONE * FRAME_SECONDS
    return first * unit, (first + len(pronounce(word)[0])) * unit


TALK = "the gradient of a function points uphill while water runs down the telescope"
NEWS = "nobody paid for the telescope and the council adjourned"


@pytest.fixture
def searcher(tmp_path: Path, encoder: PlainEncoder) -> Iterator[Searcher]:
    identity = EncoderIdentity(encoder.name, encoder.digest, encoder.stored_dim, FRAME_SECONDS)

    def stored(text: str) -> np.ndarray:
        return encoder._stored(said(text))

    with Store.create_or_open(tmp_path / "library", identity) as store:
        for path, stretches in (
            ("/a/talk.wav", [Stretch(10.0, stored(TALK))]),
            ("/b/news.wav", [Stretch(0.0, stored("good evening")), Stretch(20.0, stored(NEWS))]),
        ):
            store.add(path, Fingerprint(1, 1), 60.0, 30.0, stretches)
        yield Searcher(store, encoder)


def test_a_typed_word_is_found_where_it_was_said(searcher: Searcher) -> None:
    hit = searcher.find("gradient")[0]
    start, end = when(TALK, "gradient")
    assert hit.recording.path == "/a/talk.wav"
    assert hit.query == "gradient"
    assert hit.start == pytest.approx(10 + start, abs=0.05)
    assert hit.end == pytest.approx(10 + end, abs=0.05)
    assert hit.score > 0.95
    assert hit.probability > 0.9


def test_every_place_is_one_hit_and_others_are_far_less_probable(searcher: Searcher) -> None:
    hits = searcher.find("telescope", top=None)
    assert {hit.recording.path for hit in hits[:2]} == {"/a/talk.wav", "/b/news.wav"}
    assert hits[2].probability < 0.5 * hits[1].probability
    assert [h.probability for h in hits] == sorted((h.probability for h in hits), reverse=True)
    places = [(h.recording.id, h.start, h.end) for h in hits]
    for k, (recording, start, end) in enumerate(places):
        for other, begin, stop in places[:k]:
            overlap = min(end, stop) - max(start, begin)
            assert other != recording or overlap <= 0.5 * min(end - start, stop - begin) + 1e-6


def test_several_words_are_spotted_at_once_where_each_is_found(searcher: Searcher) -> None:
    words = ["telescope", "seven", "fund"]
    for word, hits in zip(words, searcher.spot(typed_queries(words, searcher.encoder)), strict=True):
        likely = sorted((hit for hit in hits if hit.probability > 0.2), key=lambda hit: -hit.probability)
        assert likely and likely == searcher.find(word, top=None, threshold=0.2)
    nowhere = typed_queries(["seven", "x" * 200, "谁"], searcher.encoder)
    assert [len(ways) for ways in nowhere] == [1, 0, 0] and searcher.spot(nowhere, "gone.wav") == [[], [], []]
    assert searcher.spot([]) == [] and searcher.spot(nowhere[1:]) == [[], []]
    (there,) = searcher.spot(typed_queries(["telescope"], searcher.encoder), "talk.wav")
    assert there and all(hit.recording.path.endswith("talk.wav") for hit in there)


def test_more_places_are_looked_at_of_a_word_that_is_said_often(searcher: Searcher, monkeypatch: Any) -> None:
    from earshot import search

    monkeypatch.setattr(search, "SPOTTED", (1,))
    seven = typed_queries(["seven"], searcher.encoder)
    (few,) = searcher.spot(seven)
    monkeypatch.setattr(search, "SPOTTED", (1, 100))
    (all_of_them,) = searcher.spot(seven)
    assert len(few) == 1 < sum(hit.probability > 0.2 for hit in all_of_them)


def test_a_phrase_is_found_as_one_stretch(searcher: Searcher) -> None:
    hit = searcher.find("the council")[0]
    assert hit.recording.path == "/b/news.wav"
    assert hit.end == pytest.approx(20 + when(NEWS, "council")[1], abs=0.05)
    assert hit.end - hit.start > when(NEWS, "council")[1] - when(NEWS, "council")[0]


def test_top_threshold_and_within(searcher: Searcher) -> None:
    assert len(searcher.find("telescope", top=1)) == 1
    assert all(hit.probability >= 0.9 for hit in searcher.find("telescope", top=None, threshold=0.9))
    assert {hit.recording.path for hit in searcher.find("telescope", within="*/news.wav")} == {"/b/news.wav"}
    assert {hit.recording.path for hit in searcher.find("telescope", within="talk.*")} == {"/a/talk.wav"}
    for folder in ("b", "/b", "/b/"):
        assert {hit.recording.path for hit in searcher.find("telescope", within=folder)} == {"/b/news.wav"}
    assert searcher.find("telescope", within="nothing*") == []
    with pytest.raises(TypeError, match="list"):
        searcher.find(["telescope"])


def test_what_else_is_in_the_library_changes_no_hit(searcher: Searcher) -> None:
    for query in ("telescope", "monetary fund"):
        everywhere = searcher.find(query, top=None)
        for name in ("talk.wav", "news.wav"):
            alone = searcher.find(query, top=None, within=name)
            assert alone == [hit for hit in everywhere if hit.recording.path.endswith(name)]


def test_a_changed_library_is_noticed(searcher: Searcher) -> None:
    assert searcher.find("telescope", within="*/new.wav") == []
    searcher.find("telescope")
    searcher.store.add(
        "/c/new.wav", Fingerprint(1, 1), 60.0, 30.0, [Stretch(0.0, searcher.encoder._stored(said("a telescope")))]
    )
    assert "/c/new.wav" in {hit.recording.path for hit in searcher.find("telescope", top=3)}
    searcher.store.remove(["/c/new.wav"])
    assert "/c/new.wav" not in {hit.recording.path for hit in searcher.find("telescope", top=None)}


def test_what_is_searched_may_be_stale_for_a_while(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("earshot.search.time.monotonic", lambda: now[0])
    searcher.stale = 2.0
    hits = len(searcher.find("telescope", top=None))
    searcher.store.remove(["/a/talk.wav"])
    now[0] = 1.9
    assert len(searcher.find("telescope", top=None)) == hits and searcher.version() < searcher.store.version()
    now[0] = 2.0
    assert len(searcher.find("telescope", top=None)) < hits and searcher.version() == searcher.store.version()
    searcher.store.remove(["/b/news.wav"])
    searcher.refresh()
    assert searcher.find("telescope", top=None) == []


def test_an_example_that_takes_long_to_read_keeps_nobody_waiting(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, read = threading.Event(), threading.Event()

    def slowly(clip: Clip, encoder: WordEncoder) -> list[Query]:
        reading.set()
        assert read.wait(30)
        return typed_query("telescope", encoder)

    monkeypatch.setattr("earshot.search.spoken_query", slowly)
    with ThreadPoolExecutor() as pool:
        example = pool.submit(searcher.find, Clip("telescope.wav"))
        assert reading.wait(30)
        assert searcher.find("telescope")
        read.set()
        assert example.result(30)


def test_of_a_library_that_grows_only_what_is_new_is_read(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is searched as by a searcher that begins now, also where more places are likely than are looked at."""
    from earshot import places

    for name, few in (("CANDIDATES", 4), ("COMPARED", 2)):
        monkeypatch.setattr(places, name, few)
    searcher.find("telescope")
    read: list[list[int]] = []
    frames = searcher.store.frames
    monkeypatch.setattr(searcher.store, "frames", lambda ids: (read.append(list(ids)), frames(ids))[1])
    added = []
    for number in range(4):
        if number == 2:
            searcher.find("telescope", within="*/0.wav")
        frames_of = [Stretch(0.0, searcher.encoder._stored(said(f"{'a ' * number}telescope")))]
        added.append(searcher.store.add(f"/c/{number}.wav", Fingerprint(1, 1), 9.0, 1.0, frames_of).id)
        with Store.open(searcher.store.path) as store:
            anew = Searcher(store, searcher.encoder).find("telescope", top=None)
        assert searcher.find("telescope", top=None) == anew and len(anew) <= 4
    assert read == [[added[0]], [added[1]], [added[0]], [added[2]], [added[3]]]
    searcher.store.remove(["/c/1.wav"])
    assert {hit.recording.path for hit in searcher.find("telescope", top=None)}.isdisjoint({"/c/1.wav"})
    assert set(read[-1]) > {added[0], *added[2:]}


@pytest.mark.parametrize("text", ["telescope", "the international monetary fund of the council", "123456", "a"])
def test_stretches_shorter_than_what_is_sought_are_no_trouble(tmp_path: Path, encoder: PlainEncoder, text: str) -> None:
    identity = EncoderIdentity(encoder.name, encoder.digest, encoder.stored_dim, FRAME_SECONDS)
    with Store.create_or_open(tmp_path / "short", identity) as store:
        stretch = encoder._stored(said("the"))
        store.add("/short.wav", Fingerprint(1, 1), 1.0, 0.2, [Stretch(0.0, stretch), Stretch(0.5, stretch[:2])])
        for hit in Searcher(store, encoder).find(text, top=None):
            assert 0 <= hit.start < hit.end <= 1


def test_a_long_phrase_is_found_whole(searcher: Searcher) -> None:
    hit = searcher.find("a function points uphill while water runs down")[0]
    assert hit.start == pytest.approx(10 + when(TALK, "function")[0], abs=0.7)
    assert hit.end == pytest.approx(10 + when(TALK, "down")[1], abs=0.6)
    assert hit.probability > 0.5


def test_an_example_that_is_no_word_of_the_lexicon_is_its_own_word(encoder: PlainEncoder) -> None:
    sound = example_queries("clip", encoder.trim(said("zigzag")), encoder)[0]
    assert sound.words.log_for[-1] == sound.words.log_for.max() > -0.5
    np.testing.assert_allclose(sound.words.vectors[-1], sound.vector)


def test_an_empty_library_has_no_hits(tmp_path: Path, encoder: PlainEncoder) -> None:
    identity = EncoderIdentity(encoder.name, encoder.digest, encoder.stored_dim, FRAME_SECONDS)
    with Store.create_or_open(tmp_path / "empty", identity) as store:
        assert Searcher(store, encoder).find("telescope") == []
        store.add("/silence.wav", Fingerprint(1, 1), 60.0, 0.0, [])
        assert Searcher(store, encoder).find("telescope") == []


def test_a_lexicon_word_too_long_for_an_example_is_no_trouble(encoder: PlainEncoder) -> None:
    from earshot.query import hypotheses

    _, features = hypotheses(encoder.trim(said("telescope"))[:2], encoder)
    assert np.isfinite(features).all()


def test_an_example_query_accepts_lengths_around_its_own(encoder: PlainEncoder) -> None:
    frames = encoder.trim(said("telescope"))
    query, *heard = example_queries("clip", frames, encoder)
    assert query.spoken
    assert [way.states.argmax(axis=1).tolist() for way in heard][:1] == [phone_ids(pronounce("telescope")[0])]
    assert heard[0].chance > 0.5
    assert sum(way.chance for way in heard) <= 1
    assert min(query.lengths) < len(frames) < max(query.lengths)
    assert query.states.shape == (HALVES * len(frames), N_CLASSES)
    np.testing.assert_allclose(query.states.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("text", ["", "   ", "?!", "привет"])
def test_what_cannot_be_pronounced_is_one_line(searcher: Searcher, text: str) -> None:
    with pytest.raises(QueryError) as error:
        searcher.find(text)
    assert "\n" not in str(error.value)


def test_what_takes_too_long_to_say_is_one_line(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match=r"takes about \d+ s to say; Earshot finds words and phrases up to 6 s"):
        searcher.find("telescope " * 12)


@pytest.mark.parametrize("wrong", [{"top": 0}, {"top": -1}, {"threshold": 2.0}])
def test_hits_are_asked_for_in_numbers_that_there_can_be(searcher: Searcher, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        searcher.find("seven", **wrong)


def test_of_a_long_query_fewer_places_are_aligned(encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of greatest cosine, so that memory is bounded; and nothing warns of what is far from likely."""
    from earshot import places, scores

    way = typed_query("seven", encoder)[0]
    table = FrameTable(
        np.random.default_rng(0).integers(-99, 99, (300, encoder.stored_dim)).astype(np.int8),
        np.array([0, 300]), np.zeros(1), np.ones(1, np.int64), 0,
    )  # fmt: skip
    haystack = places.Haystack.of(table, encoder)
    spans = scores.Spans(np.arange(40), np.full(40, 8), np.linspace(0.1, 0.9, 40, dtype=np.float32))
    whole = places.measure(haystack, spans, way, encoder)
    monkeypatch.setattr(places, "CELLS", places.CELLS // 40_000)
    few = places.measure(haystack, spans, way, encoder)
    assert 0 < len(few.starts) < len(whole.starts)
    assert set(few.starts) <= set(whole.starts[-len(few.starts) :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scores.logistic(np.array([[-1e4], [1e4]], np.float32), np.array([1, 0], np.float32)).tolist() == [0, 1]


def test_examples_that_are_none_are_one_line(searcher: Searcher, tmp_path: Path) -> None:
    from earshot.audio import write_wav

    path = tmp_path / "clip.wav"
    write_wav(path, np.random.default_rng(0).standard_normal(120 * 16_000).astype(np.float32) * 0.1)
    for clip, complaint in (
        (Clip(str(path), 1.0, 1.02), "short"),
        (Clip(str(path)), "long"),
        (Clip(str(path), 0, 90), "long"),
        (Clip(str(path), 2.0, 1.0), "ends before it begins"),
    ):
        with pytest.raises(EarshotError, match=complaint) as error:
            searcher.find(clip)
        assert "\n" not in str(error.value)


def test_the_probability_that_is_told_is_that_of_the_outcome(encoder: WordEncoder) -> None:
    """Log odds, and how long a long query is, weighed; the order within a query stays."""
    from earshot.places import LONG, outcome_features, size

    way, phrase = typed_query("seven", encoder)[0], typed_query("seven miles", encoder)[0]
    long = replace(way, states=np.zeros((40, 40), np.float32), spoken=True)
    features = outcome_features(np.array([0.0, 0.5, 0.8, 1.0], np.float32), way)
    assert not features[:, 1].any()
    assert outcome_features(features[:, 0], phrase)[:, 1] == pytest.approx(1)
    assert outcome_features(features[:, 0], long)[:, 1] == pytest.approx(np.log(2) - LONG)
    assert size(way) == pytest.approx(np.log(len(way.states) / 6))
    assert features[1, 0] == pytest.approx(0, abs=1e-6)
    assert features[2, 0] == pytest.approx(np.log(4), rel=1e-4)
    assert np.isfinite(features).all()


def test_a_copy_of_an_example_is_it_whatever_word_it_may_be(searcher: Searcher, encoder: PlainEncoder) -> None:
    """Even where the words that the example may be are wrong, and seem certain."""
    from earshot.places import find_places

    (haystack,) = searcher._haystacks(searcher._those(None)[1])
    sound, *_ = example_queries("clip", encoder.trim(said("telescope")), encoder)
    wrong = replace(typed_query("umbrella", encoder)[0], spoken=False, chance=0.98)
    kinds = {"copies count": 60.0, "copies do not": 0.0}
    best = {}
    for kind, weight in kinds.items():
        calibration = np.array([4, 2, 0, 0, 0, 0.1, 0, 0, 0, weight, -5], np.float32)
        places = find_places(haystack, [sound, wrong], replace(encoder, spoken_calibration=calibration))
        best[kind] = float(places.chances.max())
    assert best["copies count"] > 0.9
    assert best["copies do not"] < best["copies count"]

"""Questions to a library of passages: ranking, overlaps, globs, transcripts, changes, and questions that are none."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot import hear
from earshot.ask import MOST_WORDS, Asker, telling_words
from earshot.captions import Caption
from earshot.encoders import passage
from earshot.frames import Stretch
from earshot.heard import Heard
from earshot.library import EncoderIdentity, Fingerprint, Store
from earshot.passages import read
from earshot.search import matches
from earshot.types import Clip, Hit, LibraryError, QueryError, Span

DIM = 9


class Reader:
    """Letters are words; a text is a vector by its first, a sound is the word of its loudness."""

    name, digest, dim = "passage", "1", DIM
    text = SimpleNamespace(
        limit=12, pieces=SimpleNamespace(ids=lambda text: [ord(c) - ord("a") + 1 for c in text.lower() if c.isalpha()])
    )

    def embed_tokens(self, texts: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        return np.eye(DIM, dtype=np.float32)[[text[0] for text in texts]].reshape(-1, DIM)

    def speech_frames(self, clip: NDArray[np.float32]) -> NDArray[np.int8]:
        loud = round(float(np.abs(clip).max()) * 8)
        return np.full((int(loud > 0), 1), loud, np.int8)

    def hear(self, frames: NDArray[np.int8]) -> passage.Heard:
        return passage.Heard(frames[:, 0].astype(np.int64) + 1, np.ones(len(frames)))

    def words(self, heard: passage.Heard) -> list[tuple[str, Span]]:
        return [(self.read(heard.tokens), Span(0.0, 1.0))]

    def read(self, tokens: NDArray[np.int64]) -> str:
        return " ".join("-abcdefgh"[k] for k in tokens)


class Finder:
    """Finds words where it is told that they are: recording, second, chance."""

    encoder = SimpleNamespace(lexicon=SimpleNamespace(prior=lambda phones: -3.0 if len(phones) == 1 else -9.0))

    def __init__(self, store: Store, places: dict[str, list[tuple[int, float, float]]]) -> None:
        self.store, self.places = store, places
        self.recordings = {recording.id: recording for recording in store.recordings()}

    def version(self) -> int:
        return self.store.version()

    def spot(self, sought: list[list[str]], within: str | None) -> list[list[Hit]]:
        return [
            [
                Hit(self.recordings[id], at, at, 0.5, chance, word)
                for id, at, chance in self.places.get(word, [])
                if within is None or matches(self.recordings[id], within)
            ]
            for (word,) in sought
        ]


@pytest.fixture(autouse=True)
def _queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query is its word."""
    monkeypatch.setattr("earshot.ask.typed_queries", lambda words, _: [[word] for word in words])
    monkeypatch.setattr("earshot.ask.telling_examples", lambda _, words, __: [[word] for word, _ in words])


STRETCHES = [Stretch(10.0 * k, np.zeros((200, DIM), np.int8)) for k in range(8)]


def heard(*cuts: tuple[int, int, float]) -> Heard:
    """Words 1 to 8, one each ten seconds; passages from one to another word that are so like their first word."""
    first, last = (np.array([cut[k] for cut in cuts], np.int64) for k in (0, 1))
    vectors = np.zeros((len(cuts), DIM), np.float16)
    for row, (a, _, score) in enumerate(cuts):
        vectors[row, a + 1] = score
    ends = 10.0 * (1 + np.arange(8))
    return Heard(np.arange(1, 9), ends, first, last, 10.0 * first, 10.0 * last, vectors)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create_or_open(tmp_path / "library", EncoderIdentity("word", "0", DIM, 0.04)) as store:
        store.use_passage_encoder(EncoderIdentity("passage", "1", DIM))
        yield store


def add(store: Store, path: str, what: Heard) -> int:
    id = store.add(path, Fingerprint(1, 1), 80.0, 70.0, STRETCHES).id
    store.add_passages(id, what)
    return id


def asker(store: Store, **places: list[tuple[int, float, float]]) -> Asker:
    reader, finder = Reader(), Finder(store, places)
    return Asker(reader, finder)  # type: ignore[arg-type]


def test_the_best_passage_comes_first_as_the_longest_around_it(store: Store) -> None:
    add(store, "/x/a.wav", heard((0, 4, 0.5), (0, 1, 0.1), (2, 3, 0.9), (4, 8, 0.3), (4, 5, 0.2)))
    add(store, "/y/b.wav", heard((2, 4, 0.6)))
    found = asker(store).ask("c?")
    assert [(p.recording.path, p.start, p.end) for p in found[:2]] == [("/x/a.wav", 0, 40), ("/y/b.wav", 20, 40)]
    assert found[0].score > found[1].score > found[2].score and found[0].text == "a b c d" and found[0].heard
    assert (found[0].best.start, found[0].best.end, found[0].best_text) == (20, 30, "c")
    assert len({(p.recording.path, p.start) for p in found}) == len(found) == 3
    assert len(asker(store).ask("c?", top=1)) == 1
    assert [p.recording.path for p in asker(store).ask("c?", within="y/*")] == ["/y/b.wav"]
    assert asker(store).ask("c?", within="z/*") == []


def test_words_that_are_said_count_beside_vectors(store: Store) -> None:
    """By their chances, wherever they are in a passage; those in other recordings do not."""
    one = add(store, "/a.wav", heard((0, 2, 0.0), (4, 6, 0.0), (6, 8, 0.0)))
    two = add(store, "/b.wav", heard((0, 2, 0.0)))
    found = asker(store, f=[(one, 59.9, 0.5), (two, 30.0, 0.9), (one, 10.0, 0.01)]).ask("f? g?")
    assert (found[0].recording.path, found[0].start) == ("/a.wav", 40) and found[0].score > 0
    assert [p.score for p in found[1:]] == [0, 0, 0]
    assert [[(hit.query, hit.start) for hit in p.words] for p in found] == [[("f", 59.9)], [], [], []]


def test_words_within_some_recordings_are_weighed_there_alone(store: Store) -> None:
    one, two, three = (add(store, f"/{name}.wav", heard((0, 2, 0.0), (4, 6, 0.0))) for name in ("a", "b", "c"))
    places = {"cat": [(one, 1.0, 0.9), (two, 1.0, 0.9), (two, 50.0, 0.9)], "dog": [(two, 1.0, 0.9), (three, 1.0, 0.9)]}
    found = asker(store, **places).ask("cat dog?")
    assert [(p.recording.path, p.start) for p in found[:3]] == [("/b.wav", 0), ("/c.wav", 0), ("/a.wav", 0)]
    found = asker(store, **places).ask("cat dog?", within="a.wav")
    assert {p.recording.path for p in found} == {"/a.wav"} and [hit.query for hit in found[0].words] == ["cat"]


@pytest.mark.parametrize("place", ["heard", "transcript"])
def test_words_count_as_much_where_they_are_heard_as_where_they_are_written(store: Store, place: str) -> None:
    """Recordings with a transcript and without are one ranking, whether words are shared or not."""
    reader: Any = Reader()
    mute = np.zeros((2, DIM), np.float16)
    plain = heard((0, 4, 0.0), (4, 8, 0.0))
    bare = add(store, "/a.wav", replace(plain, vectors=mute))
    told = add(store, "/b.wav", replace(plain, vectors=mute))
    captions = [Caption(10.0 * k, 10.0 * k + 8, "h" if place == "heard" else "f") for k in range(8)]
    store.add_transcript(told, captions)
    assert hear.hear(store, reader, 1) == 0
    places = [(bare, 5.0, 1.0)] if place == "heard" else []
    best = asker(store, f=places).ask("f?")[0]
    assert best.heard == (place == "heard") and best.score > 0.3
    assert asker(store).ask("g?")[0].score <= 0.2


def test_words_that_tell_nothing_are_not_sought_and_the_rarest_come_first() -> None:
    lexicon: Any = SimpleNamespace(prior=lambda phones: {1: -3.0, 2: -6.0, 3: -9.0}.get(len(phones), -20.0))
    assert telling_words("Oh, who paid? Who did it.", lexicon) == ["paid"]
    assert telling_words("(Paid) paid PAID, where?", lexicon) == ["Paid"]
    assert telling_words("谁 paid a ф in 1973, U.S. paid.", lexicon) == ["1973", "U.S.", "paid"]
    assert telling_words("谁?", lexicon) == [] and len(telling_words("telescopes " * 9 + TEXT, lexicon)) == MOST_WORDS


TEXT = "several observatories measured unexpected gravitational lensing around distant galaxies before professional "
TEXT += "astronomers published preliminary spectroscopic evidence supporting competing cosmological interpretations"


def test_overlapping_passages_are_told_once(store: Store) -> None:
    add(store, "/a.wav", heard((0, 4, 0.9), (1, 5, 0.8), (6, 8, 0.7)))
    assert [(p.start, p.end) for p in asker(store).ask("b?")] == [(10, 50), (60, 80)]


def test_of_passages_that_overlap_the_second_tells_what_is_new(store: Store) -> None:
    """Its longest surroundings would repeat most of the first."""
    add(store, "/a.wav", heard((0, 4, 0.0), (1, 5, 0.0), (1, 2, 0.9), (4, 5, 0.8), (5, 8, 0.0)))
    found = asker(store).ask("b e?")
    assert [(p.start, p.end) for p in found] == [(0, 40), (40, 50), (50, 80)]


def test_a_library_that_changes_is_read_again(store: Store) -> None:
    asking = asker(store)
    assert asking.ask("a?") == []
    add(store, "/a.wav", heard((0, 4, 0.9)))
    assert len(asking.ask("a?")) == 1
    store.remove(["/a.wav"])
    assert asking.ask("a?") == []


def test_transcripts_are_read_where_there_are_any(store: Store) -> None:
    """What is heard and what is written are one passage; its text is the transcript's."""
    reader: Any = Reader()
    captions, misheard = (
        [Caption(10.0 * k, 10.0 * k + 8, c) for k, c in enumerate(of)] for of in ("HGFEDCBA", "h" * 8)
    )
    (other,) = read([(misheard, STRETCHES)], reader)
    add(store, "/a.wav", heard((0, 8, 0.5)))
    one = add(store, "/b.wav", other)
    store.add_transcript(one, captions)
    assert hear.hear(store, reader, 1) == 0
    found = asker(store).ask("h?")
    assert (
        not found[0].heard
        and found[0].recording.path == "/b.wav"
        and found[0].text.startswith("H G F E")
        and found[0].start == 0
    )
    assert {p.text for p in found if p.heard} == {"a b c d e f g h"}
    places = [(p.recording.path, p.start) for p in found]
    assert len(places) == len(set(places))


def test_words_of_captions_lie_evenly_in_their_time() -> None:
    reader: Any = Reader()
    stretches = [Stretch(1.0, np.zeros((100, DIM), np.int8)), Stretch(20.0, np.zeros((50, DIM), np.int8))]
    captions = [Caption(1.0, 3.0, "ab"), Caption(19.0, 21.0, "cde"), Caption(21, 22, "!")]
    (told, none) = read([(captions, stretches), ([], [])], reader)
    assert told.ends.tolist() == pytest.approx([2, 3, 19 + 2 / 3, 19 + 4 / 3, 21])
    assert told.tokens.tolist() == [1, 2, 3, 4, 5]
    assert [(a, b) for a, b in zip(told.first, told.last, strict=True)] == [(0, 5), (0, 3), (3, 5)]
    assert len(none.tokens) == len(none.vectors) == 0


def test_transcripts_go_to_the_recordings_of_their_name(store: Store, tmp_path: Path) -> None:
    for name in ("talk", "song"):
        for folder in ("x", "y"):
            add(store, str(tmp_path / folder / f"{name}.wav"), heard((0, 8, 0.5)))
    one = add(store, "/z/own.mp3", heard((0, 8, 0.5)))
    (tmp_path / "x").mkdir()
    srt = "1\n00:00:01,000 --> 00:00:0{},500\nhello\n"
    for name, end in (("x/talk.srt", 2), ("x/own.en.srt", 2), ("x/other.srt", 2)):
        (tmp_path / name).write_text(srt.format(end))
    reader: Any = Reader()
    told = hear.import_transcripts(store, reader, tmp_path / "x")
    assert (told.used, told.failures, told.unmatched) == (2, (), (str(tmp_path / "x" / "other.srt"),))
    assert store.transcripts([one]) == {one: [Caption(1.0, 2.5, "hello")]}
    (tmp_path / "x" / "own.info.json").write_text("{}")  # of no interest, as there is another
    told = hear.import_transcripts(store, reader, tmp_path / "x")
    assert (told.used, told.failures) == (2, ())
    (tmp_path / "x" / "own.en.srt").write_text("nothing")
    (tmp_path / "x" / "talk.srt").unlink()
    (tmp_path / "song.srt").write_text(srt.format(2))
    told = hear.import_transcripts(store, reader, tmp_path / "x")
    assert told.used == 0 and "no readable SRT" in told.failures[0].reason
    assert store.transcripts([one]) == {one: [Caption(1.0, 2.5, "hello")]}  # what was there stays
    told = hear.import_transcripts(store, reader, tmp_path)
    assert told.used == 0 and told.failures[0].reason.startswith("it may be of ")
    assert told.failures[0].path.endswith("song.srt") and not told.unmatched


@pytest.mark.parametrize("question", ["", "  ", "?"])
def test_a_question_that_is_none_is_one_line(store: Store, question: str) -> None:
    with pytest.raises(QueryError, match="the question is empty"):
        asker(store).ask(question)


def test_a_question_that_is_too_long_is_one_line(store: Store) -> None:
    with pytest.raises(QueryError, match="the question has 30 words"):
        asker(store).ask("a " * 30)


def test_passages_of_another_encoder_cannot_be_asked(store: Store) -> None:
    store.use_passage_encoder(EncoderIdentity("passage", "2", DIM))
    with pytest.raises(LibraryError, match=r"passages by another encoder .* run `earshot index` again"):
        asker(store).ask("a?")


def spoken(path: Path, loudness: float, seconds: float = 1.0) -> Clip:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.full(round(16000 * seconds), loudness * 32767, np.int16).tobytes())
    return Clip(str(path))


def test_a_question_may_be_spoken(store: Store, tmp_path: Path) -> None:
    add(store, "/a.wav", heard((0, 4, 0.9), (4, 8, 0.8)))
    assert asker(store).ask(spoken(tmp_path / "q.wav", 0.5))[0].start == 40
    with pytest.raises(QueryError, match=r"q\.wav: no words are heard in it"):
        asker(store).ask(spoken(tmp_path / "q.wav", 0.0))
    with pytest.raises(QueryError, match=r"q\.wav: longer than 40 s; name a shorter stretch"):
        asker(store).ask(spoken(tmp_path / "q.wav", 0.5, seconds=60))

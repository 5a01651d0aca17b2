"""Questions to a library of passages: ranking, overlaps, globs, changes, and questions that are none."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot.ask import Asker
from earshot.heard import Heard
from earshot.library import EncoderIdentity, Fingerprint, Store
from earshot.types import Clip, QueryError

DIM = 8


class Reader:
    """Texts and sounds are vectors by their first letter, or loudness."""

    dim = DIM

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        return np.eye(DIM, dtype=np.float32)[[ord(text[0]) - ord("a") for text in texts]]

    def embed_speech(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.eye(DIM, dtype=np.float32)[[round(float(np.abs(clip).max()) * 8) for clip in clips]]

    def read(self, tokens: NDArray[np.int64]) -> str:
        return " ".join("abcdefgh"[k] for k in tokens)


def heard(*cuts: tuple[int, int, float]) -> Heard:
    """Words 0 to 7, one each ten seconds; passages from one to another word that are so like their first word."""
    first, last = (np.array([cut[k] for cut in cuts], np.int64) for k in (0, 1))
    vectors = np.zeros((len(cuts), DIM), np.float16)
    for row, (a, _, score) in enumerate(cuts):
        vectors[row, a] = score
    ends = 10.0 * (1 + np.arange(8))
    return Heard(np.arange(8), ends, first, last, 10.0 * first, 10.0 * last, vectors)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create_or_open(tmp_path / "library", EncoderIdentity("word", "0", DIM, 0.04)) as store:
        store.use_passage_encoder(EncoderIdentity("passage", "1", DIM))
        yield store


def add(store: Store, path: str, what: Heard) -> int:
    id = store.add(path, Fingerprint(1, 1), 80.0, 70.0, []).id
    store.add_passages(id, what)
    return id


def asker(store: Store) -> Asker:
    reader: Any = Reader()
    return Asker(store, reader)


def test_the_best_passage_comes_first_as_the_longest_around_it(store: Store) -> None:
    add(store, "/x/a.wav", heard((0, 4, 0.5), (0, 1, 0.1), (2, 3, 0.9), (4, 8, 0.3), (4, 5, 0.2)))
    add(store, "/y/b.wav", heard((2, 4, 0.6)))
    found = asker(store).ask("c?")
    assert [(p.recording.path, p.start, p.end) for p in found[:2]] == [("/x/a.wav", 0, 40), ("/y/b.wav", 20, 40)]
    assert found[0].score == pytest.approx(0.9, abs=1e-3) and found[0].text == "a b c d"
    assert (found[0].best.start, found[0].best.end) == (20, 30)
    assert len({(p.recording.path, p.start) for p in found}) == len(found) == 3
    assert len(asker(store).ask("c?", top=1)) == 1
    assert [p.recording.path for p in asker(store).ask("c?", within="y/*")] == ["/y/b.wav"]
    assert asker(store).ask("c?", within="z/*") == []


def test_overlapping_passages_are_told_once(store: Store) -> None:
    add(store, "/a.wav", heard((0, 4, 0.9), (1, 5, 0.8), (6, 8, 0.7)))
    found = asker(store).ask("b?")
    assert [(p.start, p.end) for p in found] == [(10, 50), (60, 80)]


def test_a_library_that_changes_is_read_again(store: Store) -> None:
    asking = asker(store)
    assert asking.ask("a?") == []
    add(store, "/a.wav", heard((0, 4, 0.9)))
    assert len(asking.ask("a?")) == 1
    store.remove(["/a.wav"])
    assert asking.ask("a?") == []


def test_spoken_questions_and_such_as_are_none(store: Store, tmp_path: Path) -> None:
    add(store, "/a.wav", heard((0, 4, 0.5), (4, 8, 0.5)))

    def record(name: str, seconds: float) -> Clip:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(np.full(int(seconds * 16000), 4 * 4096, "<i2").tobytes())
        return Clip(str(tmp_path / name))

    assert asker(store).ask(record("short.wav", 2))[0].start == 40
    with pytest.raises(QueryError, match=r"long\.wav: longer than 40 s; name a shorter stretch"):
        asker(store).ask(record("long.wav", 50))
    with pytest.raises(QueryError, match="the question is empty"):
        asker(store).ask("  ")

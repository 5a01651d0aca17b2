"""What is heard in a recording, and the passages that it is cut into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot import hear, passages
from earshot.encoders import passage
from earshot.encoders.clock import FRAME_SECONDS
from earshot.frames import Stretch
from earshot.heard import Heard, pack, unpack
from earshot.ingest import Progress
from earshot.library import EncoderIdentity, Fingerprint, Store


class Ears:
    """Hears a word in every second: its number is one more than the value of the frame before which it ends."""

    dim = 4

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def hear(self, frames: NDArray[np.int8]) -> passage.Heard:
        self.lengths.append(len(frames))
        ends = np.arange(25, len(frames) + 1, 25)
        return passage.Heard(frames[ends - 1, 0].astype(np.int64) + 1, ends * FRAME_SECONDS)

    def embed_tokens(self, texts: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        return np.array([[len(text), text[0], text[-1], 1] for text in texts], np.float32).reshape(-1, 4)


def stretches(*seconds: float, pause: float = 2.0) -> list[Stretch]:
    """Stretches of so many seconds after each other, the frames of number k all of value k."""
    made, start = [], 1.0
    for k, length in enumerate(seconds):
        made.append(Stretch(start, np.full((round(length / FRAME_SECONDS), 3), k, np.int8)))
        start += length + pause
    return made


def test_words_are_of_the_stretch_they_end_in_and_keep_its_clock() -> None:
    """Stretches are heard together, half a minute of them at most; several recordings at once."""
    ears: Any = Ears()
    said = stretches(4, 10, 20, 7, 45, 3)
    words, none, other = passages.listen([said, [], said[:1]], ears)
    assert [round(n * FRAME_SECONDS) for n in ears.lengths] == [14, 27, 45, 3, 4]
    assert np.bincount(words.tokens)[1:].tolist() == [4, 10, 20, 7, 45, 3]
    assert words.ends[:5].tolist() == pytest.approx([2, 3, 4, 5, 8])
    assert words.ends[-1] == pytest.approx(1 + 4 + 10 + 20 + 7 + 45 + 3 + 5 * 2)
    assert len(none.tokens) == len(none.ends) == len(none.first) == len(none.vectors) == 0
    assert other.tokens.tolist() == [1] * 4 and other.stops.tolist() == [5]


def test_passages_overlap_end_in_pauses_and_are_no_longer_than_told() -> None:
    ears: Any = Ears()
    said = stretches(*[8.0] * 12)
    (found,) = passages.listen([said], ears)
    lengths = found.stops - found.starts
    assert lengths.max() <= 40 and sorted(set(lengths.round())) == [8, 28, 38]
    long = np.flatnonzero(lengths > 12)
    assert (found.starts[long[1:]] < found.stops[long[:-1]]).all()
    assert found.stops[long].max() == pytest.approx(said[-1].start + 8)
    assert found.vectors[:, 0].tolist() == (found.last - found.first).tolist()
    for k in range(len(lengths)):
        inside = found.ends[found.first[k] : found.last[k]]
        assert inside.min() > found.starts[k] and inside.max() <= found.stops[k] + 1e-6


def test_speech_without_a_pause_is_a_passage_and_silence_is_none() -> None:
    ears: Any = Ears()
    long, mute = passages.listen([stretches(90), stretches(0.4, 0.4)], ears)
    assert long.stops.tolist() == [91.0] and long.tokens.tolist() == [1] * 90
    assert len(mute.vectors) == len(mute.tokens) == 0


def test_bytes_give_back_what_was_heard_or_say_that_they_do_not_fit() -> None:
    ears: Any = Ears()
    (heard,) = passages.listen([stretches(8, 9, 20)], ears)
    again = unpack(*pack(heard), dim=4)
    for name in Heard.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(heard, name))
    words, cut, vectors = pack(heard)
    for wrong in ((words[:12], cut, vectors), (words, cut, vectors[:-2]), (words[:-1], cut, vectors)):
        with pytest.raises(ValueError):
            unpack(*wrong, dim=4)


def test_recordings_are_heard_from_their_frames_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several at a time; a run that is stopped has kept what it had done."""
    ears: Any = Ears()
    ears.name, ears.digest = "passage", "abc"
    monkeypatch.setattr(hear, "AT_ONCE", 25.0)
    with Store.create_or_open(tmp_path, EncoderIdentity("word", "0", 3, FRAME_SECONDS)) as store:
        for name, seconds in (("a", (10.0, 8.0)), ("b", (9.0,)), ("c", ()), ("d", (30.0, 30.0))):
            store.add(f"/{name}.wav", Fingerprint(1, 1), 90.0, sum(seconds), stretches(*seconds))
        told: list[Progress] = []

        def stop(progress: Progress) -> None:
            told.append(progress)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hear.hear(store, ears, 1, progress=stop)
        assert told == [Progress(27.0, 87.0, 2, 4, hearing=True)] and len(store.without_passages()) == 2
        assert hear.hear(store, ears, 3) == 2
        assert [(id, len(heard.tokens)) for id, heard in store.passages()] == [(1, 18), (2, 9), (3, 0), (4, 60)]
        assert hear.hear(store, ears, 1) == 0 and sum(ears.lengths) == 87 / FRAME_SECONDS

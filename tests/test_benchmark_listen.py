"""The benchmark of live spotting on a small world of tones: streams with keywords put in, and how hits are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_benchmarks import write_set

from benchmarks import listen_task
from benchmarks.contract import SAMPLE_RATE
from earshot.listen import Spotted
from earshot.metrics import Reference

pytest.importorskip("pocketsphinx")
from benchmarks import listen, listen_page

THE = ["the", "alpha", "the", "bravo"]


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> listen_task.Stream:
    """Two readers; of four utterances by two others an example is taken and three are put in."""
    monkeypatch.setattr(listen_task, "MIN_LETTERS", {"word": 5, "phrase": 8})
    monkeypatch.setattr(listen_task, "MOST", {"word": 8, "phrase": 0})
    chapters = [(f"{s}-1-000{k}", s, "dev", THE) for s in "12" for k in range(4)]
    write_set(tmp_path / "librispeech-chapters", chapters)
    write_set(
        tmp_path / "mini-librispeech", [(f"{s}-1-000{k}", s, "dev", ["the", "delta"]) for s in "89" for k in "12"]
    )
    monkeypatch.setattr(listen_task.random.Random, "shuffle", lambda self, items: None)
    return listen_task.stream(tmp_path, tmp_path / "work", "chapters")


def test_keywords_of_others_are_put_into_pauses(stream: listen_task.Stream, tmp_path: Path) -> None:
    assert list(stream.examples) == ["delta"]
    assert len(stream.inserted) == 3 == len(stream.references)
    utterance, word = 4 * 0.52, 0.42 + 2 * listen_task.AROUND
    assert stream.seconds == pytest.approx(8 * utterance + 3 * word, abs=0.1)
    for number, reference in enumerate(stream.inserted, 1):
        assert reference.query == "delta" and reference.end - reference.start == pytest.approx(0.42, abs=0.001)
        before = reference.start - listen_task.AROUND - (number - 1) * word
        assert before / utterance == pytest.approx(round(before / utterance), abs=0.05)  # between utterances
        first, last = round(reference.start * SAMPLE_RATE), round(reference.end * SAMPLE_RATE)
        own = np.abs(np.fft.rfft(stream.samples[first : first + 2000])).argmax() * SAMPLE_RATE / 2000
        assert own == pytest.approx(1000, rel=0.05)  # delta's first tone
        around = stream.samples[max(0, first - SAMPLE_RATE) : first]
        assert 0.5 < np.std(stream.samples[first:last]) / np.std(around) < 2


def spotted(start: float, probability: float, query: str = "delta") -> Spotted:
    return Spotted(query, start, start + 0.4, 0.7, probability, start + 0.9)


def played(*starts: float) -> listen_task.Stream:
    said = tuple(Reference("delta", "stream", start, start + 0.4) for start in starts)
    hour = np.broadcast_to(np.float32(0), 3600 * SAMPLE_RATE)
    return listen_task.Stream(hour, {"delta": Path("x"), "bravo": Path("y")}, said, said[:1])


def test_a_hit_counts_from_the_threshold_at_which_it_is_told() -> None:
    stream = played(10.0, 20.0)
    places = [spotted(10, 0.3), spotted(10.1, 0.9), spotted(15, 0.5), spotted(20, 0.4), spotted(20, 0.2, "bravo")]
    low = listen.counted(places, 0.25, stream)
    assert (low["right"], low["wrong"], low["recall"], low["false alarms"]) == (2, 1, 1.0, 0.5)  # of two keywords
    assert low["latency"][0] == pytest.approx(0.5)
    high = listen.counted(places, 0.6, stream)
    assert (high["right"], high["wrong"]) == (1, 0)
    assert high["latency"][0] == pytest.approx(0.6)  # told by the second look
    looks = np.array([0.01, 0.03, 0.03, 0.03, 0.2], np.float32)
    assert listen.counted(places, 0.6, stream, looks)["latency"] == pytest.approx([0.63, 0.6 + 0.03 + 0.17 * 0.8])
    again = listen.counted([*places, spotted(10.55, 0.9)], 0.6, stream)
    assert again["wrong"] == 1


def test_recall_is_that_of_the_best_threshold_with_so_few_alarms() -> None:
    places = [spotted(10, 0.8), spotted(15, 0.5), spotted(20, 0.4), *(spotted(30 + k, 0.3) for k in range(10))]
    row = listen.swept(places, played(10.0, 20.0), 0.45)
    assert row["at"]["0.5"]["recall"] == 1.0 and row["at"]["0.5"]["wrong"] == 1
    assert row["recall"]["inserted"]["0.5"] == 1.0 and row["counts"] == {
        "all": 2, "inserted": 1, "natural": 1, "words": 2, "phrases": 0,
    }  # fmt: skip
    assert row["default"]["recall"] == 0.5
    assert listen.swept([], played(1.0), None)["at"]["5.0"]["recall"] == 0


def test_the_page_has_a_row_for_each_contender() -> None:
    places = [spotted(10, 0.8), spotted(15, 0.5)]
    row = {"task": "chapters", "stream": "1 h", "command": "c", "commit": "abc", "machine": "m", "load": 1}
    row |= {"cpu one": 0.05, "cpu few": 0.1, "cpu all, read fast": 0.01, **listen.swept(places, played(10.0), 0.3)}
    mine = {"compute ms": {"median": 20.0, "p95": 30.0}, "shown": [{"threshold": 0.3, **row["default"]}]}
    page = listen_page.page(
        [
            {**row, **mine, "contender": "earshot", "kind": "typed"},
            {**row, "contender": "pocketsphinx", "kind": "typed"},
        ]
    )
    assert "| earshot, typed | 1.000 (1 right, 1 wrong) |" in page and "| pocketsphinx, typed | 1.000" in page
    assert "1 right and 1 wrong" in page
    alone = listen_page.page([{**row, "contender": "pocketsphinx", "kind": "typed"}])
    assert "| pocketsphinx, typed | 1.000" in alone and "Thresholds" not in alone

"""Paper A's protocol on a small world of tones: IV and OOV, trials of windows by a plain count, noise and rooms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from test_benchmarks import TONES, Spectra, write_set

from benchmarks import protocol
from benchmarks.conditions import Condition
from benchmarks.contract import SAMPLE_RATE
from benchmarks.protocol_page import protocol_page
from earshot.train.alignments import read_alignments
from earshot.train.corpus import prepare
from earshot.types import EarshotError


class Tones(Spectra):
    """With a card, as encoders have."""

    card: dict[str, Any] = {"training": {"parameters": 3}}  # noqa: RUF012


TRAIN = ("t", "8", "train", ["alpha", "the", "delta"])


@pytest.fixture
def test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> protocol.Test:
    """Dev speakers 1 and 9; "bravo" is not in the training text. Words last 0.42 s, so shorter ones are taken."""
    monkeypatch.setattr(protocol, "SHORTEST", 0.3)
    lines = [TRAIN, ("a", "1", "dev", ["alpha", "the", "bravo", "alpha"])]
    lines += [("b", "9", "dev", ["bravo", "alpha", "the", "delta", "the"]), ("c", "1", "dev", ["the", "bravo"])]
    return made(tmp_path, lines)


def made(tmp_path: Path, lines: list[tuple[str, str, str, list[str]]]) -> protocol.Test:
    write_set(tmp_path / "speech" / "tones", lines)
    (tmp_path / "speech" / "tones" / "times.jsonl").write_bytes((tmp_path / "speech/tones/manifest.jsonl").read_bytes())
    made = read_alignments(tmp_path / "speech" / "tones" / "times.jsonl")
    prepare(tmp_path / "speech" / "tones", tmp_path / "corpora" / "tones", made)
    (tmp_path / "recipe.toml").write_text("[corpora]\ntones = 1.0\n")
    return protocol.read_test(tmp_path / "corpora", tmp_path / "recipe.toml", "tones:dev", Condition("clean"))


def test_words_are_in_or_out_of_the_training_text(test: protocol.Test) -> None:
    assert test.speakers == ["1", "9", "1"]
    assert [word.label for word in test.words][:4] == ["alpha", "the", "bravo", "alpha"]
    assert test.vocabulary == {"alpha", "the", "delta"}
    assert [w.label for w, out in zip(test.words, test.part(test.words, "OOV"), strict=True) if out] == ["bravo"] * 3


def test_a_split_without_words_is_named(test: protocol.Test, tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match="tones has no aligned utterances of split test"):
        protocol.read_test(tmp_path / "corpora", tmp_path / "recipe.toml", "tones:test", Condition("clean"))


def test_an_encoder_that_tells_all_words_has_perfect_figures(test: protocol.Test) -> None:
    row = protocol.score("tones", Tones(), test, windows=True)  # type: ignore[arg-type]
    assert row["words"]["IV"]["words"] == 8
    assert row["words"]["IV"]["acoustic"]["ap"] == pytest.approx(1)
    assert row["words"]["OOV"]["acoustic"]["n_positive"] == 3
    assert row["words"]["OOV"]["across speakers"]["n_positive"] == 2
    assert row["words"]["all"]["cross-modal"]["ap"] == pytest.approx(1)
    page = protocol_page([row, {**row, "encoder": "tones@2"}, {**row, "condition": "white@5"}])
    assert "| tones | 0.0 M | - |" in page
    assert "1.000 (1.000-1.000)" in page
    assert "| tones | white@5 | 1.000 |" in page


def test_parts_without_anything_to_find_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word is in the training text; "bravo" is said twice in one utterance, others once."""
    monkeypatch.setattr(protocol, "SHORTEST", 0.3)
    monkeypatch.setitem(TONES, "echo", (900, 500, 2500))
    monkeypatch.setitem(TONES, "golf", (3000, 600, 800))
    test = made(tmp_path, [TRAIN, ("a", "1", "dev", ["bravo", "echo", "bravo", "golf"])])
    row = protocol.score("tones", Tones(), test, windows=True)  # type: ignore[arg-type]
    assert row["words"]["IV"] is None
    assert row["windows"]["cut"]["spoken"] == {}  # an example's own utterance is left out
    assert set(row["windows"]["cut"]["typed"]) == {"OOV"}
    page = protocol_page([row])
    assert "STD" not in page.partition("##")[2]
    assert "KWS, typed queries\n\nOOV: 1 queries, 2 references; " in page
    lonely = made(tmp_path / "lonely", [TRAIN, ("a", "1", "dev", ["bravo", "echo"])])
    page = protocol_page([protocol.score("tones", Tones(), lonely, windows=True)])  # type: ignore[arg-type]
    assert "| tones | 0.0 M |" in page and "KWS" not in page.partition("##")[2]


def test_a_length_whose_windows_miss_all_words_has_no_eer(test: protocol.Test) -> None:
    """Words of 0.1 s, each in the middle of a hop of 0.15 s."""
    brief = [replace(w, start=0.32, end=0.36) for w in test.words if w.label == "bravo"]
    row = protocol.score("tones", Tones(), replace(test, words=brief), windows=True)  # type: ignore[arg-type]
    assert list(row["windows"]["cut"]["typed"]["OOV"]["EER"]) == ["0.4"]
    assert "| system | EER IV 0.4 s | EER OOV 0.4 s |" in protocol_page([row])


def test_windows_longer_than_all_utterances_are_refused(test: protocol.Test) -> None:
    short = replace(test, samples=[s[:8000] for s in test.samples], words=test.words[:1])
    with pytest.raises(EarshotError, match=r"no utterance is as long as a window of 0\.6 s"):
        protocol.score("tones", Tones(), short, windows=True)  # type: ignore[arg-type]


def test_a_page_names_each_command_once(test: protocol.Test) -> None:
    row = protocol.score("tones", Tones(), test, windows=False)  # type: ignore[arg-type]
    rows = [row, {**row, "encoder": "other"}, {**row, "condition": "white@5"}, {**row, "commit": "abc"}]
    _, _, origins = protocol_page(rows).partition("## Where the figures come from\n\n")
    made = f"- `{row['command']}` at {row['commit']}, {row['machine']}"
    assert origins.splitlines()[:3] == [made, "  - tones:dev, clean: tones, other", "  - tones:dev, white@5: tones"]
    assert origins.splitlines()[3:] == [made.replace(row["commit"], "abc"), "  - tones:dev, clean: tones"]


def test_trials_are_windows_in_a_word_or_away_from_it(test: protocol.Test) -> None:
    """Counted by a plain loop, for the typed query "bravo" and windows of 0.3 s."""
    row = protocol.score("tones", Tones(), test, windows=True)  # type: ignore[arg-type]
    positive = negative = 0
    for k, samples in enumerate(test.samples):
        for step in range((len(samples) - round(0.3 * SAMPLE_RATE)) // round(protocol.HOP * SAMPLE_RATE) + 1):
            start = step * protocol.HOP
            said = [w for w in test.words if w.label == "bravo" and w.utterance == k]
            positive += any(w.start <= start + 0.15 <= w.end for w in said)
            negative += not any(start < w.end and start + 0.3 > w.start for w in said)
    trials = row["windows"]["cut"]["typed"]["OOV"]["EER"]["0.3"]
    assert (trials["positive"], trials["trials"]) == (positive, positive + negative)
    spoken = row["windows"]["cut"]["spoken"]["OOV"]
    assert spoken["references"] == 2  # the example's own utterance is left out
    assert spoken["EER"]["0.3"]["positive"] < positive


@pytest.mark.parametrize("name", ["babble@5", "music@5", "white@5"])
def test_noise_is_as_loud_as_it_says(name: str) -> None:
    rng = np.random.default_rng(0)
    speech = rng.uniform(-0.1, 0.1, 16_000).astype(np.float32)
    voices = [rng.uniform(-0.3, 0.3, n).astype(np.float32) for n in (9_000, 30_000)]
    noise = Condition.parse(name).apply(speech, voices, rng) - speech
    ratio = 10 * np.log10(np.mean(speech**2) / np.mean(noise**2))
    assert ratio == pytest.approx(5, abs=0.01)


def test_a_room_keeps_times_and_level_and_leaves_a_tail() -> None:
    pytest.importorskip("pyroomacoustics")
    click = np.zeros(16_000, np.float32)
    click[4_000] = 0.5
    heard = Condition.parse("room@0.5").apply(click, [], np.random.default_rng(0))
    assert int(np.abs(heard).argmax()) == 4_000
    assert not heard[:3_990].any() or np.abs(heard[:3_990]).max() < 1e-6
    late, end = (np.sum(heard[begin : begin + 800] ** 2) for begin in (5_600, 12_000))
    assert late > 100 * end > 0


def test_an_unknown_condition_is_refused() -> None:
    assert str(Condition.parse("clean")) == "clean" and str(Condition.parse("room@0.60")) == "room@0.6"
    for name in ("babble", "clean@5", "rain@5", "white@loud"):
        with pytest.raises(EarshotError, match="neither"):
            Condition.parse(name)

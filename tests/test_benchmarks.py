"""The benchmarks on a small world of tones: the tasks, two contenders that need no model, storing and scoring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from benchmarks import run, score, store, tasks
from benchmarks.conditions import Condition
from benchmarks.contenders.dtw_mfcc import DtwMfcc
from benchmarks.contenders.fixed_windows import FixedWindows
from benchmarks.contract import SAMPLE_RATE, Audio, Setup
from benchmarks.peaks import peaks
from earshot import metrics
from earshot.types import EarshotError

TONES = {"alpha": (300, 900, 500), "bravo": (2000, 700, 1400), "the": (400, 400, 400), "delta": (1000, 3000, 600)}


def say(words: Sequence[str], pitch: float) -> tuple[Audio, list[list[object]]]:
    """Each word as three tones of 0.14 s with 0.1 s of faint noise before it, and the word times."""
    random, parts, times, at = np.random.default_rng(len(words)), [], [], 0.0
    for word in words:
        parts.append(random.normal(0, 0.003, SAMPLE_RATE // 10))
        t = np.arange(round(0.14 * SAMPLE_RATE)) / SAMPLE_RATE
        parts += [0.3 * np.sin(2 * np.pi * pitch * tone * t) for tone in TONES[word]]
        times.append([round(at + 0.1, 3), round(at + 0.52, 3), word])
        at += 0.52
    samples = np.concatenate(parts)
    return (samples + random.normal(0, 0.003, len(samples))).astype(np.float32), times


def write_set(root: Path, utterances: Sequence[tuple[str, str, str, Sequence[str]]]) -> None:
    root.mkdir(parents=True)
    lines = []
    for name, speaker, split, words in utterances:
        samples, times = say(words, 1.0 if speaker == "1" else 1.03)
        soundfile.write(root / f"{name}.wav", samples, SAMPLE_RATE)
        row = {"id": name, "audio": f"{name}.wav", "seconds": len(samples) / SAMPLE_RATE, "speaker": speaker}
        lines.append(json.dumps({**row, "split": split, "text": " ".join(words), "words": times}))
    (root / "manifest.jsonl").write_text("\n".join(lines))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    first, second = ["the", "alpha", "the", "bravo"], ["bravo", "the", "delta", "alpha", "the", "the"]
    third = ["the", "the", "delta"]
    chapters = [("1-2-0001", "1", "dev", second), ("1-2-0000", "1", "dev", first)]
    chapters += [("1-3-0000", "1", "dev", second), ("1-3-0001", "1", "dev", third)]
    write_set(tmp_path / "speech" / "librispeech-chapters", chapters)
    others = [("9-9-0000", "9", "dev", ["alpha", "the", "alpha"]), ("8-8-0000", "8", "train", ["bravo"])]
    write_set(tmp_path / "speech" / "mini-librispeech", others)
    return tmp_path / "speech"


def test_chapters_join_utterances_in_order_and_shift_word_times(speech: Path, tmp_path: Path) -> None:
    task = tasks.chapters(speech, tmp_path / "work")
    assert [recording.name for recording in task.recordings] == ["1-2", "1-3"]
    assert soundfile.info(task.recordings[0].path).duration == pytest.approx(10 * 0.52)
    assert [query.word for query in task.typed] == ["alpha", "bravo", "delta"]  # five letters, twice or more
    alphas = [(r.recording, round(r.start, 2)) for r in task.references if r.query == "alpha"]
    assert alphas == [("1-2", 0.62), ("1-2", round(4 * 0.52 + 3 * 0.52 + 0.1, 2)), ("1-3", 1.66)]
    assert len(task.utterances) == 4


def test_spoken_examples_are_cut_from_dev_speakers_only_and_without_context(speech: Path, tmp_path: Path) -> None:
    (alpha,) = tasks.chapters(speech, tmp_path / "work").spoken  # bravo is said in train only
    assert alpha.word == "alpha" and alpha.clip is not None and alpha.context is not None
    assert soundfile.info(alpha.clip).duration == pytest.approx(0.42)
    assert alpha.context.path.endswith("9-9-0000.wav")


def test_words_task_keeps_words_of_three_letters(speech: Path) -> None:
    task = tasks.words(speech)
    assert task.labels == ["alpha", "the", "alpha"]
    assert [len(clip) for clip in task.clips] == [round(0.42 * SAMPLE_RATE)] * 3


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarshotError, match=r"librispeech-chapters.*--speech"):
        tasks.chapters(tmp_path, tmp_path / "work")


def test_peaks_keep_the_best_of_overlapping_spans() -> None:
    starts = np.array([0.0, 0.1, 5.0, 5.0, 9.0])
    scores = np.array([0.5, 0.9, 0.2, 0.1, 0.7])
    assert peaks(starts, starts + np.array([0.4, 0.4, 0.4, 3.0, 0.4]), scores, 10) == [1, 4, 2]
    assert peaks(starts, starts + 0.4, scores, 2) == [1, 4]
    assert peaks(np.zeros(0), np.zeros(0), np.zeros(0), 5) == []


class Spectra:
    """A word encoder for the world of tones: the power spectrum in three parts; written words by their tones."""

    def embed_speech(self, clips: Sequence[Audio]) -> NDArray[np.float32]:
        return np.array([self._vector(clip) for clip in clips])

    def embed_text(self, words: Sequence[str]) -> NDArray[np.float32]:
        return self.embed_speech([say([word], 1.0)[0][SAMPLE_RATE // 10 :] for word in words])

    def _vector(self, clip: Audio) -> NDArray[np.float32]:
        parts = [
            np.abs(np.fft.rfft(part, 4096))[:2048].reshape(128, 16).sum(axis=1) for part in np.array_split(clip, 3)
        ]
        vector = np.concatenate(parts).astype(np.float32)
        return vector / np.linalg.norm(vector)


def test_run_stores_raw_results_and_score_reads_them(speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    task = tasks.chapters(speech, tmp_path / "work")
    folder = tmp_path / "results"
    contenders = {"dtw_mfcc": DtwMfcc(), "fixed_windows": FixedWindows(Spectra())}
    run.run_chapters(contenders, task, Setup(tmp_path / "work", folder / "chapters"))
    trials, runs = store.load_trials(folder / "chapters"), store.load_runs(folder / "chapters")
    assert [(r.contender, r.kind) for r in runs] == [
        ("dtw_mfcc", "spoken"),
        ("fixed_windows", "spoken"),
        ("fixed_windows", "typed"),
    ]
    assert len(trials.references) == len(task.references)
    for one in runs:
        references = [r for r in trials.references if r.query in trials.words[one.kind]]
        matching = metrics.match(references, one.detections, trials.speech_seconds)
        assert metrics.mean_average_precision(matching) > 0.9, one.contender
        assert max(metrics.boundary_error(matching)) < 0.25
    page = score.chapters_page(trials, runs)
    assert "| fixed_windows |" in page and "python -m benchmarks.run" in page
    score.plot(trials, runs, folder / "chapters.png")
    assert (folder / "chapters.png").stat().st_size > 1000


def test_a_contender_bears_the_name_of_its_encoder_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run._label("earshot") == "earshot"
    assert run._label("fixed_windows=some/where/jmcl") == "fixed_windows-jmcl"
    asked = ["x", "--speech", "/a/b", "--contender", "fixed_windows=/some/where/jmcl", "--contender=earshot=/c/d"]
    monkeypatch.setattr("sys.argv", asked)
    assert run.command_line("m") == (
        "python -m m --speech DIR --contender fixed_windows=DIR/jmcl --contender=earshot=DIR/d"
    )


def test_scores_that_are_probabilities_get_keyword_specific_figures() -> None:
    said = [metrics.Reference("alpha", "r", 1.0, 2.0), metrics.Reference("gamma", "r", 5.0, 6.0)]
    found = [metrics.Detection("alpha", "r", 1.0, 2.0, 0.9), metrics.Detection("gamma", "r", 8.0, 9.0, 0.001)]
    origin = store.Origin("c", "abc", "m", "1", 0.0)
    one = store.Run("sure", "typed", origin, 9000.0, 2, [], 1.0, 1.0, False, 1.0, 1.0, found, probabilities=True)
    utterances = [metrics.Reference("", "r", 0.0, 4.0), metrics.Reference("", "r", 4.0, 10.0)]
    trials = store.Trials(9000.0, {"typed": ["alpha", "gamma"], "spoken": []}, said, utterances)
    assert "| sure | 0.500 | 0.500 | 0.444 |" in score.chapters_page(trials, [one])
    unsure = replace(one, probabilities=False)
    assert "| sure | 0.500 | - | - |" in score.chapters_page(trials, [unsure])


def test_the_development_task_has_examples_by_speakers_held_out_of_training(speech: Path, tmp_path: Path) -> None:
    root = tmp_path / "other" / "mini-librispeech"
    said = ["alpha", "the", "alpha", "delta", "delta"]
    write_set(root, [("9-9-0", "9", "dev", said), ("32-1-0", "32", "train", ["alpha"]), ("8-8-0", "8", "train", said)])
    task = tasks.development(root.parent, tmp_path / "work")
    assert [recording.name for recording in task.recordings] == ["9-9"]
    assert [query.word for query in task.typed] == ["alpha", "delta"]
    assert [(query.word, query.context and Path(query.context.path).name) for query in task.spoken] == [
        ("alpha", "32-1-0.wav")
    ]


def test_run_words_stores_a_line_for_each_encoder(speech: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run.run_words({"spectra": Spectra()}, tasks.Words(*_words(speech)), tmp_path)
    (line,) = (tmp_path / "words.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["all pairs"] == [1.0, 0.0, 10, 4]
    assert row["typed to spoken"][0] == 1.0
    assert "| spectra | across speakers |" in score.words_page(tmp_path / "words.jsonl")


def _words(speech: Path) -> tuple[list[Audio], list[str], list[str]]:
    task = tasks.words(speech)
    return [*task.clips, *task.clips[:2]], [*task.labels, *task.labels[:2]], [*task.speakers, "7", "7"]


def test_calibration_asks_for_what_is_said_and_what_is_not(speech: Path, tmp_path: Path) -> None:
    from benchmarks import calibration

    task = tasks.chapters(speech, tmp_path / "work")
    asked = list(calibration.questions(task, *tasks.rows_of(speech, "chapters"), tmp_path / "cut"))
    typed = {one.text: one for one in asked if (one.kind, one.form) == ("typed", "word")}
    assert set(typed) == {"the", "alpha", "bravo", "delta"}
    assert len(typed["alpha"].places) == 3
    phrases = {one.text: len(one.places) for one in asked if (one.kind, one.form) == ("typed", "phrase")}
    assert phrases["the alpha the bravo"] == 1 and phrases["alpha the"] >= 1
    spoken = [one for one in asked if one.kind == "spoken"]
    assert {one.text for one in spoken if one.form == "word"} == {"alpha"}
    assert all(one.clip is not None and Path(one.clip.path).is_file() for one in spoken)


def test_a_calibration_page_counts_alarms_by_the_hour() -> None:
    from benchmarks import calibration
    from earshot.metrics import Reference

    place = (Reference("word", "r", 1.0, 1.5),)
    said = calibration.Asked("typed", "word", "word", None, place)
    unsaid = calibration.Asked("typed", "word", "other", None, ())
    found = [(said, [(0.9, True), (0.4, False)]), (unsaid, [(0.6, False)] + [(0.02, False)] * 30)]
    page = calibration.calibration_page("development", found, 3600.0)
    assert "speakers 32 and 1867 of mini-librispeech, on whose recordings" in page
    assert "1867" not in calibration.calibration_page("chapters", found, 3600.0)
    assert "| typed words | 1 | 1 | 1 | 3 |" in page
    assert "1.000, 0.50" in page  # at .5: the word is found, one false alarm in two query hours
    assert "| 0.020 |" in page  # beyond ten alarms in two hours


def test_the_recipe_holds_out_what_transfer_asks_for() -> None:
    import tomllib

    recipe = tomllib.loads((Path(__file__).parent.parent / "recipes" / "arabic.toml").read_text())
    assert set(recipe["held_out"]["arabic-words"]) == {*tasks.UNHEARD_SPEAKERS, *tasks.UNHEARD_WORDS}


def test_transfer_joins_clips_and_leaves_examples_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "UNHEARD_SPEAKERS", ("1", "9"))
    monkeypatch.setattr(tasks, "UNHEARD_WORDS", frozenset(["alpha"]))
    clips = [(f"{s}-{w}-{k}", s, "train", [w]) for s in ("1", "9", "7") for w in ("alpha", "bravo") for k in range(3)]
    write_set(tmp_path / "arabic-words", clips)
    task = tasks.transfer(tmp_path, tmp_path / "work")
    assert [q.word for q in task.spoken] == ["alpha/1", "alpha/9"]
    assert [r.name for r in task.recordings] == ["1", "9"]
    assert len(task.said) == 2 * 5 and len(task.references) == 2 * 4
    assert task.typed == []
    noisy = tasks.transfer(tmp_path, tmp_path / "work", Condition.parse("babble@5"))
    samples, babble = (tasks.read(one.recordings[0].path) for one in (task, noisy))
    level = 10 * np.log10(np.mean(samples**2) / np.mean((babble - samples) ** 2))
    assert level == pytest.approx(5, abs=0.5)


def test_the_noise_of_each_clip_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "UNHEARD_SPEAKERS", ("1",))
    write_set(tmp_path / "arabic-words", [(f"1-{k}", "1", "train", ["alpha"]) for k in range(3)])
    clean, noisy = (tasks.transfer(tmp_path, tmp_path / "work", Condition.parse(c)) for c in ("clean", "white@5"))
    noise = tasks.read(noisy.recordings[0].path) - tasks.read(clean.recordings[0].path)
    first, second, _ = np.split(noise, 3)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_what_is_transferred_is_sought_in_the_recordings_of_others() -> None:
    said = [metrics.Reference(f"up/{s}", r, 0.0, 0.5) for s in "12" for r in "12"]
    found = [metrics.Detection(r.query, r.recording, 0.0, 0.5, 0.9) for r in said]
    origin = store.Origin("c", "abc", "m", "1", 0.0)
    one = store.Run("sure", "spoken", origin, 900.0, 2, [], 1.0, 1.0, False, 1.0, 1.0, found)
    trials, (other,) = score.by_others(store.Trials(900.0, {"spoken": ["up/1", "up/2"]}, said, said), [one])
    for left in (trials.references, other.detections):
        assert [(x.query, x.recording) for x in left] == [("up/1", "2"), ("up/2", "1")]


def test_a_row_takes_the_place_of_one_with_its_key(tmp_path: Path) -> None:
    for figure, name in ((1, "a"), (2, "b"), (3, "a")):
        store.put(tmp_path / "rows.jsonl", {"name": name, "figure": figure}, ("name",))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == [{"name": "b", "figure": 2}, {"name": "a", "figure": 3}]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_transfer_page_counts_no_letters_and_no_chapters() -> None:
    said = [
        metrics.Reference(f"{w}/{s}", "r", float(k), k + 0.5) for s in "12" for w in ("up", "no") for k in range(12)
    ]
    found = [metrics.Detection(r.query, r.recording, r.start, r.end, 0.9) for r in said if r.query != "no/1"]
    queries = sorted({r.query for r in said})
    trials = store.Trials(900.0, {"typed": [], "spoken": queries}, said, said)
    origin = store.Origin("c", "abc", "m", "1", 0.0)
    one = store.Run("sure", "spoken", origin, 900.0, 4, [], 1.0, 1.0, False, 1.0, 1.0, found)
    page = score.chapters_page(trials, [one], "transfer-babble@5")
    assert page.startswith(
        "# Spoken examples in a language that the encoder was not trained on, said by other speakers\n"
    )
    assert "chapters" not in page and "ceiling" not in page and "letters" not in page
    assert "| contender | no | up | r |\n|---|---|---|---|\n| sure | 0.500 | 1.000 | 0.750 |" in page
    few = replace(trials, references=[r for r in said if r.start < 5])
    assert "its ceiling is 0.500" in score.chapters_page(few, [one])


def test_an_ablation_fits_only_some_features_and_puts_the_search_back() -> None:
    pytest.importorskip("torch")
    from benchmarks import ablation
    from earshot import query

    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 10)).astype(np.float32)
    right = features[:, 1] + features[:, 5] > 0
    weights = ablation.fit_some(features, right, ablation.COSINE + ablation.RIVALS)
    assert weights.shape == (11,)
    assert weights[[1, 2, 3, 4, 7]].tolist() == [0] * 5
    assert weights[5] > 0.5
    before = query.HEARD
    with ablation._as_words(False):
        assert query.HEARD == 0
    assert before == query.HEARD

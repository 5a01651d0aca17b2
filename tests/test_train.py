"""Networks against their exports, batches and runs that can be made again, and what training says of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import noise_corpus as corpus  # noqa: E402

from earshot.encoders.clock import BORDER, HALVES, SILENCE, frame_count  # noqa: E402
from earshot.features import N_MELS, SAMPLE_RATE  # noqa: E402
from earshot.train.batches import Batch, Batcher, BatchOptions, half_borders, half_phones  # noqa: E402
from earshot.train.corpus import read_corpus  # noqa: E402
from earshot.train.loop import TrainOptions, train  # noqa: E402
from earshot.train.model import TextTower, WordConfig, WordModel  # noqa: E402
from earshot.train.priors import Priors  # noqa: E402
from earshot.train.recipe import TrainingError  # noqa: E402
from earshot.train.transcripts import CorpusError, words_of  # noqa: E402

SMALL = WordConfig(front=16, hidden=12, layers=2, frame_dim=8, dim=8, phone_embedding=6, text_hidden=7, dropout=0.0)


def test_padding_never_reaches_a_real_frame() -> None:
    torch.manual_seed(0)
    model = WordModel(SMALL).eval()
    mel = torch.randn(1, 61, N_MELS)
    alone = model.audio(mel, torch.tensor([61]))
    beside = model.audio(
        torch.cat([torch.nn.functional.pad(mel, (0, 0, 0, 40)), torch.randn(1, 101, N_MELS)]), torch.tensor([61, 101])
    )
    torch.testing.assert_close(beside[:1, : frame_count(61)], alone)


def test_rows_of_like_length_run_apart_as_they_run_together() -> None:
    from earshot.train.model import in_groups

    torch.manual_seed(0)
    model = WordModel(SMALL).eval()
    lengths = torch.tensor([40, 97, 13, 60, 97])
    mel = torch.randn(5, 97, N_MELS)
    together = model.audio(mel, lengths)
    apart = in_groups(model.audio, mel, lengths, torch.float32, size=2, n_frames=together.shape[1])
    for row, n in enumerate(lengths):
        torch.testing.assert_close(apart[row, : frame_count(int(n))], together[row, : frame_count(int(n))])


def test_exported_towers_do_what_the_trained_ones_do(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from earshot.train.export import audio_graph, text_graph

    torch.manual_seed(1)
    model = WordModel(SMALL).eval()
    lengths = np.array([203, 150, 31, 1], np.int32)
    mel = np.random.default_rng(0).standard_normal((4, 203, N_MELS)).astype(np.float32)
    for row, n in enumerate(lengths):
        mel[row, n:] = 0
    run = onnxruntime.InferenceSession(audio_graph(model.audio).SerializeToString()).run
    found = run(None, {"mel": mel, "lengths": lengths})[0]
    with torch.no_grad():
        expected = model.audio(torch.tensor(mel), torch.tensor(lengths).long()).numpy()
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row, : frame_count(n)], expected[row, : frame_count(n)], atol=1e-5)
    phones, n_phones = np.array([[3, 7, 1], [5, SILENCE, SILENCE]]), np.array([3, 1], np.int32)
    text: TextTower = model.text
    run = onnxruntime.InferenceSession(text_graph(text).SerializeToString()).run
    with torch.no_grad():
        expected = text(torch.tensor(phones), torch.tensor(n_phones).long()).numpy()
    np.testing.assert_allclose(run(None, {"phones": phones, "lengths": n_phones})[0], expected, atol=1e-5)


PRIORS = Priors(np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32), np.full(39, 0.08, np.float32))


def test_a_batch_is_the_same_each_time_and_another_at_each_step() -> None:
    first, again = (Batcher([corpus()], BatchOptions(chunks=6), PRIORS, seed=3) for _ in range(2))
    one, two = first.batch(7), again.batch(7)
    for name in one.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.mel[:, :5], first.batch(8).mel[:, :5])
    assert not np.array_equal(one.mel[:, :5], first.batch(7, rank=1).mel[:, :5])


def test_spans_of_a_batch_lie_in_their_rows_and_labels_name_their_texts() -> None:
    batch = Batcher([corpus()], BatchOptions(chunks=8), PRIORS).batch(0)
    n_frames = np.array([frame_count(int(n)) for n in batch.lengths])
    assert (batch.starts < batch.ends).all()
    assert (batch.ends <= n_frames[batch.rows]).all()
    assert set(batch.labels) == set(range(len(batch.texts)))
    for text, n in zip(batch.texts, batch.text_lengths, strict=True):
        assert (text[1 : n - 1] < SILENCE).all()
        assert (text[n:] == SILENCE).all()
    assert batch.targets.shape == batch.borders.shape == (len(batch.mel), HALVES * frame_count(batch.mel.shape[1]))


def test_a_text_has_a_border_where_a_word_ends_and_none_within_one() -> None:
    batch = Batcher([corpus()], BatchOptions(chunks=8), PRIORS).batch(0)
    spoken = {tuple(t[:n].tolist()) for t, n in zip(batch.texts, batch.text_lengths, strict=True)}
    assert any(t[0] == BORDER and t[-1] == BORDER for t in spoken)
    assert any(t[0] != BORDER for t in spoken)
    assert all(BORDER not in t[1:-1] for t in spoken)


def test_a_word_is_said_within_another_only_where_its_borders_are_not_asked_for() -> None:
    """ "beside sight": the phones of "sight" come twice, with a border on both sides only once."""
    from earshot.train.batches import _Chunk, _said, pronunciation

    beside, sight = pronunciation("beside"), pronunciation("sight")
    within = (*beside[:-1], sight[-1])  # ends as "sight" does
    phones = np.array([*within, *sight])
    times = np.stack([np.arange(len(phones)), np.arange(len(phones)) + 1], 1).astype(np.float32) / 10
    outer = np.zeros((2, len(phones)), bool)
    outer[0, [0, len(within)]] = outer[1, [len(within) - 1, -1]] = True
    mel = np.zeros((10 * len(phones) + 2, N_MELS), np.float32)
    chunk = _Chunk(mel, (within, sight), times[:2], phones, times, outer, times[:, 0])
    whole, ending = (BORDER, *sight, BORDER), (*sight, BORDER)
    found = _said([chunk], [ending, whole])
    assert found[3].tolist() == [0, 1]
    assert found[1, 0] < found[1, 1]


def test_a_phrase_is_said_where_its_words_follow_each_other() -> None:
    from earshot.train.align import Timed
    from earshot.train.calibrate import _runs, _said
    from earshot.train.corpus import Utterance

    words = tuple(Timed(k, k + 1.0, word) for k, word in enumerate("the sight of the site".split()))
    utterance = Utterance("u", "c", "s", "train", 0, 80_000, words, ())
    assert _said(utterance, ("the", "sight"), 0.2, 2.0) and not _said(utterance, ("the", "sight"), 1.9, 3.5)
    assert _said(utterance, ("sight",), 4.0, 5.0)  # "site" sounds the same
    assert not _said(utterance, ("the", "the"), 0.0, 5.0)
    assert _runs([["of", "it"], ["of", "the", "sun"]], 2, 3) == {("of", "the"), ("the", "sun"), ("of", "the", "sun")}


def test_losses_are_nearly_the_same_in_bfloat16() -> None:
    made = Batcher([corpus()], BatchOptions(chunks=4), PRIORS).batch(0)
    batch = {name: torch.as_tensor(getattr(made, name)) for name in Batch.__slots__}
    losses = {}
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = WordModel(SMALL).eval()
        losses[precision] = model.losses(batch, TrainOptions().losses, precision)
    for name, loss in losses[torch.float32].items():
        assert losses[torch.bfloat16][name].dtype == torch.float32
        torch.testing.assert_close(losses[torch.bfloat16][name], loss, rtol=0.05, atol=0.05)


def test_heard_words_are_fitted_to_what_tells_them() -> None:
    """The first feature tells the right hypothesis, where there is one; the second is noise."""
    from earshot.train.calibrate import fit_heard

    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 8, 2)).astype(np.float32)
    right = np.zeros((300, 8), bool)
    right[np.arange(200), rng.integers(0, 8, 200)] = True
    features[right, 0] += 4
    weights = fit_heard(features, right)
    assert weights[0] > 1
    assert abs(weights[1]) < 0.5
    evidence = np.concatenate([features @ weights[:2], np.full((300, 1), weights[2])], axis=1)
    assert np.mean(evidence[:200].argmax(axis=1) == right[:200].argmax(axis=1)) > 0.8
    assert np.mean(evidence[200:].argmax(axis=1) == 8) > 0.6


def test_an_exported_encoder_is_one_that_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from earshot.encoders import load
    from earshot.train import export

    words = [(4, 5, 6), (7, 8), (9,)]
    monkeypatch.setattr(export, "word_priors", lambda: (words, np.array([-9.0, -8.0, -7.0], np.float32)))
    torch.manual_seed(2)
    export.export(WordModel(SMALL), PRIORS, 'name = "word"', tmp_path)
    encoder = load(str(tmp_path))
    frames = encoder.frames([np.random.default_rng(0).standard_normal((40, N_MELS)).astype(np.float32)])[0]
    assert frames.shape == (10, encoder.stored_dim)
    assert encoder.phone_log_probabilities(frames).shape == (20, 40)
    assert encoder.border_log_odds(frames[:, : encoder.frame_dim].astype(np.float32)).shape == (20,)
    assert [encoder.lexicon.ids(row) for row in range(3)] == [list(ids) for ids in words]
    np.testing.assert_allclose(encoder.lexicon.vectors / 127, encoder.embed_ids(words), atol=0.03)


def test_exported_weights_can_be_trained_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back differs by the rounding to int8 alone."""
    from earshot.train import export
    from earshot.train.restore import restore

    monkeypatch.setattr(export, "word_priors", lambda: ([(4, 5, 6)], np.array([-9.0], np.float32)))
    torch.manual_seed(2)
    model = WordModel(SMALL).eval()
    export.export(model, PRIORS, 'name = "word"', tmp_path)
    restored, priors, _ = restore(tmp_path)
    assert priors is not None and all((a == b).all() for a, b in zip(priors, PRIORS, strict=True))
    assert restored.config == WordConfig(**{**{k: getattr(SMALL, k) for k in SMALL.__slots__}, "dropout": 0.1})
    for name, value in model.state_dict().items():
        if not name.endswith("scale"):
            torch.testing.assert_close(restored.state_dict()[name], value, atol=0.01, rtol=0)
    mel, lengths = torch.randn(2, 61, N_MELS), torch.tensor([61, 40])
    torch.testing.assert_close(restored.audio(mel, lengths), model.audio(mel, lengths), atol=0.05, rtol=0)


def test_priors_of_words_are_probabilities() -> None:
    pytest.importorskip("pocketsphinx")
    from earshot.train.lexicon import word_priors

    words, log_prior = word_priors()
    assert len(words) == len(set(words)) == len(log_prior) > 50_000
    assert 0.5 < np.exp(log_prior.astype(np.float64)).sum() <= 1
    assert [len(ids) for ids in words] == sorted((len(ids) for ids in words), reverse=True)


def test_half_phones_are_those_said_at_the_middle_of_a_half_frame() -> None:
    """Middles at 2.5, 22.5, 42.5 ms and so on."""
    times = np.array([[0.0, 0.05], [0.05, 0.10], [0.12, 0.16]], np.float32)
    assert half_phones(np.array([4, 9, 2]), times, 4).tolist() == [4, 4, 4, 9, 9, SILENCE, 2, 2]
    assert half_borders(np.array([0.0, 0.1], np.float32), 4).tolist() == [1, 1, 0, 0, 1, 1, 1, 0]


def test_training_resumed_is_training_never_stopped(tmp_path: Path) -> None:
    """With dropout, batches made by a worker, and stops that fall between two lines of the log."""
    config = WordConfig(**{**{k: getattr(SMALL, k) for k in SMALL.__slots__}, "dropout": 0.3})

    def run(folder: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        for steps in stops:
            batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=1)
            options = TrainOptions(steps=25, save_every=50, workers=1, stop_after=steps, precision="bfloat16")
            model = train(batcher, config, options, folder)
        return model.state_dict()

    whole, parts = run(tmp_path / "whole", (25,)), run(tmp_path / "parts", (13, 25))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    one, two = ([json.loads(line) for line in log] for log in logs)
    assert [line["step"] for line in one] == [20, 25]
    assert [line["step"] for line in two] == [13, 20, 25]
    assert 20 * one[0]["clap"] == pytest.approx(13 * two[0]["clap"] + 7 * two[1]["clap"], abs=0.01)


def test_a_run_goes_on_only_as_what_it_was(tmp_path: Path) -> None:
    """Not with another seed or other losses; into another folder its weights go with any."""
    begun = TrainOptions(steps=3, workers=0, stop_after=2)
    train(Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=1), SMALL, begun, tmp_path)
    other = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=2)
    with pytest.raises(TrainingError, match=r"last\.pt is of a run with seed 1 and not 2; go on as before, or train"):
        train(other, SMALL, begun, tmp_path)
    fewer = TrainOptions(steps=3, workers=0, losses={"phone": 1.0})
    with pytest.raises(TrainingError, match=r"losses \{.*\} and not \{'phone': 1\.0\}"):
        train(Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=1), SMALL, fewer, tmp_path)
    train(other, SMALL, fewer, tmp_path / "further", tmp_path / "last.pt")


def test_what_a_killed_run_logged_after_its_checkpoint_is_not_logged_twice(tmp_path: Path) -> None:
    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=3, workers=0, stop_after=2), tmp_path)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 3, "seconds": 1.0}\n{"step": 4, "sec')
    train(batcher, SMALL, TrainOptions(steps=3, workers=0), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 3]


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Gloo, on the CPU: both end with the same weights, which are not those of one process alone."""
    script = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_train import PRIORS, SMALL, Batcher, BatchOptions, TrainOptions, corpus, train
import os
folder = Path(sys.argv[2])
batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
model = train(batcher, SMALL, TrainOptions(steps=3, workers=0), folder)
torch.save(model.state_dict(), folder / f"end-{os.environ.get('RANK', 'alone')}.pt")
"""
    (tmp_path / "run.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for folder, command in (("two", launch), ("one", [sys.executable])):
        (tmp_path / folder).mkdir()
        words = [*command, str(tmp_path / "run.py"), str(Path(__file__).parent), str(tmp_path / folder)]
        subprocess.run(words, check=True, capture_output=True)
    first, second = (torch.load(tmp_path / "two" / f"end-{rank}.pt") for rank in (0, 1))
    alone = torch.load(tmp_path / "one" / "end-alone.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.allclose(first[name], alone[name]) for name in first)


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=1, workers=0), tmp_path)
    with pytest.raises(TrainingError, match="another architecture") as error:
        train(batcher, WordConfig(hidden=10), TrainOptions(steps=1, workers=0), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match='"bf16" is none of: float32, bfloat16'):
        train(batcher, SMALL, TrainOptions(steps=1, workers=0, precision="bf16"), tmp_path)


def test_weights_are_kept_for_a_learning_curve(tmp_path: Path) -> None:
    from earshot.train.loop import checkpoint

    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=5, workers=0, keep_every=2), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*.pt")) == ["step-2.pt", "step-4.pt"]
    kept = checkpoint(tmp_path / "step-4.pt")
    assert isinstance(kept.model, WordModel)
    assert kept.step == 4 and kept.priors is not None and (kept.priors.std == PRIORS.std).all()


def test_words_of_a_transcript() -> None:
    assert words_of("THE BOY'S 'dog', etc.") == ["the", "boy's", "dog", "etc"]
    assert words_of("ROOM 12") == []


def test_a_corpus_cut_short_by_a_kill_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    from dataclasses import asdict

    lines = [json.dumps(asdict(u)) for u in corpus().utterances[:2]]
    (tmp_path / "utterances.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    corpus().samples.tofile(tmp_path / "samples.i16")
    read = read_corpus(tmp_path)
    assert [u.id for u in read.utterances] == ["0"]
    assert read.read(read.utterances[0]).shape == (2 * SAMPLE_RATE,)


def test_words_known_by_sound_alone_have_labels_beyond_the_texts() -> None:
    """Utterances without phones are such words; every loss is finite, and CLAP does not depend on them."""
    from dataclasses import replace

    sounds = replace(
        corpus(1), utterances=tuple(replace(u, phones=(), words=u.words[:1]) for u in corpus(1).utterances)
    )
    options = BatchOptions(chunks=4, unwritten=2, unwritten_instances=3)
    made = Batcher([corpus(), sounds], options, PRIORS, seed=1).batch(0)
    beyond = made.labels[made.labels >= len(made.texts)]
    assert beyond.tolist() == [len(made.texts)] * 3
    assert (made.targets[made.rows[made.labels >= len(made.texts)]] == -1).all()
    batch = {name: torch.as_tensor(getattr(made, name)) for name in Batch.__slots__}
    torch.manual_seed(0)
    model = WordModel(SMALL).eval()
    losses = model.losses(batch, TrainOptions().losses)
    assert all(torch.isfinite(loss) for loss in losses.values())
    written = made.labels < len(made.texts)
    fewer = {**batch, **{name: batch[name][torch.as_tensor(written)] for name in ("rows", "starts", "ends", "labels")}}
    torch.testing.assert_close(model.losses(fewer, ["clap"])["clap"], losses["clap"])
    assert not torch.isclose(model.losses(fewer, ["dwd"])["dwd"], losses["dwd"])


def test_a_word_whose_phones_are_not_told_is_never_drawn() -> None:
    """As Montreal Forced Aligner's "spn" leaves it: a word time with no phone in it."""
    from dataclasses import replace

    told = corpus().utterances
    untold = replace(corpus(), utterances=tuple(replace(u, phones=u.phones[:4] + u.phones[6:]) for u in told))
    batch = Batcher([untold], BatchOptions(chunks=6, phone_runs=0), PRIORS).batch(0)
    assert batch.text_lengths.min() > 2
    silent = replace(corpus(), utterances=tuple(replace(u, phones=()) for u in told))
    with pytest.raises(CorpusError, match="no training utterance has times of its words and phones"):
        Batcher([silent], BatchOptions(), PRIORS)


def test_babble_is_of_other_people() -> None:
    from earshot.train.batches import VOICES, other_speech

    speech = corpus()
    first = speech.utterances[0]
    assert (
        len(other_speech([(speech, k) for k in range(len(speech.utterances))], first.speaker)) == VOICES * first.length
    )
    assert len(other_speech([(speech, 0)], first.speaker)) == 0


def test_a_phone_that_is_never_said_takes_as_long_as_others(tmp_path: Path) -> None:
    from earshot.pronounce import PHONES
    from earshot.train.priors import measured

    found = measured([corpus()], tmp_path).phone_seconds
    assert found[PHONES.index("ZH")] == pytest.approx(found[PHONES.index("K")], rel=1e-5) and found.min() > 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff\xfe", "no readable recipe"),
        (b'base = "mine.toml"', 'base "mine.toml" is not the name of another recipe'),
        (b'base = "/etc/passwd"', "is not the name of another recipe beside it"),
    ],
)
def test_a_recipe_that_is_none_is_one_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    from earshot.train.recipe import read_recipe

    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(TrainingError, match=complaint) as error:
        read_recipe(tmp_path / "mine.toml")
    assert "\n" not in str(error.value)


def test_a_corpus_without_speech_or_damaged_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "samples.i16").touch()
    with pytest.raises(CorpusError, match="no utterances in it, or damaged"):
        read_corpus(tmp_path)
    (tmp_path / "samples.i16").write_bytes(bytes(8))
    (tmp_path / "utterances.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(CorpusError, match="or damaged"):
        read_corpus(tmp_path)


def test_weights_are_trained_further_on_their_own_priors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from earshot.train import word
    from earshot.train.loop import checkpoint

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[model]\nfront = 16\nhidden = 12\nframe_dim = 8\ndim = 8\n[batch]\nchunks = 4\nchunk = 1.0\n"
        "[train]\nsteps = 1\nworkers = 0\n[corpora]\nnoise = 1.0\n"
    )
    monkeypatch.setattr(word, "read_corpus", lambda path: corpus())

    def run(out: str, *more: str) -> Priors:
        command = ["word", str(recipe), "--corpora", str(tmp_path), "--out", str(tmp_path / out), *more]
        monkeypatch.setattr(sys, "argv", command)
        word.main()
        priors = checkpoint(tmp_path / out / "last.pt").priors
        assert priors is not None
        return priors

    first = run("first")
    monkeypatch.setattr(word, "read_corpus", lambda path: corpus(1))
    for cached in tmp_path.glob("priors-*.npz"):
        cached.unlink()
    other, further = run("other"), run("further", "--from", str(tmp_path / "first" / "last.pt"))
    assert not np.array_equal(other.mean, first.mean)
    np.testing.assert_array_equal(further.mean, first.mean)
    recipe.write_text(recipe.read_text() + "[batch.augmentation]\nspeeed = 1\n")
    with pytest.raises(SystemExit, match="option that is not known"):
        run("further")


def test_training_starts_from_given_weights(tmp_path: Path) -> None:
    batcher, another = (Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=k) for k in (0, 1))
    first = train(batcher, SMALL, TrainOptions(steps=1, workers=0), tmp_path / "first")
    still = TrainOptions(steps=1, workers=0, learning_rate=0.0)
    other = WordConfig(**{**{k: getattr(SMALL, k) for k in SMALL.__slots__}, "dropout": 0.3})
    second = train(another, other, still, tmp_path / "second", tmp_path / "first" / "last.pt")
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)
    with pytest.raises(TrainingError, match="another architecture"):
        train(batcher, WordConfig(hidden=10), still, tmp_path / "third", tmp_path / "first" / "last.pt")


def test_a_corpus_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no prepared corpus"):
        read_corpus(tmp_path)


class _Broken:
    """A batcher whose third batch holds a number that is none."""

    seed, priors = 1, PRIORS

    def batch(self, step: int, rank: int = 0) -> Batch:
        batch = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=1).batch(step, rank)
        if step == 2:
            batch.mel[:] = np.nan
        return batch


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    from earshot.train.loop import checkpoint

    with pytest.raises(TrainingError, match=r"batch 3: .*clap.* is not a finite number; .*last.pt is the last good"):
        train(_Broken(), SMALL, TrainOptions(steps=4, save_every=1, workers=0), tmp_path)
    assert all(torch.isfinite(value).all() for value in checkpoint(tmp_path / "last.pt").model.state_dict().values())


def test_a_loss_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match='no loss "clep" for a model of kind "spans"'):
        train(
            Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS),
            SMALL,
            TrainOptions(steps=1, workers=0, losses={"clep": 1.0}),
            tmp_path,
        )


def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=1, workers=0), tmp_path)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="not a checkpoint, or cut short"):
        train(batcher, SMALL, TrainOptions(steps=2, workers=0), tmp_path)


def test_a_recipe_has_systems_that_change_parts_of_it(tmp_path: Path) -> None:
    from earshot.train.recipe import read_recipe
    from earshot.train.word import configuration

    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        kind = "isolated"
        [model]
        hidden = 6
        [train]
        steps = 9
        losses = { clap = 0.1, dwd = 1.0 }
        [corpora]
        noise = 1.0
        [systems.cae]
        train = { losses = { correspondence = 1.0 } }
        [systems.big]
        model = { hidden = 60 }
        """
    )
    plain, cae = read_recipe(path), read_recipe(path, "cae")
    assert (configuration(plain).text, configuration(plain).decoder) == (True, False)
    assert (configuration(cae).text, configuration(cae).decoder) == (False, True)
    assert cae["train"] == {"steps": 9, "losses": {"correspondence": 1.0}}
    assert configuration(read_recipe(path, "big")).hidden == 60
    with pytest.raises(TrainingError, match='features "mfcc" are neither "energies" nor "log_mel"'):
        configuration({**plain, "model": {"features": "mfcc"}})
    with pytest.raises(TrainingError, match='has no system "bug"; it has: cae, big'):
        read_recipe(path, "bug")


def test_weights_that_could_not_be_fitted_leave_the_card_as_it_was(tmp_path: Path) -> None:
    from earshot.train.calibrate import write

    card = tmp_path / "word.toml"
    card.write_text("[calibration]\ntyped = [1.0, 2.0]\nspoken = [3.0]\n")
    with pytest.raises(CorpusError, match="'spoken' could not be fitted"):
        write(card, {"typed": np.array([5.0, 6.0]), "spoken": np.array([np.nan])})
    assert "typed = [1.0, 2.0]" in card.read_text()
    write(card, {"typed": np.array([5.0, 6.0])})
    assert "typed = [5.0000, 6.0000]" in card.read_text()

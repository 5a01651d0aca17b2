"""Losses against hand-worked examples, networks against their exports, batches and runs that can be made again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import normalize  # noqa: E402

from earshot.encoders.clock import BORDER, GRID, HALVES, SILENCE, frame_count  # noqa: E402
from earshot.features import N_MELS, SAMPLE_RATE  # noqa: E402
from earshot.train.align import Timed  # noqa: E402
from earshot.train.batches import Batch, Batcher, BatchOptions, half_borders, half_phones  # noqa: E402
from earshot.train.corpus import Corpus, Utterance, read_corpus, words_of  # noqa: E402
from earshot.train.isolated import (  # noqa: E402
    IsolatedBatcher,
    IsolatedConfig,
    IsolatedModel,
    IsolatedOptions,
)
from earshot.train.losses import (  # noqa: E402
    Spans,
    border_cross_entropy,
    clap,
    clap_views,
    detection,
    dwd,
    one_example,
    phone_cross_entropy,
)
from earshot.train.model import TextTower, WordConfig, WordModel  # noqa: E402

SMALL = WordConfig(front=16, hidden=12, layers=2, frame_dim=8, dim=8, phone_embedding=6, text_hidden=7, dropout=0.0)


def test_clap_of_two_words_by_hand() -> None:
    """Orthogonal texts, audio equal to its text: each cross-entropy is log(1 + exp(-scale))."""
    text = torch.eye(2)
    loss = clap(text[[0, 1]], text, torch.tensor([0, 1]), torch.tensor(3.0))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-3.0)), rel=1e-5)


def test_clap_takes_other_instances_of_a_word_neither_as_right_nor_as_wrong() -> None:
    """Text to audio: instance a of word 0 competes with word 1 only, not with instance b of word 0."""
    text = torch.eye(2)
    audio = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    scale = 2.0
    to_text = [math.log(1 + math.exp(scale * d)) for d in (-1.0, 0.2, -1.0)]
    first = (math.log(1 + math.exp(scale * (0 - 1))) + math.log(1 + math.exp(scale * (0 - 0.6)))) / 2
    second = math.log(1 + (math.exp(scale * 0) + math.exp(scale * 0.8)) / math.exp(scale))
    expected = (sum(to_text) / 3 + (first + second) / 2) / 2
    assert float(clap(audio, text, torch.tensor([0, 0, 1]), torch.tensor(scale))) == pytest.approx(expected, rel=1e-5)


def test_dwd_by_hand() -> None:
    """Two words, two identical instances each, orthogonal: own cosine 1, other 0."""
    audio = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    loss = dwd(audio, torch.tensor([5, 5, 9, 9]), torch.tensor(4.0))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-4.0)), rel=1e-5)


def test_dwd_leaves_the_instance_out_of_its_own_centroid() -> None:
    audio = normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), dim=1)
    loss = dwd(audio, torch.tensor([0, 0, 1]), torch.tensor(1.0))
    other = float(audio[0] @ audio[2])
    expected = math.log(1 + math.exp(other)) + 1 + other
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_dwd_without_a_repeated_word_is_zero_and_has_a_gradient() -> None:
    audio = torch.eye(3, requires_grad=True)
    loss = dwd(audio, torch.tensor([0, 1, 2]), torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0
    assert audio.grad is not None


@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_float64(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio = normalize(torch.randn(40, 16, generator=generator, dtype=torch.float64), dim=1)
    text = normalize(torch.randn(9, 16, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.arange(40) % 9
    for scale in (1.0, 30.0):
        s = torch.tensor(scale, dtype=torch.float64)
        assert float(clap(audio.float(), text.float(), labels, s.float())) == pytest.approx(
            float(clap(audio, text, labels, s)), rel=1e-4
        )
        assert float(dwd(audio.float(), labels, s.float())) == pytest.approx(float(dwd(audio, labels, s)), rel=1e-4)


def test_detection_by_a_plain_loop() -> None:
    """Every window about as long as a text that ends before the padding and is not where the text is said."""
    rng = np.random.default_rng(0)
    projected = rng.standard_normal((2, 24, 5)).astype(np.float32)
    lengths = (24, 15)
    text = rng.standard_normal((2, 5)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    spans, said = (
        [(0, 4, 8, 0), (1, 2, 6, 0), (0, 10, 16, 1)],
        [(0, 4, 8, 0), (1, 2, 6, 0), (0, 10, 16, 1), (1, 7, 12, 1)],
    )
    scale, total = 3.0, 0.0
    for u, nearest in ((0, 0), (1, 1)):
        negatives = []
        for length in GRID[max(0, nearest - 1) : nearest + 2]:
            for row in range(2):
                for begin in range(0, lengths[row] - length + 1, 2):
                    middle = begin + length / 2
                    if any(r == row and s - 2 <= middle <= e + 2 and t == u for r, s, e, t in said):
                        continue
                    window = projected[row, begin : begin + length].sum(axis=0)
                    negatives.append(math.exp(scale * text[u] @ window / np.linalg.norm(window)))
        own = []
        for row, start, end, label in spans:
            if label == u:
                span = projected[row, start:end].sum(axis=0)
                own.append(math.log(1 + sum(negatives) / math.exp(scale * text[u] @ span / np.linalg.norm(span))))
        total += sum(own) / len(own)
    found = detection(
        torch.tensor(projected),
        torch.tensor(lengths),
        torch.tensor(text),
        Spans(*torch.tensor(spans).T),
        Spans(*torch.tensor(said).T),
        torch.tensor(scale),
    )
    assert found.item() == pytest.approx(total / 2, rel=1e-4)


def test_the_example_of_a_text_is_its_instance_in_the_shortest_row() -> None:
    """Texts 0 and 2 are said twice and thrice, text 1 once: two examples, and the others renumbered to them."""
    spans = Spans(*torch.tensor([(0, 1, 2, 0), (1, 3, 4, 0), (0, 5, 6, 1), (0, 7, 8, 2), (2, 1, 2, 2), (1, 0, 1, 2)]).T)
    said = Spans(*torch.tensor([(0, 1, 2, 0), (0, 5, 6, 1), (2, 1, 2, 2)]).T)
    lengths = torch.tensor([50, 30, 10])[spans.rows]
    found = one_example(spans, lengths, said)
    assert found.examples.tolist() == [1, 4]
    assert torch.stack(found.spans).T.tolist() == [[0, 1, 2, 0], [0, 7, 8, 1], [1, 0, 1, 1]]
    assert torch.stack(found.said).T.tolist() == [[0, 1, 2, 0], [2, 1, 2, 1]]


def test_detection_without_a_repeated_text_is_zero() -> None:
    once = Spans(*torch.tensor([(0, 1, 5, 0)]).T)
    found = one_example(once, torch.tensor([9]), once)
    projected = torch.randn(1, 9, 3, requires_grad=True)
    loss = detection(projected, torch.tensor([9]), projected[0, found.examples], *found[1:], torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0


def test_border_loss_leaves_padding_out() -> None:
    loss = border_cross_entropy(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[0, 1, -1]]))
    assert float(loss) == pytest.approx(math.log(2), rel=1e-5)


def test_phone_loss_leaves_padding_out() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 2] = 50.0
    loss = phone_cross_entropy(logits, torch.tensor([[0, 1, -1]]))
    assert float(loss) == pytest.approx(math.log(4), rel=1e-5)


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


def test_exported_towers_of_the_paper_do_what_the_trained_ones_do() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from earshot.train.export import final_states_graph

    torch.manual_seed(2)
    config = IsolatedConfig(n_mels=7, hidden=5, layers=3, dim=6, phone_embedding=8)
    model = IsolatedModel(config).eval()
    lengths = np.array([9, 4, 1], np.int32)
    x = np.random.default_rng(0).standard_normal((3, 9, 7)).astype(np.float32)
    phones = np.full((3, 9), SILENCE)
    for row, n in enumerate(lengths):
        x[row, n:] = 0
        phones[row, :n] = np.arange(n)
    with torch.no_grad():
        expected = model.audio(torch.tensor(x), torch.tensor(lengths).long()).numpy()
        written = model.text(torch.tensor(phones), torch.tensor(lengths).long()).numpy()
    run = onnxruntime.InferenceSession(final_states_graph(model.audio, None, 7).SerializeToString()).run
    np.testing.assert_allclose(run(None, {"x": x, "lengths": lengths})[0], expected, atol=1e-5)
    graph = final_states_graph(model.text_tower, model.embedding.weight.detach().numpy(), 8)
    run = onnxruntime.InferenceSession(graph.SerializeToString()).run
    np.testing.assert_allclose(run(None, {"phones": phones, "lengths": lengths})[0], written, atol=1e-5)


def test_an_exported_encoder_of_the_paper_embeds_and_does_not_index(tmp_path: Path) -> None:
    from earshot.encoders import IsolatedEncoder, load_folder
    from earshot.encoders.word import load_word
    from earshot.train.export import export_isolated
    from earshot.types import EncoderError

    torch.manual_seed(3)
    model = IsolatedModel(IsolatedConfig(n_mels=16, hidden=8, layers=2, dim=6, phone_embedding=8))
    export_isolated(model.eval(), 'licence = "none"', tmp_path)
    encoder = load_folder(tmp_path)
    assert isinstance(encoder, IsolatedEncoder)
    rng = np.random.default_rng(0)
    speech = encoder.embed_speech([rng.standard_normal(n).astype(np.float32) for n in (16_000, 4_000, 10)])
    text = encoder.embed_text(["telescope", "a"])
    assert speech.shape == (3, 6)
    assert text.shape == (2, 6)
    np.testing.assert_allclose(np.linalg.norm(speech, axis=1), 1, atol=1e-4)
    with pytest.raises(EncoderError, match="cannot index"):
        load_word(tmp_path)


def test_the_paper_has_as_many_parameters_as_it_says() -> None:
    """8,698,625, of which 4,207,104 are the audio tower's; its table has 87 symbols, ours has 40."""
    model = IsolatedModel(IsolatedConfig())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in (("audio", model.audio), ("all", model))}
    assert count["audio"] == 4_207_104
    assert count["all"] == 8_698_625 - (87 - 40) * 256


def test_clap_of_views_by_hand() -> None:
    text = torch.eye(2)
    audio = text.unsqueeze(1).repeat(1, 3, 1)
    assert clap_views(audio, text, torch.tensor(3.0)).item() == pytest.approx(math.log(1 + math.exp(-3.0)), rel=1e-5)


def test_batches_of_isolated_words_hold_instances_of_each_word_together() -> None:
    options = IsolatedOptions(words=2, instances=3, shortest=0.1)
    batch = IsolatedBatcher([corpus()], IsolatedConfig(instances=3), options).batch(0)
    assert batch.mel.shape[::2] == (6, 128)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    model = IsolatedModel(IsolatedConfig(hidden=4, layers=2, dim=5, phone_embedding=6, instances=3))
    parts = model.losses({name: torch.as_tensor(getattr(batch, name)) for name in batch.__slots__})
    assert set(parts) == {"clap", "dwd"}
    assert all(torch.isfinite(part) for part in parts.values())


def corpus(seed: int = 0) -> Corpus:
    """Twelve utterances of noise "said" by three speakers."""
    rng = np.random.default_rng(seed)
    samples = (rng.standard_normal(12 * 2 * SAMPLE_RATE) * 2000).astype(np.int16)
    phones = [Timed(0.2 + 0.1 * k, 0.3 + 0.1 * k, p) for k, p in enumerate("K AE T S AE T D AO G".split())]
    words = [Timed(0.2, 0.6, "cats"), Timed(0.6, 0.8, "at"), Timed(0.8, 1.1, "dog")]
    made = [
        Utterance(
            str(k), "noise", f"s{k % 3}", "train", k * 2 * SAMPLE_RATE, 2 * SAMPLE_RATE, tuple(words), tuple(phones)
        )
        for k in range(12)
    ]
    return Corpus(tuple(made), samples)


PRIORS = (np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32))


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
        losses[precision] = model.losses(batch, precision)
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
    from earshot.encoders.word import load_word
    from earshot.train import export

    words = [(4, 5, 6), (7, 8), (9,)]
    monkeypatch.setattr(export, "word_priors", lambda: (words, np.array([-9.0, -8.0, -7.0], np.float32)))
    torch.manual_seed(2)
    priors = {"mean": PRIORS[0], "std": PRIORS[1], "phone_seconds": np.full(39, 0.08, np.float32)}
    export.export(WordModel(SMALL), priors, 'name = "word"', tmp_path)
    encoder = load_word(tmp_path)
    frames = encoder.frames([np.random.default_rng(0).standard_normal((40, N_MELS)).astype(np.float32)])[0]
    assert frames.shape == (10, encoder.stored_dim)
    assert encoder.phone_log_probabilities(frames).shape == (20, 40)
    assert encoder.border_log_odds(frames[:, : encoder.frame_dim].astype(np.float32)).shape == (20,)
    assert [encoder.lexicon.ids(row) for row in range(3)] == [list(ids) for ids in words]
    np.testing.assert_allclose(encoder.lexicon.vectors / 127, encoder.embed_ids(words), atol=0.03)


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
    from earshot.train.loop import TrainOptions, train

    def run(folder: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        for steps in stops:
            batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS, seed=1)
            options = TrainOptions(steps=4, save_every=1, workers=0, stop_after=steps)
            model = train(batcher, SMALL, options, folder)
        return model.state_dict()

    whole, parts = run(tmp_path / "whole", (4,)), run(tmp_path / "parts", (2, 4))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    from earshot.train.loop import TrainingError, TrainOptions, train

    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=1, workers=0), tmp_path)
    with pytest.raises(TrainingError, match="another architecture") as error:
        train(batcher, WordConfig(hidden=10), TrainOptions(steps=1, workers=0), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match='"bf16" is none of: float32, bfloat16'):
        train(batcher, SMALL, TrainOptions(steps=1, workers=0, precision="bf16"), tmp_path)


def test_weights_are_kept_for_a_learning_curve(tmp_path: Path) -> None:
    from earshot.train.loop import TrainOptions, load, train

    batcher = Batcher([corpus()], BatchOptions(chunks=4, chunk=1.0), PRIORS)
    train(batcher, SMALL, TrainOptions(steps=5, workers=0, keep_every=2), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*.pt")) == ["step-2.pt", "step-4.pt"]
    assert isinstance(load(tmp_path / "step-4.pt"), WordModel)


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

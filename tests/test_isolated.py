"""Encoders of isolated words: the paper's dimensions, every system as a configuration, exports, bad vocabularies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import noise_corpus as corpus  # noqa: E402
from torch.nn.functional import normalize  # noqa: E402

from earshot.encoders import IsolatedEncoder, load, load_folder  # noqa: E402
from earshot.encoders.clock import SILENCE  # noqa: E402
from earshot.encoders.isolated import ENERGIES, LOG_MEL, Front  # noqa: E402
from earshot.features import N_MELS  # noqa: E402
from earshot.train.isolated import IsolatedConfig, IsolatedModel  # noqa: E402
from earshot.train.isolated_batches import IsolatedBatcher, IsolatedOptions  # noqa: E402
from earshot.train.priors import Priors  # noqa: E402
from earshot.train.transcripts import CorpusError  # noqa: E402

NONE = np.zeros(0, np.float32)
PRIORS = Priors(np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32), np.full(39, 0.08, np.float32))


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
        expected = normalize(model.audio(torch.tensor(x), torch.tensor(lengths).long())).numpy()
        written = normalize(model.text(torch.tensor(phones), torch.tensor(lengths).long())).numpy()
    run = onnxruntime.InferenceSession(final_states_graph(model.audio, None, 7).SerializeToString()).run
    np.testing.assert_allclose(run(None, {"x": x, "lengths": lengths})[0], expected, atol=1e-5)
    graph = final_states_graph(model.text_tower, model.embedding.weight.detach().numpy(), 8)
    run = onnxruntime.InferenceSession(graph.SerializeToString()).run
    np.testing.assert_allclose(run(None, {"phones": phones, "lengths": lengths})[0], written, atol=1e-5)


def test_an_exported_encoder_of_the_paper_embeds_and_does_not_index(tmp_path: Path) -> None:
    from earshot.train.export import export_isolated
    from earshot.types import EncoderError

    torch.manual_seed(3)
    model = IsolatedModel(IsolatedConfig(n_mels=16, hidden=8, layers=2, dim=6, phone_embedding=8))
    export_isolated(model.eval(), None, 'licence = "none"', tmp_path)
    encoder = load_folder(tmp_path)
    assert isinstance(encoder, IsolatedEncoder)
    rng = np.random.default_rng(0)
    speech = encoder.embed_speech([rng.standard_normal(n).astype(np.float32) for n in (16_000, 4_000, 10)])
    text = encoder.embed_text(["telescope", "a"])
    assert speech.shape == (3, 6)
    assert text.shape == (2, 6)
    np.testing.assert_allclose(np.linalg.norm(speech, axis=1), 1, atol=1e-4)
    with pytest.raises(EncoderError, match="cannot index"):
        load(str(tmp_path))


def test_the_paper_has_as_many_parameters_as_it_says() -> None:
    """8,698,625, of which 4,207,104 are the audio tower's; its table has 87 symbols, ours has 40."""
    model = IsolatedModel(IsolatedConfig())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in (("audio", model.audio), ("all", model))}
    assert count["audio"] == 4_207_104
    assert count["all"] == 8_698_625 - (87 - 40) * 256


def test_batches_of_isolated_words_hold_instances_of_each_word_together() -> None:
    batch = batcher(Front(ENERGIES, 128, 1, NONE, NONE)).batch(0)
    assert batch.mel.shape[::2] == (6, 128)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]


def batcher(front: Front, **options: Any) -> IsolatedBatcher:
    chosen = replace(IsolatedOptions(words=2, instances=3, shortest=0.1), **options)
    return IsolatedBatcher([corpus()], front, chosen)


SYSTEMS = {
    "cae-rnn": {"correspondence", "reconstruction"},
    "siamese-rnn": {"siamese"},
    "contrastive-rnn": {"nt_xent"},
    "a2e-dwd": {"dwd"},
    "multiview-rnn": {f"multiview_{k}" for k in range(4)},
    "clap": {"clap", "clap_words"},
    "clap-dwd": {"clap", "dwd"},
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("features", [ENERGIES, LOG_MEL])
def test_each_system_learns_two_words(name: str, features: str, tmp_path: Path) -> None:
    """Its losses are finite, reach every parameter and fall; a padded frame changes nothing."""
    losses, n_mels = SYSTEMS[name], N_MELS if features == LOG_MEL else 20
    text = not losses.isdisjoint({"clap", "multiview_0"})
    config = IsolatedConfig(
        features, n_mels, 3, hidden=6, layers=2, dim=5, phone_embedding=6, dropout=0.0, instances=3,
        text=text, decoder=name == "cae-rnn", dwd_scale=5.0 if name == "a2e-dwd" else 1.0,
    )  # fmt: skip
    made = batcher(Front(features, n_mels, 3, PRIORS.mean, PRIORS.std)).batch(0)
    batch = {name: torch.as_tensor(getattr(made, name)) for name in made.__slots__}
    torch.manual_seed(0)
    model = IsolatedModel(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    totals = []
    for _ in range(12):
        total = torch.stack([*model.losses(batch, losses).values()]).sum()
        optimizer.zero_grad()
        total.backward()
        unused = {"clap_scale"} if name == "multiview-rnn" else set()
        for part, parameter in model.named_parameters():
            assert part in unused or torch.isfinite(parameter.grad).all(), part
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    mel = batch["mel"]
    for row, length in enumerate(batch["lengths"]):
        mel[row, int(length) :] = 3.0
    padded = torch.cat([mel, torch.full((len(mel), 7, mel.shape[2]), 3.0)], 1)
    alone, beside = (model.losses({**batch, "mel": x}, losses) for x in (batch["mel"], padded))
    for loss in losses:
        torch.testing.assert_close(alone[loss], beside[loss], rtol=1e-4, atol=1e-5)


def test_rows_of_frames_side_by_side() -> None:
    samples = np.random.default_rng(0).standard_normal(400 + 160 * 9).astype(np.float32)
    one, three = (Front(LOG_MEL, N_MELS, stack, PRIORS.mean, PRIORS.std).rows(samples) for stack in (1, 3))
    assert three.shape == (4, 3 * N_MELS)
    np.testing.assert_array_equal(three.reshape(12, N_MELS)[:10], one)
    assert not three.reshape(12, N_MELS)[10:].any()


def test_an_encoder_without_text_says_so(tmp_path: Path) -> None:
    from earshot.train.export import export_isolated
    from earshot.types import EncoderError

    config = IsolatedConfig(LOG_MEL, N_MELS, 3, hidden=8, layers=2, dim=6, text=False)
    export_isolated(IsolatedModel(config).eval(), PRIORS, 'licence = "none"', tmp_path)
    encoder = load_folder(tmp_path)
    assert encoder.embed_speech([np.random.default_rng(0).standard_normal(9000).astype(np.float32)]).shape == (1, 6)
    with pytest.raises(EncoderError, match="speech alone"):
        encoder.embed_text(["word"])


def test_too_small_a_vocabulary_is_refused_in_one_line() -> None:
    front = Front(ENERGIES, 20, 1, NONE, NONE)
    with pytest.raises(CorpusError, match=r"^1 words are said at least 3 times, each for 0\.35 to 2 s"):
        batcher(front, shortest=0.35)
    with pytest.raises(CorpusError, match=r"^0 words are said at least 100 times"):
        batcher(front, instances=100)


def test_stored_features_are_those_made_anew(tmp_path: Path) -> None:
    front = Front(LOG_MEL, N_MELS, 3, PRIORS.mean, PRIORS.std)
    options = IsolatedOptions(words=2, instances=3, shortest=0.1)
    made, anew = IsolatedBatcher([corpus()], front, options), batcher(front)
    stored = [IsolatedBatcher([corpus()], front, options, folder=tmp_path) for _ in range(2)]
    assert len(list(tmp_path.glob("*.features"))) == 1
    for one in (*stored, made):
        np.testing.assert_allclose(one.batch(3).mel, anew.batch(3).mel, atol=0.01)
    speech = corpus()
    later = [
        replace(u, words=tuple(replace(w, start=w.start + 0.1, end=w.end + 0.1) for w in u.words))
        for u in speech.utterances
    ]
    moved = IsolatedBatcher([replace(speech, utterances=tuple(later))], front, options, folder=tmp_path)
    assert len(list(tmp_path.glob("*.features"))) == 2
    assert not np.allclose(moved.batch(3).mel, made.batch(3).mel, atol=0.1)


def test_a_word_without_a_pronunciation_is_left_out_and_named() -> None:
    from earshot.train.align import Timed

    made = corpus()
    odd = replace(made.utterances[0], words=(*made.utterances[0].words, Timed(1.2, 1.6, "слово")))
    speech = replace(made, utterances=(odd, *made.utterances[1:]))
    options = IsolatedOptions(words=2, instances=3, shortest=0.1)
    batcher = IsolatedBatcher([speech], Front(ENERGIES, 20, 1, NONE, NONE), options)
    assert batcher.unpronounceable == ("слово",)
    assert batcher.n_words == 3


def test_augmented_words_differ_and_can_be_made_again() -> None:
    from earshot.train.augment import Augmentation

    front = Front(ENERGIES, 20, 1, NONE, NONE)
    plain, first, again = (batcher(front, augmentation=a).batch(0) for a in (None, Augmentation(), Augmentation()))
    np.testing.assert_array_equal(first.mel, again.mel)
    assert plain.mel.shape != first.mel.shape or not np.allclose(plain.mel, first.mel)


RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.parametrize("name", ["paper", "laptop", "mini"])
def test_every_system_of_the_recipes_can_be_built(name: str) -> None:
    from earshot.train.loop import TrainOptions
    from earshot.train.recipe import read_recipe, with_base
    from earshot.train.word import configuration

    path = RECIPES / "jmcl-librispeech" / f"{name}.toml"
    systems = with_base(path)["systems"]
    assert {"cae-rnn", "siamese-rnn", "contrastive-rnn", "a2e-dwd", "multiview-rnn", "clap", "clap-dwd"} <= set(systems)
    for system in systems:
        recipe = read_recipe(path, system)
        config, options = configuration(recipe), TrainOptions(**recipe["train"])
        assert isinstance(config, IsolatedConfig)
        IsolatedOptions(**recipe["batch"])
        model = IsolatedModel(replace(config, hidden=4, dim=4, phone_embedding=4, n_mels=3, stack=1))
        batch = batcher(Front(ENERGIES, 3, 1, NONE, NONE), instances=4).batch(0)
        tensors = {key: torch.as_tensor(getattr(batch, key)) for key in batch.__slots__}
        assert set(model.losses(tensors, options.losses)) == set(options.losses)


@pytest.mark.parametrize("name", ["word", "word-small", "arabic"])
def test_recipes_of_spans_can_be_built(name: str) -> None:
    from earshot.train.augment import Augmentation
    from earshot.train.batches import BatchOptions
    from earshot.train.loop import TrainOptions
    from earshot.train.model import WordConfig, WordModel
    from earshot.train.recipe import read_recipe
    from earshot.train.word import configuration

    recipe = read_recipe(RECIPES / f"{name}.toml")
    config = configuration(recipe)
    assert isinstance(config, WordConfig)
    assert isinstance(TrainOptions(**recipe["train"]), TrainOptions)
    BatchOptions(**{**recipe["batch"], "augmentation": Augmentation(**recipe["batch"].get("augmentation", {}))})
    WordModel(config)

"""The passage model: frames of corpora, speech spliced from them, batches, losses, training, export."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import LIMIT, noise_corpus
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from earshot import encoders  # noqa: E402
from earshot.encoders.cif import BLANK, told  # noqa: E402
from earshot.encoders.clock import FIRST_CENTRE, FRAME_SECONDS, SILENCE  # noqa: E402
from earshot.encoders.passage import load_passage, stacked  # noqa: E402
from earshot.encoders.towers import phone_ids  # noqa: E402
from earshot.train.augment import Augmentation  # noqa: E402
from earshot.train.clsr import export as exported  # noqa: E402
from earshot.train.clsr import train as passages  # noqa: E402
from earshot.train.clsr.batches import PassageBatch, PassageBatcher, PassageOptions, Text, read_text  # noqa: E402
from earshot.train.clsr.export import export  # noqa: E402
from earshot.train.clsr.frames import Take, prepare, read  # noqa: E402
from earshot.train.clsr.model import PassageConfig, PassageModel, borders, clock  # noqa: E402
from earshot.train.clsr.paraformer import Heard  # noqa: E402
from earshot.train.clsr.splice import Bank, units  # noqa: E402
from earshot.train.clsr.text import export_text, load  # noqa: E402
from earshot.train.corpus import SAMPLES, UTTERANCES, Corpus, _line  # noqa: E402
from earshot.train.loop import TrainOptions, checkpoint, train  # noqa: E402
from earshot.train.losses import UnknownLoss  # noqa: E402
from earshot.train.transcripts import CorpusError  # noqa: E402
from earshot.types import EncoderError  # noqa: E402

SMALL = PassageConfig(dim=8, heads=2, hidden=12, encoder_blocks=2, decoder_blocks=1, kernel=3, dropout=0.0, inputs=4)


def takes(corpus: Corpus | None = None, factor: float = 1.0) -> list[Take]:
    """Takes whose frames tell which phone they are of, and which utterance."""
    made = []
    for k, utterance in enumerate((corpus or noise_corpus()).utterances):
        n = round(utterance.seconds / factor / FRAME_SECONDS)
        take = Take(utterance, np.zeros((n, 2), np.int8), factor)
        phones, ends = units(take)
        frames = np.repeat(phones, np.diff(ends, prepend=0))
        made.append(replace(take, frames=np.stack([frames, np.full(n, k)], axis=1).astype(np.int8)))
    return made


@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_phones_end_where_they_are_said_to(factor: float) -> None:
    take = takes(factor=factor)[0]
    phones, ends = units(take)
    said = phone_ids("K AE T S AE T D AO G".split())
    assert phones.tolist() == [SILENCE, *said, SILENCE]
    assert ends[-1] == len(take.frames) and (np.diff(ends) >= 0).all()
    centres = FIRST_CENTRE + FRAME_SECONDS * np.arange(len(take.frames))
    k_frames = np.flatnonzero((centres >= 0.2 / factor) & (centres < 0.3 / factor))
    assert k_frames.tolist() == list(range(ends[0], ends[1]))


def test_pauses_between_words_are_phones_too() -> None:
    take = takes()[0]
    words = tuple(replace(p, start=p.start + 0.3, end=p.end + 0.3) for p in take.utterance.phones[4:])
    apart = replace(take, utterance=replace(take.utterance, phones=(*take.utterance.phones[:4], *words)))
    phones, ends = units(apart)
    assert phones.tolist().count(SILENCE) == 3 and phones[5] == SILENCE
    assert np.diff(ends, prepend=0)[5] in (7, 8)


def test_spliced_speech_says_the_phones_in_order() -> None:
    """Frames are those of the phones, each ends where it is told to, and runs come from one utterance."""
    bank = Bank(takes())
    said = [SILENCE, *phone_ids("D AO G K AE T S AE T D AO G".split()), SILENCE]
    for seed in range(20):
        frames, ends = bank.say(said, np.random.default_rng(seed))
        assert len(ends) == len(said) and ends[-1] == len(frames)
        told = np.repeat(said, np.diff(ends, prepend=0))
        assert frames[:, 0].tolist() == told.tolist()
    begun = {int(bank.say(said, np.random.default_rng(seed))[0][0, 1]) for seed in range(20)}
    assert len(begun) > 3
    with pytest.raises(ValueError, match="never said"):
        bank.say(phone_ids(["ZH"]), np.random.default_rng(0))


TEXTS = (Text("story", (("cats at dog.", "who paid?", "the dog?"), ("dog at cats",))),)


def batcher(texts: tuple[Text, ...] = TEXTS, **options: float) -> PassageBatcher:
    from earshot.encoders.wordpiece import WordPiece

    pieces = WordPiece(("[UNK]", "[CLS]", "[SEP]", "cat", "##s", "at", "dog", "who", "paid", "the", "?"), lower=True)
    settings = {"seconds": 20.0, "shortest": 1.0, "longest": 4.0, **options}
    return PassageBatcher(takes(), texts, pieces, PassageOptions(**settings), seed=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("spliced", [0.0, 1.0])
def test_batches_are_made_from_seed_and_step_and_tell_where_tokens_end(spliced: float) -> None:
    first, again, other = (batcher(spliced=spliced).batch(k) for k in (5, 5, 6))
    for each in fields(PassageBatch):
        np.testing.assert_array_equal(getattr(first, each.name), getattr(again, each.name))
    assert first.features.shape != other.features.shape or (first.features != other.features).any()
    for row in range(len(first.lengths)):
        n, length = first.counts[row], first.lengths[row]
        ends = first.ends[row, :n]
        assert n and (np.diff(ends) >= 0).all() and ends[0] > 0 and ends[-1] <= length
        assert not first.features[row, length:].any()
        phones = first.features[row, :length].reshape(-1, 2)[:, 0]
        dog = [float(end) for end, token in zip(ends, first.tokens[row, :n], strict=True) if token == 6]
        assert dog
        for end in dog:  # "dog" ends with its G
            assert phones[int(end * 2) - 1] == phone_ids(["G"])[0]


@pytest.mark.parametrize("spliced", [0.0, 1.0])
def test_masks_hide_stretches_of_a_batch_and_of_nothing_else(spliced: float) -> None:
    made, plain = batcher(spliced=spliced, masks=2.0, longest_mask=0.1), batcher(spliced=spliced)
    before = [take.frames.copy() for take in made.takes]
    hidden = [(made.batch(k).features == 0).all(axis=2).mean() for k in range(9)]
    bare = [(plain.batch(k).features == 0).all(axis=2).mean() for k in range(9)]
    assert 0.02 < np.mean(hidden) - np.mean(bare) < 0.2
    for take, frames in zip(made.takes, before, strict=True):
        np.testing.assert_array_equal(take.frames, frames)


def test_rows_of_a_text_come_with_the_questions_that_it_answers() -> None:
    batch = batcher(spliced=1.0, longest=3.0).batch(0)
    assert len(batch.questions) and batch.asked.max() < len(batch.lengths)
    assert {tuple(q[:n]) for q, n in zip(batch.questions, batch.question_lengths, strict=True)} == {
        (7, 8, 10),
        (9, 6, 10),
    }
    assert not len(batcher(spliced=0.0).batch(0).questions)
    assert stacked(np.ones((3, 2), np.int8)).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_texts_are_lines_with_questions_after_tabs(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("It rains.\tDoes it?\n\nIt stops.\n")
    assert read_text(tmp_path / "story.txt") == Text("story", (("It rains.", "Does it?"), ("It stops.",)))
    with pytest.raises(CorpusError, match=r"none\.txt: no readable sentences"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(CorpusError, match="no take has times"):
        PassageBatcher([], (), batcher().pieces, PassageOptions())


def test_the_clock_counts_what_weights_are_off_between_ends() -> None:
    weights = torch.tensor([[0.5, 0.5, 1.0, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0, 0.0]])
    ends = torch.tensor([[2.0, 2.5, 5.0], [1.0, 0.0, 0.0]])
    found = clock(weights, ends, torch.tensor([3, 1]))
    assert float(found) == pytest.approx((0.0 + 0.5 + 0.0 + 0.0) / 4)


@pytest.fixture
def config(published: Path) -> PassageConfig:
    return replace(SMALL, text=str(published), vocabulary=len(load(published).pieces.pieces), table=6, sound=5)


def tensors(batch: PassageBatch) -> dict[str, torch.Tensor]:
    return {each.name: torch.as_tensor(getattr(batch, each.name)) for each in fields(batch)}


def whole(config: PassageConfig) -> tuple[PassageModel, PassageBatcher]:
    """A model whose output layer has a table, and batches in its text encoder's pieces."""
    torch.manual_seed(0)
    model = PassageModel(config)
    torch.nn.init.normal_(model.speech.decoder.output_layer.table)  # type: ignore[union-attr, arg-type]
    if model.speech.sound is not None:
        torch.nn.init.normal_(model.speech.sound.projection)
        torch.nn.init.constant_(model.speech.sound.blank.bias, -1.0)
    made = PassageBatcher(takes(), TEXTS, model.text.pieces, PassageOptions(seconds=12.0, shortest=1.0, longest=3.0))
    return model, made


def test_every_loss_teaches_the_speech_branch_and_never_the_text_encoder(config: PassageConfig) -> None:
    model, made = whole(config)
    batch = tensors(made.batch(1))
    assert len(batch["questions"])
    for quantised in (True, False):
        model.config = replace(config, quantised=quantised)
        for name in ("asr", "length", "clock", "borders", "retrieval", "echo", "distillation"):
            model.zero_grad()
            loss = model.losses(batch, [name])[name]
            assert torch.isfinite(loss) and loss.item() > 0
            loss.backward()
            assert model.speech.encoder.encoders0[0].self_attn.linear_q_k_v.weight.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in model.text.parameters())
    assert not any("text" in name for name in model.state_dict())


def test_a_tuned_text_encoder_learns_and_the_speech_branch_does_not(config: PassageConfig) -> None:
    """Its word embeddings do not either: they are what tokens are."""
    _, made = whole(config)
    model = PassageModel(replace(config, tuned=True)).train()
    assert not model.speech.training and model.text.training
    batch = tensors(made.batch(1))
    for name in ("retrieval", "reading", "echo"):
        model.zero_grad()
        model.losses(batch, [name])[name].backward()
        grown = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert grown and all(name.startswith("reader") or name == "scale" for name in grown)
        assert not any("word_embeddings" in name for name in grown)
    assert any(name.startswith("reader") for name in model.state_dict())


def test_a_dual_encoder_has_vectors_and_no_tokens(config: PassageConfig) -> None:
    """Padding changes no vector; what needs tokens is no loss of it."""
    _, made = whole(config)
    model = PassageModel(replace(config, dual=32))
    batch = tensors(made.batch(1))
    for name in ("retrieval", "echo", "distillation"):
        model.zero_grad()
        model.losses(batch, [name])[name].backward()
        assert model.speech.encoder.encoders0[0].self_attn.linear_q_k_v.weight.grad.abs().sum() > 0
    with pytest.raises(UnknownLoss):
        model.losses(batch, ["asr"])
    short = int(batch["lengths"].argmin())
    n = batch["lengths"][short : short + 1]
    alone = model.embed_frames(batch["features"][short : short + 1, : int(n)].float() / 127, n)
    together = model.embed_frames(batch["features"].float() / 127, batch["lengths"])
    torch.testing.assert_close(together[short], alone[0], atol=1e-5, rtol=1e-4)


def test_borders_are_told_in_halves_of_frames() -> None:
    """Two tokens that end in one half are one end; padding counts for nothing."""
    log_odds = torch.zeros(2, 6)
    heard = Heard(torch.zeros(2, 3, 4), torch.tensor([3, 1]), torch.zeros(2, 3), torch.zeros(2, 3), log_odds)
    ends, counts, lengths = torch.tensor([[0.5, 2.0, 2.1], [1.4, 0, 0]]), torch.tensor([3, 1]), torch.tensor([3, 2])
    log_odds[0, [0, 3]] = log_odds[1, 2] = 20.0
    log_odds[0, [1, 2, 4, 5]] = log_odds[1, [0, 1, 3]] = -20.0
    assert float(borders(heard, lengths, ends, counts)) == pytest.approx(0, abs=1e-6)
    log_odds[0, 0] = 0.0
    assert float(borders(heard, lengths, ends, counts)) == pytest.approx(np.log(2) / 10)
    with pytest.raises(UnknownLoss, match=r"needs \[model\] sound"):
        borders(replace(heard, borders=None), lengths, ends, counts)


def test_without_questions_nothing_is_retrieved(config: PassageConfig) -> None:
    model, made = whole(config)
    made.texts, made.options = [], replace(made.options, spliced=0.0)
    assert model.losses(tensors(made.batch(0)), ["retrieval"])["retrieval"].item() == 0


def test_training_recognises_what_it_is_trained_on(config: PassageConfig, tmp_path: Path) -> None:
    """Words of toy speech, learned within seconds; a run that is stopped goes on as if it had not been."""
    _, made = whole(config)
    options = TrainOptions(steps=12, learning_rate=0.02, losses={"asr": 1.0, "clock": 1.0}, save_every=6, workers=0)
    model = train(made, config, options, tmp_path / "whole")
    first, last = (model.losses(tensors(made.batch(k)), ["asr", "clock"]) for k in (0, 1))
    assert all(torch.isfinite(x) for x in (*first.values(), *last.values()))
    train(made, config, replace(options, stop_after=6), tmp_path / "parts")
    again = train(made, config, options, tmp_path / "parts")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)
    assert isinstance(checkpoint(tmp_path / "whole" / "last.pt").model, PassageModel)


@pytest.mark.parametrize("sound", [0, 5])
def test_exported_networks_hear_what_the_trained_ones_do(
    config: PassageConfig, published: Path, tmp_path: Path, sound: int
) -> None:
    """By integrate-and-fire; and with sounds, and ends that are found."""
    word = encoders.load("word")
    config = replace(config, inputs=2 * word.frame_dim, sound=sound)
    model, _ = whole(config)
    model.eval()
    spans: list[NDArray[np.float32]] = []
    if model.speech.sound is not None:
        model.speech.sound.which.register_forward_hook(lambda *of: spans.append(of[2].log_softmax(2)[0].numpy()))
    export_text(load(published), 'licence = "none"', tmp_path)
    export(model, 'licence = "none"', word.digest, tmp_path, int8=False)
    encoder = load_passage(tmp_path, word)
    frames = np.random.default_rng(0).integers(-127, 128, (301, word.stored_dim), np.int64).astype(np.int8)
    heard = encoder.hear(frames)
    x = torch.as_tensor(stacked(frames[:, : word.frame_dim])).float()[None] / 127
    with torch.no_grad():
        expected = model.speech(x, torch.tensor([x.shape[1]]))
    best = expected.scores[0].argmax(1).numpy()
    if sound:
        best = expected.scores[0, :, BLANK + 1 :].argmax(1).numpy() + BLANK + 1
        best = best[told(expected.scores[0].softmax(1)[:, BLANK].numpy(), spans[-1])]
    assert int(expected.counts[0]) >= len(best) > 10 and heard.tokens.tolist() == best.tolist()
    assert (np.diff(heard.ends) >= 0).all() and heard.ends[-1] <= 301 * FRAME_SECONDS + 0.1
    assert len(encoder.hear(frames[:0]).tokens) == 0
    assert encoder.embed_speech([np.zeros(16000, np.float32)]).shape == encoder.embed_text(["who"]).shape == (1, 32)
    assert encoder.read(encoder.text.pieces.ids("who paid the telescope?")[:LIMIT]) == "who paid the telescope ?"


def test_an_encoder_of_other_frames_is_one_line(config: PassageConfig, published: Path, tmp_path: Path) -> None:
    export_text(load(published), 'licence = "none"', tmp_path)
    export(whole(config)[0], 'licence = "none"', "another", tmp_path, int8=False)
    with pytest.raises(EncoderError, match=r"passage\.toml: it reads the frames of another word encoder"):
        load_passage(tmp_path, encoders.load("word"))
    with pytest.raises(EncoderError, match=r"text\.toml: not the card of a passage encoder"):
        load_passage(tmp_path, encoders.load("word"), "text")


def written_corpus(folder: Path) -> Corpus:
    """The corpus of noise as prepared on disk."""
    corpus = noise_corpus()
    folder.mkdir(parents=True)
    (folder / SAMPLES).write_bytes(corpus.samples.tobytes())
    (folder / UTTERANCES).write_bytes(b"".join(map(_line, corpus.utterances)))
    return corpus


def test_frames_are_those_of_the_word_encoder_and_are_made_once(tmp_path: Path) -> None:
    corpus, word = noise_corpus(), encoders.load("word")
    prepare(corpus, word, tmp_path / "noise", 2, Augmentation(speed_probability=1.0), 0)
    found = read(tmp_path / "noise", corpus, lambda u: u.speaker != "s0", word.digest)
    assert len(found) == 16 and {t.utterance.speaker for t in found} == {"s1", "s2"}
    from earshot.features import log_mel

    (frames,) = word.frames([log_mel(corpus.read(found[0].utterance))])
    close = np.abs(found[0].frames.astype(int) - frames[:, : word.frame_dim]) <= 12  # int8 scales are of a whole batch
    assert found[0].factor == 1.0 and close.mean() > 0.95
    assert found[-1].factor != 1.0 and len(found[-1].frames) == pytest.approx(len(frames) / found[-1].factor, abs=2)
    before = (tmp_path / "noise" / "frames.i8").stat().st_mtime_ns
    prepare(corpus, word, tmp_path / "noise", 2, Augmentation(), 0)
    assert (tmp_path / "noise" / "frames.i8").stat().st_mtime_ns == before
    with pytest.raises(CorpusError, match="by another word encoder"):
        read(tmp_path / "noise", corpus, lambda u: True, "other")
    with pytest.raises(CorpusError, match="no frames; make them"):
        read(tmp_path / "none", corpus, lambda u: True, word.digest)


def test_a_recipe_is_prepared_and_trained(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, to a checkpoint; then on from it in the next stage."""
    from earshot.train.clsr import frames

    written_corpus(tmp_path / "corpora" / "noise")
    (tmp_path / "sentences").mkdir()
    (tmp_path / "sentences" / "story.txt").write_text("Cats at dog.\tWho paid?\nThe dog at cats.\n")
    recipe = tmp_path / "small.toml"
    recipe.write_text(f"""
[model]
text = "{published}"
dim = 8
heads = 2
hidden = 12
encoder_blocks = 2
decoder_blocks = 1
kernel = 3
table = 90
[batch]
seconds = 6.0
shortest = 1.0
longest = 3.0
[corpora]
noise = 1.0
[texts]
story = 1.0
[held_out]
noise = ["s0"]
[systems.pretrain.train]
steps = 2
workers = 0
losses = {{ asr = 1.0, length = 1.0, clock = 1.0 }}
[systems.joint.train]
steps = 2
workers = 0
losses = {{ asr = 1.0, retrieval = 1.0, echo = 1.0 }}
[systems.post.model]
tuned = true
[systems.post.train]
steps = 2
workers = 0
losses = {{ retrieval = 1.0, reading = 1.0 }}
[systems.dual.model]
dual = 32
[systems.dual.train]
steps = 2
workers = 0
losses = {{ echo = 1.0 }}
[systems.wide.model]
dim = 16
""")
    paths = ["--corpora", f"{tmp_path}/corpora", "--out", f"{tmp_path}/frames"]
    monkeypatch.setattr(sys, "argv", ["frames", str(recipe), *paths])
    frames.main()

    def run(stage: str, *more: str) -> NDArray[np.float32]:
        arguments = ["--stage", stage, "--data", str(tmp_path), "--out", f"{tmp_path}/{stage}", *more]
        monkeypatch.setattr(sys, "argv", ["train", str(recipe), *arguments])
        passages.main()
        model = checkpoint(tmp_path / stage / "last.pt").model
        layer = model.speech.decoder.output_layer  # type: ignore[union-attr]
        assert layer.table.abs().sum() > 0 and layer.bias.min() < -1  # type: ignore[operator, union-attr]
        return model.speech.encoder.after_norm.weight.detach().numpy()  # type: ignore[union-attr, no-any-return]

    first = run("pretrain")
    joint = run("joint", "--from", f"{tmp_path}/pretrain/last.pt")
    assert not np.array_equal(first, joint)
    assert np.array_equal(joint, run("post", "--from", f"{tmp_path}/joint/last.pt"))
    run("dual", "--from", f"{tmp_path}/pretrain/last.pt")
    with pytest.raises(SystemExit, match=r"^train: .*pretrain/last\.pt holds another architecture"):
        run("wide", "--from", f"{tmp_path}/pretrain/last.pt")
    (card := tmp_path / "card.toml").write_text('licence = "none"\n')
    how = ["export", f"{tmp_path}/post/last.pt", "--card", str(card), "--out", f"{tmp_path}/weights"]
    monkeypatch.setattr(sys, "argv", how)
    with pytest.raises(SystemExit, match="--text-card"):
        exported.main()
    monkeypatch.setattr(sys, "argv", [*how, "--text-card", str(card)])
    exported.main()
    assert load_passage(tmp_path / "weights", encoders.load("word")).dim == 32

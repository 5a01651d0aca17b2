"""The speech branch of paper B against plain float64 references, and FunASR where it is installed."""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from earshot.encoders.cif import (  # noqa: E402
    ALONE,
    BLANK,
    EAGER,
    HALVES,
    OFF,
    ROUNDING,
    find_ends,
    integrate_and_fire,
    pool,
    told,
)
from earshot.features import STACKED, Cmvn, fbank, low_frame_rate  # noqa: E402
from earshot.train.clsr import checkpoint, paraformer  # noqa: E402
from earshot.train.clsr.cif import Predictor, aligned, cif, labels  # noqa: E402
from earshot.train.clsr.config import SIZES, SpeechConfig  # noqa: E402
from earshot.train.clsr.paraformer import SpeechBranch, VectorQuantiser, hints  # noqa: E402
from earshot.train.clsr.sanm import Decoder, Encoder, EncoderBlock  # noqa: E402

SMALL = SpeechConfig(
    vocabulary=11, inputs=14, dim=8, heads=2, hidden=12, encoder_blocks=3, decoder_blocks=2, kernel=5, dropout=0.0
)
Array = np.ndarray


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def branch() -> SpeechBranch:
    return shaken(SpeechBranch(SMALL)).eval()


def shaken(model: nn.Module) -> nn.Module:
    """In float64, with weights that no initialisation makes zero or one."""
    model.double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def features(*lengths: int, inputs: int = SMALL.inputs) -> tuple[Tensor, Tensor]:
    return torch.randn(len(lengths), max(lengths), inputs, dtype=torch.float64), torch.tensor(lengths)


# --- plain references, one row, no padding ---


def norm(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Array, w: dict[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def memory(values: Array, kernel: Array, shift: int) -> Array:
    """Frame by frame, tap by tap."""
    out, taps = values.copy(), kernel.shape[2]
    for t in range(len(values)):
        for tap in range(taps):
            at = t + tap - (taps - 1) // 2 - shift
            if 0 <= at < len(values):
                out[t] += kernel[:, 0, tap] * values[at]
    return out


def attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    size, out = q.shape[1] // heads, []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
        out.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, part])
    return np.concatenate(out, axis=1)


def encoder_block(x: Array, w: dict[str, Array], config: SpeechConfig) -> Array:
    q, k, v = np.split(linear(norm(x, w, "norm1"), w, "self_attn.linear_q_k_v"), 3, axis=1)
    attended = linear(attention(q, k, v, config.heads), w, "self_attn.linear_out")
    attended = attended + memory(v, w["self_attn.fsmn_block.weight"], config.shift)
    x = attended + x if x.shape == attended.shape else attended
    inner = np.maximum(linear(norm(x, w, "norm2"), w, "feed_forward.w_1"), 0)
    return x + linear(inner, w, "feed_forward.w_2")


def decoder_block(x: Array, frames: Array, w: dict[str, Array], config: SpeechConfig) -> Array:
    inner = np.maximum(linear(norm(x, w, "norm1"), w, "feed_forward.w_1"), 0)
    inner = linear(norm(inner, w, "feed_forward.norm"), w, "feed_forward.w_2")
    if "norm2.weight" not in w:
        return inner
    x = x + memory(norm(inner, w, "norm2"), w["self_attn.fsmn_block.weight"], config.shift)
    q, (k, v) = (
        linear(norm(x, w, "norm3"), w, "src_attn.linear_q"),
        np.split(linear(frames, w, "src_attn.linear_k_v"), 2, axis=1),
    )
    return x + linear(attention(q, k, v, config.heads), w, "src_attn.linear_out")


def arrays(module: nn.Module) -> dict[str, Array]:
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def part(w: dict[str, Array], name: str) -> dict[str, Array]:
    return {key.removeprefix(f"{name}."): value for key, value in w.items() if key.startswith(f"{name}.")}


def by_steps(hidden: Array, alphas: Array) -> tuple[list[Array], list[int]]:
    """Integrate and fire one frame at a time; a frame fires as long as it takes the total to another whole number."""
    vectors, fires, total, done, current = [], [], 0.0, 0, np.zeros(hidden.shape[1])
    for t, alpha in enumerate(alphas.astype(np.float64)):
        before, total = total, total + alpha
        while total >= done + 1 - ROUNDING:
            current = current + max(min(total, done + 1) - max(before, done), 0) * hidden[t]
            vectors.append(current)
            fires.append(t)
            done, current = done + 1, np.zeros(hidden.shape[1])
        current = current + max(total - max(before, done), 0) * hidden[t]
    return vectors, fires


# --- SAN-M ---


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("inputs", [SMALL.dim, 14])
def test_an_encoder_block_agrees_with_a_plain_reference(inputs: int, shift: int) -> None:
    config = replace(SMALL, shift=shift)
    block = shaken(EncoderBlock(config, inputs))
    x = torch.randn(1, 9, inputs, dtype=torch.float64)
    expected = encoder_block(x[0].numpy(), arrays(block), config)
    np.testing.assert_allclose(block(x, torch.ones(1, 9, dtype=torch.bool))[0].detach(), expected, atol=1e-12)


def test_the_encoder_scales_adds_positions_and_normalises_last() -> None:
    encoder = shaken(Encoder(SMALL))
    x, lengths = features(9)
    w, half = arrays(encoder), SMALL.inputs // 2
    angles = np.arange(1, 10)[:, None] / 10_000 ** (np.arange(half) / (half - 1))
    row = x[0].numpy() * math.sqrt(SMALL.dim) + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for name in ("encoders0.0", "encoders.0", "encoders.1"):
        row = encoder_block(row, part(w, name), SMALL)
    np.testing.assert_allclose(encoder(x, lengths)[0].detach(), norm(row, w, "after_norm"), atol=1e-11)


@pytest.mark.parametrize("shift", [0, 2])
def test_the_decoder_agrees_with_a_plain_reference(shift: int) -> None:
    config = replace(SMALL, shift=shift)
    decoder = shaken(Decoder(config))
    vectors, counts = features(5, inputs=SMALL.dim)
    frames, lengths = features(9, inputs=SMALL.dim)
    w, x = arrays(decoder), vectors[0].numpy()
    for name in ("decoders.0", "decoders.1", "decoders3.0"):
        x = decoder_block(x, frames[0].numpy(), part(w, name), config)
    expected = linear(norm(x, w, "after_norm"), w, "output_layer")
    np.testing.assert_allclose(decoder(vectors, counts, frames, lengths)[0].detach(), expected, atol=1e-11)


@pytest.mark.parametrize("told", [False, True])
def test_what_padding_holds_changes_nothing(branch: SpeechBranch, told: bool) -> None:
    lengths = (12, 1, 7, 11)
    x, lengths_ = features(*lengths)
    counts = torch.tensor([4, 1, 2, 5]) if told else None
    batch = branch(x, lengths_, counts=counts)
    for row, length in enumerate(lengths):
        alone = branch(
            x[row : row + 1, :length], torch.tensor([length]), counts=counts[row : row + 1] if told else None
        )
        n = int(alone.counts)
        assert int(batch.counts[row]) == n
        assert batch.fires[row].tolist() == alone.fires[0].tolist() + [-1] * (batch.fires.shape[1] - n)
        torch.testing.assert_close(batch.expected[row], alone.expected[0])
        torch.testing.assert_close(batch.scores[row, :n], alone.scores[0, :n], rtol=0, atol=1e-10)
    for row, length in enumerate(lengths):
        x[row, length:] = 1e6
    again = branch(x, lengths_, counts=counts)
    real = torch.arange(again.scores.shape[1]) < again.counts.unsqueeze(1)
    torch.testing.assert_close(again.scores[real], batch.scores[real], rtol=0, atol=1e-10)


def test_a_row_without_frames_or_tokens_has_no_tokens_and_spoils_nothing(branch: SpeechBranch) -> None:
    x, _ = features(6, 6)
    heard = branch(x, torch.tensor([0, 6]))
    assert heard.counts[0] == 0
    assert heard.scores.isfinite().all()
    branch.train()
    branch.zero_grad()
    heard = branch(x, torch.tensor([0, 6]), torch.tensor([[1, 2], [0, 0]]), torch.tensor([2, 0]))
    (heard.scores[0].sum() + heard.expected.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in branch.parameters())
    assert branch(x, torch.tensor([0, 0])).counts.tolist() == [0, 0]


# --- continuous integrate-and-fire ---


def alphas_of(kind: str, rng: np.random.Generator, n: int) -> Array:
    match kind:
        case "any":
            return rng.random(n)
        case "small":
            return rng.random(n) * 0.1
        case "whole sums":
            return rng.choice([0.0, 0.125, 0.25, 0.5, 0.75, 1.0], n)
        case "tenths":
            return rng.integers(0, 11, n) / 10
        case "above one":
            return rng.random(n) * rng.choice([0.5, 4.0], n)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["any", "small", "whole sums", "tenths", "above one"])
def test_cif_agrees_with_a_loop_over_frames(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        lengths = [0, 1, *rng.integers(0, 60, 3)]
        alphas, hidden = np.zeros((5, 60)), rng.standard_normal((5, 60, 3))
        for row, n in enumerate(lengths):
            alphas[row, :n] = alphas_of(kind, rng, n)
        tokens = cif(torch.tensor(hidden), torch.tensor(alphas))
        for row in range(5):
            vectors, fires = by_steps(hidden[row], alphas[row])
            n = len(vectors)
            assert int(tokens.counts[row]) == n
            assert tokens.fires[row, :n].tolist() == fires
            assert (tokens.fires[row, n:] == -1).all() and (tokens.vectors[row, n:] == 0).all()
            np.testing.assert_allclose(tokens.vectors[row, :n], np.reshape(vectors, (n, 3)), atol=1e-12)


def test_cif_without_torch_is_the_same_with_a_tail() -> None:
    rng = np.random.default_rng(4)
    for n in [0, 1, *rng.integers(0, 40, 60)]:
        alphas, hidden = rng.random(n).astype(np.float32), rng.standard_normal((n, 3)).astype(np.float32)
        vectors, fires = integrate_and_fire(hidden, alphas)
        line = torch.tensor(np.append(alphas, np.float32(0.45))).unsqueeze(0)
        batch = cif(torch.tensor(np.append(hidden, np.zeros((1, 3), np.float32), axis=0)).unsqueeze(0), line)
        count = int(batch.counts)
        assert fires.tolist() == batch.fires[0, :count].tolist()
        np.testing.assert_allclose(vectors, batch.vectors[0, :count], atol=1e-5)


def test_one_frame_may_fire_several_tokens() -> None:
    """Weights .5, 2.75, .75: frame 1 fills token 0, is token 1 and a quarter of token 2, and more of token 3."""
    tokens = cif(torch.tensor([[[1.0], [10.0], [100.0]]]), torch.tensor([[0.5, 2.75, 0.75]]))
    assert tokens.vectors[0, :, 0].tolist() == [5.5, 10.0, 10.0, 77.5]
    assert tokens.fires[0].tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("count", [1, 3, 100, 400])
def test_scaled_weights_give_as_many_tokens_as_are_asked_for(count: int) -> None:
    """In float32, also where that is more than there are frames; each token takes a weight of one in all."""
    predictor = Predictor(replace(SMALL, dim=4))
    hidden = torch.randn(2, 150, 4)
    hidden[..., 0] = 1.0
    tokens, weights = predictor(hidden, torch.tensor([150, 90]), torch.tensor([count, 1]))
    assert tokens.counts.tolist() == [count, 1]
    torch.testing.assert_close(tokens.vectors[0, :, 0], torch.ones(count), rtol=0, atol=1e-5)
    assert (tokens.fires[0, 1:] >= tokens.fires[0, :-1]).all()
    assert tokens.fires[0, -1] < 150 and tokens.fires[1, 0] < 90
    torch.testing.assert_close(weights[0], predictor.alphas(hidden)[0])


def test_the_tail_completes_a_token_that_is_more_than_half_there() -> None:
    predictor = Predictor(replace(SMALL, dim=4))
    nn.init.zeros_(predictor.cif_output.weight)
    nn.init.constant_(predictor.cif_output.bias, math.log(0.3 / 0.7))  # every weight is .3
    tokens, weights = predictor(torch.ones(3, 6, 4), torch.tensor([1, 2, 5]))
    assert tokens.counts.tolist() == [0, 1, 1]
    assert tokens.fires[:, 0].tolist() == [-1, 2, 3]
    torch.testing.assert_close(weights.sum(1), torch.tensor([0.3, 0.6, 1.5]))


def test_gradients_of_cif_agree_with_finite_differences() -> None:
    """Of frames and weights, with counts of their own and with scaled ones; no total near a whole number."""
    hidden = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    alphas = torch.tensor([[0.3, 0.45, 0.4, 0.2, 0.15, 0.7, 0.1], [1.7, 0.6, 0.9, 0.3, 0.0, 0.0, 0.0]]).double()
    alphas.requires_grad_()
    assert torch.autograd.gradcheck(lambda h, a: cif(h, a).vectors, (hidden, alphas))
    predictor = shaken(Predictor(replace(SMALL, dim=3)))
    assert torch.autograd.gradcheck(
        lambda h: predictor(h, torch.tensor([7, 4]), torch.tensor([3, 2]))[0].vectors, (hidden,)
    )


# --- vector quantisation ---


def test_quantised_scores_are_rows_of_the_table_to_the_last_bit() -> None:
    table, scores = torch.randn(11, 6), torch.randn(2, 4, 11, requires_grad=True)
    quantiser = VectorQuantiser(table)
    embeddings = quantiser(scores)
    assert torch.equal(embeddings, table[scores.argmax(2)])
    assert torch.equal(quantiser(scores.detach()), embeddings)
    assert not quantiser.state_dict() and not list(quantiser.parameters())


def test_the_gradient_of_quantised_scores_is_that_of_the_softmax() -> None:
    table = torch.randn(5, 3, dtype=torch.float64)
    scores = (0.2 * torch.randn(1, 2, 5, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(1, 2, 3, dtype=torch.float64)
    (VectorQuantiser(table)(scores) * weights).sum().backward()
    step, expected = 1e-6, torch.zeros_like(scores)
    for at in np.ndindex(1, 2, 5):
        moved = torch.zeros_like(scores)
        moved[at] = step
        up, down = (torch.softmax((scores + sign * moved) / 0.1, 2) @ table for sign in (1, -1))
        expected[at] = ((up - down) * weights).sum() / (2 * step)
    torch.testing.assert_close(scores.grad, expected.detach(), rtol=1e-6, atol=1e-7)


# --- the sampler and training ---


def test_hints_are_a_share_of_the_wrong_tokens_anywhere_in_the_row() -> None:
    tokens, guessed = torch.zeros(3, 9, dtype=torch.long), torch.ones(3, 9, dtype=torch.long)
    guessed[1, 2:] = 0
    counts, seen = torch.tensor([9, 9, 5]), torch.zeros(3, 9)
    for _ in range(200):
        given = hints(guessed, tokens, counts, 0.75)
        assert given.sum(1).tolist() == [6, 1, 3]  # of 9, 2 and 5
        seen += given
    assert (seen[:2] > 0).all() and (seen[2, :5] > 0).all()
    assert (seen[2, 5:] == 0).all()


@pytest.mark.parametrize("shared", [True, False])
def test_the_second_pass_is_given_true_tokens(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = shaken(SpeechBranch(replace(SMALL, shared=shared, sampling=1.0)))
    passes: list[tuple[Tensor, bool]] = []
    decode = branch.decoder.forward
    monkeypatch.setattr(
        branch.decoder, "forward", lambda *x: (passes.append((x[0], torch.is_grad_enabled())), decode(*x))[1]
    )
    monkeypatch.setattr(
        paraformer, "hints", lambda guessed, *_: torch.ones_like(guessed).bool() & (torch.arange(3) < 2)
    )
    x, lengths = features(9, 7)
    tokens = torch.tensor([[1, 2, 3, -1], [4, 5, -1, -1]])
    heard = branch(x, lengths, tokens, torch.tensor([3, 2]))
    (first, without), (second, with_gradient) = passes
    table = branch.decoder.output_layer.weight if shared else branch.decoder.embed[0].weight
    assert (without, with_gradient) == (False, True)
    assert torch.equal(second[:, :2], table[tokens[:, :2]])
    assert torch.equal(second[:, 2], first[:, 2])
    assert heard.scores.shape == (2, 3, SMALL.vocabulary)
    passes.clear()
    branch.eval()(x, lengths, tokens, torch.tensor([3, 2]))
    assert len(passes) == 1


def test_every_weight_gets_a_gradient_through_quantiser_and_cif(branch: SpeechBranch) -> None:
    branch.train()
    x, lengths = features(12, 9)
    heard = branch(x, lengths, torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    embeddings = VectorQuantiser(torch.randn(SMALL.vocabulary, 6, dtype=torch.float64))(heard.scores)
    (embeddings.square().sum() + heard.expected.sum()).backward()
    without = [name for name, weight in branch.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


def test_in_half_precision_the_weights_are_still_summed_in_full() -> None:
    branch = SpeechBranch(SMALL).train()
    x, lengths = torch.randn(2, 40, SMALL.inputs), torch.tensor([40, 31])
    with torch.autocast("cpu", torch.bfloat16):
        heard = branch(x, lengths, torch.randint(11, (2, 30)), torch.tensor([30, 7]))
        loss = VectorQuantiser(torch.randn(11, 6))(heard.scores).square().sum() + heard.expected.sum()
    loss.backward()
    assert heard.counts.tolist() == [30, 7]
    assert heard.expected.dtype == torch.float64
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in branch.parameters())


def test_dropout_is_for_training_only() -> None:
    branch = SpeechBranch(replace(SMALL, dropout=0.5))
    x, lengths = torch.randn(1, 9, SMALL.inputs), torch.tensor([9])
    once, again = (branch(x, lengths, counts=torch.tensor([3])).scores for _ in range(2))
    assert not torch.equal(once, again)
    branch.eval()
    once, again = (branch(x, lengths, counts=torch.tensor([3])).scores for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize(("size", "millions"), [("laptop", 12.33), ("base", 56.29), ("paraformer-large", 220.08)])
def test_sizes_have_the_parameters_that_they_are_said_to_have(size: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in SpeechBranch(SIZES[size]).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


# --- FunASR itself ---


@pytest.fixture(scope="module")
def funasr() -> SimpleNamespace:
    """FunASR's own modules; the tests above do without."""
    names = {
        "model": "paraformer.model",
        "cif": "paraformer.cif_predictor",
        "_e": "sanm.encoder",
        "_d": "paraformer.decoder",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {key: importlib.import_module(f"funasr.models.{name}") for key, name in names.items()}
            found["front"] = importlib.import_module("funasr.frontends.wav_frontend")
    except ImportError as error:
        pytest.skip(
            f"FunASR's modules cannot be imported ({error}); pip install --no-deps funasr, and what it asks for"
        )
    return SimpleNamespace(**found)


def theirs(funasr: SimpleNamespace, config: SpeechConfig) -> nn.Module:
    both = {"attention_heads": config.heads, "linear_units": config.hidden, "dropout_rate": 0.0}
    both |= {"kernel_size": config.kernel, "sanm_shfit": config.shift}
    model = funasr.model.Paraformer(
        encoder="SANMEncoder",
        encoder_conf={"output_size": config.dim, "num_blocks": config.encoder_blocks, "input_layer": "pe", **both},
        decoder="ParaformerSANMDecoder",
        decoder_conf={"num_blocks": config.decoder_blocks, "att_layer_num": config.decoder_blocks, **both},
        predictor="CifPredictorV2",
        predictor_conf={"idim": config.dim, "l_order": 1, "r_order": 1, "tail_threshold": config.tail},
        ctc_weight=0.0,
        input_size=config.inputs,
        vocab_size=config.vocabulary,
        share_embedding=config.shared,
        sampling_ratio=config.sampling,
    )
    return shaken(model)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shift", [0, 2])
def test_scores_and_gradients_are_those_of_funasr(funasr: SimpleNamespace, shift: int, shared: bool) -> None:
    config = replace(SMALL, shift=shift, shared=shared)
    their, our = theirs(funasr, config).eval(), SpeechBranch(config).double().eval()
    our.load_state_dict(their.state_dict())
    x, lengths = features(13)
    for count in (None, torch.tensor([4])):
        frames, _ = their.encode(x, lengths)
        mask = torch.ones(1, 1, 13, dtype=torch.float64)
        vectors, expected, _, _ = their.predictor(frames, None, mask, target_label_length=count)
        n = expected.floor().long() if count is None else count
        scores = their.decoder(frames, lengths, vectors, n)[0]
        heard = our(x, lengths, counts=count)
        assert heard.counts.tolist() == n.tolist()
        torch.testing.assert_close(heard.scores, scores, rtol=0, atol=1e-5)  # their sums of weights are float32
        our.zero_grad()
        their.zero_grad()
        (heard.scores.sin().sum() + heard.expected.sum()).backward()
        (scores.sin().sum() + their.predictor(frames, None, mask)[2].sum()).backward()
        ours = dict(our.named_parameters())
        for name, weight in their.named_parameters():
            if weight.grad is not None:
                torch.testing.assert_close(ours[name].grad, weight.grad, rtol=1e-4, atol=1e-5)


def test_cif_and_its_gradients_are_those_of_funasr(funasr: SimpleNamespace) -> None:
    """With weights below 1, and no total within their float32 rounding of a whole number."""
    for _ in range(20):
        hidden, alphas = torch.randn(4, 50, 3, dtype=torch.float64), torch.rand(4, 50, dtype=torch.float64) * 0.9
        alphas *= torch.arange(50) < torch.tensor([[50], [1], [20], [33]])
        sides = []
        for function in (lambda h, a: cif(h, a).vectors, lambda h, a: funasr.cif.cif_v1(h, a, 1.0)[0]):
            h, a = (x.clone().requires_grad_() for x in (hidden, alphas))
            vectors = function(h, a)
            vectors.sin().sum().backward()
            sides.append((vectors, h.grad, a.grad))
        (ours, *our_gradients), (theirs_, *their_gradients) = sides
        torch.testing.assert_close(theirs_[:, : ours.shape[1]], ours, rtol=0, atol=2e-5)
        assert not theirs_[:, ours.shape[1] :].any()  # they round up how many there may be
        torch.testing.assert_close(our_gradients, their_gradients, rtol=0, atol=1e-4)


def test_encoder_and_decoder_are_those_of_funasr_on_padded_batches(funasr: SimpleNamespace) -> None:
    their, our = theirs(funasr, SMALL).eval(), SpeechBranch(SMALL).double().eval()
    our.load_state_dict(their.state_dict())
    x, lengths = features(13, 5, 9)
    vectors, counts = features(4, 2, 3, inputs=SMALL.dim)
    frames, _ = their.encode(x, lengths)
    scores = their.decoder(frames, lengths, vectors, counts)[0]
    our_frames = our.encoder(x, lengths)
    our_scores = our.decoder(vectors, counts, our_frames, lengths)
    for row in range(3):
        torch.testing.assert_close(our_frames[row, : lengths[row]], frames[row, : lengths[row]], rtol=0, atol=1e-12)
        torch.testing.assert_close(our_scores[row, : counts[row]], scores[row, : counts[row]], rtol=0, atol=1e-11)


def test_funasr_gives_as_many_hints(funasr: SimpleNamespace) -> None:
    their = theirs(funasr, SMALL)
    x, lengths = features(13, 9)
    tokens, counts = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, -1, -1]]), torch.tensor([5, 3])
    frames, _ = their.encode(x, lengths)
    vectors = torch.randn(2, 5, SMALL.dim, dtype=torch.float64) * (torch.arange(5) < counts.unsqueeze(1)).unsqueeze(2)
    guessed = their.decoder(frames, lengths, vectors, counts)[0].argmax(2)
    mixed, _ = their.sampler(frames, lengths, tokens, counts, vectors)
    given = (mixed != vectors).any(2)
    assert given.sum(1).tolist() == hints(guessed, tokens, counts, 0.75).sum(1).tolist()
    assert torch.equal(mixed[given], their.decoder.output_layer.weight[tokens[given]])


@pytest.mark.parametrize("shared", [True, False])
def test_funasr_reads_our_folder(funasr: SimpleNamespace, tmp_path: Path, shared: bool) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    cmvn = Cmvn(*np.random.default_rng(0).standard_normal((2, SMALL.inputs)).astype(np.float32))
    checkpoint.save(tmp_path, SpeechBranch(replace(SMALL, shared=shared)), cmvn)
    config = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(tmp_path / "config.yaml"))
    model = funasr.model.Paraformer(**config, **config["model_conf"])
    model.load_state_dict(torch.load(tmp_path / "model.pt"))
    constants = funasr.front.load_cmvn(str(tmp_path / "am.mvn")).numpy()
    np.testing.assert_array_equal(constants, [cmvn.shift, cmvn.scale])


@pytest.mark.parametrize("n", [400, 2_000, 2_640, 16_000, 23_456])
def test_the_front_end_is_that_of_funasr(funasr: SimpleNamespace, n: int, tmp_path: Path) -> None:
    pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    rng = np.random.default_rng(0)
    cmvn = Cmvn(*(rng.random((2, STACKED)).astype(np.float32)))
    checkpoint.save(tmp_path, SpeechBranch(SMALL), cmvn)
    front = funasr.front.WavFrontend(str(tmp_path / "am.mvn"), lfr_m=7, lfr_n=6, dither=0.0)
    samples = (0.1 * rng.standard_normal(n)).cumsum().clip(-1, 1).astype(np.float32)
    expected, (length,) = front(torch.tensor(samples)[None], torch.tensor([n]))
    ours = cmvn(low_frame_rate(fbank(samples)))
    assert len(ours) == length
    np.testing.assert_allclose(ours, expected[0], atol=5e-4)


# --- tokens whose frames are known, or found from their ends ---


def test_tokens_whose_ends_are_known_are_sums_of_their_frames() -> None:
    """By the weights, in parts of frames too; nothing where a token has no frame."""
    hidden = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
    alphas = torch.tensor([[0.5, 0.25, 0.25, 0.1]])
    found = aligned(hidden, alphas, torch.tensor([[1.0, 2.5, 2.5, 4.0]]))
    expected = [0.5, 2 * 0.25 + 4 * 0.125, 0.0, 4 * 0.125 + 8 * 0.1]
    torch.testing.assert_close(found[0, :, 0], torch.tensor(expected))


def test_found_tokens_are_pooled_as_told_ones_are() -> None:
    rng = np.random.default_rng(0)
    hidden, alphas = rng.normal(size=(40, 5)).astype(np.float32), rng.uniform(size=40).astype(np.float32)
    ends = np.array([3, 4, 17, 40, 80])
    told = aligned(torch.tensor(hidden)[None], torch.tensor(alphas)[None], torch.tensor(ends)[None] / HALVES)
    np.testing.assert_allclose(pool(hidden, alphas, ends), told[0].numpy(), atol=1e-5)
    assert pool(hidden, alphas, ends[:0]).shape == (0, 5)


def test_ends_are_those_of_all_sets_that_earn_most() -> None:
    """Against every set of ends of a short stretch."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(1, 6))
        log_odds, alphas = (
            rng.normal(size=HALVES * n).astype(np.float32) * 3 - 1,
            rng.uniform(size=n).astype(np.float32),
        )
        line = np.concatenate([[0], np.cumsum(np.repeat(alphas / HALVES, HALVES).astype(np.float64))])
        scores = {}
        for chosen in range(1 << HALVES * n):
            ends = [k + 1 for k in range(HALVES * n) if chosen >> k & 1]
            weights = np.diff(line[[0, *ends]])
            off = ((weights - 1) ** 2).sum() + (line[-1] - line[ends[-1] if ends else 0]) ** 2
            scores[tuple(ends)] = sum(log_odds[k - 1] + EAGER for k in ends) - OFF * off
        assert tuple(find_ends(log_odds, alphas).tolist()) == max(scores, key=lambda ends: scores[ends])
    assert find_ends(np.zeros(0, np.float32), np.zeros(0, np.float32)).tolist() == []


def test_an_end_that_is_sure_sets_a_wrong_count_right() -> None:
    """Weights that come to 1.15 a token: integrate-and-fire has told one too many after seven, ends have not."""
    alphas = np.full(40, 1.15 / 4, np.float32)
    log_odds = np.full(80, -6.0, np.float32)
    log_odds[7::8] = 6.0
    assert find_ends(log_odds, alphas).tolist() == list(range(8, 81, 8))
    assert len(integrate_and_fire(np.zeros((40, 1), np.float32), alphas)[0]) == 11


def test_each_found_end_is_labelled_with_the_token_that_ends_there() -> None:
    """At most one each, in order; what is too far off, or has no end left, is told nowhere."""
    ends = torch.tensor([[2.0, 4.0, 5.0, 9.0, 20.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    true = torch.tensor([[2.5, 4.4, 4.6, 12.0, 19.0], [1.0, 3.5, 0.0, 0.0, 0.0]])
    tokens = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]])
    found = labels(ends, torch.tensor([5, 1]), true, tokens, torch.tensor([5, 2]))
    assert found.tolist() == [[11, 12, 13, BLANK, 15], [22, BLANK, BLANK, BLANK, BLANK]]


@pytest.fixture
def sounding() -> SpeechBranch:
    branch = shaken(SpeechBranch(replace(SMALL, table=9, sound=5)))
    assert isinstance(branch, SpeechBranch) and branch.sound is not None
    nn.init.normal_(branch.sound.projection)
    nn.init.normal_(branch.decoder.output_layer.table)  # type: ignore[union-attr, arg-type]
    return branch


def test_a_branch_with_sounds_hears_the_same_whatever_is_beside(sounding: SpeechBranch) -> None:
    """Padding changes nothing, and every weight gets a gradient."""
    features, lengths = torch.randn(2, 20, 14).double(), torch.tensor([20, 9])
    whole, alone = sounding(features, lengths), sounding(features[1:, :9], lengths[1:])
    n = int(alone.counts[0])
    assert int(whole.counts[1]) == n > 1
    torch.testing.assert_close(whole.scores[1, :n], alone.scores[0])
    torch.testing.assert_close(whole.borders[1, :18], alone.borders[0])
    assert (whole.fires[0, : int(whole.counts[0])].diff() >= 0).all() and whole.labels is None
    tokens, ends = torch.ones(2, 4, dtype=torch.long), torch.tensor([[3.0, 8, 12.5, 20], [4, 9, 9, 9]]).double()
    heard = sounding.train()(features, lengths, tokens, torch.tensor([4, 2]), ends)
    assert heard.labels.shape == heard.scores.shape[:2] and heard.labels.sum() > 0
    (heard.scores.sin().sum() + heard.borders.sin().sum()).backward()
    for name, weight in sounding.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_a_sound_may_be_of_several_pieces(sounding: SpeechBranch) -> None:
    """Spans of the piece itself, with the one before, and with the two before."""
    assert sounding.sound is not None
    sums = torch.randn(1, 4, 5).double()
    queries = sounding.sound.queries(sums)
    for k in range(4):
        for span in range(3):
            together = sums[0, max(0, k - span) : k + 1].sum(0)
            torch.testing.assert_close(queries[0, k, span], sounding.sound.onto(together / together.norm()))


def test_pieces_are_of_one_token_each_in_the_likeliest_way() -> None:
    """Against every way to cover a few pieces."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        n = int(rng.integers(1, 7))
        blank, spans = (
            rng.uniform(0.02, 0.98, n).astype(np.float32),
            np.log(rng.dirichlet(np.ones(3), n)).astype(np.float32),
        )
        ways: dict[tuple[bool, ...], float] = {}

        def cover(
            end: int, said: tuple[bool, ...], score: float, blank: Array, spans: Array, ways: dict[Any, float]
        ) -> None:
            if not end:
                ways[said] = max(ways.get(said, -math.inf), score)
                return
            alone = score + math.log(blank[end - 1]) - ALONE
            cover(end - 1, (False, *said), alone, blank, spans, ways)
            for k in range(1, min(3, end) + 1):
                inside = sum(math.log(blank[j]) for j in range(end - k, end - 1))
                token = score + math.log(1 - blank[end - 1]) + spans[end - 1, k - 1] + inside
                cover(end - k, (*[False] * (k - 1), True, *said), token, blank, spans, ways)

        cover(n, (), 0.0, blank, spans, ways)
        found = tuple(told(blank, spans).tolist())
        assert ways[found] == pytest.approx(max(ways.values()), abs=1e-5)
    assert told(np.zeros(0, np.float32), np.zeros((0, 3), np.float32)).tolist() == []

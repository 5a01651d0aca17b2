"""Losses against examples worked by hand, plain loops, and float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn.functional import normalize  # noqa: E402

from earshot.encoders.clock import GRID  # noqa: E402
from earshot.train.losses import (  # noqa: E402
    clap,
    clap_views,
    distillation,
    dwd,
    multiview,
    nt_xent,
    reconstruction,
    semi_hard,
    siamese,
)
from earshot.train.span_losses import (  # noqa: E402
    Spans,
    border_cross_entropy,
    detection,
    one_example,
    phone_cross_entropy,
)


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


WORDS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
"""Two instances each of words 0 and 1; cosines .8, .6, 0 | .96, .6 | .8."""
LABELS = torch.tensor([0, 0, 1, 1])


def test_distillation_by_hand() -> None:
    """Three words; text 0 is like text 1 (.6) and unlike text 2 (0), and so on; speech is alike all around."""
    text = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    audio = normalize(torch.ones(3, 3) + torch.eye(3), dim=1)
    cosine = audio @ audio.T
    total = 0.0
    for i in range(3):
        others = [j for j in range(3) if j != i]
        wanted = [math.exp(2 * float(text[i] @ text[j])) for j in others]
        found = [math.exp(2 * float(cosine[i, j])) for j in others]
        total -= sum(w / sum(wanted) * math.log(f / sum(found)) for w, f in zip(wanted, found, strict=True))
    loss = distillation(audio, text, torch.arange(3), torch.tensor(2.0))
    assert float(loss) == pytest.approx(total / 3, rel=1e-5)


def test_distillation_is_least_where_speech_is_as_its_texts_are() -> None:
    generator = torch.Generator().manual_seed(0)
    text = normalize(torch.randn(6, 4, generator=generator), dim=1)
    same, other = text[[0, 1, 2, 3]].clone().requires_grad_(), normalize(torch.randn(4, 4, generator=generator), dim=1)
    scale = torch.tensor(5.0)
    loss = distillation(same, text, torch.arange(4), scale)
    loss.backward()
    assert same.grad is not None and float(same.grad.abs().max()) < 1e-5
    assert loss.item() < float(distillation(other, text, torch.arange(4), scale))


def test_siamese_by_hand() -> None:
    """Margin .5, own cosine .8 for all four ordered pairs. Greatest wrong cosine below it: .6, .6, .6, .6."""
    assert float(siamese(WORDS, LABELS, 0.5)) == pytest.approx(0.5 - 0.8 + 0.6, rel=1e-5)
    assert float(siamese(WORDS, LABELS, 0.1)) == 0


def test_a_negative_is_semi_hard_or_else_the_easiest() -> None:
    cosine = torch.tensor([[0.9, 0.5, 0.2], [0.9, 0.8, 0.7]])
    own = torch.tensor([0.6, 0.6])
    assert semi_hard(own, cosine, torch.ones(2, 3, dtype=torch.bool)).tolist() == [1, 2]
    assert semi_hard(own, cosine, torch.tensor([[True, False, True], [True, True, False]])).tolist() == [2, 1]


def test_nt_xent_by_hand() -> None:
    """Each ordered pair (.8) against its first word's wrong cosines: .6 and 0, or .96 and .6."""
    outer, inner = (math.log(1 + sum(math.exp((c - 0.8) / 0.5) for c in wrong)) for wrong in ((0.6, 0.0), (0.96, 0.6)))
    assert float(nt_xent(WORDS, LABELS, 0.5)) == pytest.approx((outer + inner) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "wrong"),
    [(0, (0.0, 0.6, 0.6, 0.0)), (1, (0.0, 0.0, 0.0, 0.0)), (2, (0.6, 0.6, 0.6, 0.6)), (3, (0.6, 0.6, 0.6, 0.6))],
)
def test_multiview_by_hand(objective: int, wrong: tuple[float, ...]) -> None:
    """Texts (1, 0) and (0, 1): own cosines 1, .8, .8, 1. Objective 2: text 0 to word 1, .6 and 0; the greater counts.

    Objective 3: spoken words to those of the other word, .6 and 0, or .96 and .6, of which .96 is above the own .8.
    """
    own = (1.0, 0.8, 0.8, 1.0)
    expected = sum(max(0.0, 0.7 - o + w) for o, w in zip(own, wrong, strict=True)) / 4
    assert float(multiview(WORDS, torch.eye(2), LABELS, 0.7, objective)) == pytest.approx(expected, rel=1e-5)


def test_reconstruction_leaves_padding_out() -> None:
    made, target = torch.zeros(2, 3, 2), torch.ones(2, 3, 2)
    target[1, 1:] = 100
    target[0, 0] = 3
    assert float(reconstruction(made, target, torch.tensor([3, 1]))) == pytest.approx((9 + 1 + 1 + 1) / 4)


@pytest.mark.parametrize("loss", [lambda a, k: siamese(a, k, 0.5), lambda a, k: nt_xent(a, k, 0.1)])
def test_pair_losses_without_a_repeated_word_are_zero_and_have_a_gradient(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    audio = torch.eye(3, requires_grad=True)
    found = loss(audio, torch.tensor([0, 1, 2]))
    found.backward()
    assert found.item() == 0
    assert audio.grad is not None
    assert bool(torch.isfinite(audio.grad).all())


@pytest.mark.parametrize("loss", [lambda a, k: siamese(a, k, 0.5), lambda a, k: nt_xent(a, k, 0.1)])
def test_pair_losses_of_one_word_alone_are_finite(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    audio = normalize(torch.randn(3, 4), dim=1).requires_grad_()
    found = loss(audio, torch.zeros(3, dtype=torch.long))
    found.backward()
    assert found.item() == 0
    assert bool(torch.isfinite(audio.grad).all())


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "clap": lambda audio, text, labels, scale: clap(audio, text, labels, scale),
    "clap_views": lambda audio, text, labels, scale: clap_views(audio.view(len(text), -1, audio.shape[1]), text, scale),
    "dwd": lambda audio, text, labels, scale: dwd(audio, labels, scale),
    "distillation": lambda audio, text, labels, scale: distillation(audio, text, labels, scale),
    "siamese": lambda audio, text, labels, scale: siamese(audio, labels, float(scale) / 20),
    "nt_xent": lambda audio, text, labels, scale: nt_xent(audio, labels, 1 / float(scale)),
    **{
        f"multiview_{k}": lambda audio, text, labels, scale, k=k: multiview(audio, text, labels, float(scale) / 20, k)
        for k in range(4)
    },
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_float64(seed: int, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio = normalize(torch.randn(36, 16, generator=generator, dtype=torch.float64), dim=1)
    text = normalize(torch.randn(9, 16, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.arange(36) // 4
    for scale in (1.0, 30.0):
        s = torch.tensor(scale, dtype=torch.float64)
        single = float(LOSSES[name](audio.float(), text.float(), labels, s.float()))
        assert single == pytest.approx(float(LOSSES[name](audio, text, labels, s)), rel=1e-4)


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


def test_clap_of_views_by_hand() -> None:
    text = torch.eye(2)
    audio = text.unsqueeze(1).repeat(1, 3, 1)
    assert clap_views(audio, text, torch.tensor(3.0)).item() == pytest.approx(math.log(1 + math.exp(-3.0)), rel=1e-5)

"""Checkpoints in FunASR's format: there and back, and one line for whatever cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from earshot.features import Cmvn  # noqa: E402
from earshot.train.clsr import checkpoint  # noqa: E402
from earshot.train.clsr.config import SIZES, SpeechConfig  # noqa: E402
from earshot.train.clsr.paraformer import SpeechBranch  # noqa: E402
from earshot.types import EncoderError  # noqa: E402

SMALL = SpeechConfig(vocabulary=11, inputs=14, dim=8, heads=2, hidden=12, encoder_blocks=3, decoder_blocks=2, kernel=5)
CONSTANTS = Cmvn(
    np.linspace(-9, -7, SMALL.inputs, dtype=np.float32), np.linspace(0.1, 0.3, SMALL.inputs, dtype=np.float32)
)


@pytest.fixture(params=[True, False])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    torch.manual_seed(1)
    checkpoint.save(tmp_path, SpeechBranch(replace(SMALL, shared=request.param, tail=0.4, shift=1)), CONSTANTS)
    return tmp_path


def test_what_is_saved_is_loaded(folder: Path) -> None:
    model, state = checkpoint.load(folder), torch.load(folder / "model.pt")
    assert model.config == replace(SMALL, shared="decoder.embed.0.weight" not in state, tail=0.4, shift=1)
    assert not model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.device.type == "cpu" for weight in model.parameters())
    found = checkpoint.read_cmvn(folder / "am.mvn")
    np.testing.assert_array_equal(found.shift, CONSTANTS.shift)
    np.testing.assert_array_equal(found.scale, CONSTANTS.scale)
    x, lengths = torch.randn(1, 9, SMALL.inputs), torch.tensor([9])
    other = SpeechBranch(model.config).eval()
    other.load_state_dict(state)
    assert torch.equal(model(x, lengths).expected, other(x, lengths).expected)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_bare_file_needs_a_configuration_and_may_be_wrapped(folder: Path, wrapper: str) -> None:
    config = checkpoint.load(folder).config
    torch.save({wrapper: torch.load(folder / "model.pt"), "epoch": 3}, folder / "run.pt")
    (folder / "config.yaml").unlink()
    assert checkpoint.load(folder / "run.pt", config).config == config
    with pytest.raises(EncoderError, match=r"config\.yaml: cannot read it \(No such file or directory\)"):
        checkpoint.load(folder / "run.pt")


def edited(folder: Path, old: str, new: str) -> Path:
    text = (folder / "config.yaml").read_text()
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new, 1))
    return folder


def state_with(folder: Path, **changes: Tensor | None) -> Path:
    state = torch.load(folder / "model.pt") | {key.replace("__", "."): value for key, value in changes.items()}
    torch.save({key: value for key, value in state.items() if value is not None}, folder / "model.pt")
    return folder


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path.parent


def rewritten(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path.parent


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (lambda f: f / "nowhere", r"nowhere: cannot read the weights \(No such file or directory\)"),
        (lambda f: cut(f / "model.pt"), r"model\.pt: not a file of weights, or cut off; copy it again"),
        (lambda f: rewritten(f / "model.pt", b""), r"model\.pt: not a file of weights, or cut off; copy it again"),
        (lambda f: rewritten(f / "model.pt", b"RIFF1234"), r"model\.pt: not a file of weights, or cut off"),
        (lambda f: state_with(f, vad=torch.zeros(1)), r"weights that this model does not have: vad; its config"),
        (lambda f: state_with(f, a=torch.zeros(1), b=torch.zeros(1)), r"does not have: a and 1 more; its config"),
        (lambda f: state_with(f, predictor__cif_output__bias=None), r"no weights: predictor\.cif_output\.bias; its"),
        (lambda f: state_with(f, decoder__output_layer__bias=None), r"not the weights of a Paraformer: no decoder"),
        (
            lambda f: edited(f, "output_size: 8", "output_size: 6"),
            r"another shape: d",
        ),
        (lambda f: edited(f, "heads: 2", "heads: 4"), r"encoder and decoder differ in attention_heads, and only equal"),
        (lambda f: edited(f, "num_blocks: 2", "num_blocks: 6"), r"decoder blocks without attention, other than the"),
        (lambda f: edited(f, "SANMEncoder", "Conformer"), r"encoder is Conformer, and only SANMEncoder can be loaded"),
        (lambda f: edited(f, "threshold: 1.0", "threshold: 0.9"), r"predictor_conf\.threshold is 0\.9, and only 1 can"),
        (lambda f: edited(f, "  l_order: 1\n", ""), r"predictor_conf\.l_order is nothing, and only 1 can be loaded"),
        (lambda f: edited(f, "output_size: 8", "output_size: x"), r"config\.yaml: not a configuration of Paraformer"),
        (lambda f: edited(f, "  output_size: 8\n", ""), r"says nothing of encoder_conf\.output_size; it is not"),
        (lambda f: rewritten(f / "config.yaml", b"\xff\xfe\x00"), r"config\.yaml: not a text file"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_one_line(
    folder: Path, broken: Callable[[Path], Path], line: str
) -> None:
    with pytest.raises(EncoderError, match=line) as error:
        checkpoint.load(broken(folder))
    assert "\n" not in str(error.value)


def test_a_configuration_as_funasr_writes_it_is_read(tmp_path: Path) -> None:
    """With comments, quotes, lists, deeper mappings, values left out, and sections that are of no concern."""
    (tmp_path / "config.yaml").write_text(
        """\
# This is a comment: with a colon
model: Paraformer
model_conf:
    lsm_weight: 0.1
    sampling_ratio: 0.5   # lambda
encoder: SANMEncoder
encoder_conf: {units}
    output_size: 512
    num_blocks: 50
    input_layer: 'pe'
decoder: ParaformerSANMDecoder
decoder_conf: {units}
    num_blocks: 16
    att_layer_num: 16

predictor: CifPredictorV2
predictor_conf:
  idim: 512
  l_order: 1
  r_order: 1
  tail_threshold: 0.45
specaug_conf:
    freq_mask_width_range:
    - 0
    - 30
train_conf:
  best_model_criterion:
  -   - valid
      - acc
tokenizer_conf: null
""".replace(
            "{units}",
            """
    attention_heads: 4
    linear_units: 2048
    dropout_rate: 0.1
    kernel_size: 11
    sanm_shfit: 0""",
        )
    )
    expected = replace(SIZES["paraformer-large"], vocabulary=30_522, shared=True, sampling=0.5)
    assert checkpoint.read_config(tmp_path / "config.yaml") == expected


def test_a_checkpoint_of_another_vocabulary_is_one_line(folder: Path) -> None:
    assert checkpoint.load(folder, vocabulary=11).config.vocabulary == 11
    line = r"model\.pt: an output layer of 11 tokens, not 30522; give it the vocabulary that it was trained with$"
    with pytest.raises(EncoderError, match=line):
        checkpoint.load(folder, vocabulary=30_522)
    with pytest.raises(EncoderError, match=line):
        checkpoint.load(folder, replace(SMALL, vocabulary=30_522))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", r"am\.mvn: no whole <AddShift>; it is cut off or another kind of file"),
        (b"<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 2 ]\n<Rescale> 2 2\n<LearnRateCoef> 0 [ 1 ", r"no whole <Rescale>"),
        (b"<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 ]\n", r"no whole <AddShift>"),
        (b"<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 x ]\n", r"<AddShift> is not all numbers"),
    ],
)
def test_constants_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "am.mvn"
    with pytest.raises(EncoderError, match=r"am\.mvn: cannot read it"):
        checkpoint.read_cmvn(path)
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=line):
        checkpoint.read_cmvn(path)

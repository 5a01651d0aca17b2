"""Checkpoints of the speech branch, in FunASR's format: a folder with `model.pt`, `config.yaml` and `am.mvn`.

In: such a folder or a bare state dict, trained by FunASR or here. Out: a `SpeechBranch` and its `Cmvn`; and the way
back. EncoderError, one line, for whatever cannot be read. Knows nothing of training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from earshot.features import Cmvn
from earshot.train.clsr.config import SpeechConfig
from earshot.train.clsr.paraformer import SpeechBranch
from earshot.types import EncoderError

WEIGHTS, CONFIG, CMVN = "model.pt", "config.yaml", "am.mvn"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which a training run's file keeps its state dict."""
_FIXED = {
    "model": "Paraformer",
    "encoder": "SANMEncoder",
    "decoder": "ParaformerSANMDecoder",
    "predictor": "CifPredictorV2",
    "encoder_conf.input_layer": "pe",
    "predictor_conf.l_order": "1",
    "predictor_conf.r_order": "1",
}
"""What a configuration has to say for the model to be the one that is built here."""
_USUAL = {"predictor_conf.threshold": "1", "predictor_conf.smooth_factor": "1", "predictor_conf.noise_threshold": "0"}
"""What it may leave out, but not say otherwise."""


def load(path: Path, config: SpeechConfig | None = None, vocabulary: int | None = None) -> SpeechBranch:
    """The model in the folder `path`, or in the file `path`, with `config` or the `config.yaml` beside the weights.

    `vocabulary`, or else that of `config`, says how many tokens its output layer must have. In float32, on the CPU, in
    evaluation mode.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    state = _read_state(weights)
    expected = vocabulary or (config.vocabulary if config else None)
    config = _fitted(config or read_config(weights.with_name(CONFIG)), state, weights)
    if expected not in (None, config.vocabulary):
        raise EncoderError(
            f"{weights}: an output layer of {config.vocabulary} tokens, not {expected}; "
            "give it the vocabulary that it was trained with"
        )
    with torch.device("meta"):
        model = SpeechBranch(config)
    wanted = model.state_dict()
    _refuse(weights, "weights that this model does not have", state.keys() - wanted.keys())
    _refuse(weights, "no weights", wanted.keys() - state.keys())
    _refuse(weights, "weights of another shape", (k for k, value in wanted.items() if value.shape != state[k].shape))
    model.load_state_dict(state, assign=True)
    return model.eval()


def save(folder: Path, model: SpeechBranch, cmvn: Cmvn) -> None:
    """Write `model` and what normalises its features into `folder`, as FunASR would."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / WEIGHTS)
    (folder / CONFIG).write_text(_config_text(model.config))
    (folder / CMVN).write_text(_cmvn_text(cmvn))


def read_config(path: Path) -> SpeechConfig:
    """Dimensions from FunASR's `config.yaml`; sizes that it leaves to the weights are the default ones."""
    found = _USUAL | _settings(path)
    for key, value in (_FIXED | _USUAL).items():
        if found.get(key, "nothing").removesuffix(".0") != value:
            raise EncoderError(f"{path}: {key} is {found.get(key, 'nothing')}, and only {value} can be loaded")
    for key in ("attention_heads", "linear_units", "kernel_size", "sanm_shfit"):
        if found.get(f"encoder_conf.{key}") != found.get(f"decoder_conf.{key}"):
            raise EncoderError(f"{path}: encoder and decoder differ in {key}, and only equal ones can be loaded")
    if found.get("decoder_conf.num_blocks") != found.get("decoder_conf.att_layer_num"):
        raise EncoderError(f"{path}: decoder blocks without attention, other than the last, cannot be loaded")
    try:
        return SpeechConfig(
            dim=int(found["encoder_conf.output_size"]),
            heads=int(found["encoder_conf.attention_heads"]),
            hidden=int(found["encoder_conf.linear_units"]),
            encoder_blocks=int(found["encoder_conf.num_blocks"]),
            decoder_blocks=int(found["decoder_conf.num_blocks"]),
            kernel=int(found["encoder_conf.kernel_size"]),
            shift=int(found["encoder_conf.sanm_shfit"]),
            dropout=float(found["encoder_conf.dropout_rate"]),
            tail=float(found["predictor_conf.tail_threshold"]),
            sampling=float(found["model_conf.sampling_ratio"]),
        )
    except KeyError as error:
        raise EncoderError(f"{path}: says nothing of {error.args[0]}; it is not a whole configuration") from error
    except ValueError as error:
        raise EncoderError(f"{path}: not a configuration of Paraformer ({error})") from error


def read_cmvn(path: Path) -> Cmvn:
    """Shifts and scales from an `am.mvn`: a Kaldi network in text form with <AddShift> and <Rescale>."""
    text, vectors = _text(path), []
    for name in ("AddShift", "Rescale"):
        found = re.search(rf"<{name}>\s+(\d+)\s+\d+\s+<LearnRateCoef>\s+\S+\s+\[([^\]]*)\]", text)
        try:
            values = np.array(found[2].split() if found else [], np.float32)
        except ValueError as error:
            raise EncoderError(f"{path}: <{name}> is not all numbers ({error})") from error
        if found is None or len(values) != int(found[1]):
            raise EncoderError(f"{path}: no whole <{name}>; it is cut off or another kind of file")
        vectors.append(values)
    return Cmvn(*vectors)


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise EncoderError(f"{path}: cannot read the weights ({error.strerror})") from error
    try:
        with file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any type: whatever the bytes lead the unpickler to
        raise EncoderError(f"{path}: not a file of weights, or cut off; copy it again") from error
    for key in _WRAPPERS:
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"{path}: holds no state dict")
    return {key: value.float() for key, value in state.items()}


def _fitted(config: SpeechConfig, state: Mapping[str, Tensor], path: Path) -> SpeechConfig:
    """`config` with what only the weights tell: vocabulary, inputs, and whether tokens have a table of their own."""
    try:
        vocabulary = len(state["decoder.output_layer.bias"])
        inputs = len(state["encoder.encoders0.0.norm1.bias"])
    except KeyError as error:
        raise EncoderError(f"{path}: not the weights of a Paraformer: no {error.args[0]}") from error
    return replace(config, vocabulary=vocabulary, inputs=inputs, shared="decoder.embed.0.weight" not in state)


def _refuse(path: Path, what: str, keys: Iterable[str]) -> None:
    """EncoderError where there are any `keys`."""
    found = sorted(keys)
    if found:
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise EncoderError(f"{path}: {what}: {found[0]}{others}; its configuration is of another model")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise EncoderError(f"{path}: cannot read it ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise EncoderError(f"{path}: not a text file") from error


def _settings(path: Path) -> dict[str, str]:
    """`key` and `section.key` of a YAML file of plain values and mappings of such, as text."""
    try:
        tables = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise EncoderError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(tables, dict):
        raise EncoderError(f"{path}: not a configuration of Paraformer")
    found = {}
    for name, value in tables.items():
        for key, inner in value.items() if isinstance(value, dict) else [(None, value)]:
            found[name if key is None else f"{name}.{key}"] = str(inner)
    return found


def _config_text(config: SpeechConfig) -> str:
    blocks = {
        "attention_heads": config.heads,
        "linear_units": config.hidden,
        "kernel_size": config.kernel,
        "sanm_shfit": config.shift,
        "dropout_rate": config.dropout,
    }
    encoder = {"output_size": config.dim, "num_blocks": config.encoder_blocks, "input_layer": "pe"}
    decoder = {"num_blocks": config.decoder_blocks, "att_layer_num": config.decoder_blocks}
    tables = {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "sampling_ratio": config.sampling, "share_embedding": config.shared},
        "encoder": "SANMEncoder",
        "encoder_conf": encoder | blocks | {"attention_dropout_rate": config.dropout},
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder
        | blocks
        | {f"{kind}_attention_dropout_rate": config.dropout for kind in ("self", "src")},
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": config.dim,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": config.tail,
        },
        "input_size": config.inputs,
        "vocab_size": config.vocabulary,
    }
    text: str = yaml.safe_dump(tables, sort_keys=False)
    return text


def _cmvn_text(cmvn: Cmvn) -> str:
    size = len(cmvn.shift)
    parts = [
        f"<{name}> {size} {size}\n<LearnRateCoef> 0 [ {' '.join(map(str, values.tolist()))} ]\n"
        for name, values in (("AddShift", cmvn.shift), ("Rescale", cmvn.scale))
    ]
    return f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n{''.join(parts)}</Nnet>\n"

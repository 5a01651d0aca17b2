"""Exported weights -> a checkpoint that training can start from: the way back of `export`.

In: the folder of a word encoder, the shipped one for instance. Out: a checkpoint for `earshot.train.word --from`. The
int8 rounding of its matrices stays in; the scales of the contrastive losses, which no search needs, begin anew. Knows
nothing of data.

    python -m earshot.train.restore src/earshot/encoders/weights runs/shipped.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from earshot.encoders import WordEncoder, load_folder
from earshot.train.loop import Checkpoint, save
from earshot.train.model import BiLSTM, WordConfig, WordModel
from earshot.train.priors import Priors
from earshot.train.recipe import TrainingError
from earshot.types import EarshotError

Floats = NDArray[np.float32]


def restore(folder: Path) -> Checkpoint:
    """The model and priors that were exported into `folder`. TrainingError where it is an encoder of isolated words."""
    encoder = load_folder(folder)
    if not isinstance(encoder, WordEncoder):
        raise TrainingError(f"{folder}: an encoder of isolated words; only one of spans can be trained further")
    audio, text = (_Network(folder / f"{encoder.name}-{part}.onnx") for part in ("audio", "text"))
    (first, second), lstms, (out,) = audio.convolutions(), audio.lstms(), audio.linears()
    (embedding,), text_lstms, (hidden, last) = text.embeddings(), text.lstms(), text.linears()
    config = WordConfig(
        front=len(first[1]),
        hidden=lstms[0][1].shape[2] // 4,
        layers=len(lstms),
        frame_dim=encoder.frame_dim,
        dim=encoder.dim,
        phone_embedding=embedding.shape[1],
        text_hidden=text_lstms[0][1].shape[2] // 4,
    )
    model = WordModel(config)
    tower = model.audio
    for layer, (weight, bias) in ((tower.conv1, first), (tower.conv2, second), (tower.norm, audio.norm())):
        _put(layer, weight, bias)
    for bilstm, arrays in zip((*tower.lstm, model.text.lstm), (*lstms, *text_lstms), strict=True):
        assert isinstance(bilstm, BiLSTM)
        _put_lstm(bilstm, *arrays)
    for linear, (weight, bias) in ((tower.out, out), (model.text.hidden, hidden), (model.text.out, last)):
        _put(linear, weight.T, bias)
    _put(tower.project, encoder.projection, None)
    _put(tower.phone, encoder.phone_weights, encoder.phone_bias)
    _put(tower.border, encoder.border_weights, encoder.border_bias)
    _put(model.text.embedding, embedding, None)
    return Checkpoint(model.eval(), Priors(encoder.prior_mean, encoder.prior_std, encoder.phone_seconds), 0)


class _Network:
    """The weights of one network, by the kind of node that takes them, in order; int8 ones as floats again."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path)).graph
        self.nodes = list(graph.node)
        self.values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

    def convolutions(self) -> list[tuple[Floats, Floats]]:
        return [(self.values[n.input[1]], self.values[n.input[2]]) for n in self.nodes if n.op_type == "Conv"]

    def norm(self) -> tuple[Floats, Floats]:
        return next(
            (self.values[n.input[1]], self.values[n.input[2]]) for n in self.nodes if n.op_type == "LayerNormalization"
        )

    def embeddings(self) -> list[Floats]:
        tables = [self.values[n.input[0]] for n in self.nodes if n.op_type == "Gather" and n.input[0] in self.values]
        return [table for table in tables if table.ndim == 2]

    def lstms(self) -> list[tuple[Floats, Floats, Floats]]:
        """Input weights (2, i, 4 h), recurrent weights (2, h, 4 h) and biases (2, 8 h) of both directions."""
        found = []
        for node in (n for n in self.nodes if n.op_type == "DynamicQuantizeLSTM"):
            weights = [self._dequantized(name, axis_scales=True) for name in node.input[1:3]]
            found.append((weights[0], weights[1], self.values[node.input[3]]))
        return found

    def linears(self) -> list[tuple[Floats, Floats]]:
        """Weights (in, out) and biases (out,)."""
        weights = [self._dequantized(n.input[1], False) for n in self.nodes if n.op_type == "MatMulInteger"]
        added = [self.values[name] for n in self.nodes if n.op_type == "Add" for name in n.input if name in self.values]
        biases = [value for value in added if value.dtype == np.float32 and value.ndim == 1]
        return list(zip(weights, biases, strict=True))

    def _dequantized(self, name: str, axis_scales: bool) -> Floats:
        stem = name.removesuffix("_quantized")
        scale, zero = self.values[f"{stem}_scale"], self.values[f"{stem}_zero_point"].astype(np.float32)
        if axis_scales:
            scale, zero = scale[:, None, None], zero[:, None, None]
        floats: Floats = ((self.values[name].astype(np.float32) - zero) * scale).astype(np.float32)
        return floats


def _put(layer: nn.Module, weight: Floats, bias: Floats | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))  # type: ignore[operator]
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))  # type: ignore[operator]


def _put_lstm(layer: BiLSTM, inputs: Floats, recurrent: Floats, biases: Floats) -> None:
    with torch.no_grad():
        for side, half in enumerate((layer.ahead, layer.back)):
            for name, value in (("weight_ih_l0", inputs[side].T), ("weight_hh_l0", recurrent[side].T)):
                getattr(half, name).copy_(torch.tensor(_torch_gates(value)))
            for name, bias in zip(("bias_ih_l0", "bias_hh_l0"), np.split(biases[side], 2), strict=True):
                getattr(half, name).copy_(torch.tensor(_torch_gates(bias)))


def _torch_gates(values: Floats) -> Floats:
    """ONNX orders the gates input, output, forget, cell; PyTorch input, forget, cell, output."""
    i, o, f, c = np.split(values, 4)
    return np.concatenate([i, f, c, o])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    try:
        arguments.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save(arguments.checkpoint, *restore(arguments.weights))
    except EarshotError as error:
        raise SystemExit(f"restore: {error}") from None

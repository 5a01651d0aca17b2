"""Trained towers -> the files that the torch-free runtime reads: two ONNX graphs, a few arrays, a model card.

In: a checkpoint and the card's text. Out: `word-audio.onnx`, `word-text.onnx`, `word.npz`,
`word.toml`. Knows nothing of training data beyond what the card says.

    python -m earshot.train.export runs/word/last.pt --card recipes/word-card.toml --out src/earshot/encoders/weights
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic

from earshot.encoders.clock import BORDER
from earshot.encoders.lexicon import PAD, SCALE
from earshot.encoders.towers import run_text
from earshot.encoders.word import LEXICON
from earshot.features import N_MELS
from earshot.train.isolated import FinalStates, IsolatedModel, sinusoids
from earshot.train.lexicon import word_priors
from earshot.train.loop import LOG, Checkpoint, checkpoint
from earshot.train.model import AudioTower, BiLSTM, TextTower, WordModel
from earshot.train.priors import Priors
from earshot.train.recipe import TrainingError
from earshot.types import EarshotError

OPSET = 20
LONGEST_PHRASE = 512
"""Phones for which the paper's text tower has positions."""
FILES = ("-audio.onnx", "-text.onnx", ".npz", LEXICON)
"""How the names of a word encoder's files end."""
UNCALIBRATED = """\
# Weights of the features of `search.measure` and `query.hypotheses`, then of the outcome of a search, each with a bias;
# fitted by `earshot.train.calibrate`.
[calibration]
typed = [12.0, 0.0, 1.0, -1.0, 0.0, 0.1, 0.0, 0.5, 0.0, 0.0, -10.0]
spoken = [12.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 5.0, -10.0]
heard = [25.0, 1.0, 0.5, 0.0, 12.0]
typed_outcome = [1.0, 0.0, 0.0]
spoken_outcome = [1.0, 0.0, 0.0]
"""


def export(model: WordModel, priors: Priors, card: str, folder: Path, name: str = "word") -> None:
    """Write the files of one word encoder into `folder`; LSTM and matrix weights become int8."""
    _write_networks({"audio": audio_graph(model.audio), "text": text_graph(model.text)}, folder, name)
    arrays = {
        "prior_mean": priors.mean,
        "prior_std": priors.std,
        "projection": array(model.audio.project.weight),
        "phone_weights": array(model.audio.phone.weight),
        "phone_bias": array(model.audio.phone.bias),
        "border_weights": array(model.audio.border.weight),
        "border_bias": array(model.audio.border.bias),
        "phone_seconds": priors.phone_seconds,
    }
    np.savez(folder / f"{name}.npz", **{key: value.astype(np.float32) for key, value in arrays.items()})  # type: ignore[arg-type]
    write_lexicon(folder / f"{name}-text.onnx", model.config.dim, folder / f"{name}{LEXICON}")
    write_card(f"{card.rstrip()}\n\n{UNCALIBRATED}", folder, name, [f"{name}{end}" for end in FILES])


def export_isolated(model: IsolatedModel, priors: Priors | None, card: str, folder: Path, name: str = "word") -> None:
    """Write the files of an encoder of isolated words; `priors` are those of log-mels, where it takes such."""
    config, more = model.config, []
    networks = {"audio": final_states_graph(model.audio, None, config.n_mels * config.stack)}
    if config.text:
        embedding = array(model.embedding.weight)
        networks["text"] = final_states_graph(model.text_tower, embedding, config.phone_embedding)
    _write_networks(networks, folder, name)
    if priors is not None:
        np.savez(folder / f"{name}.npz", prior_mean=priors.mean, prior_std=priors.std)
        more.append(f"{name}.npz")
    front = f'kind = "isolated"\nfeatures = "{config.features}"\nn_mels = {config.n_mels}\nstack = {config.stack}\n'
    write_card(f"{front}{card.rstrip()}\n", folder, name, [*(f"{name}-{n}.onnx" for n in networks), *more])


def training(trained: Checkpoint, log: Path) -> str:
    """The card's table on how the weights were trained: sizes, and what the log of the run tells up to them."""
    n_parameters = sum(p.numel() for p in trained.model.parameters())
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    lines = [line for line in lines if line["step"] <= trained.step]
    rates = [line["spans_per_second"] for line in lines]
    spans = sum(round(line["spans_per_second"] * line["seconds"]) for line in lines)
    table = f"[training]\nparameters = {n_parameters}\n"
    if lines:
        table += f"steps = {lines[-1]['step']}\nspans = {spans}\nspans_per_second = {round(float(np.median(rates)))}\n"
    return table


def write_lexicon(tower: Path, dim: int, path: Path) -> None:
    """Write the pronunciations of English words, their log priors and the embeddings that a phone tower makes."""
    session = InferenceSession(tower, providers=["CPUExecutionProvider"])
    words, log_prior = word_priors()
    phones = np.full((len(words), len(words[0])), PAD, np.uint8)
    vectors = np.zeros((len(words), dim), np.int8)
    for length in range(len(words[0]) + 1):
        rows = [k for k, ids in enumerate(words) if len(ids) == length]
        for some in (rows[k : k + 512] for k in range(0, len(rows), 512)):
            phones[some, :length] = [words[k] for k in some]
            found = run_text(session, [[BORDER, *words[k], BORDER] for k in some])
            vectors[some] = np.rint(found * SCALE).astype(np.int8)
    np.savez_compressed(path, phones=phones, log_prior=log_prior.astype(np.float16), vectors=vectors)


def _write_networks(networks: dict[str, onnx.ModelProto], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, graph in networks.items():
        write_int8(graph, folder / f"{name}-{suffix}.onnx")


def write_int8(graph: onnx.ModelProto, path: Path, **how: bool) -> None:
    """Write a graph with LSTM and matrix weights as int8; `how` as for `quantize_dynamic`."""
    whole = path.with_suffix(".fp32")
    onnx.save(graph, str(whole))
    quantize_dynamic(whole, path, op_types_to_quantize=["LSTM", "MatMul"], weight_type=QuantType.QInt8, **how)
    whole.unlink()


def write_card(card: str, folder: Path, name: str, files: Sequence[str]) -> None:
    """Write the card of `files`, which lie in `folder`."""
    digests = "".join(f'"{f}" = "{hashlib.sha256((folder / f).read_bytes()).hexdigest()}"\n' for f in files)
    (folder / f"{name}.toml").write_text(f"{card}\n[files]\n{digests}")


class Graph:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The first output of a new node."""
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """A weight or constant."""
        name = f"const_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def mask(self, x: str, lengths: str, axis: int) -> str:
        """(b, n, 1) or (b, 1, n) of ones where position < length; n is `axis` of x."""
        n = self.add("Gather", self.add("Shape", x), self.const(axis, np.int64))
        steps = self.add("Range", self.const(0, np.int64), n, self.const(1, np.int64))
        column = self.add("Unsqueeze", self.add("Cast", lengths, to=TensorProto.INT64), self.const([1], np.int64))
        ones = self.add("Cast", self.add("Less", steps, column), to=TensorProto.FLOAT)
        return self.add("Unsqueeze", ones, self.const([3 - axis], np.int64))

    def halve(self, lengths: str) -> str:
        """ceil(lengths / 2)."""
        return self.add("Div", self.add("Add", lengths, self.const(1, np.int32)), self.const(2, np.int32))

    def lstm(self, x: str, lengths: str, layer: BiLSTM, final: bool = False) -> str:
        """(t, b, i) -> (t, b, 2 h); the final states (b, 2 h) alone where asked for."""
        hidden = layer.ahead.hidden_size
        weights = [
            np.stack([_gates(getattr(half, f"{kind}_l0")) for half in (layer.ahead, layer.back)])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        bias = np.concatenate(weights[2:], axis=1)
        states = [f"states_{len(self.nodes)}", f"final_{len(self.nodes)}"]
        inputs = [x, *map(self.const, (weights[0], weights[1], bias)), lengths]
        self.nodes.append(helper.make_node("LSTM", inputs, states, direction="bidirectional", hidden_size=hidden))
        if final:
            rows = self.add("Transpose", states[1], perm=[1, 0, 2])
            return self.add("Reshape", rows, self.const([0, 2 * hidden], np.int64))
        rows = self.add("Transpose", states[0], perm=[0, 2, 1, 3])
        return self.add("Reshape", rows, self.const([0, 0, 2 * hidden], np.int64))

    def unit(self, x: str) -> str:
        """Rows of length one."""
        return self.add("Div", x, self.add("ReduceL2", x, self.const([1], np.int64), keepdims=1))

    def linear(self, x: str, layer: torch.nn.Linear) -> str:
        """x @ weight.T + bias."""
        product = self.add("MatMul", x, self.const(array(layer.weight).T))
        return self.add("Add", product, self.const(array(layer.bias)))

    def norm(self, x: str, layer: torch.nn.LayerNorm) -> str:
        """Rows normalised, scaled and shifted."""
        weights = (self.const(array(layer.weight)), self.const(array(layer.bias)))
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=layer.eps)

    def model(self, inputs: list[Any], out: str, shape: list[Any]) -> onnx.ModelProto:
        """The checked model with one output."""
        self.nodes.append(helper.make_node("Identity", [out], ["out"]))
        outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "tower", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def audio_graph(tower: AudioTower) -> onnx.ModelProto:
    """mel (b, t, N_MELS) float32, zero after lengths (b,) int32 -> frames (b, ceil(t/4), frame_dim)."""
    g = Graph()
    x = g.add("Transpose", "mel", perm=[0, 2, 1])
    lengths = "lengths"
    for conv in (tower.conv1, tower.conv2):
        weights = (g.const(array(conv.weight)), g.const(array(conv.bias)))
        x = g.add("Gelu", g.add("Conv", x, *weights, strides=[2], pads=[2, 2]))
        lengths = g.halve(lengths)
        x = g.add("Mul", x, g.mask(x, lengths, axis=2))
    x = g.add("Transpose", x, perm=[2, 0, 1])
    x = g.norm(x, tower.norm)
    for layer in tower.lstm:
        assert isinstance(layer, BiLSTM)
        x = g.lstm(x, lengths, layer)
    x = g.add("Transpose", g.add("Tanh", g.linear(x, tower.out)), perm=[1, 0, 2])
    inputs = [
        helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["b", "t", N_MELS]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["b"]),
    ]
    return g.model(inputs, x, ["b", None, tower.out.out_features])


def text_graph(tower: TextTower) -> onnx.ModelProto:
    """phones (b, n) int64, lengths (b,) int32 -> unit vectors (b, dim)."""
    g = Graph()
    x = g.add("Gather", g.const(array(tower.embedding.weight)), "phones")
    x = g.lstm(g.add("Transpose", x, perm=[1, 0, 2]), "lengths", tower.lstm)
    x = g.linear(g.add("Gelu", g.linear(x, tower.hidden)), tower.out)
    x = g.add("Transpose", x, perm=[1, 0, 2])
    x = g.add("Mul", x, g.mask(x, "lengths", axis=1))
    x = g.add("ReduceSum", x, g.const([1], np.int64), keepdims=0)
    x = g.unit(x)
    inputs = [
        helper.make_tensor_value_info("phones", TensorProto.INT64, ["b", "n"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["b"]),
    ]
    return g.model(inputs, x, ["b", tower.out.out_features])


def final_states_graph(tower: FinalStates, embedding: NDArray[np.float32] | None, inputs: int) -> onnx.ModelProto:
    """x (b, t, inputs) float32, or phones (b, n) int64 and their `embedding`; lengths (b,) int32 -> unit (b, dim)."""
    g = Graph()
    if embedding is None:
        x = "x"
        first = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "t", inputs])
    else:
        first = helper.make_tensor_value_info("phones", TensorProto.INT64, ["b", "n"])
        n = g.add("Unsqueeze", g.add("Gather", g.add("Shape", "phones"), g.const(1, np.int64)), g.const([0], np.int64))
        places = g.const(sinusoids(LONGEST_PHRASE, inputs).numpy())
        places = g.add("Slice", places, g.const([0], np.int64), n, g.const([0], np.int64))
        x = g.add("Add", g.add("Gather", g.const(embedding), "phones"), places)
    x = g.add("Transpose", x, perm=[1, 0, 2])
    for k, layer in enumerate(tower.lstm):
        assert isinstance(layer, BiLSTM)
        x = g.lstm(x, "lengths", layer, final=k == len(tower.lstm) - 1)
    x = g.unit(g.linear(x, tower.out))
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT32, ["b"])
    return g.model([first, lengths], x, ["b", tower.out.out_features])


def array(parameter: torch.Tensor | None) -> NDArray[np.float32]:
    """A weight of a layer."""
    assert parameter is not None
    values: NDArray[np.float32] = parameter.detach().cpu().numpy()
    return values


def _gates(parameter: torch.Tensor) -> NDArray[np.float32]:
    """PyTorch orders the gates input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = np.split(array(parameter), 4)
    return np.concatenate([i, o, f, c])


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        trained = checkpoint(arguments.checkpoint)
        try:
            card = arguments.card.read_text().rstrip()
        except (OSError, ValueError) as error:
            raise TrainingError(f"{arguments.card}: no readable card ({error})") from None
        card += f"\n\n{training(trained, arguments.checkpoint.with_name(LOG))}"
        if isinstance(trained.model, IsolatedModel):
            export_isolated(trained.model, trained.priors, card, arguments.out)
        elif not isinstance(trained.model, WordModel):
            raise TrainingError(
                f"{arguments.checkpoint}: a passage model; python -m earshot.train.clsr.export takes it"
            )
        elif trained.priors is None:
            raise TrainingError(f"{arguments.checkpoint} has no priors; train it with this version of the program")
        else:
            export(trained.model, trained.priors, card, arguments.out)
    except EarshotError as error:
        raise SystemExit(f"export: {error}") from None


if __name__ == "__main__":
    main()

"""A trained passage model -> the files that `earshot.encoders.passage` reads.

In: a checkpoint, the card of the weights. Out: two ONNX networks with int8 matrices, and the card beside those of the
text encoder (`earshot.train.clsr.text`). Knows nothing of training.

    python -m earshot.train.clsr.export runs/joint/last.pt --card recipes/passage-card.toml --out weights/
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from earshot import encoders
from earshot.encoders.cif import BLANK
from earshot.encoders.passage import DECODER, ENCODER, KIND
from earshot.train.clsr.model import PassageModel
from earshot.train.clsr.paraformer import SpeechBranch
from earshot.train.clsr.text import export_text
from earshot.train.export import write_card
from earshot.train.loop import checkpoint
from earshot.train.recipe import TrainingError
from earshot.types import EarshotError

OPSET = 17


class _Encoder(nn.Module):
    def __init__(self, branch: SpeechBranch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        lengths = torch.full((1,), features.shape[1])
        frames = self.branch.encoder(features, lengths)
        predictor, sound = self.branch.predictor, self.branch.sound
        weights = predictor.alphas(frames)
        if sound is None or predictor.borders is None:
            return frames, weights
        return torch.cat([frames, sound(features)], 2), weights, predictor.borders(frames).flatten(1)


class _Decoder(nn.Module):
    def __init__(self, branch: SpeechBranch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, vectors: Tensor, frames: Tensor) -> tuple[Tensor, ...]:
        counts, lengths = (torch.full((1,), x.shape[1]) for x in (vectors, frames))
        frames = frames[..., : self.branch.config.dim]
        if self.branch.sound is None:
            return (self.branch.decoder(vectors, counts, frames, lengths).argmax(2),)
        scores, spans = self.branch.tell(vectors, counts, frames, lengths)
        return scores[..., BLANK + 1 :].argmax(2) + BLANK + 1, scores.softmax(2)[..., BLANK], spans


def export(model: PassageModel, card: str, word: str, folder: Path, name: str = "passage", int8: bool = True) -> None:
    """Write the networks and the card; `word`: the digest of the word encoder whose frames the model reads.

    A text encoder that was trained with it is not among them: `export_text` writes that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    branch = model.speech.eval()
    dim = model.config.dim + model.config.sound
    features, vectors, frames = (torch.zeros(1, n, of) for n, of in ((9, model.config.inputs), (5, dim), (9, dim)))
    outputs = ["frames", "weights", "borders"][: 3 if model.config.sound else 2]
    _write(_Encoder(branch), (features,), ["features"], outputs, folder / f"{name}{ENCODER}", int8)
    inputs = ["vectors", "frames"]
    outputs = ["tokens", "blank", "spans"][: 3 if model.config.sound else 1]
    _write(_Decoder(branch), (vectors, frames), inputs, outputs, folder / f"{name}{DECODER}", int8)
    front = f'kind = "{KIND}"\nreads = "{word}"\n'
    write_card(f"{front}{card.rstrip()}\n", folder, name, [f"{name}{end}" for end in (ENCODER, DECODER)])


def _write(
    network: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], path: Path, int8: bool
) -> None:
    """Export a network whose second dimensions are free; matrices as int8 of seven bits, a scale for each column."""
    free = {name: {1: f"{name}_n"} for name in (*inputs, *outputs)}
    how: dict[str, Any] = dict(input_names=inputs, output_names=outputs, dynamic_axes=free, opset_version=OPSET)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        whole = Path(scratch) / "whole.onnx"
        torch.onnx.export(network, example, str(whole), dynamo=False, **how)
        if not int8:
            path.write_bytes(whole.read_bytes())
            return
        kinds = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8}
        quantize_dynamic(whole, path, per_channel=True, reduce_range=True, **kinds)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text-card", type=Path, help="also write the text encoder, which was trained with it")
    parser.add_argument("--word", default="word", help="the word encoder whose frames it was trained on")
    arguments = parser.parse_args()
    try:
        model = checkpoint(arguments.checkpoint).model
        if not isinstance(model, PassageModel):
            raise TrainingError(f"{arguments.checkpoint}: not a passage model; earshot.train.export takes it")
        if model.config.tuned != (arguments.text_card is not None):
            raise TrainingError("--text-card is for a model whose text encoder was trained, and such a model needs it")
        if arguments.text_card is not None:
            export_text(model.text, arguments.text_card.read_text(), arguments.out)
        export(model, arguments.card.read_text(), encoders.load(arguments.word).digest, arguments.out)
    except (EarshotError, OSError) as error:
        raise SystemExit(f"export: {error}") from None


if __name__ == "__main__":
    main()

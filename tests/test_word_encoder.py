"""The shipped word encoder: what it promises of shapes, norms and agreement, and what it says of broken files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from earshot import audio, encoders
from earshot.ask import telling_examples
from earshot.encoders import load
from earshot.encoders.clock import frame_count
from earshot.encoders.towers import phone_ids
from earshot.encoders.word import GRID, WordEncoder
from earshot.features import SAMPLE_RATE, log_mel
from earshot.pronounce import pronounce
from earshot.types import Clip, EncoderError, QueryError

WEIGHTS = Path(encoders.__file__).parent / "weights"
SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    return encoders.load("word")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.05 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def test_embeddings_are_unit_vectors_of_one_space(encoder: WordEncoder) -> None:
    speech = encoder.embed_speech([noise(0.5), noise(1.0, 1), noise(0.02, 2), np.zeros(0, np.float32)])
    text = encoder.embed_text(["gradient", "climate change", "Zbigniew"])
    assert speech.shape == (4, encoder.dim)
    assert text.shape == (3, encoder.dim)
    assert speech.dtype == text.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(speech[:3], axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-4)
    assert encoder.embed_text([]).shape == (0, encoder.dim)
    assert encoder.embed_speech([]).shape == (0, encoder.dim)


def test_the_lexicon_draws_a_vector_to_the_words_that_it_may_be(encoder: WordEncoder) -> None:
    text = encoder.embed_text(["telescope", "microscope"])
    noisy = text + 0.05 * np.random.default_rng(0).standard_normal(text.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    drawn = encoder.with_lexicon(noisy)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-4)
    assert ((drawn * text).sum(axis=1) > (noisy * text).sum(axis=1)).all()
    assert encoder.with_lexicon(noisy[:0]).shape == (0, encoder.dim)


def test_homophones_are_one_and_unlike_words_are_not(encoder: WordEncoder) -> None:
    night, knight, telescope = encoder.embed_text(["night", "knight", "telescope"])
    assert night @ knight > 0.999
    assert night @ telescope < 0.5


def test_a_stretch_is_encoded_alike_alone_and_in_a_batch(encoder: WordEncoder) -> None:
    mels = [log_mel(noise(seconds, k)) for k, seconds in enumerate((3.0, 0.4, 1.7))]
    together = encoder.frames(mels)
    for mel, frames in zip(mels, together, strict=True):
        assert frames.shape == (frame_count(len(mel)), encoder.stored_dim)
        alone = encoder.frames([mel])[0]
        difference = alone[:, : encoder.frame_dim].astype(int) - frames[:, : encoder.frame_dim]
        assert np.abs(difference).max() <= 12  # int8 scales are of the whole batch
    assert encoder.frames([np.zeros((0, 80), np.float32)])[0].shape == (0, encoder.stored_dim)


def test_stored_norms_are_those_of_the_spans(encoder: WordEncoder) -> None:
    frames = encoder.frames([log_mel(noise(4.0))])[0]
    norms = encoder.inverse_norms(frames)
    for length in GRID:
        for first in (0, 7, len(frames) - length):
            values = frames[first : first + length, : encoder.frame_dim].sum(axis=0, dtype=np.float32)
            assert norms[length][first] * np.linalg.norm(encoder.projection @ values) == pytest.approx(1, rel=0.015)


def test_phone_probabilities_sum_to_one(encoder: WordEncoder) -> None:
    frames = encoder.frames([log_mel(noise(1.0))])[0]
    np.testing.assert_allclose(np.exp(encoder.phone_log_probabilities(frames)).sum(axis=1), 1, rtol=1e-4)


def test_one_text_is_not_taken_for_many_letters(encoder: WordEncoder) -> None:
    with pytest.raises(TypeError, match="list"):
        encoder.embed_text("gradient")


def test_onnx_runtime_tells_nobody_what_runs(tmp_path: Path) -> None:
    """Version 1.32 began to keep a device id in the user's folder and to send what was run to its maker."""
    code = "import earshot; earshot.encoders.load('word').embed_text(['gradient'])"
    unset = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env=unset | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_what_has_no_pronunciation_is_a_query_error(encoder: WordEncoder) -> None:
    with pytest.raises(QueryError):
        encoder.embed_text(["?"])
    with pytest.raises(QueryError, match="not an ARPAbet phone"):
        encoder.embed_phones([("K", "Q")])


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(EncoderError, match="no encoder 'sentence'"):
        encoders.load("sentence")


@pytest.mark.parametrize("file", ["word-audio.onnx", "word.npz", "word.toml"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_weights_are_refused_in_one_line(tmp_path: Path, file: str, damage: str) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:200])
    with pytest.raises(EncoderError) as error:
        load(str(folder))
    assert file in str(error.value)
    assert "\n" not in str(error.value)


def test_the_shipped_weights_are_small_and_have_a_card() -> None:
    """Word encoder and passage encoder, with the text encoder that belongs to it."""
    for names, most in ((("word",), 20e6), (("passage", "text"), 60e6)):
        files = [path for name in names for path in WEIGHTS.glob(f"{name}[.-]*")]
        assert 5e6 < sum(path.stat().st_size for path in files) < most
    for name, keys in (
        ("word", "licence data command figures"),
        ("passage", "licence data command figures"),
        ("text", "licence source command"),
    ):
        card = (WEIGHTS / f"{name}.toml").read_text()
        assert all(f"\n{key} = " in card for key in keys.split())


def test_the_shipped_passage_encoder_hears_nothing_in_silence_and_begins_no_text_within_a_word() -> None:
    passages = encoders.load("passage")
    assert not len(passages.listen(np.zeros(SAMPLE_RATE, np.float32)).tokens)
    pieces = passages.text.pieces.ids("embeddings")
    assert passages.text.pieces.pieces[pieces[1]].startswith("##") and "#" not in passages.read(pieces[1:])


def test_misheard_words_of_a_spoken_question_are_sought_as_what_they_may_be() -> None:
    passages = encoders.load("passage")
    question = audio.load(Clip(str(SAMPLES / "council-meeting.mp3"), 12.5, 15.0))  # "who paid for the telescope? I ..."
    frames = passages.speech_frames(question)
    words = passages.words(passages.hear(frames))
    assert " ".join(word for word, _ in words) == passages.read(passages.hear(frames).tokens)
    assert all(0 <= a.start < a.end == b.start for (_, a), (_, b) in pairwise(words))
    sought = telling_examples(frames, words, passages.word)
    assert all(ways[0].spoken and not any(way.spoken for way in ways[1:]) for ways in sought)
    phones = [[way.states.argmax(axis=1).tolist() for way in ways[1:]] for ways in sought]
    for word in ("telescope", "paid"):
        (said,) = pronounce(word, most=1)
        assert any(phone_ids(said) in of for of in phones), word
    labels = {ways[0].label for ways in sought}
    assert {"telescope", "paid"} <= labels and not {"who", "for", "the"} & labels
    assert telling_examples(frames[:0], [], passages.word) == []


def test_an_example_without_speech_is_one_line(tmp_path: Path) -> None:
    from earshot.audio import write_wav
    from earshot.query import spoken_query

    write_wav(tmp_path / "silent.wav", np.zeros(SAMPLE_RATE, np.float32))
    with pytest.raises(QueryError, match=r"silent\.wav: no speech in it; give a recording of a word or phrase$"):
        spoken_query(Clip(str(tmp_path / "silent.wav")), encoders.load("word"))

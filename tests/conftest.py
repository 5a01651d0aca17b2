"""Recordings made on the spot, and stand-ins for what costs time: a word encoder and a speech detector."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot import ingest, speech
from earshot.encoders import passage
from earshot.features import HOP, N_MELS, SAMPLE_RATE, WINDOW, log_mel
from earshot.train.align import Timed
from earshot.train.corpus import Corpus, Utterance

Samples = NDArray[np.float32]
Talk = Callable[..., Path]


signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignore it


class ToyEncoder:
    """Frames that depend on nothing but their own log-mels; counts what it is asked."""

    name, digest, stored_dim, dim = "toy", "0123456789abcdef", 8, 8
    lexicon = SimpleNamespace(prior=lambda phones: 0.0)  # no word tells anything

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.delay = 0.0

    def frames(self, mels: Sequence[Samples]) -> list[NDArray[np.int8]]:
        self.batches.append(sum(map(len, mels)))
        self.threads.add(threading.get_ident())
        time.sleep(self.delay)
        return [self.one(mel) for mel in mels]

    @staticmethod
    def one(mel: Samples) -> NDArray[np.int8]:
        padded = np.pad(mel, ((0, -len(mel) % 4), (0, 0)), mode="edge")
        bands = padded.reshape(-1, 4, 8, N_MELS // 8).mean(axis=(1, 3))
        return np.asarray(np.clip(np.rint(bands * 7), -127, 127), np.int8)


class ToyPassageEncoder:
    """Hears a word a second, from w0 to w7 in turn; a text is the vector of its first word."""

    name, digest, dim = "toy-passages", "abcdef", 8

    def __init__(self) -> None:
        self.text = SimpleNamespace(limit=20, pieces=SimpleNamespace(ids=self.ids))

    @staticmethod
    def ids(text: str) -> list[int]:
        return [int(k) % 8 + 1 for k in re.findall(r"w(\d+)", text)]

    def hear(self, frames: NDArray[np.int8]) -> passage.Heard:
        n = max(1, len(frames) // 25)
        return passage.Heard(np.arange(n) % 8 + 1, np.arange(1, n + 1) * len(frames) / 25 / n)

    def speech_frames(self, clip: Samples) -> NDArray[np.int8]:
        return np.zeros((len(clip) // 640, 8), np.int8)

    def words(self, heard: passage.Heard) -> list[Any]:
        return []  # worth seeking

    def embed_tokens(self, texts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        return np.eye(8, dtype=np.float32)[[int(text[0]) - 1 for text in texts]].reshape(-1, 8)

    def read(self, tokens: Sequence[int]) -> str:
        return " ".join(f"w{k - 1}" for k in tokens)


def loud_stretches(blocks: Iterable[Samples]) -> Iterator[speech.SpeechStretch]:
    """Whatever is loud is speech; each block by itself."""
    begin = 0
    for block in blocks:
        mel = log_mel(block) if len(block) >= WINDOW else np.zeros((0, N_MELS), np.float32)
        loud = np.concatenate([[False], mel.mean(axis=1) > -9, [False]])
        edges = np.flatnonzero(np.diff(loud.astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            yield speech.SpeechStretch((begin + int(first) * HOP) / SAMPLE_RATE, mel[first:last])
        begin += len(block)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyEncoder:
    monkeypatch.setattr(ingest, "_PATIENCE", 60.0)  # where a machine is slow, batches are no smaller
    return ToyEncoder()


@pytest.fixture
def toy_passages() -> ToyPassageEncoder:
    return ToyPassageEncoder()


@pytest.fixture
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.speech.stretches", loud_stretches)


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """Write `n_words` bursts of noise with 0.5 s of silence around each to a wav below the test's folder."""

    def write(name: str, n_words: int = 3, *, word: float = 0.5, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, n_words])
        half = SAMPLE_RATE // 2
        words = [rng.uniform(-0.3, 0.3, round(word * SAMPLE_RATE)) * rng.uniform(0.3, 1.0) for _ in range(n_words)]
        samples = np.concatenate([part for word in words for part in (np.zeros(half), word)] + [np.zeros(half)])
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        return path

    return write


PIECES = [
    *"[PAD] [UNK] [CLS] [SEP] [MASK] un ##aff ##able ##s the tele ##scope who paid for cafe".split(),
    *"? ! ' $ 望 远 a ##b 12 ##3 at cat dog".split(),
]
LIMIT = 14
"""Word pieces that the text encoder of `published` takes."""


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as BERT-like encoders are published in, with small random weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(PIECES) + 3,  # some tables are longer than their vocabulary
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LIMIT + 2,
        initializer_range=0.3,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LIMIT}))
    return folder


def noise_corpus(seed: int = 0) -> Corpus:
    """Twelve utterances of noise "said" by three speakers."""
    rng = np.random.default_rng(seed)
    samples = (rng.standard_normal(12 * 2 * SAMPLE_RATE) * 2000).astype(np.int16)
    phones = [Timed(0.2 + 0.1 * k, 0.3 + 0.1 * k, p) for k, p in enumerate("K AE T S AE T D AO G".split())]
    words = [Timed(0.2, 0.6, "cats"), Timed(0.6, 0.8, "at"), Timed(0.8, 1.1, "dog")]
    made = [
        Utterance(
            str(k), "noise", f"s{k % 3}", "train", k * 2 * SAMPLE_RATE, 2 * SAMPLE_RATE, tuple(words), tuple(phones)
        )
        for k in range(12)
    ]
    return Corpus(tuple(made), samples)

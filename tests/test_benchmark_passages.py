"""The benchmarks of passages: pools, rivals, and half-hour documents."""

from __future__ import annotations

import json
import sys
import wave
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jiwer")

from benchmarks import longform, passages, passages_page
from earshot.audio import write_wav
from earshot.types import EarshotError, Passage, Recording, Span


def pool(folder: Path, seconds: tuple[float, ...] = (1.0, 2.0), questions: bool = True) -> Path:
    """Passages of noise in two splits, with texts of their own."""
    root = folder / "toy"
    root.mkdir()
    rows, asked = [], []
    for k, length in enumerate(seconds):
        with wave.open(str(root / f"{k}.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16000)
            out.writeframes(np.full(round(length * 16000), 100 * (k + 1), "<i2").tobytes())
        text = f"here is said what number {'one two three'.split()[k % 3]} says"
        rows.append({"id": str(k), "audio": f"{k}.wav", "text": text, "split": "test", "speaker": "s"})
        asked.append({"id": str(k), "sentence": text, "question": f"what does {k} say?"})
    rows.append({"id": "other", "audio": "none.wav", "text": "a b c d e f g", "split": "dev", "speaker": "s"})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if questions:
        (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return folder


def test_a_pool_has_a_question_for_each_passage_of_its_split(tmp_path: Path) -> None:
    test = passages.read_passages("toy:test", pool(tmp_path))
    assert test.ids == ("0", "1") and test.questions[1] == "what does 1 say?" and len(test.samples[1]) == 32000
    with pytest.raises(EarshotError, match="no speech of split 'gone'"):
        passages.read_passages("toy:gone", tmp_path)
    with pytest.raises(EarshotError, match="no speech with a manifest"):
        passages.read_passages("none:test", tmp_path)


def test_questions_may_be_spoken(tmp_path: Path) -> None:
    """Where they are, what is heard of them is asked."""
    pool(tmp_path)
    with (tmp_path / "toy" / "manifest.jsonl").open("a") as file:
        for k in range(2):
            row = {"id": f"{k}-question", "audio": f"{k}.wav", "text": "", "split": "test-questions", "speaker": "t"}
            file.write(json.dumps(row) + "\n")
    test = passages.read_passages("toy:test", tmp_path)
    assert [path.name for path in test.spoken] == ["0.wav", "1.wav"] and len(test.ids) == 2
    ask = passages.rankers(EAR)[passages.SPOKEN]
    told = passages.written(TEXT)(test)
    assert ask(told, test).shape == (2, 2) and test.lengths.tolist() == [1, 2]
    assert passages.read_passages("toy", tmp_path).spoken == test.spoken
    with pytest.raises(EarshotError, match="nobody speaks its questions"):
        ask(told, replace(test, spoken=()))


def test_what_is_scored_is_what_a_library_answers(tmp_path: Path) -> None:
    """The same scores, for passages that each are a recording."""
    import earshot
    from earshot.audio import load
    from earshot.types import Clip

    samples = Path(__file__).parents[1] / "samples"
    names = ("council-meeting.mp3", "lecture.opus", "court-hearing.opus")
    root = tmp_path / "toy"
    (root / "audio").mkdir(parents=True)
    rows = []
    for name in names:
        write_wav(root / "audio" / f"{name}.wav", load(Clip(str(samples / name)))[16000 : 16000 * 11])
        row = {"id": name, "audio": f"audio/{name}.wav", "text": "one two three four five six", "split": "test"}
        rows.append(row)
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = replace(
        passages.read_passages("toy:test", tmp_path), questions=("the observatory", "gradient descent", "the museum")
    )
    encoder = earshot.encoders.load("passage")
    scores = passages.rankers(encoder)[""](passages.heard(encoder)(test), test)
    with earshot.open(tmp_path / "library") as library:
        library.index(root / "audio")
        for question, expected in zip(test.questions, scores, strict=True):
            found = {Path(p.recording.path).stem: p.score for p in library.ask(question, top=None)}
            best = max(found, key=lambda name: found[name])
            assert best == names[int(expected.argmax())] and found[best] == pytest.approx(expected.max(), abs=0.02)


def test_a_checkpoint_is_scored_by_its_vectors(published: Path, tmp_path: Path) -> None:
    """With and without tokens; it is no other model."""
    from earshot import encoders
    from earshot.train.clsr.model import PassageConfig, PassageModel
    from earshot.train.loop import save

    word = encoders.load("word")
    small: dict[str, Any] = dict(dim=8, heads=2, hidden=12, encoder_blocks=1, decoder_blocks=1, kernel=3)
    test = passages.read_passages("toy:test", pool(tmp_path))
    for dual in (0, 32):
        config = PassageConfig(**small, vocabulary=29, inputs=2 * word.frame_dim, text=str(published), dual=dual)
        save(tmp_path / "last.pt", PassageModel(config), None, 0)
        told = passages.trained(tmp_path / "last.pt", word)(test)
        assert told.vectors is not None and told.vectors.shape == (2, 32)
        assert any(told.texts) == (not dual)
        assert passages.rankers(EAR)["-meaning"](told, test).shape == (2, 2)


def test_speech_without_questions_is_asked_for_its_rarest_words(tmp_path: Path) -> None:
    test = passages.read_passages("toy:test", pool(tmp_path, questions=False))
    assert "one" in test.questions[0].split() and "two" in test.questions[1].split()
    assert all(len(question.split()) == passages.KEYWORDS for question in test.questions)


TEXT: Any = SimpleNamespace(
    pieces=SimpleNamespace(ids=lambda text: [len(word) for word in text.split()]),
    embed=lambda texts: np.ones((len(texts), 4)),
    embed_ids=lambda texts: np.ones((len(texts), 4)),
)


EAR: Any = SimpleNamespace(
    text=TEXT,
    word=None,
    speech_frames=lambda clip: clip,
    hear=lambda frames: SimpleNamespace(tokens=np.array([1])),
    read=lambda tokens: "one",
)


def test_what_a_recogniser_says_is_kept_for_other_runs(tmp_path: Path) -> None:
    loaded = []

    def make() -> Any:
        loaded.append(1)
        return lambda samples: f"heard {len(samples)}"

    test = passages.read_passages("toy:test", pool(tmp_path))
    for _ in range(2):
        told = passages.transcribed(TEXT, tmp_path / "kept", "toy", make)(test)
        assert told.texts == ["heard 16000", "heard 32000"]
        assert told.shared is not None and told.shared(["heard", "x"]).shape == (2, 2)
    assert loaded == [1]


def test_whisper_is_asked_as_its_package_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with the interface of faster-whisper 1.2; without package or model it is one line."""
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(EarshotError, match="pip install faster-whisper"):
        passages.whisper(tmp_path)
    package: Any = ModuleType("faster_whisper")

    class WhisperModel:
        def __init__(self, path: str, device: str, compute_type: str, local_files_only: bool) -> None:
            assert (device, compute_type, local_files_only) == ("cpu", "int8", True)
            if not (Path(path) / "model.bin").exists():
                raise RuntimeError("unable to open model.bin")

        def transcribe(self, samples: np.ndarray[Any, Any], language: str, beam_size: int) -> tuple[Any, None]:
            return iter([SimpleNamespace(text=" who paid"), SimpleNamespace(text=" for it?")]), None

    package.WhisperModel = WhisperModel
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    with pytest.raises(EarshotError, match=r"no Whisper model for CTranslate2 \(unable to open model.bin\)"):
        passages.whisper(tmp_path)
    (tmp_path / "model.bin").touch()
    assert passages.whisper(tmp_path)(np.zeros(16000, np.float32)) == "who paid for it?"


def test_documents_are_joined_up_to_their_length_and_say_where_each_sentence_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(longform, "LONGEST", 5.0)
    test = passages.read_passages("toy:test", pool(tmp_path, (1.0, 2.0, 1.5)))
    places = longform.documents(test, tmp_path / "documents")
    assert [place.document for place in places] == ["document-1", "document-1", "document-2"]
    assert [(place.start, place.end) for place in places] == [(0, 1), (1.6, 3.6), (0, 1.5)]
    with wave.open(str(tmp_path / "documents" / "document-1.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert set(samples[round(1.6 * 16000) : round(3.6 * 16000)]) <= {199, 200} and len(samples) == round(4.2 * 16000)
    longform.transcribe(places, test.texts, tmp_path / "texts")
    segments = json.loads((tmp_path / "texts" / "document-1.json").read_text())["segments"]
    assert [segment["text"] for segment in segments] == list(test.texts[:2])


def test_a_passage_holds_a_sentence_when_most_of_it_is_inside() -> None:
    def passage(document: str, start: float, end: float) -> Passage:
        return Passage(Recording(1, f"/x/{document}.wav", 60, 60), start, end, 0.5, "", Span(start, end), "")

    place = longform.Place("document-1", 10.0, 20.0)
    assert longform.holds(passage("document-1", 0, 16), place) and longform.holds(passage("document-1", 5, 50), place)
    assert not longform.holds(passage("document-1", 0, 14), place)
    assert not longform.holds(passage("document-2", 0, 60), place)


def test_the_page_has_a_table_for_each_test() -> None:
    origin = {"command": "python -m x", "commit": "abc", "machine": "m"}
    row = dict.fromkeys(passages_page.COLUMNS, 0.5) | {"test": "toy:test", "passages": 3, "hours": 0.1} | origin
    tops = {f"{kind}{k}": 0.25 for kind in ("top", "share") for k in (1, 3, 5)} | {"question_ms": 7}
    document = {"contender": "earshot", "test": "toy:test", "documents": 2, "hours": 1.0, "questions": 9} | origin
    rows = [row | {"contender": name} for name in ("text", "earshot")]
    page = passages_page.passages_page(rows, [document | {"document": tops, "library": tops}])
    assert page.index("| earshot | 0.5 |") < page.index("| text | 0.5 |") < page.index("| none | 0.25 (0.25) |")
    assert "3 passages and questions" in page and "earshot (toy:test)" in page

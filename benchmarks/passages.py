"""Questions against spoken passages (paper B, CLSR, arXiv 2511.09282): `python -m benchmarks.passages --help`.

In: read speech with its text, questions or none, contenders. Out: one line of JSON for each contender and test in
`results/passages.jsonl`. One question for each passage, all passages are one pool: recall at 1, 5 and 10 and mean
reciprocal rank from question to passage and back; word error rate of what was heard; processor seconds.

Tests: a folder with `questions.jsonl` (recipes/spoken_squad.py) is asked its questions. Read speech without any is
asked for its rarest words: five of each passage, as few others of the pool have them.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import bm25s
import click
import jiwer
import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Decoder

from benchmarks import store
from benchmarks.run import current_origin
from earshot import bm25, encoders, metrics
from earshot.ask import expected_counts, similarity, telling_examples, telling_words
from earshot.audio import SAMPLE_RATE, load
from earshot.encoders.passage import Heard, PassageEncoder, load_passage, stacked
from earshot.encoders.text import TextEncoder
from earshot.encoders.word import WordEncoder
from earshot.features import log_mel
from earshot.frames import FrameTable
from earshot.places import Haystack
from earshot.query import Query, typed_queries
from earshot.search import spot
from earshot.types import Clip, EarshotError, Recording

KEYWORDS = 5
ALOUD = "-questions"
"""How splits of spoken questions end (recipes/spoken_squad.py)."""
SPOKEN = "-spoken"
"""How names of contenders end that are asked aloud."""
SHORTEST = 6
"""Words of a passage that is asked for by its words."""
Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Passages:
    """A pool of spoken passages, each with its text, and one question for each."""

    name: str
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    questions: tuple[str, ...]
    spoken: tuple[Path, ...] = ()
    """The same questions as recordings, where there are any."""

    @property
    def samples(self) -> list[Floats]:
        return [load(Clip(str(path))) for path in self.paths]

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """(p,) seconds."""
        return np.array([len(samples) / SAMPLE_RATE for samples in self.samples])


@dataclass(frozen=True)
class Told:
    """What somebody makes of passages: their texts and vectors, the processor seconds that it took; and how to compare
    questions with them by words, and where the text encoder is not Earshot's, how to make vectors of them."""

    texts: list[str]
    vectors: NDArray[Any]
    seconds: float
    shared: Callable[[Sequence[str]], NDArray[Any]] | None = None
    """Questions -> scores (q, p)."""
    aloud: Callable[[Sequence[tuple[NDArray[np.int8], Heard]]], NDArray[Any]] | None = None
    """The same of spoken questions, frames and what is heard in them, where these tell more than that."""
    ask: Callable[[Sequence[str]], NDArray[Any]] | None = None


Reader = Callable[[Passages], Told]
Ranker = Callable[[Told, Passages], NDArray[Any]]
"""What is told of a test's passages, and the test for its questions -> scores (q, p)."""


def read_passages(name: str, folder: Path) -> Passages:
    """The test called CORPUS:SPLIT below `folder`. EarshotError where there is none."""
    corpus, _, split = name.partition(":")
    root = folder / corpus
    try:
        everything = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    except OSError as error:
        raise EarshotError(f"{root}: no speech with a manifest ({error})") from None
    aloud = {row["id"]: root / row["audio"] for row in everything if row["split"].endswith(ALOUD)}
    rows = [row for row in everything if row["id"] not in aloud and (not split or row["split"] == split)]
    asked = root / "questions.jsonl"
    if asked.exists():
        told = {line["id"]: line for line in map(json.loads, asked.read_text().splitlines())}
        rows = [row for row in rows if row["id"] in told]
        texts = [told[row["id"]]["sentence"] for row in rows]
        questions = [told[row["id"]]["question"] for row in rows]
    else:
        rows = [row for row in rows if len(row["text"].split()) >= SHORTEST]
        texts = [row["text"].lower() for row in rows]
        questions = keywords(texts)
    if not rows:
        raise EarshotError(f"{root}: no speech of split '{split}'")
    paths = tuple(root / row["audio"] for row in rows)
    spoken = tuple(aloud[id] for row in rows if (id := f"{row['id']}-question") in aloud)
    test = Passages(name, tuple(row["id"] for row in rows), paths, tuple(texts), tuple(questions))
    return replace(test, spoken=spoken) if len(spoken) == len(rows) else test


def keywords(texts: Sequence[str]) -> list[str]:
    """The KEYWORDS words of each text that fewest of the others have, the longer of two first, as they come in it."""
    words = [re.findall("[a-z']+", text) for text in texts]
    holding = Counter(word for of in words for word in set(of))
    chosen = [sorted(set(of), key=lambda w: (holding[w], -len(w), w))[:KEYWORDS] for of in words]
    return [" ".join(w for w in dict.fromkeys(of) if w in best) for of, best in zip(words, chosen, strict=True)]


def rankers(encoder: PassageEncoder) -> dict[str, Ranker]:
    """Ways to compare questions with what was told, by the ends of contenders' names; the first is Earshot's."""

    def by_meaning(told: Told, test: Passages) -> NDArray[Any]:
        """Vectors of a text encoder (paper B)."""
        return (told.ask or encoder.text.embed)(test.questions) @ told.vectors.T

    def by_words(told: Told, test: Passages) -> NDArray[Any]:
        """BM25 over word pieces, or over words that are sought in the sound, each counted by its chance."""
        assert told.shared is not None
        return told.shared(test.questions)

    def by_both(told: Told, test: Passages) -> NDArray[Any]:
        return similarity(by_meaning(told, test), by_words(told, test))

    def aloud(told: Told, test: Passages) -> NDArray[Any]:
        """As by both, of the questions as they are heard where somebody speaks them."""
        if not test.spoken:
            raise EarshotError(f"{test.name}: nobody speaks its questions")
        asked = [encoder.speech_frames(load(Clip(str(path)))) for path in test.spoken]
        said = [encoder.hear(frames) for frames in asked]
        heard = replace(test, questions=tuple(encoder.read(of.tokens) for of in said))
        shared = told.aloud(list(zip(asked, said, strict=True))) if told.aloud else by_words(told, heard)
        return similarity(by_meaning(told, heard), shared)

    return {"": by_both, "-meaning": by_meaning, "-words": by_words, "-bm25": by_bm25, SPOKEN: aloud}


def by_bm25(told: Told, test: Passages) -> NDArray[Any]:
    """BM25 as a library does it: whole words, stop words left out."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize([text or "-" for text in told.texts], show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(test.questions), return_ids=False, show_progress=False)
    return np.stack([index.get_scores(words) if words else np.zeros(len(told.texts)) for words in asked])


def heard(encoder: PassageEncoder) -> Reader:
    """What Earshot's passage encoder hears; words of questions are sought in the sound."""

    def read(test: Passages) -> Told:
        began = time.process_time()
        frames = [encoder.word.frames([log_mel(samples)])[0] for samples in test.samples]
        tokens = [encoder.hear(of).tokens for of in frames]
        vectors = encoder.embed_tokens(tokens)
        rows, starts = np.arange(len(frames)), np.zeros(len(frames))
        table = FrameTable(np.concatenate(frames), np.cumsum([0, *map(len, frames)]), starts, rows, 0)
        haystack = Haystack.of(table, encoder.word)
        seconds = time.process_time() - began
        recordings = {k: Recording(k, test.ids[k], test.lengths[k], test.lengths[k]) for k in rows.tolist()}

        def score(sought: Sequence[Sequence[Query]]) -> NDArray[Any]:
            hits = spot(haystack, sought, encoder.word, recordings)
            counts = expected_counts(hits, list(recordings.values()), rows, starts, test.lengths + 1)
            return bm25.scores(counts, test.lengths)

        def typed(question: str) -> NDArray[Any]:
            return score(typed_queries(telling_words(question, encoder.word.lexicon), encoder.word))

        def aloud(question: tuple[NDArray[np.int8], Heard]) -> NDArray[Any]:
            frames, said = question
            return score(telling_examples(frames, encoder.words(said), encoder.word))

        texts = [encoder.read(of) for of in tokens]
        return Told(texts, vectors, seconds, _of_each(typed), _of_each(aloud))

    return cache(read)


def _of_each(score: Callable[[T], NDArray[Any]]) -> Callable[[Sequence[T]], NDArray[Any]]:
    return lambda questions: np.stack([score(question) for question in questions])


def trained(path: Path, word: WordEncoder, *, reads: bool = False) -> Reader:
    """What a checkpoint of `earshot.train.clsr` makes of it, in torch: a stage, an ablation, or a dual encoder, which
    hears no words. Tokens are those that are likelier than none, as in training; at run time `cif.told` weighs them.
    reads: what its text encoder makes of the right transcript. EarshotError where it is none."""

    def read(test: Passages) -> Told:
        import torch

        from earshot.train.clsr.model import PassageModel, without_blanks
        from earshot.train.loop import checkpoint

        model = checkpoint(path).model
        if not isinstance(model, PassageModel):
            raise EarshotError(f"{path}: not a passage model")
        model.eval()
        pieces = model.text.pieces

        def ask(questions: Sequence[str]) -> NDArray[Any]:
            return model.text.embed(questions).numpy()

        texts, vectors = [], []
        began = time.process_time()
        if reads:
            known = ask(test.texts)
            return Told(list(test.texts), known, time.process_time() - began, ask=ask)
        with torch.no_grad():
            for samples in test.samples:
                (frames,) = word.frames([log_mel(samples)])
                features = torch.as_tensor(stacked(frames[:, : word.frame_dim])).float()[None] / 127
                length = torch.tensor([features.shape[1]])
                if model.pooled is not None:
                    vectors.append(model.embed_frames(features, length)[0].numpy())
                    continue
                heard = model.speech(features, length)
                vectors.append(model.embed(heard)[0].numpy())
                scores, counts = (heard.scores, heard.counts) if heard.borders is None else without_blanks(heard)
                texts.append(pieces.text(scores[0, : int(counts[0])].argmax(1).tolist()))
        return Told(texts, np.stack(vectors), time.process_time() - began, ask=ask)

    return cache(read)


def written(text: TextEncoder) -> Reader:
    """What was said, from the transcript."""
    return cache(lambda test: _told(text, test.texts, test, 0.0))


def transcribed(text: TextEncoder, folder: Path, name: str, make: Callable[[], Callable[[Floats], str]]) -> Reader:
    """What a recogniser makes of it, which is loaded where it has not been kept in `folder` by another run."""

    def read(test: Passages) -> Told:
        path = folder / f"{name}-{test.name.replace(':', '-')}.json"
        if not path.exists():
            recognise = make()
            began = time.process_time()
            found = {id: recognise(samples) for id, samples in zip(test.ids, test.samples, strict=True)}
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"cpu_seconds": time.process_time() - began, "heard": found}))
        kept = json.loads(path.read_text())
        texts = [kept["heard"][id] for id in test.ids]
        return _told(text, texts, test, kept["cpu_seconds"])

    return cache(read)


def pocketsphinx() -> Callable[[Floats], str]:
    """PocketSphinx with its own US English models."""
    decoder = Decoder(loglevel="FATAL")

    def recognise(samples: Floats) -> str:
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return best.hypstr if best else ""

    return recognise


def whisper(folder: Path) -> Callable[[Floats], str]:
    """faster-whisper with a model converted for CTranslate2, in int8 on as many threads as OMP_NUM_THREADS says.

    EarshotError where the package or the model is not there.
    """
    try:
        from faster_whisper import WhisperModel

        model = WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
    except ImportError:
        raise EarshotError("faster-whisper is not installed: pip install faster-whisper") from None
    except (RuntimeError, ValueError, OSError) as error:
        raise EarshotError(f"{folder}: no Whisper model for CTranslate2 ({error})") from None

    def recognise(samples: Floats) -> str:
        segments, _ = model.transcribe(samples, language="en", beam_size=5)
        return " ".join(segment.text.strip() for segment in segments)

    return recognise


def _told(text: TextEncoder, texts: Sequence[str], test: Passages, seconds: float) -> Told:
    began = time.process_time()
    tokens = [text.pieces.ids(of) for of in texts]
    vectors = text.embed_ids(tokens)
    seconds += time.process_time() - began
    index = bm25.Index([np.array(of, np.int64) for of in tokens])

    def score(question: str) -> NDArray[Any]:
        return bm25.scores(index.counts(sorted(set(text.pieces.ids(question)))), test.lengths)

    return Told(list(texts), vectors, seconds, _of_each(score))


def score(name: str, reader: Reader, ranker: Ranker, test: Passages, hours: float) -> dict[str, Any]:
    """A row of results."""
    told = reader(test)
    began = time.process_time()
    found = ranker(told, test)
    ranked = time.process_time() - began
    relevant = np.arange(len(test.ids))
    row: dict[str, Any] = {"contender": name, "test": test.name, "passages": len(test.ids), "hours": round(hours, 3)}
    for way, scores in (("question", found), ("passage", found.T)):
        ranks = metrics.ranks(scores, relevant)
        row |= {f"{way}_r{k}": round(metrics.recall_at(ranks, k), 4) for k in (1, 5, 10)}
        row[f"{way}_mrr"] = round(metrics.mean_reciprocal_rank(ranks), 4)
    plain = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip(), jiwer.RemoveMultipleSpaces()])
    row["wer"] = round(jiwer.wer(plain(list(test.texts)), plain(told.texts)), 4) if told.texts else "-"
    row |= {"seconds_per_hour": round(told.seconds / hours, 2), "question_ms": round(1000 * ranked / len(relevant), 2)}
    return row | asdict(current_origin("benchmarks.passages"))


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folders with manifests.")
@click.option("--test", "tests", multiple=True, required=True, help="CORPUS:SPLIT, or CORPUS for all of it.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Of a passage encoder and the text encoder beside it; those that Earshot ships unless told.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="NAME=PATH",
    help="A checkpoint of earshot.train.clsr, by its vectors alone.",
)
@click.option("--whisper", "whisper_folder", type=click.Path(path_type=Path), help="A model for faster-whisper.")
@click.option(
    "--contender",
    "names",
    multiple=True,
    help="earshot, text, sphinx, whisper; with -meaning, -words, -bm25, -spoken. NAME-text: by a checkpoint's own.",
)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER)
@click.option("--show", type=int, default=0, help="Print what was heard of so many passages.")
def main(
    speech: Path,
    tests: tuple[str, ...],
    weights: Path | None,
    checkpoints: tuple[str, ...],
    whisper_folder: Path | None,
    names: tuple[str, ...],
    work: Path,
    folder: Path,
    show: int,
) -> None:
    """Score contenders on pools of spoken passages; one line of JSON each in passages.jsonl."""
    try:
        encoder = load_passage(weights, encoders.load("word")) if weights else encoders.load("passage")
        text = encoder.text
        readers = {
            "earshot": heard(encoder),
            "text": written(text),
            "sphinx": transcribed(text, work, "sphinx", pocketsphinx),
        }
        if whisper_folder:
            readers["whisper"] = transcribed(text, work, "whisper", lambda: whisper(whisper_folder))
        ranked = rankers(encoder)
        contenders = {f"{who}{end}": (reader, how) for who, reader in readers.items() for end, how in ranked.items()}
        for name, _, path in (of.partition("=") for of in checkpoints):
            contenders[name] = trained(Path(path), encoder.word), ranked["-meaning"]
            contenders[f"{name}-text"] = trained(Path(path), encoder.word, reads=True), ranked["-meaning"]
            names = (*names, name)
        for test in (read_passages(name, speech) for name in tests):
            hours = float(test.lengths.sum()) / 3600
            for name in names or (name for name in contenders if test.spoken or not name.endswith(SPOKEN)):
                row = score(name, *contenders[name], test, hours)
                store.put(folder / "passages.jsonl", row, ("contender", "test"))
                click.echo(json.dumps(row))
            for said, told in list(zip(test.texts, readers["earshot"](test).texts, strict=True))[:show] if show else ():
                click.echo(f"  said:  {said}\n  heard: {told}")
    except EarshotError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()

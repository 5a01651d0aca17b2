"""Word and phone times that somebody made: Montreal Forced Aligner's TextGrids, CTM, or our JSON lines; and `align`.

In: files of times, and the transcripts they belong to. Out: `Alignment`, checked against audio and text.
Knows nothing of corpora as training reads them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from earshot.audio import SAMPLE_RATE, load
from earshot.pronounce import PHONES, pronounce_word
from earshot.train.align import Aligner, Alignment, Timed
from earshot.train.transcripts import CorpusError, Transcript, read_text, read_transcripts, words_of
from earshot.types import AudioError, Clip, QueryError, Seconds

SILENCES = frozenset(["", "sil", "sp", "spn", "<eps>", "<unk>", "<sil>", "[noise]", "{ns}"])
LOUD_FRAME = 320
"""Samples: 20 ms."""
LATE: Seconds = 0.1
"""How far beyond the end of its audio an alignment may reach: aligners round to whole frames."""

Alignments = Callable[[str], Alignment | None]
"""The word times of an utterance, by its id; None where there are none."""


def read_alignments(path: Path) -> Alignments:
    """Word times from a folder with one .TextGrid an utterance, from a .ctm file, or from a .jsonl file.

    TextGrids have the interval tiers "words" and "phones", as Montreal Forced Aligner writes them; CTM lines are
    `utterance channel start duration word`; JSON lines are what `earshot align` writes: {"id", "words", "phones"}, each
    a list of [start, end, label]; the `utterances.jsonl` of a prepared corpus is as good. Phones are ARPAbet; those of
    another set are left out. CorpusError for anything else.
    """
    if path.is_dir():
        grids = {grid.stem: grid for grid in path.rglob("*.TextGrid")}
        if not grids:
            raise CorpusError(f"{path}: no .TextGrid files below it")
        return lambda name: _text_grid(grids[name]) if name in grids else None
    readers = {".ctm": _ctm, ".jsonl": _json_lines}
    if path.suffix not in readers or not path.is_file():
        raise CorpusError(f"{path}: word times are a folder of TextGrids, a .ctm file or a .jsonl file")
    return readers[path.suffix](path).get


def complaint(alignment: Alignment, transcript: Transcript, seconds: Seconds) -> str | None:
    """Why word times do not fit the audio, `seconds` long, or the text; None where they do."""
    words, times = alignment.words, [*alignment.words, *alignment.phones]
    if not words:
        return "its alignment holds no words"
    if not np.isfinite([(t.start, t.end) for t in times]).all():
        return "its alignment has times that are no numbers"
    if (end := max(t.end for t in times)) > seconds + LATE:
        return f"its alignment ends at {end:.2f} s, the audio at {seconds:.2f} s"
    if any(t.end <= t.start or t.start < 0 for t in times) or not all(map(_ordered, (words, alignment.phones))):
        return "the times of its alignment are not in order"
    said = words_of(transcript.text)
    rest = iter(said)
    aligned = (word for t in words for word in words_of(t.label) or [t.label])
    strange = next((word for word in aligned if word not in rest), None)  # an aligner leaves out what it does not know
    if said and strange is not None:
        return f"its alignment has the words of another text: {strange!r} is not in it, or not in this place"
    return None


@dataclass
class Report:
    """What became of the utterances: how many have word times, and why others have none."""

    aligned: int = 0
    before: int = 0
    """Those that an earlier run aligned."""
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, most: int = 20) -> Iterator[str]:
        """One line for each utterance left out, at most so many, and one that counts."""
        for name, why in self.left_out[:most]:
            yield f"{name}: {why}"
        if len(self.left_out) > most:
            yield f"... and {len(self.left_out) - most} more"
        before = f", {self.before} that were done already" if self.before else ""
        yield f"{self.aligned} utterances with word times{before}, {len(self.left_out)} without"


class Finder:
    """Finds the word times of utterances: those that somebody made, else by forced alignment.

    `alone`: each utterance is one word, in any language, and its text the word's name; no phones are known of it.
    """

    def __init__(self, made: Alignments | None = None, alone: bool = False) -> None:
        self._made, self._alone = made, alone
        self._aligner = None if made or alone else Aligner(pronounce_word)
        self.report = Report()

    def __call__(self, transcript: Transcript, samples: NDArray[np.float32]) -> Alignment:
        """The alignment of `samples` (n,); one without words where there is none, whose reason goes to `report`."""
        return self._told(transcript, *self._find(transcript, samples))

    def given(self, transcript: Transcript, seconds: Seconds) -> Alignment:
        """The same from the times that somebody made, for audio of which only the length is at hand."""
        return self._told(transcript, *self._given(transcript, seconds))

    def _told(self, transcript: Transcript, found: Alignment | None, why: str | None) -> Alignment:
        if found is not None and why is None:
            self.report.aligned += 1
            return found
        self.report.left_out.append((transcript.id, why or "no alignment"))
        return Alignment((), ())

    def _find(self, transcript: Transcript, samples: NDArray[np.float32]) -> tuple[Alignment | None, str | None]:
        if self._alone:
            return Alignment((Timed(*loud_part(samples), transcript.text),), ()), None
        if self._made is not None:
            return self._given(transcript, len(samples) / SAMPLE_RATE)
        words = words_of(transcript.text)
        if not words:
            return None, "its text holds digits, whose reading is unknown" if transcript.text else "it has no text"
        assert self._aligner is not None
        try:
            found = self._aligner.align(samples, words)
        except QueryError as error:
            return None, str(error)
        return found, None if found else "its text does not fit what is said"

    def _given(self, transcript: Transcript, seconds: Seconds) -> tuple[Alignment | None, str | None]:
        assert self._made is not None
        try:
            found = self._made(transcript.id)
        except CorpusError as error:
            return None, str(error)
        if found is None:
            return None, "no word times are given for it"
        return found, complaint(found, transcript, seconds)


def loud_part(samples: NDArray[np.float32]) -> tuple[Seconds, Seconds]:
    """From the first to the last 20 ms of samples (n,) within 30 dB of the loudest; all where they are few."""
    frames = len(samples) // LOUD_FRAME
    if frames < 2:
        return 0.0, len(samples) / SAMPLE_RATE
    power = (samples[: frames * LOUD_FRAME].reshape(frames, LOUD_FRAME) ** 2).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 1e-3)
    return float(loud[0] * LOUD_FRAME / SAMPLE_RATE), float((loud[-1] + 1) * LOUD_FRAME / SAMPLE_RATE)


def align(source: Path, out: Path) -> Report:
    """Find when each word of the transcribed speech in `source` is said; one line of JSON an utterance into `out`.

    Goes on where a stopped run was. CorpusError where there is no transcribed speech, or `out` holds anything else,
    and AlignmentError without pocketsphinx; `out` is then as it was.
    """
    transcripts, done = list(read_transcripts(source)), _stored(out)
    finder = Finder()
    with _opened(out) as file:
        for transcript in transcripts:
            if transcript.id in done:
                finder.report.before += 1
                continue
            try:
                found = finder(transcript, load(Clip(str(transcript.audio))))
            except AudioError as error:
                finder.report.left_out.append((transcript.id, str(error)))
                continue
            row = {"id": transcript.id, "words": _listed(found.words), "phones": _listed(found.phones)}
            if found.words:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
    return finder.report


def _stored(out: Path) -> dict[str, Alignment]:
    try:
        return _json_lines(out) if out.exists() else {}
    except OSError as error:
        raise CorpusError(f"{out}: cannot be read ({error.strerror}); choose another file") from error


def _opened(out: Path) -> BinaryIO:
    """`out`, to go on after its last whole line."""
    try:
        file = open(out, "ab")  # noqa: SIM115
    except OSError as error:
        raise CorpusError(f"{out}: cannot be written ({error.strerror}); choose another file") from error
    whole = _whole_lines(out.read_bytes())
    file.truncate(len(whole))
    if whole and not whole.endswith(b"\n"):
        file.write(b"\n")
    return file


def _listed(times: Sequence[Timed]) -> list[tuple[float, float, str]]:
    return [(round(t.start, 3), round(t.end, 3), t.label) for t in times]


def _ordered(times: Sequence[Timed]) -> bool:
    return all(a.end <= b.start + 0.001 for a, b in pairwise(times))


def _arpabet(phones: Sequence[Timed]) -> tuple[Timed, ...]:
    """Phones without stress; none at all where one is of another set."""
    plain = tuple(Timed(p.start, p.end, p.label.rstrip("012").upper()) for p in phones)
    return plain if all(p.label in PHONES for p in plain) else ()


def _alignment(words: Sequence[Timed], phones: Sequence[Timed]) -> Alignment:
    spoken = tuple(Timed(w.start, w.end, w.label.lower()) for w in words if w.label.lower() not in SILENCES)
    return Alignment(spoken, _arpabet([p for p in phones if p.label.lower() not in SILENCES]))


def _text_grid(path: Path) -> Alignment:
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
        tiers = {name.split(" - ")[-1].lower(): grid.getTier(name).entries for name in grid.tierNames}
        times = {name: [Timed(e.start, e.end, e.label) for e in entries] for name, entries in tiers.items()}
        return _alignment(times["words"], times.get("phones", []))
    except (PraatioException, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CorpusError(f"{path}: not a TextGrid with a tier of words ({type(error).__name__})") from error


def _ctm(path: Path) -> dict[str, Alignment]:
    words: dict[str, list[Timed]] = defaultdict(list)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            name, _, start, duration, word = line.split()[:5]
            words[name].append(Timed(float(start), round(float(start) + float(duration), 6), word))
        except ValueError as error:
            raise CorpusError(f"{path}, line {number}: not `utterance channel start duration word`") from error
    return {name: _alignment(sorted(times, key=lambda t: t.start), ()) for name, times in words.items()}


def _json_lines(path: Path) -> dict[str, Alignment]:
    found = {}
    for number, line in enumerate(_whole_lines(path.read_bytes()).splitlines(), 1):
        try:
            row = json.loads(line)
            words, phones = ([_timed(time) for time in row.get(key) or ()] for key in ("words", "phones"))
            found[str(row["id"])] = _alignment(words, phones)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f'{path}, line {number}: not {{"id", "words", "phones"}} ({error!r})') from error
    return found


def _timed(time: dict[str, Any] | list[Any]) -> Timed:
    start, end, label = (time[key] for key in ("start", "end", "label")) if isinstance(time, dict) else time
    return Timed(float(start), float(end), label)


def _whole_lines(text: bytes) -> bytes:
    """Lines of JSON without a last one of ours that a kill cut short."""
    end = text.rfind(b"\n") + 1
    return text[:end] if b'{"id"'.startswith(text[end : end + 5]) and not _is_json(text[end:]) else text


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def complete_bytes(path: Path) -> int:
    """How much of a file of lines was written whole."""
    return path.read_bytes().rfind(b"\n") + 1

"""Rival: pocketsphinx decodes everything once with its own US English models; typed words are looked up in the result.

In: recordings. Out: a detection for each word of the lattices, scored by its posterior probability, so words that lost
to a better hypothesis can still be found. It takes no spoken examples and cannot hold words outside its dictionary.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from pocketsphinx import Decoder, Segmenter

from benchmarks.contract import Query, Setup, Source
from earshot.metrics import Detection
from earshot.types import Seconds

MIN_POSTERIOR = 1e-3
VAD_MODE = 2
ATTRIBUTE = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A word that may have been said. `posterior` sums all paths that hold it at about this place."""

    word: str
    start: Seconds
    end: Seconds
    posterior: float


@dataclass
class PocketsphinxText:
    """The decoding is stored as `pocketsphinx_text.decode.jsonl.gz` beside the results and used again by later runs."""

    store: Path
    kinds: tuple[str, ...] = ("typed",)
    probabilities: bool = True

    def prepare(self, recordings: Sequence[Source]) -> Seconds | None:
        seconds = None if self.store.exists() else _decode_all(recordings, self.store)
        lines = gzip.decompress(self.store.read_bytes()).decode().splitlines()
        self._words: dict[str, list[Detection]] = defaultdict(list)
        for line in lines[1:]:
            recording, start, end, word, posterior = json.loads(line)
            self._words[word].append(Detection(word, recording, start, end, posterior))
        return float(json.loads(lines[0])["cpu_seconds"]) if seconds is None else seconds

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        return [detection for query in queries for detection in self._words.get(query.word, [])]

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        decoder = Decoder(loglevel="FATAL")
        return [query.word for query in queries if decoder.lookup_word(query.word) is None]


def build(setup: Setup) -> PocketsphinxText:
    return PocketsphinxText(setup.results / "pocketsphinx_text.decode.jsonl.gz")


def _decode_all(recordings: Sequence[Source], store: Path) -> Seconds:
    """Writes every hypothesis of every recording; first line: the processor seconds it took."""
    began = time.process_time()
    decoder, lines = Decoder(loglevel="FATAL"), []
    for recording in recordings:
        pcm = soundfile.read(recording.path, dtype="int16")[0].tobytes()
        for segment in Segmenter(vad_mode=VAD_MODE).segment(io.BytesIO(pcm)):
            for h in decode(decoder, segment.pcm):
                start, end = segment.start_time + h.start, segment.start_time + h.end
                lines.append([recording.name, round(start, 2), round(end, 2), h.word, round(h.posterior, 4)])
    seconds = time.process_time() - began
    rows = [{"cpu_seconds": round(seconds, 1)}, *lines]
    store.parent.mkdir(parents=True, exist_ok=True)
    part = store.with_suffix(".part")
    part.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    part.rename(store)
    return seconds


def decode(decoder: Decoder, pcm: bytes) -> list[Hypothesis]:
    """The words of the lattice of one stretch of 16-bit speech at 16 kHz."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    lattice = decoder.get_lattice() if decoder.hyp() else None
    if lattice is None:
        return []
    with tempfile.NamedTemporaryFile("r", suffix=".htk") as file:
        lattice.write_htk(file.name)
        return list(_merged(_arcs(Path(file.name).read_text(encoding="utf-8"))))


def _arcs(lattice: str) -> Iterator[Hypothesis]:
    """The arcs of a lattice in HTK's format, each with the word of the node it leaves."""
    nodes: dict[str, tuple[Seconds, str]] = {}
    for line in lattice.splitlines():
        if line.startswith("I="):
            node = dict(ATTRIBUTE.findall(line))
            nodes[node["I"]] = float(node["t"]), node["W"]
        elif line.startswith("J="):
            arc = dict(ATTRIBUTE.findall(line))
            (start, word), (end, _) = nodes[arc["S"]], nodes[arc["E"]]
            if word.islower() and float(arc["p"]) > 0:
                yield Hypothesis(word, start, end, float(arc["p"]))


def _merged(arcs: Iterator[Hypothesis]) -> Iterator[Hypothesis]:
    """One hypothesis for all arcs of a word at one place: the times of the likeliest, the sum of their posteriors."""
    by_word: dict[str, list[Hypothesis]] = defaultdict(list)
    for arc in sorted(arcs, key=lambda arc: -arc.posterior):
        places = by_word[arc.word]
        middle = (arc.start + arc.end) / 2
        for i, place in enumerate(places):
            if place.start <= middle <= place.end:
                total = min(1.0, place.posterior + arc.posterior)
                places[i] = Hypothesis(place.word, place.start, place.end, total)
                break
        else:
            places.append(arc)
    return (place for places in by_word.values() for place in places if place.posterior >= MIN_POSTERIOR)

"""Rival: pocketsphinx keyword spotting, all typed words in one pass beside a phone loop.

In: recordings and typed words. Out: detections scored by pocketsphinx's log likelihood ratio against the phone loop,
with its threshold set low so that the score can be swept, plus a bonus for each phone: its manual sets thresholds by
length. It cannot index: the search reads the audio again. It takes no spoken examples.

Maximum term-weighted value by bonus in nats a phone: 0 .166, 2 .182, 6 .195 (taken), 12 .199 with fewer words found.
"""

from __future__ import annotations

import heapq
import io
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence

import soundfile
from pocketsphinx import Decoder, Segmenter

from benchmarks.contract import DETECTIONS_PER_QUERY, Query, Setup, Source
from earshot.metrics import Detection
from earshot.pronounce import pronounce
from earshot.types import QueryError, Seconds

THRESHOLD = "1e-20"
VAD_MODE = 2
FRAME: Seconds = 0.01
NATS = 1024
"""Its keyword scores are natural logarithms divided by this (ten bits are shifted away)."""
NATS_PER_PHONE = 6.0


class PocketsphinxKws:
    """Words outside pocketsphinx's dictionary are spelled out by Earshot's own pronunciations."""

    kinds = ("typed",)

    def prepare(self, recordings: Sequence[Source]) -> None:
        self._recordings = recordings

    def search(self, queries: Sequence[Query]) -> list[Detection]:
        missing = set(self.skipped(queries))
        decoder = decoder_of([query.word for query in queries if query.word not in missing])
        found: dict[str, list[Detection]] = defaultdict(list)
        for recording in self._recordings:
            pcm = soundfile.read(recording.path, dtype="int16")[0].tobytes()
            for segment in Segmenter(vad_mode=VAD_MODE).segment(io.BytesIO(pcm)):
                for detection in _spot(decoder, recording.name, segment.pcm, segment.start_time):
                    found[detection.query].append(detection)
        best = [heapq.nlargest(DETECTIONS_PER_QUERY, hits, key=lambda d: d.score) for hits in found.values()]
        return [detection for hits in best for detection in hits]

    def skipped(self, queries: Sequence[Query]) -> list[str]:
        decoder = Decoder(lm=None, loglevel="FATAL")
        return [query.word for query in queries if not _pronounceable(decoder, query.word)]


def build(setup: Setup) -> PocketsphinxKws:
    return PocketsphinxKws()


def _pronounceable(decoder: Decoder, word: str) -> bool:
    """Whether the word is in the decoder's dictionary, after adding our own pronunciation if need be."""
    if decoder.lookup_word(word) is None:
        try:
            phones = pronounce(word)[0]
        except QueryError:
            return False
        decoder.add_word(word, " ".join(phone.rstrip("012") for phone in phones), False)
    return True


def decoder_of(words: Sequence[str]) -> Decoder:
    decoder = Decoder(lm=None, loglevel="FATAL")
    with tempfile.NamedTemporaryFile("w", suffix=".kws", encoding="utf-8") as keyphrases:
        keyphrases.writelines(f"{word} /{THRESHOLD}/\n" for word in words if _pronounceable(decoder, word))
        keyphrases.flush()
        decoder.add_kws("keywords", keyphrases.name)
    decoder.activate_search("keywords")
    return decoder


def _spot(decoder: Decoder, recording: str, pcm: bytes, offset: Seconds) -> list[Detection]:
    """The keywords heard in one stretch of 16-bit speech at 16 kHz that begins `offset` seconds into the recording."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    found = []
    for hit in decoder.seg() or []:
        word = hit.word.strip()
        score = NATS * math.log(hit.prob) + NATS_PER_PHONE * len(decoder.lookup_word(word).split())
        start, end = offset + hit.start_frame * FRAME, offset + (hit.end_frame + 1) * FRAME
        found.append(Detection(word, recording, start, end, score))
    return found

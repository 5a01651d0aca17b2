"""Forced alignment: when each word and phone of a known text is said (pocketsphinx, US English model).

In: 16 kHz samples and their words. Out: word and phone spans, or None where the text does not fit the speech.
Knows nothing of corpora or networks; words outside pocketsphinx's dictionary get pronunciations from `pronounce`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earshot.types import EarshotError, Seconds

FRAME_SECONDS = 0.01
"""pocketsphinx decodes 100 frames a second."""

NARROW_BEAM, WIDE_BEAM = 1e-60, 1e-180
"""The wide beam aligns nearly everything that can be aligned, several times slower: it is the second try."""


class AlignmentError(EarshotError):
    """Forced alignment that cannot be done at all."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A word or phone and when it is said."""

    start: Seconds
    end: Seconds
    label: str


@dataclass(frozen=True, slots=True)
class Alignment:
    """Words and phones in order of time. Phones are ARPAbet without stress; silences are left out."""

    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]


class Aligner:
    """Aligns utterances of up to about a minute.

    `pronounce_word` maps a word to its pronunciations; it is asked only for words the dictionary lacks.
    """

    def __init__(self, pronounce_word: Callable[[str], Sequence[Sequence[str]]]) -> None:
        try:
            from pocketsphinx import Decoder
        except ModuleNotFoundError as error:
            raise AlignmentError("forced alignment needs pocketsphinx: pip install '.[train]'") from error

        self._pronounce_word = pronounce_word
        self._decoders = [
            Decoder(lm=None, loglevel="FATAL", bestpath=False, beam=beam, wbeam=beam, pbeam=beam)
            for beam in (NARROW_BEAM, WIDE_BEAM)
        ]

    def align(self, samples: NDArray[np.float32], words: Sequence[str]) -> Alignment | None:
        """Align lower-case `words` to `samples` (n,) float32 at 16 kHz. None where no alignment is found."""
        if not words or len(samples) < 1600:
            return None
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
        for decoder in self._decoders:
            self._add_missing(decoder, words)
            found = _align_once(decoder, pcm, words)
            if found is not None:
                return found
        return None

    def _add_missing(self, decoder, words: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
        for word in set(words):
            if decoder.lookup_word(word) is None:
                for k, phones in enumerate(self._pronounce_word(word)):
                    decoder.add_word(word if k == 0 else f"{word}({k + 1})", " ".join(phones), True)


def _align_once(decoder, pcm: bytes, words: Sequence[str]) -> Alignment | None:  # type: ignore[no-untyped-def]
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, pcm)
        decoder.set_alignment()
        _decode(decoder, pcm)
        alignment = decoder.get_alignment()
    except RuntimeError:
        return None
    entries = [(_timed(w, w.name.split("(")[0]), [_timed(p, p.name) for p in w]) for w in alignment]
    entries = [(word, phones) for word, phones in entries if word.label and word.label[0] not in "<["]
    timed = tuple(word for word, _ in entries)
    phones = tuple(phone for _, phones in entries for phone in phones)
    return Alignment(timed, phones) if [t.label for t in timed] == list(words) else None


def _decode(decoder, pcm: bytes) -> None:  # type: ignore[no-untyped-def]
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _timed(entry, label: str) -> Timed:  # type: ignore[no-untyped-def]
    return Timed(entry.start * FRAME_SECONDS, (entry.start + entry.duration) * FRAME_SECONDS, label)

"""Speech for texts that nobody read: the frames of other utterances, cut at their phones and joined.

In: takes of aligned speech, phones to be said. Out: frames as the word encoder might give for them, and where each
phone ends. Runs of phones are taken as long as there are any, each found together with the phone before it, as a phone
sounds by its neighbours; by one speaker where there is enough of him. Ours: concatenative synthesis (Hunt and Black,
1996) of what an encoder hears instead of a waveform, so that an hour costs a second. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from earshot.encoders.clock import FIRST_CENTRE, FRAME_SECONDS, N_CLASSES, SILENCE
from earshot.pronounce import PHONES
from earshot.train.clsr.frames import Take
from earshot.types import Seconds

Ints = NDArray[np.int64]
RUNS = (7, 6, 5, 4, 3, 2)
"""Phones that are looked for together, the first of them said already."""
PAUSE: Seconds = 0.05
"""Shorter gaps between phones belong to the phone before."""
_ID = {phone: k for k, phone in enumerate(PHONES)}


class Bank:
    """Phones of aligned speech, with the frames that each has; an utterance begins and ends with a silence."""

    def __init__(self, takes: Sequence[Take]) -> None:
        self.values = [take.frames for take in takes]
        speakers = {name: k for k, name in enumerate(sorted({t.utterance.speaker for t in takes}))}
        phones, edges, rows, voices = [], [], [], []
        for row, take in enumerate(takes):
            said, ends = units(take)
            phones.append(said)
            edges.append(np.stack([np.append(0, ends[:-1]), ends]))
            rows.append(np.full(len(said), row))
            voices.append(np.full(len(said), speakers[take.utterance.speaker]))
        self.phones, self.rows, self.voices = (np.concatenate(of) for of in (phones, rows, voices))
        self.edges = np.concatenate(edges, axis=1)
        self.share = np.bincount(self.voices).astype(np.float64)
        self.share /= self.share.sum()
        self.known = frozenset(self.phones.tolist())
        self._found = {n: self._index(n) for n in (*RUNS, 1)}

    def _index(self, n: int) -> tuple[Ints, Ints]:
        """Codes of all runs of n phones of one utterance, in order, and where each begins."""
        begins = np.arange(len(self.phones) - n + 1)
        begins = begins[self.rows[begins] == self.rows[begins + n - 1]]
        codes = _codes(np.stack([self.phones[begins + k] for k in range(n)]))
        order = np.argsort(codes, kind="stable")
        return codes[order], begins[order]

    def say(self, phones: Sequence[int], rng: Generator) -> tuple[NDArray[np.int8], Ints]:
        """Frames (n, dim) of a sequence of phones and silences, and the frame (len(phones),) before which each ends."""
        voice = int(rng.choice(len(self.share), p=self.share))
        out, ends, total, done = [], [], 0, 0
        while done < len(phones):
            begin, n = self._best(phones, done, voice, rng)
            row, edges = int(self.rows[begin]), self.edges[:, begin : begin + n]
            out.append(self.values[row][edges[0, 0] : edges[1, -1]])
            ends.append(total + edges[1] - edges[0, 0])
            total += int(edges[1, -1] - edges[0, 0])
            done += n
        return np.concatenate(out), np.concatenate(ends)

    def _best(self, phones: Sequence[int], done: int, voice: int, rng: Generator) -> tuple[int, int]:
        """Where to begin and how many phones to take, for those after the first `done`: first of the voice."""
        before = max(done - 1, 0)
        for own in (True, False):
            for n in RUNS:
                if n > len(phones) - before:
                    continue
                begins = self._places(phones[before : before + n])
                if own:
                    begins = begins[self.voices[begins] == voice]
                if len(begins):
                    begin = int(begins[int(rng.integers(len(begins)))])
                    return (begin, n) if done == 0 else (begin + 1, n - 1)
        begins = self._places(phones[done : done + 1])
        if not len(begins):
            raise ValueError(f"phone {phones[done]} is never said")
        return int(begins[int(rng.integers(len(begins)))]), 1

    def _places(self, run: Sequence[int]) -> Ints:
        codes, begins = self._found[len(run)]
        code = _codes(np.array(run)[:, None])[0]
        low, high = np.searchsorted(codes, [code, code + 1])
        return begins[low:high]


def _codes(runs: Ints) -> Ints:
    """A number for each column of phones (n, k)."""
    codes = np.zeros(runs.shape[1], np.int64)
    for phones in runs:
        codes = codes * N_CLASSES + phones
    return codes


def units(take: Take) -> tuple[Ints, Ints]:
    """Phones (n,) of an utterance, SILENCE first, last and in pauses, and the frame before which each ends."""
    phones, until, last = [SILENCE], [], 0.0
    for phone in take.utterance.phones:
        if phone.start - last > PAUSE and phones[-1] != SILENCE:
            until.append(last)
            phones.append(SILENCE)
        until.append(phone.start)
        phones.append(_ID[phone.label])
        last = phone.end
    ends = [frame_before(second / take.factor, len(take.frames)) for second in [*until, last]]
    return np.array([*phones, SILENCE]), np.array([*ends, len(take.frames)])


def frame_before(second: Seconds, n_frames: int) -> int:
    """How many of n frames have their middle before a time."""
    return int(np.clip(np.ceil((second - FIRST_CENTRE) / FRAME_SECONDS), 0, n_frames))

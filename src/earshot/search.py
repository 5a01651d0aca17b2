"""The read path of `find`: a typed or spoken query -> places in a library, best first.

In: an open store, the encoder that wrote it, a query. Out: hits with times, cosine and probability; for `ask` those of
several words at once. Knows nothing of how recordings got into the library, of how a place is found in frames, or of
printing.
"""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock

from earshot.encoders.word import WordEncoder
from earshot.library import Store
from earshot.places import LIKELY, Haystack, Places, find_each, find_places
from earshot.query import Query, spoken_query, typed_query
from earshot.types import Clip, Hit, Recording, Seconds

SPOTTED = (100, 400, 1600)
"""Spans of each pronunciation of a question's word that are aligned: more where half of them are likely."""
CHUNK_BYTES = 2 << 30
"""A library larger than this is searched piece by piece."""


class Searcher:
    """Searches one library; keeps its frames in memory between queries and notices when the library has changed.

    Where it has only grown, only what is new is read. Threads may share one: they take turns, but for examples, each
    of which is read and heard at once. While others write, what is searched may be `stale` for so long.
    """

    def __init__(self, store: Store, encoder: WordEncoder) -> None:
        self.store, self.encoder = store, encoder
        self.stale: Seconds = 0.0
        self._kept: dict[tuple[int, ...] | None, Haystack] = {}  # by ids: those of all, and of the last choice
        self._recordings: dict[int, Recording] = {}
        self._unread: list[int] = []
        self._is_large = False
        self._version = -1
        self._looked = -math.inf  # when, by time.monotonic()
        self._turn = Lock()

    def refresh(self) -> None:
        """Have the next search look for changes, however recent the last look is."""
        self._looked = -math.inf

    def version(self) -> int:
        """That of the library as it is searched now."""
        with self._turn:
            self._notice_changes()
            return self._version

    def close(self) -> None:
        """Close the store, once nobody searches."""
        with self._turn:
            self.store.close()

    def find(
        self, query: str | Clip, *, top: int | None = 20, threshold: float | None = None, within: str | None = None
    ) -> list[Hit]:
        """Places where `query` is said, best first: one hit a place, at most `top`, none below `threshold`.

        query: a word or phrase, or a spoken example. threshold: of the probability. within: a glob over paths.
        QueryError for a query that cannot be searched for; AudioError for a clip that cannot be read.
        """
        if not isinstance(query, str | Clip):
            raise TypeError(f"a query is a text or a Clip, not {type(query).__name__}")
        if top is not None and top < 1:
            raise ValueError(f"top is the number of hits, 1 or more, or None for all, not {top}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"a threshold is a probability from 0 to 1, not {threshold}")
        ways = typed_query(query, self.encoder) if isinstance(query, str) else spoken_query(query, self.encoder)
        hits = list[Hit]()
        with self._turn:
            recordings, ids = self._those(within)
            for haystack in self._haystacks(ids):
                hits += _hits(haystack, find_places(haystack, ways, self.encoder), ways[0].label, recordings)
        hits = [hit for hit in hits if threshold is None or hit.probability >= threshold]
        hits.sort(key=lambda hit: -hit.probability)
        return hits[:top]

    def spot(self, sought: Sequence[Sequence[Query]], within: str | None = None) -> list[list[Hit]]:
        """Where each of several things may be said, likely or not, in any order; nowhere where there is no way to."""
        found: list[list[Hit]] = [[] for _ in sought]
        if not any(sought):
            return found
        with self._turn:
            recordings, ids = self._those(within)
            for haystack in self._haystacks(ids):
                for hits, here in zip(found, spot(haystack, sought, self.encoder, recordings), strict=True):
                    hits += here
        return found

    def _those(self, within: str | None) -> tuple[dict[int, Recording], tuple[int, ...] | None]:
        """The recordings that match, as the library has them now, and their ids; None for all."""
        self._notice_changes()
        if within is None:
            return self._recordings, None
        recordings = {key: r for key, r in self._recordings.items() if matches(r, within)}
        return recordings, tuple(sorted(recordings))

    def _notice_changes(self) -> None:
        if time.monotonic() - self._looked < self.stale:
            return
        self._looked = time.monotonic()
        version = self.store.version()
        if version != self._version:
            before, self._recordings = self._recordings, {one.id: one for one in self.store.recordings()}
            self._is_large = self.store.totals().n_frames * self.encoder.stored_dim > CHUNK_BYTES
            if self._is_large or before.keys() - self._recordings.keys():
                self._kept, self._unread = {}, []
            if None in self._kept:
                self._unread += sorted(self._recordings.keys() - before.keys())  # ids only grow
            self._version = version

    def _haystacks(self, ids: tuple[int, ...] | None) -> Iterator[Haystack]:
        """The frames of the recordings with these ids, None for all; as a rule those of the last search are kept."""
        if self._is_large:
            for table in self.store.frame_chunks(CHUNK_BYTES, ids):
                yield Haystack.of(table, self.encoder)
            return
        whole = self._kept.get(None)
        if ids is None and (whole is None or self._unread):
            new = Haystack.of(
                self.store.frames(list(self._recordings) if whole is None else self._unread), self.encoder
            )
            self._kept[None] = new if whole is None else whole.joined(new)
            self._unread = []
        elif ids not in self._kept:
            self._kept = {} if whole is None else {None: whole}
            self._kept[ids] = Haystack.of(self.store.frames(ids), self.encoder)
        yield self._kept[ids]


def _hits(haystack: Haystack, places: Places, query: str, recordings: Mapping[int, Recording]) -> list[Hit]:
    """Places as hits in these recordings, by id; those in others are left out."""
    measured = (*haystack.located(places), places.cosines, places.chances)
    hits = []
    for id, start, end, cosine, chance in zip(*(of.tolist() for of in measured), strict=True):
        if recording := recordings.get(id):
            hits.append(Hit(recording, start, min(end, recording.seconds), cosine, chance, query))
    return hits


def spot(
    haystack: Haystack, sought: Sequence[Sequence[Query]], encoder: WordEncoder, recordings: Mapping[int, Recording]
) -> list[list[Hit]]:
    """Where each of several things may be said; quicker than to find one after another, as fewer spans are aligned.

    More are where one is said so often that its places may not be among them.
    """
    found: list[list[Hit]] = [[] for _ in sought]
    left = [k for k, of in enumerate(sought) if of]
    for most in SPOTTED:
        crowded = []
        for k, places in zip(left, find_each(haystack, [sought[k] for k in left], encoder, most), strict=True):
            found[k] = _hits(haystack, places, sought[k][0].label, recordings)
            if (places.chances >= LIKELY).sum() > most / 2:
                crowded.append(k)
        if not (left := crowded):
            break
    return found


def matches(recording: Recording, within: str) -> bool:
    """Whether the path is or ends as the glob says, or lies below a folder that does."""
    folder = within.rstrip("/")
    globs = (within, f"{folder}/*", f"*/{within}", f"*/{folder}/*")
    return any(fnmatch.fnmatch(recording.path, glob) for glob in globs)

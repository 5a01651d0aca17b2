"""The nouns of Earshot: what a recording, a span, a clip, a hit, a passage and an answer are.

In and out: plain frozen values that cross every module border. Knows nothing of audio, models or storage.
"""

from __future__ import annotations

from dataclasses import dataclass

Seconds = float

LISTEN_THRESHOLD = 0.3
"""The least probability of a hit in a stream, unless told otherwise."""
WATCH_EVERY: Seconds = 5
"""Folders are looked at so often, unless told otherwise."""


class EarshotError(Exception):
    """Anything a user can mend. The message is one line: what, what is wrong, what to do."""


class AudioError(EarshotError):
    """A recording that cannot be read as audio."""


class GoneError(AudioError):
    """A recording of a library whose file is gone, or no longer what was indexed."""


class QueryError(EarshotError):
    """A query that cannot be searched for: empty, unpronounceable, too short or too long."""


class LibraryError(EarshotError):
    """A library that cannot be opened, read or written."""


class LibraryBusyError(LibraryError):
    """A library that another process writes to; it will be free again."""


class EncoderError(EarshotError):
    """A model file that is missing, damaged or of another kind."""


class AnswerError(EarshotError):
    """An endpoint that cannot be asked, or gives no whole answer."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time inside a recording, in seconds from its start."""

    start: Seconds
    end: Seconds

    @property
    def duration(self) -> Seconds:
        return self.end - self.start

    @property
    def middle(self) -> Seconds:
        return (self.start + self.end) / 2


def _plain(seconds: Seconds) -> str:
    """To the millisecond, without trailing zeros."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken example: a whole audio file, or the stretch of it between `start` and `end`."""

    path: str
    start: Seconds | None = None
    end: Seconds | None = None

    def __str__(self) -> str:
        if self.start is None and self.end is None:
            return self.path
        return f"{self.path}@{_plain(self.start or 0)}-{'' if self.end is None else _plain(self.end)}"


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in a library. `seconds` is its length, `speech_seconds` how much of it is speech."""

    id: int
    path: str
    seconds: Seconds
    speech_seconds: Seconds


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a query is said.

    `score` is the cosine between span and query in the word encoder's space, for an example its sound or a word that
    it may be; `probability` the chance that the query is said there.
    """

    recording: Recording
    start: Seconds
    end: Seconds
    score: float
    probability: float
    query: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that may answer a question.

    `score` says how like the question it is, or the best of the passages within: the cosine of their vectors, and a
    share for the question's words that are in it. text: its words as the encoder `heard` them, with errors, or as its
    transcript says; best, best_text: the seconds in it that are most like the question, and their words; words: where
    words of the question seem to be said in it, in order of time.
    """

    recording: Recording
    start: Seconds
    end: Seconds
    score: float
    text: str
    best: Span
    best_text: str
    heard: bool = True
    words: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Citation:
    """The stretch of a recording that passage `number`, from 1 on, showed to a model, which cites it."""

    number: int
    recording: Recording
    start: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answers to a question from passages, and those it cites, in the order of its text.

    unknown: numbers that it cites and that no passage has.
    """

    text: str
    citations: tuple[Citation, ...]
    unknown: tuple[int, ...] = ()

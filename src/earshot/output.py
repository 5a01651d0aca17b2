"""What the command line prints of a search: hits as table, JSON lines, CSV, SRT or Audacity labels; passages; answers.

In: hits, passages. Out: text. Knows nothing of how they came about.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from earshot.types import Answer, EarshotError, Hit, Passage, Seconds

if TYPE_CHECKING:
    from earshot.listen import Told

FIELDS = ("recording", "start", "end", "score", "probability", "query")
"""Of a hit, in JSON lines and CSV: path, seconds, seconds, cosine, chance that the query is said there, query."""


def format_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the parameter `format`: one of `names`, of all formats of hits unless told, or None."""

    def given(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names or tuple(_TOLD)):
            command = click.option(f"--{name}", "format", flag_value=name, default=None, help=_TOLD[name])(command)
        return command

    return given


_TIED = "\u00a0"  # a space at which no line is broken
_TOLD = {
    "table": "A table to read; on a terminal this is the default.",
    "json": "One JSON object a line; elsewhere this is the default.",
    "csv": "Comma-separated values with a header line; a text like a formula gets a ' before it.",
    "srt": "Subtitles, for the hits in one recording.",
    "audacity": "Audacity labels, for the hits in one recording.",
}


def is_json(format: str | None) -> bool:
    """Whether passages and answers go to programs; by default they do where standard output is no terminal."""
    return (format or ("table" if sys.stdout.isatty() else "json")) == "json"


def text_of_passages(passages: Sequence[Passage], format: str | None) -> str:
    """Passages as text, in the order given, without the last line break; by default what suits standard output."""
    if is_json(format):
        return "\n".join(json.dumps(passage_row(passage), ensure_ascii=False) for passage in passages)
    return "\n".join(map(_told, passages))


def passage_row(passage: Passage) -> dict[str, Any]:
    """A passage as `ask --json` prints it."""
    return {
        "recording": path_from_here(passage.recording.path),
        "start": round(passage.start, 3),
        "end": round(passage.end, 3),
        "score": round(passage.score, 4),
        "text": passage.text,
        "heard": passage.heard,
        "best": {
            "start": round(passage.best.start, 3),
            "end": round(passage.best.end, 3),
            "text": passage.best_text,
        },
        "words": [
            {
                "word": hit.query,
                "start": round(hit.start, 3),
                "end": round(hit.end, 3),
                "probability": round(hit.probability, 4),
            }
            for hit in passage.words
        ],
    }


def _told(passage: Passage) -> str:
    """A passage for people: where, the seconds that are most like the question, and their words."""
    width = max(40, min(shutil.get_terminal_size().columns, 120)) - 6
    where = f"{printable(passage.recording.path)}@{_clock(passage.start)}-{_clock(passage.end)}"
    best = f"{_clock(passage.best.start)}-{_clock(passage.best.end)}"
    words = f"{'machine-heard' if passage.heard else 'transcript'}: {' '.join(passage.best_text.split())}"
    lines = textwrap.wrap(words, width, max_lines=4, placeholder=" ...", break_on_hyphens=False)
    if passage.words:
        found = (f"{hit.query} {_clock(hit.start)} ({hit.probability:.2f})" for hit in passage.words)
        whole = ", ".join(each.replace(" ", _TIED) for each in found)  # each on one line, or none of it
        told = textwrap.wrap(f"found: {whole}", width, max_lines=2, placeholder=" ...", break_on_hyphens=False)
        lines += [line.replace(_TIED, " ") for line in told]
    return "\n".join([f"{passage.score:4.2f}  {where}  best {best}", *(f"      {line}" for line in lines)])


def show_answer(pieces: Iterable[str | Answer], format: str | None) -> None:
    """Print an answer, below passages: for people as it arrives, then where what it cites is said; or as JSON.

    What came stays printed for people where the rest does not come.
    """
    printed, answer = "", Answer("", ())
    try:
        for piece in pieces:
            if isinstance(piece, Answer):
                answer = piece
            elif not is_json(format) and (shown := piece if printed else piece.lstrip()):
                click.echo(shown if printed else f"\n{shown}", nl=False)
                printed = shown
    finally:
        if printed and not printed.endswith("\n"):
            click.echo()
    cited = [(c.number, c.recording.path, c.start, c.end) for c in answer.citations]
    if is_json(format):
        fields = ("number", "recording", "start", "end")
        rows = [
            dict(zip(fields, (n, path_from_here(path), round(a, 3), round(b, 3)), strict=True))
            for n, path, a, b in cited
        ]
        click.echo(json.dumps({"answer": answer.text, "citations": rows}, ensure_ascii=False))
    elif cited:
        click.echo("\n" + "\n".join(f"[{n}] {printable(path)}@{_clock(a)}-{_clock(b)}" for n, path, a, b in cited))
    if answer.unknown:
        numbers = ", ".join(f"[{number}]" for number in answer.unknown)
        complain(f"the answer cites {numbers}, and there is no such passage: do not trust what stands before")
    elif not cited:
        complain("the answer cites no passage: nothing tells where it is from")


def text_of(hits: Sequence[Hit], format: str | None) -> str:
    """The hits as text, in the order given, without the last line break; by default what suits standard output.

    Raises click.UsageError for hits in several recordings where the format is for one.
    """
    format = format or ("table" if sys.stdout.isatty() else "json")
    if format in _SUFFIXES:
        recordings = {hit.recording.path for hit in hits}
        if len(recordings) > 1:
            raise click.UsageError(
                f"--{format} is for one recording and there are hits in {len(recordings)}: choose one with --in, or"
                " write a file for each with --out FOLDER"
            )
    return _FORMATS[format](hits).removesuffix("\n")


def write_each(hits: Sequence[Hit], format: str, folder: str) -> list[str]:
    """Write the hits of each recording to a file of its own, called after it, in `folder`; the paths written.

    Recordings of the same name get numbers. Raises EarshotError where a file cannot be written.
    """
    written: list[str] = []
    for recording in sorted({hit.recording.path for hit in hits}):
        stem = path = os.path.join(folder, os.path.splitext(os.path.basename(recording))[0])
        number = 1
        while path + _SUFFIXES[format] in written:
            number += 1
            path = f"{stem}-{number}"
        path += _SUFFIXES[format]
        if os.path.lexists(path):
            raise EarshotError(f"{path}: is there already and stays as it is; choose another --out, or take it away")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                file.write(_FORMATS[format]([hit for hit in hits if hit.recording.path == recording]))
        except OSError as error:
            raise EarshotError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
        written.append(path)
    return written


def told_row(told: Told) -> dict[str, Any]:
    """A hit in a stream: seconds from its start, the moment that it began, seconds from its end to its being told.

    The last two are None where the stream does not come as it is said.
    """
    hit = told.hit
    said = None if told.said is None else datetime.fromtimestamp(told.said).astimezone()
    return {
        "query": hit.query,
        "start": round(hit.start, 3),
        "end": round(hit.end, 3),
        "time": said and said.isoformat(timespec="milliseconds"),
        "probability": round(hit.probability, 4),
        "score": round(hit.score, 4),
        "latency": None if told.latency is None else round(told.latency, 3),
    }


def told_json(told: Told) -> str:
    return json.dumps(told_row(told), ensure_ascii=False)


def told_text(told: Told) -> str:
    """The same for people: when it began, how likely it is, what was said."""
    clock = "" if told.said is None else datetime.fromtimestamp(told.said).strftime("%H:%M:%S  ")
    return f"{clock}{_clock(told.hit.start)}  {told.hit.probability:.2f}  {printable(told.hit.query)}"


def path_from_here(path: str) -> str:
    """An absolute path as it is opened from the current folder: relative where it is below that, else absolute."""
    here = os.path.join(os.getcwd(), "")
    return path[len(here) :] if path.startswith(here) else path


def printable(path: str) -> str:
    """A path on one line, for people."""
    path = path_from_here(path)
    return path if path.isprintable() else repr(path)


def complain(message: str) -> None:
    """One line on standard error."""
    click.echo(f"earshot: {message}", err=True)


def _table(hits: Sequence[Hit]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    several = len({hit.query for hit in hits}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("probability", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("where", overflow="fold")
    if several:
        table.add_column("query", overflow="fold")
    for hit in hits:
        where = Text(f"{printable(hit.recording.path)}@{_clock(hit.start)}-{_clock(hit.end)}")
        row: list[str | Text] = [f"{hit.probability:.2f}", f"{hit.score:.2f}", where]
        table.add_row(*row, *([Text(hit.query)] if several else []))
    console = Console(file=io.StringIO(), force_terminal=sys.stdout.isatty())
    if not sys.stdout.isatty():
        console.width = 10_000  # nothing is wrapped for a program
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "".join(line.rstrip(" ") + "\n" for line in console.file.getvalue().splitlines())


def hit_rows(hits: Sequence[Hit]) -> Iterator[dict[str, Any]]:
    """Hits as `find --json` prints them: FIELDS."""
    for hit in hits:
        path, times = path_from_here(hit.recording.path), (round(hit.start, 3), round(hit.end, 3))
        yield dict(zip(FIELDS, (path, *times, round(hit.score, 4), round(hit.probability, 4), hit.query), strict=True))


def _json(hits: Sequence[Hit]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in hit_rows(hits))


def _csv(hits: Sequence[Hit]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in hit_rows(hits):
        writer.writerow({name: f"'{cell}" if _is_formula(cell) else cell for name, cell in row.items()})
    return text.getvalue()


def _is_formula(cell: object) -> bool:
    """Whether spreadsheets would run a text; those with ' before it they show."""
    return isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def _srt(hits: Sequence[Hit]) -> str:
    def time(seconds: Seconds) -> str:
        return _clock(seconds, digits=3, all_parts=True).replace(".", ",")

    return "\n".join(
        f"{number}\n{time(hit.start)} --> {time(hit.end)}\n{_label(hit)}\n"
        for number, hit in enumerate(sorted(hits, key=lambda hit: hit.start), 1)
    )


def _audacity(hits: Sequence[Hit]) -> str:
    in_time = sorted(hits, key=lambda hit: hit.start)
    return "".join(f"{hit.start:.6f}\t{hit.end:.6f}\t{_label(hit)}\n" for hit in in_time)


def _label(hit: Hit) -> str:
    return f"{' '.join(hit.query.split())} ({hit.probability:.2f})"


_FORMATS = {"table": _table, "json": _json, "csv": _csv, "srt": _srt, "audacity": _audacity}
_SUFFIXES = {"srt": ".srt", "audacity": ".txt"}


def _clock(seconds: Seconds, digits: int = 2, all_parts: bool = False) -> str:
    """[h:]mm:ss.ss, as `earshot clip` and `--like` read it too."""
    ticks = round(seconds * 10**digits)
    whole, fraction = divmod(ticks, 10**digits)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    end = f"{seconds:02d}.{fraction:0{digits}d}"
    if all_parts:
        return f"{hours:02d}:{minutes:02d}:{end}"
    return f"{hours}:{minutes:02d}:{end}" if hours else f"{minutes}:{end}"


def count(number: int, noun: str) -> str:
    """As in "1 recording" and "2 recordings"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

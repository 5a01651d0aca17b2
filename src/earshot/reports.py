"""What the command line prints of a library: progress, what an index run did, what the library holds.

In: reports, status. Out: text. Knows nothing of how they came about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earshot.output import complain, count, path_from_here, printable
from earshot.types import Recording, Seconds

if TYPE_CHECKING:
    from earshot.api import Status
    from earshot.ingest import IndexReport, Progress
    from earshot.library import Failure


def summary(report: IndexReport) -> str:
    """What an index run did, in one line."""
    parts = []
    if report.recordings:
        held = f"{_length(report.seconds)}, {_length(report.speech_seconds)} of speech"
        speed = f"{report.seconds / max(report.elapsed, 1e-3):.0f}x real time"
        recordings = count(len(report.recordings), "recording")
        parts.append(f"indexed {recordings} ({held}) in {_length(report.elapsed)}: {speed}")
    else:
        parts.append("nothing new")
    if report.transcripts.used:
        parts.append(count(report.transcripts.used, "transcript"))
    if report.unchanged:
        parts.append(f"{report.unchanged} unchanged")
    if report.failures:
        parts.append(f"{len(report.failures)} failed")
    if report.transcripts.failures:
        parts.append(f"{count(len(report.transcripts.failures), 'transcript')} failed")
    return "; ".join(parts)


@contextmanager
def progress_shown() -> Iterator[Callable[[Progress], None]]:
    """A callback for `Library.index`: names failures on standard error as they come, below them a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda state: _name_failure(state, complain)
        return
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)

    def line(message: str) -> None:
        console.print(f"earshot: {message}", markup=False, highlight=False, soft_wrap=True)

    columns = (
        bars.TextColumn("{task.fields[files]}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[speed]}x real time,"),
        bars.TimeRemainingColumn(compact=True),
        bars.TextColumn("left"),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, files="", speed="-")
        hearing: list[bool] = []

        def show(state: Progress) -> None:
            _name_failure(state, line)
            if state.hearing and not hearing:
                hearing.append(True)
                bar.reset(task)
            speed = state.seconds / max(bar.tasks[0].elapsed or 0.0, 0.1)
            files = f"{state.files} of {count(state.expected_files, 'recording')}{' heard' if state.hearing else ''}"
            total = state.expected_seconds or None
            bar.update(task, completed=state.seconds, total=total, files=files, speed=f"{speed:.0f}")

        yield show


def _name_failure(state: Progress, line: Callable[[str], None]) -> None:
    if state.failure is not None:
        line(told_failure(state.failure))


def told_failure(failure: Failure) -> str:
    """What failed and why, in one line."""
    return f"{printable(failure.path)}: {failure.reason}"


def text_of_recording(recording: Recording, format: str | None) -> str:
    """A recording that has just gone in, in one line; by default what suits standard output."""
    if (format or ("table" if sys.stdout.isatty() else "json")) == "table":
        held = f"{_length(recording.seconds)}, {_length(recording.speech_seconds)} of speech"
        return f"indexed {printable(recording.path)} ({held})"
    row = {
        "recording": path_from_here(recording.path),
        "seconds": round(recording.seconds, 3),
        "speech_seconds": round(recording.speech_seconds, 3),
    }
    return json.dumps(row, ensure_ascii=False)


def status_text(status: Status, library: str) -> str:
    """What a library holds, for people."""
    totals = status.totals
    held = f"{_length(totals.seconds)}, {_length(totals.speech_seconds)} of speech"
    size = f"{totals.bytes / 1e6:.1f} MB"
    if totals.speech_seconds:
        size += f": {totals.bytes_per_hour / 1e6:.1f} MB an hour, {totals.bytes_per_speech_hour / 1e6:.1f} of speech"
    lines = [
        f"library     {library}",
        f"encoder     {status.encoder}",
        f"recordings  {totals.recordings} ({held})",
        f"on disk     {size}",
    ]
    if totals.transcripts:
        lines.insert(3, f"transcripts {totals.transcripts}")
    if status.unheard:
        lines.append(
            f"unheard     {count(status.unheard, 'recording')}, not to be asked yet: run `earshot index` again"
        )
    lists = (
        ("changed", "`earshot index` them again", map(printable, status.changed)),
        (
            "vanished",
            "still searchable; if they are gone for good, take them out with `earshot remove`",
            map(printable, status.vanished),
        ),
        ("failed", "not searchable as they are now", (f"{printable(f.path)}: {f.reason}" for f in status.failures)),
    )
    for title, advice, entries in lists:
        if named := list(entries):
            lines += [f"{title:<11} {len(named)}, {advice}:", *(f"    {entry}" for entry in named)]
    return "\n".join(lines)


def status_json(status: Status, library: str) -> str:
    """What a library holds, as one JSON object."""
    totals = status.totals
    row = {
        "library": library,
        "encoder": {"name": status.encoder.name, "digest": status.encoder.digest},
        "recordings": totals.recordings,
        "seconds": round(totals.seconds, 3),
        "speech_seconds": round(totals.speech_seconds, 3),
        "unheard": status.unheard,
        "transcripts": totals.transcripts,
        "bytes": totals.bytes,
        "bytes_per_hour": round(totals.bytes_per_hour),
        "bytes_per_speech_hour": round(totals.bytes_per_speech_hour),
        "changed": list(map(path_from_here, status.changed)),
        "vanished": list(map(path_from_here, status.vanished)),
        "failures": [{"path": path_from_here(f.path), "reason": f.reason} for f in status.failures],
    }
    return json.dumps(row, ensure_ascii=False)


def _length(seconds: Seconds) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"

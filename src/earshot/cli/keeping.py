"""Commands that put recordings into a library, take them out, and tell what it holds: index, watch, remove, status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from earshot import output, reports
from earshot.cli.options import STOPPED, the_library
from earshot.types import WATCH_EVERY

if TYPE_CHECKING:
    from earshot.api import Library


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--transcripts",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False),
    help="Holds NAME.srt, NAME.vtt or Whisper's NAME.json for recordings called NAME; `ask` reads them too.",
)
@the_library
def index(paths: tuple[str, ...], transcripts: str | None, library: Library) -> int:
    """Bring recordings into the library.

    PATH is an audio or video file, or a folder with all that is below it. What is in already and has not changed is
    left alone, so the same command goes on where it was stopped. Exit code 1 where a file could not be read.
    """
    try:
        with reports.progress_shown() as progress:
            report = library.index(paths, transcripts=transcripts, progress=progress)
    except KeyboardInterrupt:
        output.complain("stopped; run the same command again to go on")
        return STOPPED
    for folder in report.empty_folders:
        output.complain(f"{output.printable(folder)}: no audio files in it")
    if unmatched := report.transcripts.unmatched:
        output.complain(
            f"of no recording in the library by their names: {_some(list(map(os.path.basename, unmatched)))}"
        )
    if silent := [recording.path for recording in report.recordings if not recording.speech_seconds]:
        output.complain(f"no speech in: {_some(silent)}")
    click.echo(reports.summary(report))
    return 1 if report.failures or report.transcripts.failures else 0


def _some(paths: Sequence[str], most: int = 5) -> str:
    """The first of some paths."""
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(map(output.printable, paths[:most])) + more


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False))
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.IntRange(1, 86_400),
    default=WATCH_EVERY,
    show_default=True,
    help="Look so often; a file goes in when two looks see it the same.",
)
@output.format_options("table", "json")
@the_library
def watch(folders: tuple[str, ...], every: int, format: str | None, library: Library) -> int:
    """Index what appears in folders, until it is stopped.

    First what is there, then whatever is new or has changed, also below, when it has stopped changing. A file that
    cannot be read is named once and tried again when it has changed. What is deleted stays in the library: see
    `earshot status` and `earshot remove`.
    """
    import signal

    from earshot.library import Failure
    from earshot.watch import watch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.stderr.isatty():
        output.complain(f"watching {', '.join(map(output.printable, folders))}; Ctrl-C stops")
    try:
        for seen in watch(library, folders, every=every):
            if isinstance(seen, Failure):
                output.complain(reports.told_failure(seen))
            else:
                click.echo(reports.text_of_recording(seen, format))
    except KeyboardInterrupt:
        output.complain("stopped")
    return STOPPED


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--transcripts", is_flag=True, help="Only the transcripts of the recordings.")
@the_library
def remove(paths: tuple[str, ...], transcripts: bool, library: Library) -> int:
    """Take recordings out of the library; their files stay, but for those that were sent to `earshot serve`.

    PATH is a recording, or a folder for all that is below it.
    """
    if "" in paths:
        raise click.UsageError("A PATH is empty; name a recording or a folder.")
    if transcripts:
        gone = {path: library.remove_transcripts(path) for path in paths}
        if sum(gone.values()):
            click.echo(f"took {output.count(sum(gone.values()), 'transcript')} out of the library")
        for path in (path for path, number in gone.items() if not number):
            output.complain(f"{output.printable(path)}: no transcript of it in the library")
        return 0 if all(gone.values()) else 1
    removed = {path: library.remove(path) for path in paths}
    unknown = [path for path, gone in removed.items() if not gone]
    if count := sum(map(len, removed.values())):
        click.echo(f"took {output.count(count, 'file')} out of the library")
    for path in unknown:
        output.complain(f"{output.printable(path)}: not in the library")
    return 1 if unknown else 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@the_library
def status(as_json: bool, library: Library) -> None:
    """Tell what the library holds.

    Also which of its files have vanished or changed since, and which could not be indexed.
    """
    text = reports.status_json if as_json else reports.status_text
    click.echo(text(library.status(), str(library.path)))

"""The command line: arguments -> one call of the Python interface -> printed.

In: arguments. Out: results on standard output, one line for each thing that is wrong on standard error, and an exit
code: 0, 1 where something could not be done, 2 for what cannot be asked, 130 when stopped. Knows nothing of the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from earshot import output
from earshot.types import AudioError, Clip, EarshotError, QueryError

if TYPE_CHECKING:
    from earshot.api import Library

STOPPED = 130


def main() -> None:
    """The program `earshot`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is not UTF-8 is printed \escaped, as JSON does it
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. What is wrong is said in one line; a traceback comes with EARSHOT_DEBUG=1."""
    try:
        return earshot.main(arguments, prog_name="earshot", standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        output.complain("stopped")
        return STOPPED
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        advice = f"; see `{context.command_path} --help`" if context else ""
        output.complain(" ".join(error.format_message().split()).removesuffix(".") + advice)
        return error.exit_code
    except EarshotError as error:
        output.complain(str(error))
        return 2 if isinstance(error, QueryError) else 1
    except Exception as error:
        if os.environ.get("EARSHOT_DEBUG"):
            raise
        told = " ".join(str(error).split())
        output.complain(f"unexpected {type(error).__name__}: {told}; EARSHOT_DEBUG=1 shows where")
        return 1


def _clip(text: str) -> Clip:
    from earshot.audio import parse_clip

    try:
        return parse_clip(text)
    except AudioError as error:
        raise click.BadParameter(str(error)) from error


_LIBRARY = "Folder of the library.  [default: .earshot, or what EARSHOT_LIBRARY names]"


def _library(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-l", "--library", metavar="FOLDER", callback=_open, help=_LIBRARY)(command)


def _open(context: click.Context, _: click.Parameter, folder: str | None) -> Library:
    from earshot.api import open

    library: Library = context.with_resource(open(folder or context.obj))
    return library


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("-l", "--library", metavar="FOLDER", envvar="EARSHOT_LIBRARY", default=".earshot", help=_LIBRARY)
@click.version_option(package_name="earshot", message="earshot %(version)s")
@click.pass_context
def earshot(context: click.Context, library: str) -> None:
    """Find what was said in recordings, by typing it, by an example, or by a question.

    \b
    earshot index talks/                        once; again when something is new
    earshot find gradient "climate change"      a word or a phrase each
    earshot find --like talk.mp3@61.5-62        what sounds like this
    earshot ask "who paid for the telescope?"   passages that may answer
    earshot listen --for "hey computer"         tell when it is said, live
    """
    context.obj = library
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@earshot.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--transcripts",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False),
    help="Holds NAME.srt, NAME.vtt or Whisper's NAME.json for recordings called NAME; `ask` reads them too.",
)
@_library
def index(paths: tuple[str, ...], transcripts: str | None, library: Library) -> int:
    """Bring recordings into the library.

    PATH is an audio or video file, or a folder with all that is below it. What is in already and has not changed is
    left alone, so the same command goes on where it was stopped. Exit code 1 where a file could not be read.
    """
    try:
        with output.progress_shown() as progress:
            report = library.index(paths, transcripts=transcripts, progress=progress)
    except KeyboardInterrupt:
        output.complain("stopped; run the same command again to go on")
        return STOPPED
    for folder in report.empty_folders:
        output.complain(f"{output.printable(folder)}: no audio files in it")
    click.echo(output.summary(report))
    return 1 if report.failures else 0


@earshot.command()
@click.argument("queries", metavar="[QUERY]...", nargs=-1)
@click.option(
    "--like",
    "examples",
    metavar="FILE[@START-END]",
    type=_clip,
    multiple=True,
    help="Find what sounds like this; may be repeated.",
)
@click.option("--top", metavar="K", type=click.IntRange(1), default=20, show_default=True, help="Hits for a query.")
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Only hits with at least this probability; at 0.1 a query has about 5 false alarms an hour.",
)
@click.option("--in", "within", metavar="GLOB", help="Only recordings whose path ends like this; or a folder.")
@output.format_options()
@click.option("--out", "folder", metavar="FOLDER", help="With --srt or --audacity: a file there for each recording.")
@_library
def find(
    queries: tuple[str, ...],
    examples: tuple[Clip, ...],
    top: int,
    threshold: float,
    within: str | None,
    format: str | None,
    folder: str | None,
    library: Library,
) -> None:
    """Find where QUERY, a word or a quoted phrase, is said; best first.

    Of several queries and examples the hits come together. Times are START-END as in FILE@START-END: seconds or
    [h:]mm:ss, with fractions. No hit is no error.
    """
    asked: list[str | Clip] = list(dict.fromkeys((*queries, *examples)))
    if not asked:
        raise click.UsageError("Name a QUERY or give --like FILE[@START-END].")
    if folder is not None and format not in ("srt", "audacity"):
        raise click.UsageError("--out goes with --srt or --audacity.")
    found = {query: library.find(query, top=top, threshold=threshold, within=_glob(within)) for query in asked}
    hits = sorted((hit for query in asked for hit in found[query]), key=lambda hit: -hit.probability)
    if hits and folder is not None and format is not None:
        click.echo("\n".join(map(output.printable, output.write_each(hits, format, folder))))
    elif hits:
        click.echo(output.text_of(hits, format))
    if missed := ", ".join(f"'{query}'" for query in asked if not found[query]):
        if not library.recordings():
            return output.complain("the library is empty; put recordings in with `earshot index PATH`")
        if within and not library.recordings(_glob(within)):
            raise click.UsageError(f"No recording in the library has a path that matches --in {within}.")
        where = f" in {within}" if within else ""
        least = min(0.1, threshold / 10)
        lower = f" with a probability of {threshold:g} or more: lower it, as in --threshold {least:g}"
        output.complain(f"no hit for {missed}{where}{lower if threshold else ''}")


@earshot.command()
@click.argument("question", metavar="[QUESTION]...", nargs=-1)
@click.option("--like", "spoken", metavar="FILE[@START-END]", type=_clip, help="A spoken question instead.")
@click.option("--top", metavar="K", type=click.IntRange(1), default=5, show_default=True, help="Passages to show.")
@click.option("--in", "within", metavar="GLOB", help="Only recordings whose path ends like this; or a folder.")
@output.format_options("table", "json")
@_library
def ask(
    question: tuple[str, ...], spoken: Clip | None, top: int, within: str | None, format: str | None, library: Library
) -> None:
    """Rank the passages that may answer QUESTION; best first.

    With each come its time, the seconds in it that are most like the question, and its words as the machine hears
    them: rough, with mistakes, to tell what it is about. Listen before you quote. Where there are transcripts
    (`earshot index --transcripts`) they are shown instead.
    """
    if bool(question) == (spoken is not None):
        raise click.UsageError("Type one QUESTION, or give a spoken one with --like FILE[@START-END].")
    asked = spoken or " ".join(question)
    passages = library.ask(asked, top=top, within=_glob(within))
    if passages:
        click.echo(output.text_of_passages(passages, format))
        if all(passage.heard and not passage.words for passage in passages):
            output.complain("no word of the question is found in these: they are alike in meaning at best")
    elif not library.recordings():
        output.complain("the library is empty; put recordings in with `earshot index PATH`")
    elif within and not library.recordings(_glob(within)):
        raise click.UsageError(f"No recording in the library has a path that matches --in {within}.")
    else:
        output.complain(
            f"no words were heard in {f'the recordings that match --in {within}' if within else 'any recording'}"
        )


@earshot.command()
@click.option("--for", "words", metavar="QUERY", multiple=True, help="A word or phrase to tell; may be repeated.")
@click.option(
    "--like",
    "examples",
    metavar="FILE[@START-END]",
    type=_clip,
    multiple=True,
    help="Tell what sounds like this; may be repeated.",
)
@click.option("--from", "source", metavar="SOURCE", help="URL, pipe or file; - for PCM.  [default: the microphone]")
@click.option("--rate", metavar="HZ", type=int, default=16000, show_default=True, help="Of PCM: 16-bit, mono.")
@click.option("--device", metavar="NAME", help="Another microphone: a part of its name, or its number.")
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Only hits with at least this probability; at 0.3 a common word has 2 or 3 false alarms an hour.",
)
@click.option("--exec", "command", metavar="COMMAND", help="Run for each hit; {query}, {start} ... are filled in.")
@click.option("--live", is_flag=True, help="SOURCE does not wait: drop what comes too fast, as of a microphone.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on a terminal too.")
def listen(
    words: tuple[str, ...],
    examples: tuple[Clip, ...],
    source: str | None,
    rate: int,
    device: str | None,
    threshold: float,
    command: str | None,
    live: bool,
    as_json: bool,
) -> None:
    """Tell when a word or phrase is said, as soon as it is said.

    A hit is a line: on a terminal to read, elsewhere a JSON object. COMMAND is run without a shell; it also finds the
    hit in EARSHOT_QUERY, EARSHOT_START, EARSHOT_END, EARSHOT_PROBABILITY ... Ends with the source, or with Ctrl-C.
    """
    asked: list[str | Clip] = list(dict.fromkeys((*words, *examples)))
    if not asked:
        raise click.UsageError("Name a word with --for QUERY or give --like FILE[@START-END].")
    if source != "-" and rate != 16000:
        raise click.UsageError("--rate goes with --from -.")
    if source is not None and device is not None:
        raise click.UsageError("--device names a microphone: leave out --from.")
    from earshot import live as sound
    from earshot.hook import Hook
    from earshot.listen import Lost, Spotter
    from earshot.listen import listen as told

    hook = Hook(command, output.complain) if command is not None else None
    spotter = Spotter(asked, threshold=threshold)
    feed = sound.Feed(sound.source(source, rate=rate, device=device), live=live or source is None)
    if sys.stderr.isatty():
        output.complain(f"listening to {source or 'the microphone'}; Ctrl-C stops")
    try:
        for one in told(feed, spotter):
            if isinstance(one, Lost):
                output.complain(f"too slow: {one.seconds:.1f} s of sound were dropped before {one.end:.1f} s")
                continue
            click.echo(output.told_text(one) if sys.stdout.isatty() and not as_json else output.told_json(one))
            sys.stdout.flush()
            if hook:
                hook.run(output.told_row(one))
        if hook:
            hook.close()
    finally:
        feed.close()


def _glob(within: str | None) -> str | None:
    """The glob over absolute paths that a folder, or a pattern that starts from the current folder, stands for."""
    if within is None:
        return None
    if os.path.isdir(within):
        return os.path.join(_escaped(os.path.abspath(within)), "*")
    if within.startswith((f".{os.sep}", f"..{os.sep}")):
        return os.path.abspath(within)
    return within


def _escaped(path: str) -> str:
    import glob

    return glob.escape(path)


@earshot.command()
@click.argument("clip", metavar="FILE@START-END", type=_clip)
@click.argument("out", metavar="OUT.wav")
def clip(clip: Clip, out: str) -> None:
    """Cut a clip out of a recording: 16 kHz, mono, wav."""
    from earshot import audio

    if not out.lower().endswith(".wav"):
        raise click.UsageError(f"{out}: clips are written as wav; name it OUT.wav.")
    if os.path.exists(out) and os.path.exists(clip.path) and os.path.samefile(out, clip.path):
        raise click.UsageError(f"{out} is the recording itself; name another OUT.wav.")
    audio.write_wav(out, audio.load(clip))


@earshot.command()
@click.argument("source", metavar="FOLDER", type=click.Path(exists=True, file_okay=False))
@click.argument("out", metavar="OUT.jsonl")
def align(source: str, out: str) -> int:
    """Find when each word of transcribed English speech is said.

    FOLDER holds audio files with a .txt of the same name beside them, LibriSpeech's *.trans.txt, or a manifest.jsonl.
    OUT.jsonl gets one line for each utterance: {"id", "words", "phones"}, lists of [start, end, label]; the same
    command goes on where it was stopped. Needs pip install '.[train]'. Exit code 1 where an utterance could not be
    aligned.
    """
    from pathlib import Path

    from earshot.train.alignments import align

    if not out.endswith(".jsonl"):
        raise click.UsageError(f"{out}: word times are written as JSON lines; name it OUT.jsonl.")
    report = align(Path(source), Path(out))
    for line in report.lines():
        output.complain(line)
    return 1 if report.left_out else 0


@earshot.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@_library
def remove(paths: tuple[str, ...], library: Library) -> int:
    """Take recordings out of the library; their files stay.

    PATH is a recording, or a folder for all that is below it.
    """
    if "" in paths:
        raise click.UsageError("A PATH is empty; name a recording or a folder.")
    removed = {path: library.remove(path) for path in paths}
    unknown = [path for path, gone in removed.items() if not gone]
    if count := sum(map(len, removed.values())):
        click.echo(f"took {count} file{'' if count == 1 else 's'} out of the library")
    for path in unknown:
        output.complain(f"{output.printable(path)}: not in the library")
    return 1 if unknown else 0


@earshot.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_library
def status(as_json: bool, library: Library) -> None:
    """Tell what the library holds.

    Also which of its files have vanished or changed since, and which could not be indexed.
    """
    text = output.status_json if as_json else output.status_text
    click.echo(text(library.status(), str(library.path)))

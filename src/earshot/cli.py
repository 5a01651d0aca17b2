"""The command line: arguments -> one call of the Python interface -> printed.

In: arguments. Out: results on standard output, one line for each thing that is wrong on standard error, and an exit
code: 0, 1 where something could not be done, 2 for what cannot be asked, 130 when stopped. Knows nothing of the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from earshot import output
from earshot.types import AnswerError, AudioError, Clip, EarshotError, Passage, QueryError

if TYPE_CHECKING:
    from earshot.answer import Endpoint
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


def _endpoint(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameter `endpoint`: what may answer; None where none is named, or there is no --answer."""
    options = (
        click.option(
            "--endpoint", "url", metavar="URL", envvar="EARSHOT_ENDPOINT", help="Of it, as in http://localhost:11434."
        ),
        click.option("--model", metavar="NAME", envvar="EARSHOT_MODEL", help="Which of the models there."),
        click.option(
            "--send",
            type=click.Choice(["text", "audio"]),
            default="text",
            show_default=True,
            help="What it gets: words or sound.",
        ),
        click.option(
            "--timeout",
            metavar="S",
            type=click.IntRange(1, 86_400),
            default=120,
            show_default=True,
            help="Its longest silence, in seconds.",
        ),
    )

    @wraps(command)
    def given(url: str | None, model: str | None, send: Literal["text", "audio"], timeout: float, **others: Any) -> Any:
        if not url or not others.get("answer", True):
            return command(endpoint=None, **others)
        from earshot.answer import Endpoint

        try:
            endpoint = Endpoint(url, model, os.environ.get("EARSHOT_API_KEY") or None, send, timeout)
        except AnswerError as error:
            raise click.UsageError(str(error)) from error
        return command(endpoint=endpoint, **others)

    for option in reversed(options):
        given = option(given)
    return given


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
    if unmatched := report.transcripts.unmatched:
        names = ", ".join(output.printable(os.path.basename(path)) for path in unmatched[:5])
        more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
        output.complain(f"of no recording in the library by their names: {names}{more}")
    click.echo(output.summary(report))
    return 1 if report.failures or report.transcripts.failures else 0


@earshot.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False))
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.IntRange(1, 86_400),
    default=5,
    show_default=True,
    help="Look so often; a file goes in when two looks see it the same.",
)
@output.format_options("table", "json")
@_library
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
                output.complain(output.told_failure(seen))
            else:
                click.echo(output.text_of_recording(seen, format))
    except KeyboardInterrupt:
        output.complain("stopped")
    return STOPPED


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
@click.option("--answer", is_flag=True, help="Have a model answer from the passages, and cite them.")
@_endpoint
@_library
def ask(
    question: tuple[str, ...],
    spoken: Clip | None,
    top: int,
    within: str | None,
    format: str | None,
    answer: bool,
    endpoint: Endpoint | None,
    library: Library,
) -> None:
    """Rank the passages that may answer QUESTION; best first.

    With each come its time, the seconds in it that are most like the question, and its words as the machine hears
    them: rough, with mistakes, to tell what it is about. Listen before you quote. Where there are transcripts
    (`earshot index --transcripts`) they are shown instead.

    With --answer the question and these passages go to the model at --endpoint, any that speaks OpenAI's chat
    completions: their words, or with --send audio their sound. EARSHOT_ENDPOINT and EARSHOT_MODEL stand in for the
    options; a key goes into EARSHOT_API_KEY. Without --answer nothing is sent anywhere.
    """
    if bool(question) == (spoken is not None):
        raise click.UsageError("Type one QUESTION, or give a spoken one with --like FILE[@START-END].")
    if answer and endpoint is None:
        raise click.UsageError(
            "--answer needs an OpenAI-compatible endpoint: --endpoint URL or EARSHOT_ENDPOINT=URL, as in"
            " http://localhost:11434 (Ollama)."
        )
    source = click.get_current_context().get_parameter_source
    if not answer and any(source(name) is ParameterSource.COMMANDLINE for name in ("url", "model", "send", "timeout")):
        output.complain("nothing is sent, as there is no --answer")
    asked = spoken or " ".join(question)
    passages = library.ask(asked, top=top, within=_glob(within))
    if passages:
        click.echo(output.text_of_passages(passages, format))
        if all(passage.heard and not passage.words for passage in passages):
            output.complain("no word of the question is found in these: they are alike in meaning at best")
        if endpoint is not None:
            _answer(asked, passages, endpoint, format)
    elif not library.recordings():
        output.complain("the library is empty; put recordings in with `earshot index PATH`")
    elif within and not library.recordings(_glob(within)):
        raise click.UsageError(f"No recording in the library has a path that matches --in {within}.")
    else:
        output.complain(
            f"no words were heard in {f'the recordings that match --in {within}' if within else 'any recording'}"
        )


def _answer(asked: str | Clip, passages: list[Passage], endpoint: Endpoint, format: str | None) -> None:
    from earshot.answer import MOST, answer

    if len(passages) > (most := MOST[endpoint.sends]):
        output.complain(f"only the first {most} passages are sent as {endpoint.sends}")
    output.show_answer(answer(asked, passages, endpoint), format)


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
@_library
def mcp(library: Library) -> None:
    """Let an assistant search the library, by the Model Context Protocol.

    The assistant starts this command itself and talks to it over standard input and output; tell it to, with the
    library's absolute path. Needs pip install '.[mcp]'.
    """
    try:
        from earshot.mcp import create_server
    except ImportError as error:
        raise EarshotError(f"`earshot mcp` needs the MCP SDK ({error}): pip install 'earshot[mcp]'") from error
    import signal

    from earshot.api import open

    def stop(*_: object) -> None:  # at once: a thread waits for standard input, and Python would wait for the thread
        output.complain("stopped")
        os._exit(STOPPED)

    signal.signal(signal.SIGINT, stop)
    if sys.stdin.isatty():
        output.complain("waits for an assistant on standard input; Ctrl-C stops")
    create_server(open(library.path.absolute())).run()


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
@click.option("--transcripts", is_flag=True, help="Only the transcripts of the recordings.")
@_library
def remove(paths: tuple[str, ...], transcripts: bool, library: Library) -> int:
    """Take recordings out of the library; their files stay.

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


@earshot.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_library
def status(as_json: bool, library: Library) -> None:
    """Tell what the library holds.

    Also which of its files have vanished or changed since, and which could not be indexed.
    """
    text = output.status_json if as_json else output.status_text
    click.echo(text(library.status(), str(library.path)))


@earshot.command()
@click.option("--host", metavar="NAME", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--token", metavar="SECRET", envvar="EARSHOT_TOKEN", help="What clients must show; needed where others can connect."
)
@_endpoint
@_library
def serve(host: str, port: int, token: str | None, endpoint: Endpoint | None, library: Library) -> int:
    """Search and listen in a browser, and let other programs search over HTTP.

    The page is at the address that is printed, and what programs can ask at /openapi.json. Only this machine can
    connect unless --host says otherwise. The model at --endpoint, if you name one, is asked when somebody wants an
    answer, as by `ask --answer`; nothing is sent before. Needs pip install 'earshot[serve]'.
    """
    if token == "":
        raise click.UsageError("The token is empty; name a secret.")
    try:
        from earshot.server.run import serve
    except ModuleNotFoundError as error:
        raise EarshotError(f"the server needs {error.name}: pip install 'earshot[serve]'") from error
    try:
        serve(library, host, port, token=token, endpoint=endpoint)
    except KeyboardInterrupt:
        output.complain("stopped")
        return STOPPED
    return 0

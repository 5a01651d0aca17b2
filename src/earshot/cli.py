"""The command line: arguments -> one call of the Python interface -> printed.

In: arguments. Out: results on standard output, one line for each thing that is wrong on standard error, and an exit
code: 0, 1 where something could not be done, 2 for what cannot be asked, 130 when stopped. Knows nothing of the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import reduce, wraps
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


_ENDPOINT = (  # what answers
    click.option(
        "--endpoint", metavar="URL", envvar="EARSHOT_ENDPOINT", help="Where the model is, as in http://localhost:11434."
    ),
    click.option("--model", metavar="NAME", envvar="EARSHOT_MODEL", help="Its name there."),
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


def _with(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[..., Any]:
    """Give a command several options."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


def _answered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameter `endpoint`: what shall answer, or None. Without --answer nothing is ever sent."""
    flag = click.option("--answer", is_flag=True, help="Have a model answer from the passages, and cite them.")

    @wraps(command)
    def given(
        answer: bool,
        endpoint: str | None,
        model: str | None,
        send: Literal["text", "audio"],
        timeout: float,
        **others: Any,
    ) -> Any:
        if not answer:
            source = click.get_current_context().get_parameter_source
            if any(source(name) is ParameterSource.COMMANDLINE for name in ("endpoint", "model", "send", "timeout")):
                output.complain("nothing is sent, as there is no --answer")
            return command(endpoint=None, **others)
        return command(endpoint=_endpoint(endpoint, model, send, timeout), **others)

    answered: Callable[..., Any] = _with(flag, *_ENDPOINT)(given)
    return answered


def _endpoint(url: str | None, model: str | None, send: Literal["text", "audio"], timeout: float) -> Endpoint:
    if not url:
        raise click.UsageError(
            "--answer needs an OpenAI-compatible endpoint: --endpoint URL or EARSHOT_ENDPOINT=URL, as in"
            " http://localhost:11434 (Ollama)."
        )
    from earshot.answer import Endpoint

    try:
        return Endpoint(url, model, os.environ.get("EARSHOT_API_KEY") or None, send, timeout)
    except AnswerError as error:
        raise click.UsageError(str(error)) from error


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
@_answered
@_library
def ask(
    question: tuple[str, ...],
    spoken: Clip | None,
    top: int,
    within: str | None,
    format: str | None,
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


@earshot.command()
@click.option("--host", metavar="NAME", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--token", metavar="SECRET", envvar="EARSHOT_TOKEN", help="What clients must show; needed where others can connect."
)
@_with(*_ENDPOINT)
@_library
def serve(
    host: str,
    port: int,
    token: str | None,
    endpoint: str | None,
    model: str | None,
    send: Literal["text", "audio"],
    timeout: float,
    library: Library,
) -> int:
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
    answers = _endpoint(endpoint, model, send, timeout) if endpoint else None
    try:
        serve(library, host, port, token=token, endpoint=answers)
    except KeyboardInterrupt:
        output.complain("stopped")
        return STOPPED
    return 0

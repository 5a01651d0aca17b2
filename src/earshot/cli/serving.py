"""Commands that go on until they are stopped and serve somebody else: listen, serve, mcp."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from earshot import output
from earshot.cli.options import PROBABILITY, STOPPED, an_endpoint, examples, the_library
from earshot.types import LISTEN_THRESHOLD, Clip, EarshotError

if TYPE_CHECKING:
    from earshot.answer import Endpoint
    from earshot.api import Library


@click.command()
@click.option("--for", "words", metavar="QUERY", multiple=True, help="A word or phrase to tell; may be repeated.")
@examples
@click.option("--from", "source", metavar="SOURCE", help="URL, pipe or file; - for PCM.  [default: the microphone]")
@click.option("--rate", metavar="HZ", type=int, default=16000, show_default=True, help="Of PCM: 16-bit, mono.")
@click.option("--device", metavar="NAME", help="Another microphone: a part of its name, or its number.")
@click.option(
    "--threshold",
    metavar="P",
    type=PROBABILITY,
    default=LISTEN_THRESHOLD,
    show_default=True,
    help="Only hits with at least this probability; by default a common word has 2 or 3 false alarms an hour.",
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
    opened = sound.source(source, rate=rate, device=device, complain=output.complain)
    feed = sound.Feed(opened, live=live or source is None)
    if sys.stderr.isatty():
        output.complain(f"listening to {source or 'the microphone'}; Ctrl-C stops")
    try:
        for one in told(feed, spotter, timed=not sound.is_file(source)):
            if isinstance(one, Lost):
                output.complain(f"too slow: {one.seconds:.1f} s of sound were dropped before {one.end:.1f} s")
                continue
            click.echo(output.told_text(one) if sys.stdout.isatty() and not as_json else output.told_json(one))
            sys.stdout.flush()
            if hook:
                hook.run(output.told_row(one))
    except KeyboardInterrupt:
        hook = None  # what still runs is not waited for
        raise
    finally:
        feed.close()
        if hook:
            hook.close()


@click.command()
@click.option("--host", metavar="NAME", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--token", metavar="SECRET", envvar="EARSHOT_TOKEN", help="What clients must show; needed where others can connect."
)
@an_endpoint
@the_library
def serve(host: str, port: int, token: str | None, endpoint: Endpoint | None, library: Library) -> int:
    """Search and listen in a browser, and let other programs search over HTTP.

    The page is at the address that is printed, and what programs can ask at /openapi.json. Only this machine can
    connect unless --host says otherwise. The model at --endpoint, if you name one, is asked when somebody wants an
    answer, as by `ask --answer`; nothing is sent before. Needs pip install '.[serve]'.
    """
    if token == "":
        raise click.UsageError("The token is empty; name a secret.")
    source = click.get_current_context().get_parameter_source
    if endpoint is None and any(source(name) is ParameterSource.COMMANDLINE for name in ("model", "send", "timeout")):
        output.complain("no answers are written, as there is no --endpoint")
    try:
        from earshot.server.run import serve
    except ModuleNotFoundError as error:
        raise EarshotError(f"the server needs {error.name}: pip install '.[serve]'") from error
    try:
        serve(library, host, port, token=token, endpoint=endpoint)
    except KeyboardInterrupt:
        output.complain("stopped")
        return STOPPED
    return 0


@click.command()
@the_library
def mcp(library: Library) -> None:
    """Let an assistant search the library, by the Model Context Protocol.

    The assistant starts this command itself and talks to it over standard input and output; tell it to, with the
    library's absolute path. Needs pip install '.[mcp]'.
    """
    try:
        from earshot.mcp import create_server
    except ImportError as error:
        raise EarshotError(f"`earshot mcp` needs the MCP SDK ({error}): pip install '.[mcp]'") from error
    import signal

    from earshot.api import open

    def stop(*_: object) -> None:  # at once: a thread waits for standard input, and Python would wait for the thread
        output.complain("stopped")
        os._exit(STOPPED)

    signal.signal(signal.SIGINT, stop)
    if sys.stdin.isatty():
        output.complain("waits for an assistant on standard input; Ctrl-C stops")
    create_server(open(library.path.absolute())).run()

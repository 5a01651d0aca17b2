"""The command line: arguments -> one call of the Python interface -> printed.

In: arguments. Out: results on standard output, one line for each thing that is wrong on standard error, and an exit
code: 0, 1 where something could not be done, 2 for what cannot be asked, 130 when stopped. Knows nothing of the work.
"""

from __future__ import annotations

import io
import os
import sys

import click

from earshot import output
from earshot.cli import keeping, research, searching, serving
from earshot.cli.options import LIBRARY, STOPPED
from earshot.types import EarshotError, QueryError

__all__ = ["STOPPED", "earshot", "main", "run"]


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("-l", "--library", metavar="FOLDER", envvar="EARSHOT_LIBRARY", default=".earshot", help=LIBRARY)
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
    earshot serve                               the same in a browser
    """
    context.obj = library
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    keeping.index, keeping.watch, searching.find, searching.ask, searching.clip, serving.listen, serving.serve,
    serving.mcp, keeping.remove, keeping.status, research.align,
):  # fmt: skip
    earshot.add_command(_command)

"""Parameters that several commands share: the library, clips, globs, and the model that may answer.

In: what was typed. Out: what the Python interface takes; click.UsageError for what cannot be meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal

import click

from earshot.types import AnswerError, AudioError, Clip

if TYPE_CHECKING:
    from earshot.api import Library

STOPPED = 130
"""Exit code."""
LIBRARY = "Folder of the library.  [default: .earshot, or what EARSHOT_LIBRARY names]"


class Probability(click.FloatRange):
    """A number from 0 to 1; not-a-number, which compares with nothing, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if number == number else self.fail(f"{value} is not in the range 0<=x<=1.", param, ctx)


PROBABILITY = Probability(0, 1)


def clip_of(text: str) -> Clip:
    """A clip as it is typed; the type of a parameter."""
    from earshot.audio import parse_clip

    try:
        return parse_clip(text)
    except AudioError as error:
        raise click.BadParameter(str(error)) from error


def examples(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameter `examples`: clips."""
    told = "What sounds like this; may be repeated."
    option = click.option("--like", "examples", metavar="FILE[@START-END]", type=clip_of, multiple=True, help=told)
    return option(command)


def glob_of(within: str | None) -> str | None:
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


def the_library(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameter `library`."""
    return click.option("-l", "--library", metavar="FOLDER", callback=_open, help=LIBRARY)(command)


def _open(context: click.Context, _: click.Parameter, folder: str | None) -> Library:
    from earshot.api import open

    library: Library = context.with_resource(open(folder or context.obj))
    return library


def an_endpoint(command: Callable[..., Any]) -> Callable[..., Any]:
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

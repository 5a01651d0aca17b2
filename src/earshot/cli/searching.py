"""Commands that search, and what goes with it: find, ask, clip."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from earshot import output
from earshot.cli.options import PROBABILITY, an_endpoint, clip_of, examples, glob_of, the_library
from earshot.types import Clip, Passage

if TYPE_CHECKING:
    from earshot.answer import Endpoint
    from earshot.api import Library


@click.command()
@click.argument("queries", metavar="[QUERY]...", nargs=-1)
@examples
@click.option("--top", metavar="K", type=click.IntRange(1), default=20, show_default=True, help="Hits for a query.")
@click.option(
    "--threshold",
    metavar="P",
    type=PROBABILITY,
    default=0.1,
    show_default=True,
    help="Only hits with at least this probability; at 0.1 a query has about 5 false alarms an hour.",
)
@click.option("--in", "within", metavar="GLOB", help="Only recordings whose path ends like this; or a folder.")
@output.format_options()
@click.option("--out", "folder", metavar="FOLDER", help="With --srt or --audacity: a file there for each recording.")
@the_library
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
    found = {query: library.find(query, top=top, threshold=threshold, within=glob_of(within)) for query in asked}
    hits = sorted((hit for query in asked for hit in found[query]), key=lambda hit: -hit.probability)
    if hits and folder is not None and format is not None:
        click.echo("\n".join(map(output.printable, output.write_each(hits, format, folder))))
    elif hits:
        click.echo(output.text_of(hits, format))
    if missed := ", ".join(f"'{query}'" for query in asked if not found[query]):
        if not library.recordings():
            return output.complain("the library is empty; put recordings in with `earshot index PATH`")
        if within and not library.recordings(glob_of(within)):
            raise click.UsageError(f"No recording in the library has a path that matches --in {within}.")
        where = f" in {within}" if within else ""
        least = min(0.1, threshold / 10)
        lower = f" with a probability of {threshold:g} or more: lower it, as in --threshold {least:g}"
        output.complain(f"no hit for {missed}{where}{lower if threshold else ''}")


@click.command()
@click.argument("question", metavar="[QUESTION]...", nargs=-1)
@click.option(
    "--like", "spoken", metavar="FILE[@START-END]", type=clip_of, multiple=True, help="A spoken question instead."
)
@click.option("--top", metavar="K", type=click.IntRange(1), default=5, show_default=True, help="Passages to show.")
@click.option("--in", "within", metavar="GLOB", help="Only recordings whose path ends like this; or a folder.")
@output.format_options("table", "json")
@click.option("--answer", is_flag=True, help="Have a model answer from the passages, and cite them.")
@an_endpoint
@the_library
def ask(
    question: tuple[str, ...],
    spoken: tuple[Clip, ...],
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
    if bool(question) + len(spoken) != 1:
        raise click.UsageError("Type one QUESTION, or give a spoken one with --like FILE[@START-END].")
    if answer and endpoint is None:
        raise click.UsageError(
            "--answer needs an OpenAI-compatible endpoint: --endpoint URL or EARSHOT_ENDPOINT=URL, as in"
            " http://localhost:11434 (Ollama)."
        )
    source = click.get_current_context().get_parameter_source
    if not answer and any(source(name) is ParameterSource.COMMANDLINE for name in ("url", "model", "send", "timeout")):
        output.complain("nothing is sent, as there is no --answer")
    if endpoint is not None and spoken and endpoint.sends == "text":
        raise click.UsageError("A spoken question goes to a model that hears: --send audio, or type it.")
    asked = spoken[0] if spoken else " ".join(question)
    passages = library.ask(asked, top=top, within=glob_of(within))
    if passages:
        click.echo(output.text_of_passages(passages, format))
        if all(passage.heard and not passage.words for passage in passages):
            output.complain("no word of the question is found in these: they are alike in meaning at best")
        if endpoint is not None:
            _answer(library, asked, passages, endpoint, format)
    elif not library.recordings():
        output.complain("the library is empty; put recordings in with `earshot index PATH`")
    elif within and not library.recordings(glob_of(within)):
        raise click.UsageError(f"No recording in the library has a path that matches --in {within}.")
    else:
        output.complain(
            f"no words were heard in {f'the recordings that match --in {within}' if within else 'any recording'}"
        )


def _answer(
    library: Library, asked: str | Clip, passages: list[Passage], endpoint: Endpoint, format: str | None
) -> None:
    from earshot.answer import MOST, answer

    if len(passages) > (most := MOST[endpoint.sends]):
        output.complain(f"only the first {most} passages are sent as {endpoint.sends}")
    output.show_answer(answer(asked, passages, endpoint, file_of=library.file_of), format)


@click.command()
@click.argument("clip", metavar="FILE@START-END", type=clip_of)
@click.argument("out", metavar="OUT.wav")
def clip(clip: Clip, out: str) -> None:
    """Cut a clip out of a recording: 16 kHz, mono, wav."""
    from earshot import audio

    if not out.lower().endswith(".wav"):
        raise click.UsageError(f"{out}: clips are written as wav; name it OUT.wav.")
    if os.path.exists(out) and os.path.exists(clip.path) and os.path.samefile(out, clip.path):
        raise click.UsageError(f"{out} is the recording itself; name another OUT.wav.")
    audio.write_wav(out, audio.load(clip))

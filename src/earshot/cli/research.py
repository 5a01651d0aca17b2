"""Commands for researchers: align."""

from __future__ import annotations

import click

from earshot import output


@click.command()
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

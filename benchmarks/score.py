"""Scores stored raw results: `python -m benchmarks.score` writes the tables (Markdown) and the plot (PNG).

In: the files below `benchmarks/results/`. Out: `chapters.md`, `chapters.png`, `words.md`, `protocol.md` beside them. It
needs no speech and runs no contender.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks import store
from benchmarks.passages_page import passages_page
from benchmarks.protocol_page import protocol_page
from benchmarks.store import Run, Trials
from earshot import metrics
from earshot.metrics import Detection, Matching, Reference
from earshot.pronounce import PHONES, pronounce
from earshot.types import EarshotError

RATES = (1, 5, 20)
LETTERS = {"5 letters": (5, 5), "6": (6, 6), "7": (7, 7), "8": (8, 8), "9 and more": (9, 99)}
FEWEST_WORDS = 20
CURVE = np.geomspace(0.1, 100, 61)
COLUMNS = (
    "contender | MTWV | MTWV kst | ATWV kst | OTWV | MAP | P@10 | EER span | EER utterance | R@1 | R@5 | R@20 | "
    "start ms | end ms | missing words | indexing x real time | search s/query"
)
LEGEND = """\
MTWV, OTWV: term-weighted value (beta 999.9) at the one best threshold for all words, and at each word's own. kst: with
keyword-specific thresholds (Miller et al. 2007): for systems whose scores are probabilities, the threshold that pays
for a word said as often as its probabilities add up to; at the best offset for all words, and as it is (ATWV). MAP:
mean average precision over words. P@10: precision of the ten best{ceiling}. EER span: over one-second trials; EER
utterance: over word x utterance trials; both pooled under one threshold. R@n: share of references found at n false
alarms per keyword-hour, one threshold. start, end: mean distance from the truth of what is found at the MTWV threshold.
A hit is correct when its midpoint lies within 0.5 s of the word; a word inside a longer one does not count. Missing
words: those the contender cannot search for; they count as missed. Speeds are processor time of one run on a machine
that others used too: compare ratios.
"""
CEILING = "; its ceiling is {:.3f}, as words said less than ten times cannot reach 1"
TITLE = "Term detection in whole chapters"
TRANSFER_TITLE = "Spoken examples in a language that the encoder was not trained on, said by other speakers"


@click.command()
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(folder: Path) -> None:
    """Write tables and plot from the stored raw results."""
    tasks = sorted(path.parent.name for path in folder.glob("*/trials.jsonl.gz"))
    for name in tasks:
        try:
            trials, runs = store.load_trials(folder / name), store.load_runs(folder / name)
        except EarshotError as error:
            raise click.ClickException(str(error)) from None
        if name.partition("-")[0] == "transfer":
            trials, runs = by_others(trials, runs)
        (folder / f"{name}.md").write_text(chapters_page(trials, runs, name), encoding="utf-8")
        plot(trials, runs, folder / f"{name}.png")
        click.echo((folder / f"{name}.md").read_text(encoding="utf-8"))
    if (folder / "words.jsonl").exists():
        (folder / "words.md").write_text(words_page(folder / "words.jsonl"), encoding="utf-8")
        click.echo((folder / "words.md").read_text(encoding="utf-8"))
    if (folder / "protocol.jsonl").exists():
        rows = [json.loads(line) for line in (folder / "protocol.jsonl").read_text().splitlines()]
        (folder / "protocol.md").write_text(protocol_page(rows), encoding="utf-8")
        click.echo((folder / "protocol.md").read_text(encoding="utf-8"))
    told, documents = (
        [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        for path in (folder / "passages.jsonl", folder / "longform.jsonl")
    )
    if told or documents:
        (folder / "passages.md").write_text(passages_page(told, documents), encoding="utf-8")
        click.echo((folder / "passages.md").read_text(encoding="utf-8"))
    if any("-" in name for name in tasks):
        (folder / "conditions.md").write_text(conditions_page(folder, tasks), encoding="utf-8")
        click.echo((folder / "conditions.md").read_text(encoding="utf-8"))
    if not tasks and not any((folder / name).exists() for name in ("words.jsonl", "protocol.jsonl", "passages.jsonl")):
        raise click.ClickException(f"nothing in {folder}: run `python -m benchmarks.run --speech DIR --work DIR` first")


def by_others(trials: Trials, runs: list[Run]) -> tuple[Trials, list[Run]]:
    """What is asked for as WORD/SPEAKER (`tasks.transfer`) is sought in the recordings of the other speakers alone."""

    def other(found: Reference | Detection) -> bool:
        return found.recording != found.query.partition("/")[2]

    references = [reference for reference in trials.references if other(reference)]
    return replace(trials, references=references), [
        replace(run, detections=[detection for detection in run.detections if other(detection)]) for run in runs
    ]


def chapters_page(trials: Trials, runs: list[Run], task: str = "chapters") -> str:
    """All tables of a task of term detection, perhaps under a condition, and where each run came from."""
    by_kind = {kind: [run for run in runs if run.kind == kind] for kind in ("typed", "spoken")}
    answerable = set(trials.words["typed"]) - {word for run in by_kind["typed"] for word in run.skipped}
    tables = [
        ("Typed words", by_kind["typed"], set(trials.words["typed"])),
        ("Spoken examples", by_kind["spoken"], set(trials.words["spoken"])),
        ("Typed, the words that have a spoken example", by_kind["typed"], set(trials.words["spoken"])),
        ("Typed, the words that every contender can search for", by_kind["typed"], answerable),
    ]
    where = [line for kind in ("typed", "spoken") for line in breakdown(kind, trials, by_kind[kind])]
    where += by_phone(trials, by_kind["typed"])
    ceiling = metrics.precision_ceiling(_match(trials, [], set(trials.words["typed"] or trials.words["spoken"])), 10)
    title = TRANSFER_TITLE if task.partition("-")[0] == "transfer" else TITLE
    legend = LEGEND.format(ceiling=CEILING.format(ceiling) if ceiling < 1 else "")
    parts = [f"# {title}", f"{textwrap.fill(legend, 120)}\n"]
    parts += [
        line for title, chosen, words in tables if chosen and words for line in table(title, trials, chosen, words)
    ]
    return "\n".join([*parts, *where, "## Where the figures come from", *(_origin(run) for run in runs), ""])


def conditions_page(folder: Path, tasks: list[str]) -> str:
    """A table of the tasks under each condition: what is left of mean average precision in noise and rooms."""
    lines = [
        "# Noise and rooms\n",
        "Mean average precision, and its share of the clean one; spoken examples are clean.\n",
    ]
    lines += ["| task | condition | contender | typed | | spoken | |", "|---" * 7 + "|"]
    clean: dict[tuple[str, str, str], float] = {}
    disturbed = {name.partition("-")[0] for name in tasks if "-" in name}
    chosen = [name for name in tasks if name.partition("-")[0] in disturbed]
    for name in sorted(chosen, key=lambda name: ("-" in name, name)):
        task, _, condition = name.partition("-")
        trials, cells = store.load_trials(folder / name), {}
        for run in store.load_runs(folder / name):
            found = metrics.mean_average_precision(_match(trials, [run], set(trials.words[run.kind])))
            share = found / clean.setdefault((task, run.contender, run.kind), found)
            cells[run.contender, run.kind] = f"{found:.3f} | {share:.2f}"
        for contender in sorted({contender for contender, _ in cells}):
            figures = " | ".join(cells.get((contender, kind), "- | -") for kind in ("typed", "spoken"))
            lines.append(f"| {task} | {condition or 'clean'} | {contender} | {figures} |")
    return "\n".join([*lines, ""])


def table(title: str, trials: Trials, runs: list[Run], words: set[str]) -> Iterator[str]:
    """A Markdown table of the runs on some of the words."""
    n_references = sum(reference.query in words for reference in trials.references)
    columns = COLUMNS.split(" | ")
    yield f"## {title}\n"
    yield f"{len(words)} queries, {n_references} references in {trials.speech_seconds / 3600:.2f} h.\n"
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for run in runs:
        yield f"| {' | '.join(_row(trials, run, words))} |"
    yield ""


def breakdown(kind: str, trials: Trials, runs: list[Run]) -> Iterator[str]:
    """Markdown tables of mean average precision by the number of letters of a word, and by recording.

    By the word itself where examples are called WORD/SPEAKER (`tasks.transfer`): its name has not the letters said.
    """
    words = trials.words[kind]
    said = [reference for reference in trials.references if reference.query in words]
    queries = {reference.query for reference in said}
    by = "word" if any("/" in query for query in queries) else "letters"
    if by == "word":
        groups = {word: {q for q in queries if _name(q) == word} for word in sorted(map(_name, queries))}
    else:
        groups = {name: {q for q in queries if low <= len(q) <= high} for name, (low, high) in LETTERS.items()}
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return
    recordings = sorted({reference.recording for reference in said})
    yield f"## Where {kind} words are found: mean average precision by {by} and by recording\n"
    yield f"| contender | {' | '.join(groups)} | {' | '.join(recordings)} |"
    yield f"|{'---|' * (1 + len(groups) + len(recordings))}"
    for run in runs:
        by_group = [metrics.mean_average_precision(_match(trials, [run], group)) for group in groups.values()]
        by_recording = [metrics.mean_average_precision(_match(trials, [run], set(words), one)) for one in recordings]
        yield f"| {run.contender} | {' | '.join(f'{figure:.3f}' for figure in (*by_group, *by_recording))} |"
    yield ""


def _name(query: str) -> str:
    return query.partition("/")[0]


def by_phone(trials: Trials, runs: list[Run]) -> Iterator[str]:
    """A Markdown table of mean average precision of typed words by the phones that they hold."""
    phones = {word: set(pronounce(word, most=1)[0]) for word in trials.words["typed"]}
    holding = {phone: {word for word in phones if phone in phones[word]} for phone in PHONES}
    holding = {phone: words for phone, words in holding.items() if len(words) >= FEWEST_WORDS}
    if not holding:
        return
    yield f"## Typed words by the phones they hold (those of at least {FEWEST_WORDS} words): mean average precision\n"
    yield f"| contender | {' | '.join(holding)} |"
    yield f"|{'---|' * (1 + len(holding))}"
    yield f"| words | {' | '.join(str(len(words)) for words in holding.values())} |"
    for run in runs:
        figures = [metrics.mean_average_precision(_match(trials, [run], words)) for words in holding.values()]
        yield f"| {run.contender} | {' | '.join(f'{figure:.2f}' for figure in figures)} |"
    yield ""


def _row(trials: Trials, run: Run, words: set[str]) -> list[str]:
    matching = _match(trials, [run], words)
    references = [reference for reference in trials.references if reference.query in words]
    mtwv, threshold = metrics.mtwv(matching)
    start, end = metrics.boundary_error(matching, threshold)
    figures = [mtwv, *_keyword_specific(trials, run, references)]
    figures += [metrics.otwv(matching), metrics.mean_average_precision(matching)]
    figures += [metrics.precision_at(matching, 10)]
    figures += [metrics.span_eer(matching), metrics.utterance_eer(references, run.detections, trials.utterances)]
    figures += [metrics.recall_at_false_alarms(matching, rate) for rate in RATES]
    return [
        run.contender,
        *("-" if np.isnan(figure) else f"{figure:.3f}" for figure in figures),
        *("-" if np.isnan(error) else f"{1000 * error:.0f}" for error in (start, end)),
        str(len(words & set(run.skipped))),
        "-" if run.prepare_cpu < 1e-2 else f"{run.speech_seconds / run.prepare_cpu:.1f}",
        f"{run.search_cpu / run.queries:.3f}",
    ]


def _keyword_specific(trials: Trials, run: Run, references: list[Reference]) -> tuple[float, float]:
    """MTWV and ATWV with keyword-specific thresholds, of a system whose scores are probabilities."""
    if not run.probabilities:
        return np.nan, np.nan
    detections = metrics.keyword_specific(run.detections, trials.speech_seconds)
    matching = metrics.match(references, detections, trials.speech_seconds)
    return metrics.mtwv(matching)[0], metrics.atwv(matching, 0.0)


def _match(trials: Trials, runs: list[Run], words: set[str], recording: str | None = None) -> Matching:
    references: list[Reference] = [reference for reference in trials.references if reference.query in words]
    detections = (detection for run in runs for detection in run.detections)
    if recording is not None:
        references = [reference for reference in references if reference.recording == recording]
        detections = (detection for detection in detections if detection.recording == recording)
    return metrics.match(references, detections, trials.speech_seconds)


def _origin(run: Run) -> str:
    stored = ", indexing stored by an earlier run" if run.prepare_stored else ""
    return (
        f"- {run.contender}, {run.kind}: `{run.origin.command}` at {run.origin.commit}, {run.origin.machine}, threads "
        f"{run.origin.threads}, load {run.origin.load}; {run.queries} queries, {len(run.detections)} detections; "
        f"wall {run.prepare_seconds:.0f} s to index{stored}, {run.search_seconds:.1f} s to search"
    )


def plot(trials: Trials, runs: list[Run], path: Path) -> None:
    """Recall against false alarms per keyword-hour, a panel for each kind of query."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {name: f"C{k}" for k, name in enumerate(sorted({run.contender for run in runs}))}
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, kind in zip(axes, ("typed", "spoken"), strict=True):
        words = set(trials.words[kind])
        for run in (run for run in runs if run.kind == kind):
            matching = _match(trials, [run], words)
            recall = [metrics.recall_at_false_alarms(matching, rate) for rate in CURVE]
            label = f"{run.contender} ({run.origin.commit})"
            axis.plot(CURVE, recall, label=label, color=colours[run.contender])
        axis.set(title=f"{kind}: {len(words)} words", xscale="log", ylim=(0, 1), xlabel="false alarms per keyword-hour")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="upper left", fontsize="small")
    axes[0].set_ylabel("share of references found")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def words_page(path: Path) -> str:
    """The same-different table from `words.jsonl`."""
    lines = ["# Same-different, mini-librispeech dev words of at least three letters\n"]
    lines.append("| encoder | trials | AP | EER | pairs | positive pairs | words/s |")
    lines.append("|---|---|---|---|---|---|---|")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        name, speed = row["contender"], f"{row['clips'] / max(row['cpu'], 1e-9):.0f}"
        for trials in ("all pairs", "across speakers", "typed to spoken"):
            if trials in row:
                ap, eer, pairs, positive = row[trials]
                lines.append(f"| {name} | {trials} | {ap:.3f} | {eer:.3f} | {pairs} | {positive} | {speed} |")
    lines.append(
        "\nacross speakers: without pairs of one word by one speaker; typed to spoken: every clip x every word.\n"
    )
    lines += [f"- {row['contender']}: `{row['command']}` at {row['commit']}, {row['machine']}" for row in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

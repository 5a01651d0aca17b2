"""Whether the probability that `find` prints means what it says: `python -m benchmarks.calibration --help`.

In: real speech by speakers that training never heard, indexed and searched as a user would. Out: for typed and spoken
words and phrases, said or not, how often hits of a probability are right (reliability, expected calibration error), and
recall and false alarms an hour at each threshold: `results/calibration-TASK.md`, `.png` and the raw hits beside them.

A hit is right when its middle lies within 0.5 s of a place where the query, or what sounds the same, is said; a second
hit of that place is wrong.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile

import earshot
from benchmarks import store, tasks
from benchmarks.contenders.earshot import Earshot
from benchmarks.contract import SAMPLE_RATE
from benchmarks.run import current_origin
from earshot import metrics, scores
from earshot.metrics import Detection, Reference
from earshot.pronounce import pronounce
from earshot.types import EarshotError, QueryError, Seconds

SHOWN = 0.05
"""The calibration error is that of hits with at least this probability."""
LEAST = 0.002
SAME_SPEAKERS = f"""\
The spoken examples are by speakers {" and ".join(tasks.HELD_OUT)} of mini-librispeech, on whose recordings,
among others, the probabilities are fitted (`earshot.train.calibrate`): for spoken words and phrases the figures may
flatter. `--task chapters` has no such overlap.
"""
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
ALARMS = 5.0
"""False alarms an hour that the default threshold may give a query."""
GAP: Seconds = 0.3
"""The words of a phrase are no further apart."""
SEED = 1
MOST = {
    ("typed", "word"): 200,
    ("typed", "phrase"): 150,
    ("spoken", "word"): 150,
    ("spoken", "phrase"): 100,
}
"""Queries of each kind that are said, and as many that are not, where there are so many."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and where it, or what sounds the same, is said."""

    kind: str
    form: str
    text: str
    clip: earshot.Clip | None
    places: tuple[Reference, ...]


@click.command()
@click.option("--speech", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of real speech.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--task", type=click.Choice(["development", "chapters"]), default="development", show_default=True)
@click.option("--encoder", default="word", help="'word', or the folder of another encoder.")
@click.option("--results", "folder", type=click.Path(path_type=Path), default=store.FOLDER, show_default=False)
def main(speech: Path, work: Path, task: str, encoder: str, folder: Path) -> None:
    """Search for words and phrases, said and not said, and compare probabilities with the truth."""
    try:
        made = getattr(tasks, task)(speech, work)
        asked = list(questions(made, *tasks.rows_of(speech, task), work / f"{task}-calibration"))
        finder = Earshot(work / "calibration-library", encoder)
        finder.prepare(made.recordings)
        found = [(one, _search(finder, one)) for one in asked]
    except EarshotError as error:
        raise click.ClickException(str(error)) from None
    origin = current_origin("benchmarks.calibration")
    page = f"{calibration_page(task, found, made.seconds)}\n`{origin.command}` at {origin.commit}, {origin.machine}\n"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[o.kind, o.form, o.text, len(o.places), [[p, int(r)] for p, r in hits]] for o, hits in found]
    raw = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)
    (folder / f"calibration-{task}.jsonl.gz").write_bytes(raw)
    (folder / f"calibration-{task}.md").write_text(page, encoding="utf-8")
    plot(found, folder / f"calibration-{task}.png")
    click.echo(page)


def questions(task: tasks.Chapters, root: Path, examples: Sequence[dict[str, Any]], folder: Path) -> Iterator[Asked]:
    """Typed words and phrases of the recordings and of the examples' text; spoken ones cut from the examples."""
    said = _runs([(r.query, r.recording, r.start, r.end) for r in task.said])
    other = _runs([(w, str(row["audio"]), s, e) for row in examples for s, e, w in row["words"]])
    by_sound: dict[tuple[Any, ...], list[Reference]] = defaultdict(list)
    for text, places in said.items():
        by_sound[_sound(text)] += [Reference(text, *place) for place in places]
    for (kind, form), most in MOST.items():
        of_form = {text for text in other if (" " in text) == (form == "phrase")}
        here = {text for text in said if (" " in text) == (form == "phrase")}
        if kind == "spoken":
            of_form = {text for text in of_form if len(text) >= 4}
            here &= of_form
        for texts in (here, {text for text in of_form if _sound(text) not in by_sound}):
            chosen = random.Random(f"{SEED} {kind} {form}").sample(sorted(texts), min(most, len(texts)))
            for text in chosen:
                clip = None
                if kind == "spoken":
                    path, start, end = random.Random(f"{SEED} {text}").choice(other[text])
                    clip = _cut_out(root / path, start, end, folder / f"{text}.wav")
                yield Asked(kind, form, text, clip, tuple(by_sound.get(_sound(text), ())))


def calibration_page(task: str, found: Sequence[tuple[Asked, list[tuple[float, bool]]]], seconds: Seconds) -> str:
    """Tables of reliability and of thresholds, in Markdown."""
    lines = [
        f"# Probabilities of hits: {task}\n",
        f"{seconds / 3600:.2f} h searched. ECE: of hits of at least {SHOWN:g}.\n",
    ]
    lines += [SAME_SPEAKERS] if task == "development" else []
    lines += [
        "| queries | said | not said | references | hits | ECE | mean probability | share right |",
        "|---" * 8 + "|",
    ]
    groups = {f"{kind} {form}s": [x for x in found if (x[0].kind, x[0].form) == (kind, form)] for kind, form in MOST}
    groups = {name: group for name, group in {**groups, "all": list(found)}.items() if group}
    for name, group in groups.items():
        p, right = _pooled(group)
        shown = p >= SHOWN
        error = scores.expected_calibration_error(scores.reliability(p[shown], right[shown], EDGES))
        n_said = sum(bool(one.places) for one, _ in group)
        counts = f"{n_said} | {len(group) - n_said} | {sum(len(one.places) for one, _ in group)} | {shown.sum()}"
        lines.append(f"| {name} | {counts} | {error:.3f} | {p[shown].mean():.3f} | {right[shown].mean():.3f} |")
    lines.append("\n## Thresholds: recall, and false alarms of a query in an hour\n")
    lines += [f"| queries | {' | '.join(f'{t:g}' for t in THRESHOLDS)} | at most {ALARMS:g} |"]
    lines.append("|---" * (2 + len(THRESHOLDS)) + "|")
    for name, group in groups.items():
        p, right = _pooled(group)
        n_references, hours = sum(len(one.places) for one, _ in group), len(group) * seconds / 3600
        cells = [f"{right[p >= t].sum() / n_references:.3f}, {(~right[p >= t]).sum() / hours:.2f}" for t in THRESHOLDS]
        lines.append(f"| {name} | {' | '.join(cells)} | {_lowest_threshold(p, right, hours):.3f} |")
    return "\n".join([*lines, ""])


def plot(found: Sequence[tuple[Asked, list[tuple[float, bool]]]], path: Path) -> None:
    """Share right against probability, a line for each kind of query."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.5, 5))
    axis.plot([0, 1], [0, 1], color="0.7", label="means what it says")
    for kind, form in MOST:
        p, right = _pooled([x for x in found if (x[0].kind, x[0].form) == (kind, form)])
        if len(p):
            bins = scores.reliability(p, right, EDGES)
            axis.plot(bins.mean, bins.right, marker="o", markersize=4, label=f"{kind} {form}s, {len(p)} hits")
    axis.set(xlabel="probability", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def _search(finder: Earshot, asked: Asked) -> list[tuple[float, bool]]:
    """Probability of each hit and whether it is right."""
    try:
        hits = finder.library.find(asked.clip or asked.text, top=None, threshold=LEAST)
    except QueryError:
        return []  # an example with too little speech
    detections = [
        Detection(asked.text, finder.names[str(Path(h.recording.path).resolve())], h.start, h.end, h.probability)
        for h in hits
    ]
    if not asked.places:
        return [(round(d.score, 4), False) for d in detections]
    references = [Reference(asked.text, r.recording, r.start, r.end) for r in asked.places]
    matching = metrics.match(references, detections, 1e9)
    return [(round(float(p), 4), bool(right)) for p, right in zip(matching.scores, matching.correct, strict=True)]


def _pooled(group: Sequence[tuple[Asked, list[tuple[float, bool]]]]) -> tuple[Any, Any]:
    hits = [hit for _, of in group for hit in of]
    return np.array([p for p, _ in hits], np.float32), np.array([right for _, right in hits], bool)


def _lowest_threshold(p: Any, right: Any, hours: float) -> float:
    """The lowest threshold with no more than ALARMS false alarms an hour."""
    wrong = np.sort(p[~right])[::-1]
    allowed = int(ALARMS * hours)
    return float(wrong[allowed]) if len(wrong) > allowed else 0.0


def _runs(words: Sequence[tuple[str, str, Seconds, Seconds]]) -> dict[str, list[tuple[str, Seconds, Seconds]]]:
    """Words of at least three letters, and phrases of two to four words that hold one, with their places."""
    runs: dict[str, list[tuple[str, Seconds, Seconds]]] = defaultdict(list)
    for k in range(len(words)):
        for n in range(1, 5):
            run = words[k : k + n]
            together = all(a[1] == b[1] and b[2] - a[3] < GAP for a, b in pairwise(run))
            if len(run) < n or not together:
                break
            if all(tasks.WORD.fullmatch(w[0]) for w in run) and max(len(w[0]) for w in run) >= 3:
                runs[" ".join(w[0] for w in run)].append((run[0][1], run[0][2], run[-1][3]))
    return dict(runs)


def _sound(text: str) -> tuple[Any, ...]:
    return tuple(pronounce(text, most=1)[0])


def _cut_out(path: Path, start: Seconds, end: Seconds, out: Path) -> earshot.Clip:
    out.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(out, tasks.cut(tasks.read(path), start, end), SAMPLE_RATE, subtype="PCM_16")
    return earshot.Clip(str(out))


if __name__ == "__main__":
    main()

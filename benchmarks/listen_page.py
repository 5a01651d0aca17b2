"""Tables of live keyword spotting from the stored figures: `results/listen.jsonl` -> Markdown.

In: a line for each task, contender and kind of query (`benchmarks.listen`). Out: `listen.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
ALARMS = (0.5, 1.0, 2.0, 5.0)
"""False alarms of a keyword in an hour at which recall is told."""
LEGEND = """\
Chapters are played as a stream; into their pauses are put keywords that other real speakers say, cut out of running
speech (the development recordings, mini-librispeech dev) and made as loud as what is around them. They ("inserted"),
and the same words where the chapters themselves hold them ("natural"), are to be told: recall is the share that is; all
else that is told is a false alarm, words within longer words and second hits too. FA/h: false alarms of a keyword in an
hour, all keywords under one threshold; "recall at" is the best of the thresholds with so many or fewer. Latency: from
the end of the word to its being told, where sound comes in blocks of 0.1 s, with what Earshot computes for a look, each
look as likely with each hit (PocketSphinx, asked at every frame of its endpointer: without), in seconds, median and
95 %. Processor: share of one core while sound comes in such blocks, for one keyword and for four. By example: one clip
of each keyword, cut out of running speech of mini-librispeech dev, never one that is in the stream. The task
development (mini-librispeech dev, other keywords) is what settings and the default threshold were chosen by.
PocketSphinx: keyword spotting with its own model behind its own endpointer, thresholds swept over its scores plus the
bonus for each phone that served it best in results/chapters.md. At the end of each task stands of which commit each row
is; those of 7574ee9 add the median of what is computed to every latency.
"""


def page(rows: Sequence[Row]) -> str:
    """All tables, and where they came from."""
    lines = ["# Live keyword spotting\n", LEGEND]
    for task in sorted({row["task"] for row in rows}):
        of = [row for row in rows if row["task"] == task]
        lines += [f"## {task}\n", f"{of[0]['stream']}.\n"]
        lines += _tables([row for row in of if row["kind"] != "unsaid"])
        for row in of:
            if row["kind"] == "unsaid":
                lines += _unsaid(row)
        for row in of:
            made = f"`{row['command']}` at {row['commit']}, {row['machine']}, shared: load {row['load']:g}"
            lines.append(f"- {row['contender']}, {row['kind']}: {made}")
        lines.append("")
    return "\n".join(lines)


def _unsaid(row: Row) -> Iterator[str]:
    yield f"Earshot, typed, {len(row['queries'])} phrases that nobody says ({', '.join(row['queries'])}): false alarms"
    yield "of a phrase in an hour at a threshold, and how many they are:\n"
    yield _line("threshold", *(f"{point['threshold']:g}" for point in row["alarms"]))
    yield _line(*["---"] * (1 + len(row["alarms"])))
    yield _line("FA/h", *(f"{point['false alarms']:.2f} ({point['wrong']})" for point in row["alarms"]))
    yield ""


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    heads = [f"recall at {allowed:g} FA/h" for allowed in ALARMS]
    yield _line("contender", *heads, "latency at 5 FA/h", "processor, 1 keyword", "4 keywords")
    yield _line(*["---"] * (4 + len(ALARMS)))
    for row in rows:
        found = [_point(row["at"][str(allowed)]) for allowed in ALARMS]
        late = _latency(row["at"][str(ALARMS[-1])])
        yield _line(_name(row), *found, late, f"{row['cpu one']:.1%}", f"{row['cpu few']:.1%}")
    yield ""
    counts = rows[0]["counts"]
    names = [name for name in counts if counts[name]]
    yield "Recall at 0.5 / 5 FA/h, of all and of some (how many there are):\n"
    yield _line("contender", *(f"{name} ({counts[name]})" for name in names))
    yield _line(*["---"] * (1 + len(names)))
    for row in rows:
        yield _line(_name(row), *(" / ".join(_share(row, name, a) for a in (0.5, 5.0)) for name in names))
    yield ""
    shown = [row for row in rows if "shown" in row]
    if not shown:
        return
    yield "Thresholds of Earshot: recall, false alarms of a keyword in an hour, latency:\n"
    yield _line("contender", *(f"{point['threshold']:g}" for point in shown[0]["shown"]))
    yield _line(*["---"] * (1 + len(shown[0]["shown"])))
    for row in shown:
        cells = (f"{p['recall']:.3f}, {p['false alarms']:.2f}, {_latency(p)}" for p in row["shown"])
        yield _line(_name(row), *cells)
    yield ""
    for row in shown:
        default, ms = row["default"], row["compute ms"]
        yield (
            f"- {_name(row)}: at the default threshold of {default['threshold']:g} {default['right']} right "
            f"and {default['wrong']} wrong; a look for four keywords takes {ms['median']} ms (95 %: {ms['p95']}) of "
            f"processor time; all keywords at once, read as fast as it goes, {row['cpu all, read fast']:.1%} of a core"
        )
    yield ""


def _name(row: Row) -> str:
    return f"{row['contender']}, {'by example' if row['kind'] == 'spoken' else 'typed'}"


def _point(point: Row | None) -> str:
    return "-" if point is None else f"{point['recall']:.3f} ({point['right']} right, {point['wrong']} wrong)"


def _latency(point: Row | None) -> str:
    return "-" if point is None or not point["latency"] else "{:.2f}, {:.2f} s".format(*point["latency"])


def _share(row: Row, group: str, allowed: float) -> str:
    share = row["recall"][group].get(str(allowed))
    return "-" if share is None else f"{share:.3f}"


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

"""Tables of paper A's protocol from the stored figures: `results/protocol.jsonl` -> `results/protocol.md`.

In: one line for each encoder, test and condition (`benchmarks.protocol`). Out: Markdown. Encoders called NAME@SEED are
one row: the mean over the seeds, with the lowest and highest of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
LEGEND = """\
Acoustic: same-different AP over all pairs of spoken words; across speakers: positives only between different speakers;
cross-modal: every spoken against every written word. Words of 0.5 to 2 s and at least three letters; IV: in the
recipe's training text, OOV: not (of "word", the encoder that Earshot ships, too, where the recipe is laptop.toml). It
was trained on far more words than the systems, as the column tells; "word-500-steps" is its recipe, but with noise as
the only augmentation, at about the processor time that a system took (an experiment of docs/log.md), "word-step-1000"
and so on are it on its way, at a high learning rate until near the end. AP depends on how many pairs there are and how
many are positive: both are given. STD: spoken query, KWS: typed query, against fixed windows (hop 0.15 s) of running
speech; EER of each window length; MTWV and MAP (mean average precision over queries) over all of them. A trial is
positive where the window's middle lies within the word, negative where the window does not touch it. "pooled": the same
windows pooled from one run over the utterance instead of cut out. "with lexicon": spoken words drawn to the English
words that they may be (`WordEncoder.with_lexicon`); such rows know a dictionary, which the paper's do not: do not
compare them; its constants were chosen on Mini LibriSpeech dev. Words of speechocean's held-out speakers are all in the
training text. In brackets the lowest and highest of several seeds; without them a figure is of one seed. Trained on:
spoken instances that its losses saw, of "word" runs of phones among them. Embeds words/s: by processor time of one core
that other work shared: compare ratios.
"""
PARTS = ("IV", "OOV")


def protocol_page(rows: Sequence[Row]) -> str:
    """All tables, and where each row came from."""
    lines = ["# Paper A's protocol", LEGEND]
    for test in sorted({row["test"] for row in rows}):
        of = [row for row in rows if row["test"] == test]
        clean = _by_name(row for row in of if row["condition"] == "clean")
        lines += [*_discrimination(test, clean), *_detection(test, clean), *_conditions(test, of)]
    return "\n".join([*lines, "## Where the figures come from", "", *_origins(rows), ""])


def _origins(rows: Sequence[Row]) -> Iterator[str]:
    """Each command once, and what it gave figures of."""
    made: dict[tuple[str, str, str], dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        made[row["command"], row["commit"], row["machine"]][row["test"], row["condition"]].append(row["encoder"])
    for (command, commit, machine), of in made.items():
        yield f"- `{command}` at {commit}, {machine}"
        yield from (f"  - {test}, {condition}: {', '.join(names)}" for (test, condition), names in of.items())


def _by_name(rows: Iterator[Row] | Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the name of their encoder, its seeds together."""
    named: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        named[row["encoder"].partition("@")[0]].append(row)
    return dict(named)


def _discrimination(test: str, systems: dict[str, list[Row]]) -> Iterator[str]:
    if not systems:
        return
    found = [rows[0]["words"] for rows in systems.values()]
    first = max(found, key=lambda words: "cross-modal" in (words["any length"] or {}))  # its counts hold for all
    yield f"## {test}: word discrimination, AP\n"
    for part in PARTS:
        if first[part]:
            yield f"{part}: {_counts(first[part])}"
    if any_length := first["any length"]:
        yield f"Any length: {any_length['words']:,} words, {any_length['acoustic']['n_pairs']:,} pairs."
    yield ""
    kinds = ("acoustic", "across speakers", "cross-modal")
    heads = [f"{kind} {part}" for kind in kinds for part in (*PARTS, "any length")]
    yield f"| system | parameters | trained on | trained words/s | embeds words/s | {' | '.join(heads)} |"
    yield "|---" * (5 + len(heads)) + "|"
    for name, rows in systems.items():
        card = rows[0]["card"]
        cells = [f"{card[key] / 1e6:.1f} M" if key in card else "-" for key in ("parameters", "spans")]
        cells.append(str(card.get("spans_per_second", "-")))
        cells.append(f"{sum(row['embedding words/s'] for row in rows) / len(rows):.0f}")
        for key, label, of in (("words", name, cells), ("with lexicon", f"{name}, with lexicon", ["-"] * len(cells))):
            if key in rows[0]:
                aps = [_ap([row[key] for row in rows], kind, part) for kind in kinds for part in (*PARTS, "any length")]
                yield f"| {label} | {' | '.join([*of, *aps])} |"
    yield ""


def _ap(found: Sequence[dict[str, Any]], kind: str, part: str) -> str:
    """Mean AP of one kind over the seeds; a dash where a part has no pairs."""
    return _mean([((one[part] or {}).get(kind) or {}).get("ap") for one in found])


def _counts(found: dict[str, Any]) -> str:
    pairs, across = found["acoustic"], found["across speakers"] or {"n_positive": 0}
    text = f"{found['words']:,} words, {found['types']:,} types, {pairs['n_pairs']:,} pairs, {pairs['n_positive']:,} "
    text += f"positive, {across['n_positive']:,} of them across speakers"
    return text + (f"; cross-modal {found['cross-modal']['n_pairs']:,}." if "cross-modal" in found else ".")


def _detection(test: str, systems: dict[str, list[Row]]) -> Iterator[str]:
    ways = dict.fromkeys(
        (name, way) for name, rows in systems.items() for row in rows for way in row.get("windows", {})
    )
    if not ways:
        return
    for kind, title in (("spoken", "STD, spoken queries"), ("typed", "KWS, typed queries")):
        found = {way: [row.get("windows", {}).get(way[1], {}).get(kind) for row in systems[way[0]]] for way in ways}
        found = {way: known for way, figures in found.items() if (known := [of for of in figures if of])}
        if found:
            yield f"## {test}: {title}\n"
            yield from _detection_table(found)


def _detection_table(found: dict[tuple[str, str], list[dict[str, Any]]]) -> Iterator[str]:
    """A table of the figures of each system and way to make windows, one for each seed."""
    sample = next(iter(found.values()))[0]
    lengths = sorted({length for of in sample.values() for length in of["EER"]}, key=float)
    for part in (part for part in PARTS if part in sample):
        text = f"{part}: {sample[part]['queries']} queries, {sample[part]['references']} references"
        for length, trials in list(sample[part]["EER"].items())[:1]:
            text += f"; {trials['trials']:,} trials of {length} s, {trials['positive']:,} positive"
        yield f"{text}."
    heads = [f"EER {part} {length} s" for part in PARTS for length in lengths]
    heads += [f"{figure} {part}" for figure in ("MTWV", "MAP") for part in PARTS]
    yield f"\n| system | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    for (name, way), figures in found.items():
        parts = {part: [one.get(part, {}) for one in figures] for part in PARTS}
        cells = [_mean([one.get("EER", {}).get(n, {}).get("EER") for one in parts[p]]) for p in PARTS for n in lengths]
        cells += [_mean([one.get(figure) for one in parts[p]]) for figure in ("MTWV", "MAP") for p in PARTS]
        yield f"| {name}{'' if way == 'cut' else ', ' + way} | {' | '.join(cells)} |"
    yield ""


def _conditions(test: str, rows: Sequence[Row]) -> Iterator[str]:
    """AP of words of any part under each condition, for encoders that were tested under several."""
    by_encoder: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_encoder[row["encoder"]].append(row)
    several = {name: of for name, of in by_encoder.items() if len(of) > 1}
    if not several:
        return
    kinds = ("acoustic", "across speakers", "cross-modal")
    yield f"## {test}: AP under noise and in rooms, words of 0.5 to 2 s\n"
    yield f"| system | condition | {' | '.join(kinds)} |"
    yield "|---" * (2 + len(kinds)) + "|"
    for name, of in several.items():
        for row in of:
            for key, label in (("words", name), ("with lexicon", f"{name}, with lexicon")):
                if key in row:
                    cells = [_ap([row[key]], kind, "all") for kind in kinds]
                    yield f"| {label} | {row['condition']} | {' | '.join(cells)} |"
    yield ""


def _mean(values: Sequence[float | None]) -> str:
    """The mean of what is known, with its range where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{sum(known) / len(known):.3f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.3f}-{max(known):.3f})"

"""Tables of questions against passages from the stored figures: `results/passages.jsonl`, `longform.jsonl` -> Markdown.

In: one line for each contender and test (`benchmarks.passages`, `benchmarks.longform`). Out: `passages.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
LEGEND = """\
Who heard: "earshot" by its passage encoder, "text" is the transcript (the upper bound), "sphinx" PocketSphinx with its
own models, "whisper" faster-whisper. How questions are compared: by meaning, vectors of the same sentence encoder
(paper B); by words, BM25 over word pieces, for Earshot over words that are sought in the sound, counted by their
chances; by both, as `earshot ask` does it (no ending), also with questions that another voice speaks ("-spoken"); by
BM25 of the library bm25s over whole words. Other names are checkpoints, in torch and by meaning: "pretrain" of stage 1
alone, and what recipes/passage-ablation.toml makes of it in 300 steps; of drcd, what recipes/drcd.toml makes of its
own speech alone, both stages, with a text encoder from random weights ("-no-sampler": on top of the first stage of
that name; "-text": of the right transcript). All passages of a test are one pool, with one question for each: recall at
1, 5 and 10 and mean reciprocal rank from question to passage, recall at 1 back. Tests without questions are asked for
five rare words of each passage. WER: of the words heard, in Mandarin of characters. Seconds: processor time for an hour
of speech; milliseconds: the same for a question to all of the pool. Others used the machine too: compare ratios.
"""
COLUMNS = (
    "question_r1",
    "question_r5",
    "question_r10",
    "question_mrr",
    "passage_r1",
    "wer",
    "seconds_per_hour",
    "question_ms",
)
HEADS = ("R@1", "R@5", "R@10", "MRR", "R@1 back", "WER", "seconds an hour", "ms a question")


def passages_page(passages: Sequence[Row], documents: Sequence[Row]) -> str:
    """All tables, and where each row came from."""
    lines = ["# Questions and spoken passages", LEGEND]
    for test in sorted({row["test"] for row in passages}):
        of = sorted((row for row in passages if row["test"] == test), key=lambda row: str(row["contender"]))
        lines += [
            f"## {test}",
            "",
            f"{of[0]['passages']} passages and questions, {of[0]['hours']:.2f} h of speech.",
            "",
        ]
        lines += [_line("contender", *HEADS), _line(*["---"] * (1 + len(HEADS)))]
        lines += [_line(row["contender"], *(row[name] for name in COLUMNS)) for row in of]
        lines.append("")
    for test in sorted({row["test"] for row in documents}):
        lines += _documents(test, [row for row in documents if row["test"] == test])
    return "\n".join([*lines, "## Where the figures come from", "", *_origins([*passages, *documents]), ""])


def _documents(test: str, rows: Sequence[Row]) -> Iterator[str]:
    yield from (f"## {test}, joined to documents of half an hour", "")
    count, hours = rows[0]["documents"], rows[0]["hours"]
    yield f"{rows[0]['questions']} questions, {count} documents, {hours:.2f} h. Share of questions whose answer is in"
    yield "the first 1, 3 and 5 passages of its document (and of all documents); in brackets their share of a document."
    yield "With transcripts, what Earshot hears still counts a fifth. Seconds are without those of PocketSphinx."
    minutes, own = 60 * hours / count, rows[0]["document"]
    yield f"Who reads or hears everything has {minutes:.1f} minutes before them; the first passage is"
    yield f"{minutes * own['share1']:.1f}, the first five are {minutes * own['share5']:.1f}, and to rank them takes ms:"
    yield ""
    tops = ("top 1", "top 3", "top 5")
    yield _line(
        "transcripts", *tops, *(f"of all: {top}" for top in tops), "ms a question", "of all: ms", "seconds an hour"
    )
    yield _line(*["---"] * 10)
    for row in rows:
        own, every = row["document"], row["library"]
        within = (f"{own[f'top{k}']} ({own[f'share{k}']})" for k in (1, 3, 5))
        name = {"earshot": "none", "text": "right", "sphinx": "PocketSphinx's"}.get(row["contender"], row["contender"])
        times = (own.get("question_ms", "-"), every["question_ms"], row.get("seconds_per_hour", "-"))
        yield _line(name, *within, *(every[f"top{k}"] for k in (1, 3, 5)), *times)
    yield ""


def _origins(rows: Sequence[Row]) -> Iterator[str]:
    """Each command once, and what it gave figures of."""
    made: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        key = (row["command"], row["commit"], row["machine"])
        made.setdefault(key, []).append(f"{row['contender']} ({row['test']})")
    for (command, commit, machine), of in made.items():
        yield f"- `{command}` at {commit}, {machine}: {', '.join(of)}"


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

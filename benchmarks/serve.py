"""Load on `earshot serve`: clients that search one after another as fast as they are answered, while recordings go in.

In: a library, and a folder of recordings to take in meanwhile. Out: `benchmarks/results/serve.md`: waits, errors, and
the server's memory over time. All on loopback; the library itself stays as it is.

    python -m benchmarks.serve --library DIR --add DIR --work DIR
"""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import click

import earshot
from benchmarks import store
from benchmarks.run import current_origin
from benchmarks.speed import QUESTIONS
from earshot.audio import SUFFIXES

WORDS = 2000
WAITING = 2
"""Recordings that are taken in beyond the one that is being indexed."""
MIX = ("word",) * 7 + ("example", "question", "sound")
"""What each client asks for in turn, each from another place on."""
NO_EXAMPLE = re.compile(b"no speech in it|s of speech is too short")
"""What is said of an example that happens to be silent, or nearly: chance chooses them."""
PATIENCE = 120.0
FAILURES = (OSError, http.client.HTTPException, ValueError)
"""Of a request: no connection, a reply that breaks off or is no HTTP, a body that is not JSON."""


@dataclass(slots=True)
class Load:
    """What was measured: waits in seconds by kind; what was not answered as it should be; MB resident by second."""

    waits: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in dict.fromkeys(MIX)})
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    added: int = 0
    indexed: int = 0


@click.command()
@click.option("--library", type=click.Path(exists=True, path_type=Path), required=True, help="Of about ten hours.")
@click.option("--add", type=click.Path(exists=True, path_type=Path), required=True, help="Recordings to take in.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder, outside the checkout.")
@click.option("--clients", default=50, show_default=True)
@click.option("--seconds", default=60, show_default=True)
def main(library: Path, add: Path, work: Path, clients: int, seconds: int) -> None:
    """Measure waits, errors and memory under load."""
    origin = current_origin("benchmarks.serve")
    copy = work / "served"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(library, copy)
    with earshot.open(copy) as opened:
        held = opened.status().totals
    command = [sys.executable, "-m", "earshot", "serve", "--library", str(copy), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            told = server.stdout.readline()
            if not (address := re.search(r"127\.0\.0\.1:(\d+)", told)):
                raise click.ClickException("the server did not start")
            load = measure(int(address[1]), server.pid, recordings(add), clients, seconds)
        finally:
            server.terminate()
    page = told_as_markdown(load, origin, held.seconds / 3600, clients, seconds)
    (store.FOLDER / "serve.md").write_text(page)
    click.echo(page)


def recordings(folder: Path) -> list[Path]:
    """Those below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise click.ClickException(f"{folder}: no audio files in it")
    return found


def measure(port: int, pid: int, added: list[Path], clients: int, seconds: float) -> Load:
    """Load the server for so long."""
    load, ended = Load(), list[object]()
    rows = json.loads(ask(port, "GET", "/api/recordings")[1])
    words = random.Random(1).sample(dictionary(), WORDS)
    end = time.monotonic() + seconds

    def until_end(step: Callable[[int], None]) -> None:
        for k in itertools.count():
            if time.monotonic() >= end:
                ended.append(step)
                return
            try:
                step(k)
            except FAILURES as error:
                load.errors.append(f"{type(error).__name__}: {error}")

    def client(number: int) -> None:
        chance = random.Random(number)

        def step(k: int) -> None:
            kind = MIX[(number + k) % len(MIX)]
            row = chance.choice(rows)
            start = chance.uniform(0, max(0.0, row["seconds"] - 1))
            address = {
                "word": f"/api/find?q={quote(chance.choice(words))}",
                "example": f"/api/find?like={row['id']}&start={start:.2f}&end={start + 0.5:.2f}",
                "question": f"/api/ask?q={quote(chance.choice(QUESTIONS))}",
                "sound": f"/api/audio/{row['id']}",
            }[kind]
            began = time.monotonic()
            status, body = ask(port, "GET", address, {"Range": "bytes=0-65535"} if kind == "sound" else {})
            expected = (206,) if kind == "sound" else (200, 400) if kind == "example" else (200,)
            if status not in expected or (status == 400 and not NO_EXAMPLE.search(body)):
                load.errors.append(f"{address}: {status} {body[:200]!r}")
            load.waits[kind].append(time.monotonic() - began)

        until_end(step)

    def adder(_: int) -> None:
        state = json.loads(ask(port, "GET", "/api/indexing")[1])
        if state["expected_files"] - state["files"] <= WAITING:
            path = added[load.added % len(added)]
            status, body = ask(port, "POST", f"/api/recordings?name={quote(path.name)}", {}, path.read_bytes())
            load.added += 1
            if status != 202:
                load.errors.append(f"{path.name}: {status} {body[:200]!r}")
        else:
            time.sleep(0.2)

    def watch(_: int) -> None:
        load.memory.append((time.monotonic() - end + seconds, resident(pid)))
        time.sleep(1)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    threads += [threading.Thread(target=until_end, args=(step,)) for step in (adder, watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(ended) < len(threads):
        raise click.ClickException(f"{len(threads) - len(ended)} of {len(threads)} threads ended early: nothing counts")
    load.indexed = len(json.loads(ask(port, "GET", "/api/recordings")[1])) - len(rows)
    return load


def ask(
    port: int, method: str, address: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, address, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def dictionary() -> list[str]:
    """Words of six letters and more."""
    with gzip.open(str(files("earshot") / "data" / "cmudict.gz"), "rt", encoding="utf-8") as lines:
        words = {line.split(maxsplit=1)[0].lower() for line in lines if line.strip()}
    return sorted(word for word in words if re.fullmatch("[a-z]{6,}", word))


def resident(pid: int) -> float:
    """MB of memory that a process has resident (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1000


def told_as_markdown(load: Load, origin: store.Origin, hours: float, clients: int, seconds: float) -> str:
    """The page of results."""
    lines = [
        "# Load on `earshot serve`",
        "",
        f"`{origin.command}` ({origin.commit}; {origin.machine}; load average {origin.load} before it began)",
        "",
        f"{clients} clients on the same machine search a library of {hours:.1f} hours for {seconds:g} s, each as"
        f" soon as it was answered; meanwhile recordings are taken in without a pause ({load.added} sent,"
        f" {load.indexed} indexed by the end). Errors: {len(load.errors)}.",
        "",
        "| asked for | answered | p50 s | p95 s | slowest s |",
        "|---|---|---|---|---|",
    ]
    everything = [wait for waits in load.waits.values() for wait in waits]
    for kind, waits in {**load.waits, "all": everything}.items():
        if len(waits) > 1:
            cuts = statistics.quantiles(waits, n=20)
            lines.append(f"| {kind} | {len(waits)} | {cuts[9]:.2f} | {cuts[18]:.2f} | {max(waits):.2f} |")
    lines += ["", "Resident memory of the server:", "", "| s | MB |", "|---|---|"]
    step = max(1, len(load.memory) // 12)
    lines += [f"| {at:.0f} | {megabytes:.0f} |" for at, megabytes in load.memory[::step]]
    lines += ["", *(f"- {error}" for error in load.errors[:20])]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()

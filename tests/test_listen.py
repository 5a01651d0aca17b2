"""Live keyword spotting with the shipped encoder on a sample recording: hits, and the command `earshot listen`."""

from __future__ import annotations

import inspect
import json
import math
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from conftest import Samples

from earshot import audio, cli, hook, live, output, watch
from earshot.audio import SAMPLE_RATE
from earshot.cli import keeping, serving
from earshot.listen import AFTER, CUT, LOOKED_AT, STEP, Lost, Once, Spotted, Spotter, Told, listen
from earshot.live import Block, Feed
from earshot.types import AudioError, Clip, QueryError

LECTURE = Path(__file__).parents[1] / "samples" / "lecture.opus"
GRADIENTS = [6.65, 16.35, 23.33, 43.38, 54.88]
"""Where the word begins."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def lecture() -> Samples:
    return audio.load(Clip(str(LECTURE)))


def part(samples: Samples, start: float, end: float) -> Samples:
    return samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def cut(samples: Samples, seconds: float) -> Iterator[Samples]:
    size = round(seconds * SAMPLE_RATE)
    return (samples[k : k + size] for k in range(0, len(samples), size))


def heard(spotter: Spotter, blocks: Iterator[Samples]) -> list[Spotted]:
    return [hit for block in blocks for hit in spotter.hear(block)] + spotter.finish()


def test_each_place_is_told_once_soon_after_its_end(lecture: Samples) -> None:
    spotter = Spotter(["gradient", "telescope"])
    some = part(lecture, 0, 26)
    hits = heard(spotter, cut(some, 0.1))
    assert [hit.query for hit in hits] == ["gradient"] * 3
    assert [hit.start for hit in hits] == pytest.approx(GRADIENTS[:3], abs=0.06)
    assert all(AFTER <= hit.heard - hit.end <= AFTER + 2 * STEP for hit in hits)
    assert all(hit.probability > 0.5 and 0.5 < hit.score < 1 for hit in hits)
    assert spotter.clock == pytest.approx(len(some) / SAMPLE_RATE)


def test_the_sizes_of_blocks_do_not_matter(lecture: Samples) -> None:
    some = part(lecture, 4, 26)
    one, other = (heard(Spotter(["gradient"]), cut(some, seconds)) for seconds in (0.3, 26.0))
    assert [hit.start for hit in one] == pytest.approx([hit.start for hit in other], abs=0.06)
    assert len(one) == 3


def test_an_example_and_a_phrase_are_heard(lecture: Samples) -> None:
    example = Clip(str(LECTURE), 43.39, 43.91)
    hits = heard(Spotter([example, "no gradient here"], threshold=0.2), cut(part(lecture, 3, 26), 1.0))
    assert [hit.query for hit in hits] == [str(example)] * 3
    assert [hit.start + 3 for hit in hits] == pytest.approx(GRADIENTS[:3], abs=0.08)


def test_a_phrase_may_take_longer_than_is_looked_at_for_words(lecture: Samples) -> None:
    said = "you take a small step in the opposite direction"
    (hit,) = heard(Spotter([said]), cut(part(lecture, 16, 24), 0.5))
    assert (hit.start + 16, hit.end + 16) == pytest.approx((19.56, 22.16), abs=0.1)


def test_the_threshold_is_one_of_probability(lecture: Samples) -> None:
    some = part(lecture, 0, 8)
    (hit,) = heard(Spotter(["gradient"], threshold=0.3), cut(some, 1.0))
    assert heard(Spotter(["gradient"], threshold=1.0), cut(some, 1.0)) == []
    assert hit.probability > 0.3


def test_a_place_that_begins_with_what_is_looked_at_counts_only_at_the_start_of_a_stream(lecture: Samples) -> None:
    places = Spotter(["gradient", "step", "small"], threshold=0.0).places(part(lecture, 6.66, 26))
    after = [place.start - (place.heard - LOOKED_AT) for place in places if place.heard > LOOKED_AT + STEP]
    assert len(after) > 10 and min(after) >= CUT - 1e-6
    assert any(place.start < CUT and place.probability > 0.3 for place in places)


def test_a_word_at_the_very_end_is_told_when_the_stream_ends(lecture: Samples) -> None:
    spotter = Spotter(["gradient"])
    assert spotter.hear(part(lecture, 5, 7.26)) == []
    (hit,) = spotter.finish()
    assert hit.start + 5 == pytest.approx(GRADIENTS[0], abs=0.06)


def test_after_a_gap_times_are_those_of_the_stream(lecture: Samples) -> None:
    spotter = Spotter(["gradient"])
    before = [*spotter.hear(part(lecture, 5, 7.3)), *spotter.skip(7 * SAMPLE_RATE)]
    assert spotter.clock == pytest.approx(2.3 + 7)
    after = [*spotter.hear(part(lecture, 14.3, 18)), *spotter.finish()]
    assert [hit.start + 5 for hit in (*before, *after)] == pytest.approx(GRADIENTS[:2], abs=0.06)


def test_half_of_a_word_before_a_gap_and_half_after_is_no_word(lecture: Samples) -> None:
    spotter = Spotter(["gradient"])
    hits = [*spotter.hear(part(lecture, 5, 6.9)), *spotter.skip(SAMPLE_RATE), *spotter.hear(part(lecture, 6.9, 9))]
    assert hits + spotter.finish() == []


def test_where_nobody_speaks_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    spotter = Spotter(["gradient"])
    noise = np.random.default_rng(0).normal(0, 0.01, 20 * SAMPLE_RATE).astype(np.float32)
    monkeypatch.setattr(type(spotter.encoder), "frames", lambda *_: pytest.fail("encoded"))
    assert heard(spotter, cut(noise, 1.0)) == [] == heard(spotter, cut(noise * 0, 1.0))


def test_blocks_may_be_tiny_or_empty() -> None:
    spotter = Spotter(["gradient"])
    assert [spotter.hear(np.zeros(n, np.float32)) for n in (0, 1, 399, 0, 1)] == [[]] * 5
    assert spotter.clock == pytest.approx(401 / SAMPLE_RATE) and spotter.finish() == []


def test_what_cannot_be_listened_for_is_refused() -> None:
    for queries in ([], [""], ["gradient", "?"]):
        with pytest.raises(QueryError):
            Spotter(queries)
    with pytest.raises(AudioError):
        Spotter([Clip("gone.wav")])


def test_once_tells_one_place_once_and_each_query_by_itself() -> None:
    first, again, later, other = (
        Spotted(query, start, start + 0.5, 0.7, 0.9, start + 1)
        for query, start in (("a", 1.0), ("a", 1.3), ("a", 1.49), ("b", 1.0))
    )
    once = Once()
    assert once.new([first, again, other]) == [first, other]
    assert once.new([again, later]) == [later]  # said again at once: borders may touch by half a frame


def test_a_word_said_again_at_once_is_told_again(lecture: Samples) -> None:
    word = part(lecture, 43.39, 43.91)
    thrice = np.concatenate([part(lecture, 0, 2), word, word, word, part(lecture, 0, 2)])
    hits = heard(Spotter(["gradient"]), cut(thrice, 0.1))
    assert [hit.start for hit in hits] == pytest.approx([2.0, 2.52, 3.04], abs=0.08)


def test_listen_tells_when_it_was_said_and_what_was_lost(lecture: Samples) -> None:
    read, go_on = threading.Event(), threading.Event()

    def source() -> Generator[Samples]:
        yield from cut(part(lecture, 0, 14), 1.0)
        read.set()
        go_on.wait(60)
        yield from cut(part(lecture, 14, 18), 1.0)
        raise AudioError("radio: broke off")

    feed = Feed(source(), live=True)
    assert read.wait(60)  # 14 s came at once, of which 10 are kept
    found = []
    with pytest.raises(AudioError, match="radio: broke off"):
        for one in listen(feed, Spotter(["gradient"])):
            found.append(one)
            if isinstance(one, Told):
                go_on.set()
    lost, *told = found
    assert lost == Lost(4.0, 4.0)
    assert all(isinstance(one, Told) and 0 < one.latency < 60 for one in told)
    assert [one.hit.start for one in told if isinstance(one, Told)] == pytest.approx(GRADIENTS[:2], abs=0.06)
    assert all(abs(one.said - time.time()) < 60 for one in told if isinstance(one, Told))


class Scripted:
    """Stands for a Feed: blocks of half a second that came when the script says."""

    def __init__(self, samples: Samples, arrived: Sequence[float]) -> None:
        self.blocks = [Block(block, at) for block, at in zip(cut(samples, 0.5), arrived, strict=True)]

    def take(self, most: float) -> list[Block]:
        return [self.blocks.pop(0)] if self.blocks else []


def test_latency_counts_from_when_the_end_of_a_hit_came(lecture: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = [100 + 0.5 * k + 0.01 * (k % 7) for k in range(20)]
    feed = Scripted(part(lecture, 0, 10), arrived)
    monkeypatch.setattr("earshot.listen.time", SimpleNamespace(monotonic=lambda: 200.0, time=lambda: 5000.0))
    (one,) = listen(cast(Feed, feed), Spotter(["gradient"]))
    assert isinstance(one, Told)
    end, number = one.hit.end, math.ceil(one.hit.end / 0.5) - 1  # the block that holds the end
    came = arrived[number] - (0.5 * (number + 1) - end)
    assert one.latency == pytest.approx(200 - came)
    assert one.said == pytest.approx(5000 - one.latency - (end - one.hit.start))
    (same,) = listen(cast(Feed, Scripted(part(lecture, 0, 10), arrived)), Spotter(["gradient"]), timed=False)
    assert same == Told(one.hit, None, None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(hook, "PATIENCE", 60.0)  # a machine may take long to start a program

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(["listen", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert all(line.startswith("earshot: ") for line in err.lstrip("\n").splitlines()), err
        return code, out, err

    return run


def test_commands_have_the_defaults_of_what_they_call() -> None:
    for command, option, called in (
        (serving.listen, "threshold", Spotter.__init__),
        (keeping.watch, "every", watch.watch),
    ):
        (default,) = (parameter.default for parameter in command.params if parameter.name == option)
        assert default == inspect.signature(called).parameters[option].default


@pytest.fixture
def clip(tmp_path: Path, lecture: Samples) -> Path:
    """Eight seconds with one "gradient" in them."""
    audio.write_wav(tmp_path / "clip.wav", part(lecture, 0, 8))
    return tmp_path / "clip.wav"


def test_a_hit_is_a_json_line(run: Run, clip: Path) -> None:
    code, out, err = run("--for", "gradient", "--for", "telescope", "--from", clip)
    assert code == 0 and err == ""
    (row,) = map(json.loads, out.splitlines())
    assert list(row) == ["query", "start", "end", "time", "probability", "score", "latency"]
    assert row["query"] == "gradient" and row["start"] == pytest.approx(6.65, abs=0.06) and row["end"] > row["start"]
    assert row["time"] is None and row["latency"] is None  # a file is not read as it was said


def test_for_people_a_hit_begins_with_the_clock_unless_it_is_of_a_file() -> None:
    hit = Spotted("gradient", 6.652, 7.232, 0.75, 0.976, 7.4)
    said = datetime(2026, 11, 27, 10, 42, 14).timestamp()
    assert output.told_text(Told(hit, 0.4, said)) == "10:42:14  0:06.65  0.98  gradient"
    assert output.told_text(Told(hit, None, None)) == "0:06.65  0.98  gradient"


def test_a_command_is_run_for_each_hit_and_its_failure_told(run: Run, clip: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys; open(sys.argv[1], 'w').write(sys.argv[2] + os.environ['EARSHOT_PROBABILITY']); sys.exit(5)"
    )
    command = shlex.join([sys.executable, "-c", script, str(tmp_path / "out"), "{query} {start}|"])
    code, out, err = run("--for", "gradient", "--from", clip, "--exec", command)
    row = json.loads(out)
    assert (tmp_path / "out").read_text() == f"gradient {row['start']}|{row['probability']}"
    assert code == 0 and err == f"earshot: --exec: {sys.executable} failed with exit code 5\n"


def test_commands_are_waited_for_where_a_source_breaks_off(
    run: Run, tmp_path: Path, lecture: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def source(*_: object, **__: object) -> Generator[Samples]:
        yield part(lecture, 0, 8)
        raise AudioError("radio: broke off")

    monkeypatch.setattr(live, "source", source)
    script = "import sys, time; time.sleep(0.5); open(sys.argv[1], 'w').write(sys.argv[2])"
    command = shlex.join([sys.executable, "-c", script, str(tmp_path / "out"), "{query}"])
    code, _, err = run("--for", "gradient", "--from", "radio", "--exec", command)
    assert (code, err) == (1, "earshot: radio: broke off\n") and (tmp_path / "out").read_text() == "gradient"


def test_commands_are_not_waited_for_after_ctrl_c(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> Iterator[Told]:
        yield Told(Spotted("gradient", 1.0, 1.5, 0.7, 0.9, 1.6), 0.1, 5000.0)
        raise KeyboardInterrupt

    monkeypatch.setattr("earshot.listen.listen", stopped)
    monkeypatch.setattr(live, "source", lambda *_, **__: iter(()))
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    command = shlex.join([sys.executable, "-c", wait, str(tmp_path / "go")])
    began = time.monotonic()
    try:
        code, _, err = run("--for", "gradient", "--from", "radio", "--exec", command)
    finally:
        (tmp_path / "go").touch()
    assert (code, err) == (130, "\nearshot: stopped\n") and time.monotonic() - began < hook.PATIENCE / 2


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "Name a word with --for QUERY or give --like FILE[@START-END]; see `earshot listen --help`"),
        (["--for", ""], 2, "empty"),
        (["--for", "hi", "--threshold", "2"], 2, "Invalid value for '--threshold'"),
        (["--for", "hi", "--rate", "8000"], 2, "--rate goes with --from -"),
        (["--for", "hi", "--from", "-", "--device", "1"], 2, "--device names a microphone"),
        (["--for", "hi", "--from", "-", "--rate", "5"], 1, "a rate of 5 Hz cannot be listened to"),
        (["--for", "hi", "--from", "gone.wav"], 1, "gone.wav: no such file; check its name"),
        (["--for", "hi", "--from", "http://127.0.0.1:9/"], 1, "http://127.0.0.1:9/: cannot be opened as audio"),
        (["--for", "hi", "--from", "udp://127.0.0.1:9"], 1, "udp is not listened to"),
        (["--for", "hi", "--exec", "'"], 1, "cannot be split into words"),
        (["--like", "gone.wav", "--from", "-"], 1, "gone.wav: no such file"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, arguments: list[str], code: int, complaint: str) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (code, "") and complaint in err and err.count("\n") == 1


def test_a_microphone_that_is_missing_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    code, out, err = run("--for", "gradient")
    assert (code, out) == (1, "") and "pip install '.[listen]'" in err and err.count("\n") == 1


LISTEN = "from earshot.cli import main; main()"


def program(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LISTEN, "listen", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_pcm_on_standard_input_is_told_while_it_comes_and_ctrl_c_ends_it(lecture: Samples) -> None:
    pcm = (part(lecture, 0, 8) * 32767).astype("<i2").tobytes()
    with program("--for", "gradient", "--from", "-") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(pcm)
        process.stdin.flush()
        row = json.loads(process.stdout.readline())  # the pipe stays open
        assert row["query"] == "gradient" and row["latency"] > 0
        assert datetime.fromisoformat(row["time"]).tzinfo is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"\nearshot: stopped\n" and process.stdout.read() == b""


def test_the_end_of_standard_input_is_the_end(lecture: Samples) -> None:
    half = lecture[: 8 * SAMPLE_RATE].reshape(-1, 2).mean(axis=1)
    with program("--for", "gradient", "--from", "-", "--rate", "8000") as process:
        out, err = process.communicate((half * 32767).astype("<i2").tobytes(), timeout=60)
    assert process.returncode == 0 and err == b""
    assert json.loads(out)["start"] == pytest.approx(6.65, abs=0.1)


def test_standard_input_may_be_a_file(lecture: Samples, tmp_path: Path) -> None:
    (tmp_path / "pcm").write_bytes((part(lecture, 0, 8) * 32767).astype("<i2").tobytes())
    command = [sys.executable, "-m", "earshot", "listen", "--for", "gradient", "--from", "-"]
    with (tmp_path / "pcm").open("rb") as file:
        out = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    row = json.loads(out)
    assert row["start"] == pytest.approx(6.65, abs=0.06) and row["time"] is None and row["latency"] is None


def test_a_reader_that_goes_away_ends_it_quietly(lecture: Samples) -> None:
    first, second = ((part(lecture, *of) * 32767).astype("<i2").tobytes() for of in ((0, 8), (15.8, 17.8)))
    with program("--for", "gradient", "--from", "-") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(first)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(second)  # there is something to tell when nobody reads any more
        process.stdin.close()
        assert process.wait(60) == 1 and process.stderr.read() == b""

"""A command for each hit: split once, filled in, without a shell; failures are told and harm nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from earshot.hook import MOST, Hook
from earshot.types import EarshotError

FIELDS = {"query": "hey you; touch {start} $(id)", "start": 1.25, "probability": 0.9}
TELL = "import os, sys; open(sys.argv[1], 'a').write(repr(sys.argv[2:]) + os.environ['EARSHOT_QUERY'])"


def test_placeholders_stay_one_argument_and_no_shell_reads_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = Hook(f"{sys.executable} -c \"{TELL}\" {out} {{query}} at={{start}} {{unknown}} '{{probability}} ok'")
    assert [*hook.run(FIELDS), *hook.close()] == []
    expected = ["hey you; touch {start} $(id)", "at=1.25", "{unknown}", "0.9 ok"]
    assert out.read_text() == repr(expected) + FIELDS["query"]


def test_failures_are_told_once_in_one_line() -> None:
    hook = Hook(f"{sys.executable} -c 'raise SystemExit(3)'")
    assert [*hook.run(FIELDS), *hook.close()] == [f"--exec: {sys.executable} failed with exit code 3"]
    assert list(hook.close()) == []
    (complaint,) = Hook("no-such-program-at-all x").run(FIELDS)
    assert complaint == "--exec: no-such-program-at-all cannot be run (No such file or directory); check the command"
    (complaint,) = Hook("true {query}").run({"query": "a\0b"})
    assert complaint.startswith("--exec: true cannot be run (embedded null")


def test_only_a_few_run_at_once() -> None:
    hook = Hook(f"{sys.executable} -c 'import time; time.sleep(1)'")
    complaints = [complaint for _ in range(MOST + 2) for complaint in hook.run(FIELDS)]
    assert complaints == [f"--exec: not run for {FIELDS['query']}: {MOST} are still running"] * 2
    began = time.monotonic()
    assert list(hook.close()) == [] and time.monotonic() - began > 0.1


def test_what_still_runs_at_the_end_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earshot.hook.PATIENCE", 0.05)
    hook = Hook(f"{sys.executable} -c 'import time; time.sleep(1)'")
    assert list(hook.run(FIELDS)) == []
    (complaint,) = hook.close()
    assert complaint.startswith(f"--exec: {sys.executable} is still running (process ")
    time.sleep(1.2)
    assert list(hook.finished()) == []


@pytest.mark.parametrize(("command", "wrong"), [("", "is empty"), ("  ", "is empty"), ("say 'hi", "cannot be split")])
def test_what_is_no_command_is_refused(command: str, wrong: str) -> None:
    with pytest.raises(EarshotError, match=wrong):
        Hook(command)

"""A command for each hit: split once, filled in, without a shell; failures are told and harm nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from earshot.hook import MOST, Hook
from earshot.types import EarshotError

FIELDS = {"query": "hey you; touch {start} $(id)", "start": 1.25, "probability": 0.9}
TELL = "import os, sys; open(sys.argv[1], 'a').write(repr(sys.argv[2:]) + os.environ['EARSHOT_QUERY'])"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("earshot.hook.PATIENCE", 60.0)  # a machine may take long to start a program
    return []


def test_placeholders_stay_one_argument_and_no_shell_reads_them(tmp_path: Path, told: list[str]) -> None:
    out = tmp_path / "out"
    command = f"{sys.executable} -c \"{TELL}\" {out} {{query}} at={{start}} {{unknown}} '{{probability}} ok'"
    hook = Hook(command, told.append)
    hook.run(FIELDS)
    hook.close()
    expected = ["hey you; touch {start} $(id)", "at=1.25", "{unknown}", "0.9 ok"]
    assert out.read_text() == repr(expected) + FIELDS["query"] and told == []


def test_what_a_hit_does_not_say_is_empty(tmp_path: Path, told: list[str]) -> None:
    out = tmp_path / "out"
    hook = Hook(f"{sys.executable} -c \"{TELL}\" {out} 'at {{query}}'", told.append)
    hook.run({"query": None})
    hook.close()
    assert out.read_text() == repr(["at "]) and told == []


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (f"{sys.executable} -c 'raise SystemExit(3)'", f"{sys.executable} failed with exit code 3"),
        ("no-such-program x", "no-such-program cannot be run (No such file or directory); check the command"),
        ("true 'a\0b'", "true cannot be run (embedded null byte); check the command"),
    ],
)
def test_failures_are_told_in_one_line(command: str, complaint: str, told: list[str]) -> None:
    hook = Hook(command, told.append)
    hook.run(FIELDS)
    hook.close()
    assert told == [f"--exec: {complaint}"]


def test_only_a_few_run_at_once(told: list[str], tmp_path: Path) -> None:
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    hook = Hook(f'{sys.executable} -c "{wait}"', told.append)
    for _ in range(MOST + 2):
        hook.run(FIELDS)
    assert told == [f"--exec: not run for {FIELDS['query']}: {MOST} are still running"] * 2
    (tmp_path / "go").touch()
    hook.close()
    hook.run(FIELDS)
    hook.close()
    assert len(told) == 2


def test_what_still_runs_at_the_end_is_left_to_itself(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    hook = Hook(f'{sys.executable} -c "{wait}"', told.append)
    hook.run(FIELDS)
    monkeypatch.setattr("earshot.hook.PATIENCE", 0.05)
    hook.close()
    assert told == [f"--exec: {sys.executable} is still running, 1 of it"]
    monkeypatch.setattr("earshot.hook.PATIENCE", 60.0)
    (tmp_path / "go").touch()
    hook.close()
    assert len(told) == 1


@pytest.mark.parametrize(("command", "wrong"), [("", "is empty"), ("  ", "is empty"), ("say 'hi", "cannot be split")])
def test_what_is_no_command_is_refused(command: str, wrong: str, told: list[str]) -> None:
    with pytest.raises(EarshotError, match=wrong):
        Hook(command, told.append)

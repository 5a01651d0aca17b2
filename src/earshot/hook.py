"""A command of the user's that is run for each hit: split into words once, filled in, run without a shell.

In: the command's line and hits. Out: processes, and one line for each that failed or could not be run. Knows nothing
of listening.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

from earshot.types import EarshotError, Seconds

MOST = 4
"""So many run at once; what comes while they do is not run."""
PATIENCE: Seconds = 10.0
"""How long commands are waited for when listening has ended."""


class Hook:
    """`command` as one would type it; {query}, {start} and the like in it are what a hit says, and so are variables
    such as EARSHOT_QUERY. EarshotError where it is no command; what goes wrong later is told to `complain`.

    Placeholders are filled in after the line is split, so whatever a query holds stays one argument.
    """

    def __init__(self, command: str, complain: Callable[[str], None]) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise EarshotError(f"--exec {command!r} cannot be split into words ({error}); close its quotes") from error
        if not self._words:
            raise EarshotError("--exec is empty; name a command")
        self._complain = complain
        self._running: list[threading.Thread] = []

    def run(self, fields: Mapping[str, object]) -> None:
        """Start the command for a hit and do not wait for it. Its output goes to standard error."""
        self._running = [thread for thread in self._running if thread.is_alive()]
        if len(self._running) >= MOST:
            self._complain(f"--exec: not run for {fields['query']}: {MOST} are still running")
            return
        self._running.append(threading.Thread(target=self._run, args=(dict(fields),), daemon=True))
        self._running[-1].start()

    def _run(self, fields: Mapping[str, object]) -> None:
        words = [_filled(word, fields) for word in self._words]
        variables = {f"EARSHOT_{name.upper()}": _text(value) for name, value in fields.items()}
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, env={**os.environ, **variables})
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or str(error)
            self._complain(f"--exec: {self._words[0]} cannot be run ({told}); check the command")
        else:
            if done.returncode:
                self._complain(f"--exec: {self._words[0]} failed with exit code {done.returncode}")

    def close(self) -> None:
        """Wait a little for what still runs, and leave it to itself after that."""
        until = time.monotonic() + PATIENCE
        for thread in self._running:
            thread.join(max(0.0, until - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._running):
            self._complain(f"--exec: {self._words[0]} is still running, {left} of it")


def _filled(word: str, fields: Mapping[str, object]) -> str:
    """The word with each {name} replaced, in one go: braces in a query stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: _text(fields.get(found[1], found[0])), word)


def _text(value: object) -> str:
    """A field as a command gets it: nothing where it has no value."""
    return "" if value is None else str(value)

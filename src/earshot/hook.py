"""A command of the user's that is run for each hit: split into words once, filled in, run without a shell.

In: the command's line and hits. Out: processes, and one line for each that failed or could not be run. Knows nothing
of listening.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping

from earshot.types import EarshotError, Seconds

MOST = 4
"""So many run at once; what comes while they do is not run."""
PATIENCE: Seconds = 10.0
"""How long commands are waited for when listening has ended."""


class Hook:
    """`command` as one would type it; {query}, {start} and the like in it are what a hit says, and so are variables
    such as EARSHOT_QUERY. EarshotError where it is no command.

    Placeholders are filled in after the line is split, so whatever a query holds stays one argument.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise EarshotError(f"--exec {command!r} cannot be split into words ({error}); close its quotes") from error
        if not self._words:
            raise EarshotError("--exec is empty; name a command")
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, fields: Mapping[str, object]) -> Iterator[str]:
        """Start the command for a hit; complaints, of earlier runs too. Its output goes to standard error."""
        yield from self.finished()
        if len(self._running) >= MOST:
            yield f"--exec: not run for {fields['query']}: {MOST} are still running"
            return
        words = [_filled(word, fields) for word in self._words]
        variables = {f"EARSHOT_{name.upper()}": str(value) for name, value in fields.items()}
        try:
            self._running.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=2, env={**os.environ, **variables})
            )
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or str(error)
            yield f"--exec: {self._words[0]} cannot be run ({told}); check the command"

    def finished(self) -> Iterator[str]:
        """A complaint for each run that has ended with another exit code than 0."""
        running = self._running
        self._running = [process for process in running if process.poll() is None]
        for process in running:
            if process.returncode:
                yield f"--exec: {self._words[0]} failed with exit code {process.returncode}"

    def close(self) -> Iterator[str]:
        """Wait a little for what still runs, and leave it to itself after that; complaints."""
        until = time.monotonic() + PATIENCE
        for process in self._running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                yield f"--exec: {self._words[0]} is still running (process {process.pid})"
        yield from self.finished()


def _filled(word: str, fields: Mapping[str, object]) -> str:
    """The word with each {name} replaced, in one go: braces in a query stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: str(fields.get(found[1], found[0])), word)

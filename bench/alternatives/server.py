"""A server that a benchmark starts for itself and takes away again: no system service is touched."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from bench.alternatives.way import CannotServe
from horizon.lifeline import die_with_parent

_STARTS_WITHIN_S = 60.0


class Server:
    """One process, with its children."""

    def __init__(self, command: Sequence[str], log: Path, user: str | None, answers: Callable[[], bool]) -> None:
        self._command = command
        self._log = log
        self._user = user
        self._answers = answers
        self._start()

    def kill_and_restart(self) -> None:
        self._kill()
        self._start()

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)  # PostgreSQL's fast shutdown, and Redis's own
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        """With its children, which may have made sessions of their own."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            family = [process, *process.children(recursive=True)]
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family[1:], timeout=_STARTS_WITHIN_S)
        self._process.wait()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._user,
                preexec_fn=partial(die_with_parent, signal.SIGKILL),
            )
        until = time.monotonic() + _STARTS_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise CannotServe(f"{self._command[0]} does not start: {self._log.read_text(errors='replace')[-600:]}")
            time.sleep(0.05)


def find_program(name: str, *folders: str) -> str | None:
    """A program by name, also where Debian puts what is not for everybody's path; the newest version first."""
    found = [str(path) for pattern in folders for path in sorted(Path("/").glob(f"{pattern}/{name}"), reverse=True)]
    return found[0] if found else shutil.which(name)


def version_of(program: str | None) -> str:
    """The first line of what it says about itself, without the builder's words."""
    assert program is not None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return said.partition(" sha=")[0].partition(" (Debian")[0].partition(" (Ubuntu")[0]


def unprivileged_user(*names: str) -> str | None:
    """Whom a server is run as that refuses to be root. None: as who we are."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None

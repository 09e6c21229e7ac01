"""A supervisor over a folder of strategies that a benchmark has written, as a process, and what its events say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from horizon.control import NoSupervisor, ProcessStatus, Status, StatusReply, ask
from horizon.logs import EVENTS
from horizon.paths import DatabasePaths

T = TypeVar("T")

_PATIENCE_S = 120.0
_LOOK_EVERY_S = 0.002

# Quotes in every cycle, so that it is always about to record something.
TRADER = """
import horizon as hz

def trade(ctx):
    mid = ctx.feeds["price"].mid()
    return [hz.Quote(mid - 0.01, mid + 0.01, 1.0)]

hz.run("trader", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=0.01)}, pipeline=[trade], risk=hz.Risk.equity())
"""


class Supervised:
    """One running supervisor."""

    def __init__(self, folder: Path) -> None:
        self.paths = DatabasePaths.of(folder / "horizon.db")
        self._log = (folder / "supervisor.out").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor", "--config", str(folder / "horizon.toml"), "--plain"],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            # As where it is installed: a process that is started again finds all modules compiled.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
        )

    def status(self) -> StatusReply | None:
        """None while there is none."""
        try:
            reply = ask(self.paths.control_socket, Status())
        except NoSupervisor:
            return None
        assert isinstance(reply, StatusReply)
        return reply

    def process_of(self, name: str) -> ProcessStatus:
        status = self.status()
        if status is None:
            raise SystemExit(f"the supervisor has ended; see {self._log.name}")
        return next(process for process in status.processes if process.name == name)

    def wait_until_ready(self) -> None:
        wait_for(lambda: (status := self.status()) and all(one.state == "ready" for one in status.strategies), "all strategies")

    def event(self, about: str, action: str, since: float) -> float:
        """When the supervisor logged it (Unix seconds), waiting for it."""
        return wait_for(lambda: self._logged(about, action, since), f"{action} of {about}")

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _logged(self, about: str, action: str, since: float) -> float:
        try:
            lines = (self.paths.logs / f"{EVENTS}.log").read_text().splitlines()
        except FileNotFoundError:
            return 0.0
        for entry in reversed(list(map(_entry, lines))):
            if entry.get("about") == about and entry.get("action") == action and entry["time"] >= since:
                return float(entry["time"])
        return 0.0


@contextmanager
def supervised(folder: Path, strategies: Mapping[str, str], settings: str = "", tables: str = "") -> Iterator[Supervised]:
    """Run strategies (name -> text of the file) until the end of the block. `tables` is added to each strategy's own."""
    folder.mkdir()
    # Without limits: a benchmark kills more often than a supervisor should take.
    lines = ["[metrics]", "enabled = false", "[supervisor]", "start_limit_burst = 0", settings]
    for name, text in strategies.items():
        (folder / f"{name}.py").write_text(text)
        lines += [f"[strategies.{name}]", f'file = "{name}.py"', tables]
    with (folder / "horizon.toml").open("a") as file:
        file.write("\n".join(lines) + "\n")
    running = Supervised(folder)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def wait_for(probe: Callable[[], T], what: str) -> T:
    until = time.monotonic() + _PATIENCE_S
    while not (value := probe()):
        if time.monotonic() > until:
            raise SystemExit(f"waited {_PATIENCE_S:g} s for {what}")
        time.sleep(_LOOK_EVERY_S)
    return value


def _entry(line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}  # is being written
    return found

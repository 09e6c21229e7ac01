"""`horizon up` as a real process over a folder of the test, with everything it started, for tests that kill parts of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from eventually import eventually

from horizon.paths import DatabasePaths

# Trades in every cycle, and writes down every fill that it was told of.
TRADER = """
import horizon as hz

def trade(ctx):
    with open(ctx.market.id + ".seen", "a") as seen:
        seen.writelines(f"{fill.fill_id}\\n" for fill in ctx.params["fills_this_cycle"])
    mid = ctx.feeds["price"].mid()
    return [hz.Quote(mid - 0.01, mid + 0.01, 1.0)]

hz.run("trader", markets=[MARKET], feeds={"price": hz.Simulated(seed=1, interval_s=0.01)}, pipeline=[trade],
       risk=hz.Risk.equity(), interval=0.02)
"""


class Up:
    """A running `horizon up`."""

    def __init__(
        self, folder: Path, *arguments: str, stderr: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.paths = DatabasePaths.of(folder / "horizon.db")
        number = len(list(folder.glob("out*.txt")))
        self.out = folder / f"out{number}.txt"
        self.err = folder / f"err{number}.txt"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "supervisor", "--config", str(folder / "horizon.toml"), *arguments],
                stdout=out,
                stderr=err if stderr is None else stderr,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def log(self) -> str:
        return self.err.read_text()

    def says(self, text: str, timeout_s: float = 20.0) -> None:
        """Wait until the log has a text."""
        eventually(lambda: text in self.log(), timeout_s, what=f"{text!r} in the log:\n{self.log()}")

    def is_ready(self, *strategies: str) -> None:
        for strategy in strategies:
            self.says(f"{strategy} is ready")

    def pid_of(self, name: str) -> int | None:
        """The living process of a strategy, or of "writer"."""
        for process in self.children():
            with suppress(psutil.Error):
                if process.name() == f"hz:{name}"[:15] or (name == "writer" and "horizon.writer" in process.cmdline()):
                    return process.pid
        return None

    def children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(40)

    def left_processes(self) -> dict[int, str]:
        """Whatever still runs in the test's folder, by pid: the supervisor and all that it starts have it as working directory."""
        left: dict[int, str] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.folder:
                    left[process.pid] = process.name()
        return left

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for pid in self.left_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def configure(folder: Path, *traders: str, more: str = "") -> None:
    """A horizon.toml with traders, each on a market of its own name."""
    tables = [f'[strategies.{name}]\nfile = "{name}.py"\n' for name in traders]
    metrics = [] if "[metrics]" in more else ["[metrics]", "enabled = false"]  # many tests at once have one port
    (folder / "horizon.toml").write_text("\n".join(["[supervisor]", "stop_timeout_s = 15", more, *metrics, *tables]))
    for name in traders:
        (folder / f"{name}.py").write_text(TRADER.replace("MARKET", repr(name)))

"""A small real system that is killed in tests: `horizon up` over two strategies that trade, each with its witness."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psutil
from eventually import eventually
from supervised import Up

from horizon.errors import ExitCode
from horizon.failpoints import VARIABLE

STRATEGIES = ("alpha", "beta")

_FILE = """
import sys

sys.path.insert(0, {tests!r})
import witness

witness.trade({name!r})
"""


class Besieged:
    """The system in its folder, over all its starts. Not for two at once in one folder."""

    def __init__(self, folder: Path, like: Path | None = None) -> None:
        """`like`: the folder of a system that is dead, to begin with what it left."""
        self.folder = folder
        if like is not None:
            shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)
        tables = [f'[strategies.{name}]\nfile = "{name}.py"\n' for name in STRATEGIES]
        (folder / "horizon.toml").write_text(
            "\n".join(["[supervisor]", "stop_timeout_s = 30", "start_limit_burst = 0", "[metrics]", "enabled = false", *tables])
        )
        for name in STRATEGIES:
            (folder / f"{name}.py").write_text(_FILE.format(tests=str(Path(__file__).parent), name=name))
        self._trap = folder / "trap"
        self.up: Up | None = None

    def start(self, point: str | None = None) -> Up:
        """Start everything; `point` is the fail point that `arm` arms."""
        spec = {} if point is None else {VARIABLE: f"{point}:stop:{self._trap}"}
        self.up = Up(self.folder, environment=spec)
        return self.up

    def arm(self) -> None:
        self._trap.touch()

    def held(self) -> int:
        """Wait until a process stands still at the point; its pid."""

        def somebody() -> int | None:
            for path in self.folder.glob("trap.reached-*"):
                pid = int(path.name.rpartition("-")[2])
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    return pid
            return None

        return eventually(somebody, 30, what=f"somebody at the point:\n{self._log()}") or 0

    def trades(self) -> None:
        """Wait until every strategy has gone through a cycle that begins after now."""
        sizes = {name: self._size(name) for name in STRATEGIES}
        for name in STRATEGIES:
            eventually(lambda name=name: self._states_since(name, sizes[name]) >= 2, 30, what=f"{name} trades:\n{self._log()}")  # type: ignore[misc]

    def processes(self) -> dict[str, int]:
        """Who lives, by name: supervisor, writer, and the strategies."""
        assert self.up is not None
        names = {name: self.up.pid_of(name) for name in ("writer", *STRATEGIES)}
        return {"supervisor": self.up.process.pid} | {name: pid for name, pid in names.items() if pid is not None}

    def kill(self, *pids: int) -> None:
        """kill -9, all of them before any of them is waited for."""
        assert self.up is not None
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.up.process.pid in pids:
            self.up.process.wait(10)
        eventually(lambda: not any(map(_lives, pids)), what="the death of who was killed")

    def stop(self) -> None:
        assert self.up is not None
        code = self.up.stop(signal.SIGTERM)
        assert code == ExitCode.DONE, f"a clean end, not {code}:\n{self._log()}"

    def is_gone(self) -> None:
        """Wait until nobody is left."""
        assert self.up is not None
        up = self.up
        eventually(lambda: not up.left_processes(), 25, 0.05, what=f"the end of every process:\n{self._log()}")

    def end(self) -> None:
        if self.up is not None:
            self.up.end()

    def _log(self) -> str:
        return self.up.log() if self.up is not None else ""

    def _size(self, name: str) -> int:
        path = self.folder / f"{name}.witness"
        return path.stat().st_size if path.exists() else 0

    def _states_since(self, name: str, size: int) -> int:
        path = self.folder / f"{name}.witness"
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(size)
            return file.read().count(b'\n["state"')


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False

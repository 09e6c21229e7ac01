"""A control socket without a supervisor behind it: a loop of its own, and processes that are only a table. For tests of what is asked and
of who asks; what a real supervisor does with it is tested with a real one.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from horizon.config import Config, load
from horizon.control import ProcessStatus, StatusReply, WriterHealth
from horizon.paths import DatabasePaths
from supervisor.control import Answer, ControlServer
from supervisor.desired import Desired
from supervisor.reload import Plan
from supervisor.verbs import Verbs


class ControlLoop:
    """A thread that does what the supervisor's loop does for its control socket, and counts the steps of every turn."""

    def __init__(self, server: ControlServer, each_turn: Any = lambda now: None) -> None:
        self.server = server
        self.steps: list[int] = []
        self._each_turn = each_turn
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.server.open()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            self.server.register(selector)
            while not self._over.is_set():
                selector.select(0.01)
                now = time.monotonic()
                self._each_turn(now)
                self.steps.append(self.server.serve(now))


class Pretended:
    """What Verbs asks of a supervisor. Its processes reach what is wanted of them in the next turn, or stay where a test holds them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.config = write_config(folder, *names)
        self.paths = DatabasePaths.of(self.config.database.path)
        self.paths.folder.mkdir(exist_ok=True)
        self.desired = Desired(self.paths.desired)
        self.processes = {name: _ready(name, "strategy", pid) for pid, name in enumerate(names, 100)}
        self.processes |= {"writer": _ready("writer", "writer", 99)}
        self.writer = WriterHealth(commit_age_s=0.4, committed=1234)
        self.held: set[str] = set()  # names that do not move
        self.done: list[str] = []  # what was asked for and done
        self.is_stopping = False
        self.dumps: dict[str, str | None] = {}

    def turn(self, now: float) -> None:
        self.desired.keep(now)
        for name, process in self.processes.items():
            if name in self.held:
                continue
            if process.state == "stopping":
                self.set(name, state="starting" if process.wanted else "stopped", pid=None)
            elif process.state == "starting":
                self.set(name, state="ready", starts=process.starts + 1, pid=200 + process.starts)

    def set(self, name: str, **fields: Any) -> None:
        self.processes[name] = msgspec.structs.replace(self.processes[name], **fields)

    # ---- what Verbs asks

    def status(self) -> StatusReply:
        return StatusReply(
            version="0.1.0",
            pid=4711,
            database=str(self.config.database.path),
            config=str(self.config.path),
            uptime_s=7620.0,
            loop_lag_ms=0.4,
            is_stopping=self.is_stopping,
            probe_max_age_s=15.0,
            writer=self.writer,
            processes=list(self.processes.values()),
        )

    def starts(self, name: str) -> int:
        return self.processes[name].starts

    def want(self, name: str, by: str) -> None:
        self.done.append(f"want {name}")
        self.desired.note(name, is_stopped=False, quarantine=None)
        if self.processes[name].state == "stopped":
            self.set(name, wanted=True, state="starting")

    def unwant(self, name: str, by: str) -> None:
        self.done.append(f"unwant {name}")
        self.desired.note(name, is_stopped=True, quarantine=None)
        self.set(name, wanted=False, state="stopped" if self.processes[name].pid is None else "stopping")

    def restart(self, name: str, by: str) -> None:
        self.done.append(f"restart {name}")
        self.desired.note(name, is_stopped=False, quarantine=None)
        self.set(name, wanted=True, state="stopping")

    def reset(self, name: str, by: str) -> None:
        self.done.append(f"reset {name}")
        self.desired.note(name, is_stopped=False, quarantine=None)
        self.set(name, wanted=True, state="starting", why="")

    def begin_dump(self, name: str) -> None:
        self.done.append(f"dump {name}")

    def dump_text(self, name: str) -> str | None:
        return self.dumps.get(name)

    def reload(self, new: Config, plan: Plan) -> None:
        self.done.append("reload")
        self.config = new
        for name in plan.remove:
            del self.processes[name]
        for name in plan.restart:
            self.set(name, state="stopping")
        for name in plan.add:
            self.processes[name] = msgspec.structs.replace(_ready(name, "strategy", 300), state="starting", pid=None, starts=0)

    def down(self, by: str) -> None:
        self.done.append("down")
        self.is_stopping = True


@contextmanager
def listening(folder: Path, *names: str) -> Iterator[Pretended]:
    """A pretended supervisor of these strategies that answers at the place where commands look for it."""
    pretended = Pretended(folder, *names)
    with ControlLoop(ControlServer(pretended.paths.control_socket, Verbs(pretended).answer), pretended.turn):
        yield pretended


def server_of(path: Path, answer: Answer) -> ControlServer:
    server = ControlServer(path, answer)
    server.open()
    return server


def write_config(folder: Path, *names: str, more: str = "", tables: dict[str, str] | None = None) -> Config:
    """A horizon.toml, and an empty file for each strategy. `tables` are further lines of a strategy's table."""
    parts = [more, *(f'[strategies.{name}]\nfile = "{name}.py"\n{(tables or {}).get(name, "")}' for name in names)]
    for name in names:
        (folder / f"{name}.py").touch()
    (folder / "horizon.toml").write_text("\n".join(parts))
    return load(folder / "horizon.toml")


def _ready(name: str, kind: str, pid: int) -> ProcessStatus:
    return ProcessStatus(name, kind, "ready", True, pid=pid, run_id=f"run-{pid}", starts=1, uptime_s=61.0, heartbeat_age_s=0.2)

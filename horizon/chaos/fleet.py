"""The victims' processes: started together, found whatever became of their parents, and none of them left behind.

This process adopts what its descendants leave (PR_SET_CHILD_SUBREAPER), so a private writer, which belongs to nobody, and the workers of
a killed supervisor can always be found by their descent, and never by a name that a stranger could have too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import horizon
from horizon.chaos.plan import Target
from horizon.lifeline import adopt_orphans, die_with_parent
from horizon.paths import DatabasePaths

_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.01

_VICTIM = """from horizon.chaos.worker import trade

trade({name!r}, {seed!r}, {database!r}, {durability!r}, {witness!r}, {account!r}, {stop_timeout_s!r})
"""


class Ground(NamedTuple):
    """Where a trial happens. Only `data` may be a small disk: the witness must have room whatever happens to the database."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def paths(self) -> DatabasePaths:
        return DatabasePaths.of(self.data / "chaos.db")

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    @property
    def accounts(self) -> Path:
        return self.folder / "accounts"

    @property
    def log(self) -> Path:
        return self.folder / "victims.log"

    @property
    def config(self) -> Path:
        return self.folder / "horizon.toml"

    def victim(self, strategy: str) -> Path:
        return self.folder / f"{strategy}.py"


class Member(NamedTuple):
    """One living process of the fleet. A worker that has just been started has no strategy yet."""

    pid: int
    target: Target
    strategy: str | None = None


def prepare(ground: Ground, workers: int, seed: int, durability: str) -> list[str]:
    """Write the strategies' files and horizon.toml; two strategies share each account. Returns the strategies' names."""
    names = [f"w{number}" for number in range(1, workers + 1)]
    ground.witness.mkdir()
    tables = []
    for number, name in enumerate(names):
        account = ground.accounts / str(number // 2)
        account.mkdir(parents=True, exist_ok=True)
        ground.victim(name).write_text(
            _VICTIM.format(
                name=name, seed=seed, database=str(ground.paths.database), durability=durability, witness=str(ground.witness),
                account=str(account), stop_timeout_s=_STOP_TIMEOUT_S,
            )
        )  # fmt: skip
        tables.append(f'[strategies.{name}]\nfile = "{name}.py"\n')
    ground.config.write_text(
        f'[database]\npath = "data/chaos.db"\ndurability = "{durability}"\n\n'
        # Who is killed that often must not be given up, and the gateway is not among those that are tested.
        f"[supervisor]\nstop_timeout_s = {_STOP_TIMEOUT_S}\nstart_limit_burst = 0\n\n[metrics]\nenabled = false\n\n"
        + "\n".join(tables)
    )
    return names


class Fleet:
    """Everything that runs in one round."""

    def __init__(self, ground: Ground, strategies: list[str], supervised: bool) -> None:
        self.supervised = supervised
        self._ground = ground
        self._strategies = strategies
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._alone: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        if self.supervised:
            arguments = ["-m", "supervisor", "--config", str(self._ground.config), "--plain"]
            self._supervisor = self._spawn(arguments)
        else:
            self.tend()

    def tend(self) -> bool:
        """Start again what ended, where no supervisor does. Returns whether the supervisor itself had ended."""
        if self.supervised:
            has_ended = self._supervisor is not None and self._supervisor.poll() is not None
            if has_ended:
                self.start()
            return has_ended
        for name in self._strategies:
            process = self._alone.get(name)
            if process is None or process.poll() is not None:
                self._alone[name] = self._spawn([str(self._ground.victim(name))])
        return False

    def members(self) -> list[Member]:
        return [member for pid in descendants() if (member := self._member(pid)) is not None]

    def newborn(self, strangers: set[int]) -> list[Member]:
        """Members that have come since `strangers` was what `processes` gave; whoever came and is none of ours joins them."""
        came = processes() - strangers
        strangers |= {pid for pid in came if not _descends_from_us(pid)}
        return [member for pid in came - strangers if (member := self._member(pid)) is not None]

    def stop(self) -> bool:
        """End a supervised round cleanly. Returns whether it ended with exit code 0."""
        supervisor, self._supervisor = self._supervisor, None
        assert supervisor is not None
        kill([supervisor.pid], signal.SIGTERM)
        try:
            return supervisor.wait(4 * _STOP_TIMEOUT_S) == 0
        except subprocess.TimeoutExpired:
            return False

    def _member(self, pid: int) -> Member | None:
        command = _command(pid)
        if "horizon.writer" in command:
            return Member(pid, Target.WRITER)
        for name, process in self._alone.items():
            if process.pid == pid:
                return Member(pid, Target.WORKER, name)
        if self._supervisor is not None and pid == self._supervisor.pid:
            return Member(pid, Target.SUPERVISOR)
        if "--multiprocessing-fork" in command:
            name = _name(pid)
            return Member(pid, Target.WORKER, name.removeprefix("hz:") if name.startswith("hz:") else None)
        return None

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        environment = os.environ.copy()
        # The victims run this very Horizon, installed or not.
        here = [str(Path(horizon.__file__).parents[1]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in here if part)
        parent = os.getpid()
        with self._ground.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", *arguments],
                cwd=self._ground.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for whoever watches, who then ends them all
                preexec_fn=lambda: _die_with(parent),
            )


@contextmanager
def adopting() -> Iterator[None]:
    """Be the parent of whatever descendants leave behind, and end all of them at the end, however it comes."""
    adopt_orphans()
    try:
        yield
    finally:
        end_all()
        adopt_orphans(False)


def end_all() -> None:
    """SIGKILL every descendant, also those that are born meanwhile, until none is left."""
    while pids := descendants():
        kill(pids)
        time.sleep(_POLL_S)


def kill(pids: list[int], number: int = signal.SIGKILL) -> int:
    """Send a signal, SIGKILL unless another is named; returns how many were there to get it."""
    hit = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            hit += 1
    return hit


def descendants() -> list[int]:
    """Every living process that descends from this one, parents first."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        status = _status(pid)
        if status is None:
            continue
        state, parent = status
        if state != "Z":
            children.setdefault(parent, []).append(pid)
        elif parent == os.getpid():
            _reap(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += born
    return found


def processes() -> set[int]:
    """Every process of the host."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


def _descends_from_us(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        status = _status(pid)
        pid = 0 if status is None else status[1]
    return pid == os.getpid()


def _reap(pid: int) -> None:
    """Take the exit code of an adopted process. One of our own children loses it too, and its Popen copes with that."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _status(pid: int) -> tuple[str, int] | None:
    """(state, parent) of a process; None when it is gone."""
    try:
        # The cheapest way: it is asked of every process of the host, within the 5 ms that a kill close to a start has.
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123
            fields = file.read(512).rpartition(b") ")[2].split(b" ", 2)
    except OSError:
        return None
    return fields[0].decode(), int(fields[1])


def _command(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def _die_with(parent: int) -> None:
    """In the child, before it becomes the victim: nobody outlives a trial that is killed itself."""
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)

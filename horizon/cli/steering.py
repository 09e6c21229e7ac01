"""What the commands to a running supervisor share: how they find it, and the wait until what they asked for is so, or cannot be."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from horizon.cli.output import emit, remark
from horizon.cli.text import counted, duration, number, one_line
from horizon.config import CONFIG_VARIABLE, resolve_control_socket
from horizon.control import NoSupervisor, ProcessStatus, Reply, Request, Status, StatusReply, ask, pid_of
from horizon.errors import ExitCode, HorizonError

POLL_S = 0.1
_ASK_TIMEOUT_S = 10.0
_SAY_AFTER_S = 2.0

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"What the supervisor runs; else {CONFIG_VARIABLE}, ./horizon.toml, /etc/horizon/horizon.toml.",
)
TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it is done.",
)


class Supervisor(NamedTuple):
    """The one that a command means, and how long to wait for one answer of it."""

    socket: Path
    timeout_s: float = _ASK_TIMEOUT_S

    @classmethod
    def of(cls, config: Path | None, timeout_s: float = _ASK_TIMEOUT_S) -> Supervisor:
        """Raises: ConfigError."""
        return cls(resolve_control_socket(config), min(timeout_s, _ASK_TIMEOUT_S))

    def ask(self, request: Request) -> Reply:
        """Raises: NoSupervisor, RequestRefused."""
        return ask(self.socket, request, self.timeout_s)

    def status(self) -> StatusReply:
        """Raises: NoSupervisor, RequestRefused."""
        reply = self.ask(Status())
        assert isinstance(reply, StatusReply)
        return reply


def complete_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The strategies that run here, for the shell."""
    names = ["all"]
    with suppress(HorizonError):
        names += [process.name for process in Supervisor.of(ctx.params.get("config"), 1.0).status().strategies]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Outcome(NamedTuple):
    """How the wait for one strategy ended."""

    is_good: bool
    sentence: str


# Given what its name shows now (None: nothing); None means that it is not decided yet.
Goal = Callable[[ProcessStatus | None], Outcome | None]


def to_run(after_start: int = -1) -> Goal:
    """Ready, in an incarnation later than `after_start`."""

    def judge(now: ProcessStatus | None) -> Outcome | None:
        if now is None:
            return Outcome(False, "is not in the configuration any more")
        if now.state == "quarantined":
            name = one_line(now.name)
            remedy = f"horizon logs {name} says more; when it is corrected: horizon reset {name}"
            return Outcome(False, f"is in quarantine{because(now)}; {remedy}")
        if not now.wanted:
            return Outcome(False, "was stopped by somebody else meanwhile")
        if now.starts <= after_start:
            return None
        if now.state in ("ready", "degraded"):
            return Outcome(True, f"is {now.state} (pid {now.pid}){because(now)}")
        if now.is_done:
            return Outcome(True, "is done: it had nothing left to do")
        return None

    return judge


def to_be_stopped(now: ProcessStatus | None) -> Outcome | None:
    if now is None or (now.state == "stopped" and not now.wanted):
        # How a process ended that left as it was told is no news.
        is_news = now is not None and now.last_end not in ("", "is done")
        return Outcome(True, f"is stopped{f' ({one_line(now.last_end)})' if now and is_news else ''}")
    if now.wanted:
        return Outcome(False, "was started by somebody else meanwhile")
    return None


def to_be_gone(now: ProcessStatus | None) -> Outcome | None:
    return Outcome(True, "is gone") if now is None else None


def to_follow(after_start: int) -> Goal:
    """What a reload wants of a strategy whose table has changed: a new incarnation, if it shall run at all."""
    runs = to_run(after_start)

    def judge(now: ProcessStatus | None) -> Outcome | None:
        if now is not None and not now.wanted and now.state == "stopped":
            return Outcome(True, "stays stopped")
        return runs(now)

    return judge


def wait_until(
    supervisor: Supervisor, goals: Mapping[str, Goal], timeout_s: float, say: Callable[[str], object] = emit
) -> ExitCode:
    """Say of each name how it ended, as soon as it has. Raises: NoSupervisor, RequestRefused."""
    deadline = time.monotonic() + timeout_s
    say_at = time.monotonic() + _SAY_AFTER_S
    open_goals = dict(goals)
    said: dict[str, str] = {}
    code = ExitCode.DONE
    while True:
        now = {process.name: process for process in supervisor.status().processes}
        for name in list(open_goals):
            outcome = open_goals[name](now.get(name))
            if outcome is None:
                continue
            del open_goals[name]
            if outcome.is_good:
                say(f"{one_line(name)} {outcome.sentence}")
            else:
                remark(f"{one_line(name)} {outcome.sentence}")
                code = ExitCode.FAILED
        if not open_goals:
            return code
        if time.monotonic() >= deadline:
            for name in open_goals:
                remark(
                    f"after {duration(timeout_s)} {one_line(name)} {in_a_clause(now.get(name))}; the supervisor goes on with it"
                )
            return ExitCode.DEADLINE
        if time.monotonic() >= say_at:
            for name in open_goals:
                clause = in_a_clause(now.get(name))
                if said.get(name) != clause:
                    said[name] = clause
                    remark(f"{one_line(name)} {clause}")
        time.sleep(POLL_S)


def wait_for_the_end(supervisor: Supervisor, timeout_s: float, process: int | None) -> bool:
    """Whether the supervisor has gone within the time. `process` is what `process_of` gave while it was there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(NoSupervisor):
            supervisor.status()
            time.sleep(POLL_S)
            continue
        return process is None or bool(select.select([process], [], [], max(0.0, deadline - time.monotonic()))[0])
    return False


def process_of(supervisor: Supervisor) -> int | None:
    """A descriptor that becomes readable when the supervisor's process ends: it writes its last lines after nobody listens any more.

    None where it cannot be had, as from another container. Raises: NoSupervisor.
    """
    pid = pid_of(supervisor.socket)
    try:
        return os.pidfd_open(pid) if pid else None
    except OSError:
        return None


def open_things(process: ProcessStatus, open_positions: int) -> str:
    """What a stop would leave or cancel, in words; empty: nothing. `open_positions` are those of the database."""
    things = [counted(process.open_orders, "open order")] if process.open_orders else []
    if process.position:
        things.append(f"a position of {number(round(process.position, 8))}")
    elif open_positions:
        # Their sum is nothing, and yet there is something in each market.
        things.append(counted(open_positions, "open position"))
    return " and ".join(things)


def in_a_clause(process: ProcessStatus | None) -> str:
    return "is not there" if process is None else f"is {process.state}{because(process)}"


def because(process: ProcessStatus) -> str:
    return f" ({one_line(process.why)})" if process.why else ""

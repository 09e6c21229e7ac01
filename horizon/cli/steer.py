"""`horizon start`, `stop`, `restart`, `reset`, `down`: what shall run. Each waits until it is so, or says why it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from horizon.cli.operating import YES, confirm
from horizon.cli.output import emit, remark
from horizon.cli.steering import (
    CONFIG,
    TIMEOUT,
    Goal,
    Supervisor,
    complete_names,
    open_things,
    process_of,
    to_be_stopped,
    to_run,
    wait_for_the_end,
    wait_until,
)
from horizon.cli.text import duration, one_line
from horizon.control import Done, Down, ProcessStatus, Request, Reset, Restart, Start, StatusReply, Stop, names_of
from horizon.errors import ExitCode, HorizonError
from horizon.paths import DatabasePaths

F = TypeVar("F", bound=Callable[..., object])


def _named(command: F) -> F:
    names = click.argument("names", nargs=-1, required=True, metavar="NAME...|all", shell_complete=complete_names)
    return names(CONFIG(TIMEOUT(command)))


@click.command(short_help="Start strategies that were stopped.")
@_named
def start(names: Sequence[str], config: Path | None, timeout_s: float) -> ExitCode:
    """Start strategies that were stopped, and wait until they are ready.

    What is in quarantine stays there: see `horizon reset`.
    """
    supervisor = Supervisor.of(config, timeout_s)
    done = _ask(supervisor, Start(list(names)))
    return _wait(supervisor, {name: to_run() for name in done.starts}, timeout_s)


@click.command(short_help="Stop strategies, in order; they stay stopped.")
@_named
@YES
def stop(names: Sequence[str], config: Path | None, timeout_s: float, yes: bool) -> ExitCode:
    """Stop strategies, and wait until they have cancelled their orders, drained and left.

    They stay stopped, also over a restart of the supervisor, until `horizon start`.
    """
    supervisor = Supervisor.of(config, timeout_s)
    now = supervisor.status()
    meant = set(names_of(now, names))
    stopping = [process for process in now.strategies if process.name in meant]
    at_stake = _at_stake(now, stopping)
    if list(names) == ["all"]:
        confirm(_question("Stop all strategies?", at_stake), yes)
    elif at_stake:
        confirm(_question("Stop?", at_stake), yes)
    done = _ask(supervisor, Stop(list(names)))
    return _wait(supervisor, dict.fromkeys(done.starts, to_be_stopped), timeout_s)


@click.command(short_help="Stop strategies and start them again.")
@_named
def restart(names: Sequence[str], config: Path | None, timeout_s: float) -> ExitCode:
    """Stop strategies and start them again, with the file as it is now; wait until they are ready."""
    supervisor = Supervisor.of(config, timeout_s)
    done = _ask(supervisor, Restart(list(names)))
    return _wait(supervisor, {name: to_run(after) for name, after in done.starts.items()}, timeout_s)


@click.command(short_help="End a quarantine, forget the crashes, and start.")
@_named
def reset(names: Sequence[str], config: Path | None, timeout_s: float) -> ExitCode:
    """End the quarantine of strategies, forget their crashes, start them, and wait until they are ready."""
    supervisor = Supervisor.of(config, timeout_s)
    done = _ask(supervisor, Reset(list(names)))
    return _wait(supervisor, {name: to_run() for name in done.starts}, timeout_s)


@click.command(short_help="Stop everything in order, the supervisor last.")
@CONFIG
@TIMEOUT
@YES
def down(config: Path | None, timeout_s: float, yes: bool) -> ExitCode:
    """Stop all strategies, then the writer, then the supervisor, and wait until it is gone.

    What was not stopped by hand is started again by the next `horizon up`.
    """
    supervisor = Supervisor.of(config, timeout_s)
    now = supervisor.status()
    confirm(_question("Stop all strategies and Horizon itself?", _at_stake(now, now.strategies)), yes)
    process = process_of(supervisor)
    _ask(supervisor, Down())
    if not wait_for_the_end(supervisor, timeout_s, process):
        remark(f"after {duration(timeout_s)} it is still stopping; see horizon status")
        return ExitCode.DEADLINE
    emit("everything is stopped")
    return ExitCode.DONE


def _ask(supervisor: Supervisor, request: Request) -> Done:
    reply = supervisor.ask(request)
    assert isinstance(reply, Done)
    for line in reply.lines:
        remark(one_line(line))
    return reply


def _wait(supervisor: Supervisor, goals: dict[str, Goal], timeout_s: float) -> ExitCode:
    try:
        return wait_until(supervisor, goals, timeout_s)
    except KeyboardInterrupt:
        remark("it was asked for all the same: the supervisor goes on with it; see horizon status")
        raise


def _question(question: str, at_stake: Sequence[str]) -> str:
    return "\n".join([*at_stake, question])


def _at_stake(now: StatusReply, processes: Sequence[ProcessStatus]) -> list[str]:
    """A sentence for each strategy that has something open. Its own word is a second old, the database's as old as its last ack."""
    held = _held_by_the_database(Path(now.database))
    sentences = []
    for process in processes:
        if process.pid is None:
            continue
        if things := open_things(process, held.get(process.name, 0)):
            sentences.append(f"{one_line(process.name)} has {things}.")
    return sentences


def _held_by_the_database(database: Path) -> dict[str, int]:
    """How many positions each strategy holds; nothing when that cannot be read: who may steer need not be allowed to read it."""
    from horizon.cli.database import reader
    from horizon.store import read

    held: dict[str, int] = {}
    try:
        with reader(DatabasePaths.of(database).database) as connection:
            for position in read.positions(connection):
                if position.size:
                    held[position.strategy] = held.get(position.strategy, 0) + 1
    except HorizonError:
        pass
    return held

"""What people ask the writer for: trip and clear, hold and release, accept a gap, resolve an orphan, replay and dismiss dead letters.

Each is one transaction together with its line in `operator_actions`: who, why, when. The line's id is the command's, so a command
that is sent again after a lost answer is answered again and not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import apsw
from msgspec.structs import astuple, replace

from horizon.errors import CommandRefused
from horizon.positions import exact_sum
from horizon.records import OPEN_STATUSES, OrderStatus, RiskEvent, RiskEventType
from horizon.store.controls import UnacceptedGap, control_of, gaps_of, latch
from horizon.store.dead_letters import DeadLetters, Decided
from horizon.store.recovery import open_order, strategies
from horizon.store.replay import replay
from horizon.store.sql import QUERIES
from horizon.wire import Command

LONGEST_TEXT = 1000  # characters of a name or a reason
TERMINAL = tuple(status.value for status in OrderStatus if status not in OPEN_STATUSES)


class Task(NamedTuple):
    """A command, and what doing it needs."""

    connection: apsw.Connection
    letters: DeadLetters
    id: str
    command: Command
    now: float
    runs: Mapping[str, str]  # run_id -> strategy, of every run that lives or is not drained yet


class Deed(NamedTuple):
    """What was done, for the person and for `operator_actions`."""

    text: str
    strategy: str
    run_id: str | None = None
    seq: int | None = None


def perform(task: Task) -> str:
    """Do what a person asked for inside the caller's transaction, once, and return the sentence that says what was done.

    Raises: CommandRefused with what the person can do instead; the caller then rolls back.
    """
    done = task.connection.execute(QUERIES["action_by_id"], {"id": task.id}).fetchone()
    if done is not None:
        return str(done[0])
    command = task.command
    action = _ACTIONS.get(command.action)
    if action is None:
        raise CommandRefused(f"the writer knows no command {command.action!r}; it knows {', '.join(_ACTIONS)}")
    for name, text in (("a name (who)", command.who), ("a reason", command.reason)):
        if not text.strip() or len(text) > LONGEST_TEXT:
            raise CommandRefused(f"{command.action} needs {name} of 1 to {LONGEST_TEXT} characters: it is written down")
    deed = action(task)
    line = {
        "id": task.id,
        "at": task.now,
        "who": command.who,
        "action": command.action,
        "strategy": deed.strategy,
        "reason": command.reason,
        "details": deed.text,
        "run_id": deed.run_id,
        "seq": deed.seq,
    }
    task.connection.execute(QUERIES["add_action"], line)
    return deed.text


def letter_of(command: Command) -> tuple[str, int]:
    """The run_id and seq of the dead letter that a command is about. Raises: CommandRefused."""
    run_id, seq = _argument(command, "run_id"), _argument(command, "seq")
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 19):
        raise CommandRefused(f"{seq!r} is not the seq of a dead letter, which is a number")
    return run_id, int(seq)


def _trip(task: Task) -> Deed:
    strategy = _strategy(task)
    reason = control_of(task.connection, strategy).kill_switch
    if reason is not None:
        return Deed(f"the kill switch of {strategy} was on already: {reason}", strategy)
    _turn(task, strategy, RiskEventType.KillSwitchActivated)
    return Deed(f"the kill switch of {strategy} is on: {task.command.reason}", strategy)


def _clear(task: Task) -> Deed:
    strategy = _strategy(task)
    reason = control_of(task.connection, strategy).kill_switch
    if reason is None:
        return Deed(f"the kill switch of {strategy} was off already", strategy)
    _turn(task, strategy, RiskEventType.KillSwitchDeactivated)
    return Deed(f"the kill switch of {strategy} is off; it was on: {reason}", strategy)


def _turn(task: Task, strategy: str, event_type: RiskEventType) -> None:
    """The latch keeps the reason alone; the risk event also says who."""
    who, reason = task.command.who, task.command.reason
    event = RiskEvent(event_type, f"{reason} ({who})", task.now)
    task.connection.execute(
        QUERIES["insert_risk_event"], (event.event_type, event.details, event.timestamp, strategy, None, None)
    )
    latch(task.connection, strategy, replace(event, details=reason), who)


def _hold(task: Task) -> Deed:
    strategy, command = _strategy(task), task.command
    task.connection.execute(QUERIES["hold"], {"strategy": strategy, "reason": command.reason, "at": task.now, "who": command.who})
    return Deed(f"{strategy} is held: it may cancel and sends no new orders until it is released", strategy)


def _release(task: Task) -> Deed:
    strategy = _strategy(task)
    task.connection.execute(QUERIES["release"], {"strategy": strategy, "at": task.now, "who": task.command.who})
    still = control_of(task.connection, strategy).hold
    return Deed(f"{strategy} is released" + (f", and still held: {still}" if still else ""), strategy)


def _accept_gap(task: Task) -> Deed:
    run_id = _argument(task.command, "run_id")
    row = task.connection.execute(QUERIES["strategy_of_run"], (run_id,)).fetchone()
    if row is None:
        raise CommandRefused(f"the database knows no run {run_id!r}")
    strategy = _same_strategy(task.command, str(row[0]), f"run {run_id}")
    gaps = [gap for gap in gaps_of(task.connection, strategy) if gap.run_id == run_id]
    if not gaps:
        raise CommandRefused(f"run {run_id} of {strategy} has no gap that waits to be accepted")
    task.connection.execute(QUERIES["accept_gaps"], {"run_id": run_id, "at": task.now, "who": task.command.who})
    return Deed(f"accepted that {_missing(gaps)} of run {run_id} of {strategy} are lost", strategy, run_id)


def _resolve_orphan(task: Task) -> Deed:
    command = task.command
    order_id, status = _argument(command, "order_id"), _argument(command, "status")
    if status not in TERMINAL:
        raise CommandRefused(f"an orphan ends as one of {', '.join(TERMINAL)}, not as {status!r}")
    found = open_order(task.connection, order_id)
    if found is None:
        raise CommandRefused(f"no order {order_id!r} is open: it has ended, or no run recorded it")
    strategy, order = found
    strategy = _same_strategy(command, strategy, f"order {order_id}")
    if order.run_id in task.runs:
        raise CommandRefused(
            f"order {order_id} belongs to run {order.run_id} of {strategy}, which is running or not drained yet: "
            "the strategy itself cancels it; only an order whose run has ended is an orphan"
        )
    event = order.event
    filled_size = max(event.filled_size, order.filled_size)
    if status == OrderStatus.Filled.value:
        filled_size = max(event.size, filled_size)
    end = replace(
        event,
        status=OrderStatus(status),
        status_reason=f"resolved by {command.who}: {command.reason}",
        filled_size=filled_size,
        remaining_size=max(0.0, exact_sum(event.size, -filled_size)),
        recorded_at=task.now,
    )
    task.connection.execute(QUERIES["insert_order_event"], (*astuple(end), strategy, None, None))
    task.connection.execute(QUERIES["close_order"], (order_id,))
    return Deed(f"order {order_id} of {strategy} is {status}", strategy, order.run_id)


def _replay(task: Task) -> Deed:
    decided = _letter(task)
    letter = decided.letter
    strategy = _same_strategy(task.command, letter.strategy, f"dead letter {letter.run_id} {letter.seq}")
    key = {"run_id": letter.run_id, "seq": letter.seq}
    if task.connection.execute(QUERIES["replayed_at"], key).fetchone() is not None:
        # Once is enough; but the mark in dlq.db may have been lost in a crash, and is made again.
        return Deed(f"record {letter.seq} of run {letter.run_id} was replayed already", strategy, letter.run_id)
    text = replay(task.connection, letter, task.now, task.runs)
    return Deed(text, strategy, letter.run_id, letter.seq)


def _dismiss(task: Task) -> Deed:
    decided = _letter(task)
    letter = decided.letter
    strategy = _same_strategy(task.command, letter.strategy, f"dead letter {letter.run_id} {letter.seq}")
    if decided.replayed_at is not None:
        raise CommandRefused(f"record {letter.seq} of run {letter.run_id} was replayed: there is nothing left to dismiss")
    if decided.dismissed_at is not None:
        raise CommandRefused(f"record {letter.seq} of run {letter.run_id} was dismissed already, by {decided.dismissed_by}")
    return Deed(
        f"record {letter.seq} of run {letter.run_id} stays a dead letter and is dismissed", strategy, letter.run_id, letter.seq
    )


def _letter(task: Task) -> Decided:
    run_id, seq = letter_of(task.command)
    decided = task.letters.find(run_id, seq)
    if decided is None:
        raise CommandRefused(f"record {seq} of run {run_id} is no dead letter")
    return decided


def _argument(command: Command, name: str) -> str:
    value = command.arguments.get(name, "")
    if not value:
        raise CommandRefused(f"{command.action} needs {name}")
    return value


def _strategy(task: Task) -> str:
    """The strategy that the command names. A misspelled one is refused: its kill switch would protect nobody."""
    known = {*strategies(task.connection), *task.runs.values()}
    if task.command.strategy not in known:
        names = ", ".join(sorted(known)) or "none yet"
        raise CommandRefused(f"no strategy named {task.command.strategy!r} has run on this database; known are: {names}")
    return task.command.strategy


def _same_strategy(command: Command, strategy: str, what: str) -> str:
    if command.strategy not in ("", strategy):
        raise CommandRefused(f"{what} belongs to {strategy}, not to {command.strategy}")
    return strategy


def _missing(gaps: list[UnacceptedGap]) -> str:
    return "records " + ", ".join(f"{gap.from_seq} to {gap.to_seq}" for gap in gaps)


_ACTIONS: dict[str, Callable[[Task], Deed]] = {
    "trip": _trip,
    "clear": _clear,
    "hold": _hold,
    "release": _release,
    "accept_gap": _accept_gap,
    "resolve_orphan": _resolve_orphan,
    "replay": _replay,
    "dismiss": _dismiss,
}

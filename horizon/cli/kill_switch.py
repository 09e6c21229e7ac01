"""`horizon kill-switch`: forbid trading, allow it again, and see who did. It is a latch: a restart does not clear it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click

from horizon.cli.database import DATABASE, database_to_read, reader
from horizon.cli.operating import AS_JSON, YES, confirm, decides, order
from horizon.cli.output import emit, emit_json, emit_table, remark
from horizon.cli.text import Column, utc
from horizon.errors import ConfigError

_COLUMNS = (
    *(Column("strategy", cut="end"), Column("kill_switch"), Column("since", dispensable=1), Column("by", dispensable=2)),
    *(Column("reason", cut="end"), Column("hold", cut="end", dispensable=3)),
)
_WHOSE = "say --strategy NAME, or --all"


class _Turn(click.Command):
    """Names everything that is missing at once."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            # What was given has its value by now; what was not may have a placeholder of click's.
            if ctx.params.get("all_") is True or isinstance(ctx.params.get("strategy"), str):
                raise
            raise click.UsageError(f"{error.format_message()} Also {_WHOSE}.", ctx) from error


class State(NamedTuple):
    """What a strategy may do. `_at` and `_by` tell of the last change, on or off."""

    strategy: str
    kill_switch: str | None = None  # why it is on
    kill_switch_at: float | None = None
    kill_switch_by: str | None = None
    hold: str | None = None
    hold_at: float | None = None
    hold_by: str | None = None


@click.group("kill-switch")
def kill_switch() -> None:
    """Forbid trading, or allow it again."""


@kill_switch.command()
@DATABASE
@click.option("--strategy", metavar="NAME", help="Of this strategy only.")
@AS_JSON
def show(db: Path | None, strategy: str | None, as_json: bool) -> None:
    """Show what every strategy may do."""
    path = database_to_read(db)
    states = [state for state in _states(path) if strategy in (None, state.strategy)]
    if as_json:
        emit_json([state._asdict() for state in states])
    elif states:
        emit_table(_COLUMNS, [_cells(state) for state in states])
    else:
        remark(f"no strategy{f' named {strategy}' if strategy else ''} has recorded anything in {path}")


@kill_switch.command(cls=_Turn)
@DATABASE
@click.option("--strategy", metavar="NAME", help="The strategy that may not trade.")
@click.option("--all", "all_", is_flag=True, help="Every strategy of the database.")
@decides
@AS_JSON
def trip(db: Path | None, strategy: str | None, all_: bool, who: str | None, reason: str, as_json: bool) -> None:
    """Forbid trading, at once and until it is cleared.

    A strategy that runs cancels its orders within a cycle; one that starts later sends none. Nobody is asked twice.
    """
    _turn("trip", db, _named(db, strategy, all_), who, reason, as_json)


@kill_switch.command(cls=_Turn)
@DATABASE
@click.option("--strategy", metavar="NAME", help="The strategy that may trade again.")
@click.option("--all", "all_", is_flag=True, help="Every strategy of the database.")
@decides
@YES
@AS_JSON
def clear(db: Path | None, strategy: str | None, all_: bool, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Allow trading again."""
    names = _named(db, strategy, all_)
    confirm(f"Let {', '.join(names)} trade again?", yes)
    _turn("clear", db, names, who, reason, as_json)


def _named(db: Path | None, strategy: str | None, all_: bool) -> list[str]:
    if all_ == (strategy is not None):
        raise ConfigError(_WHOSE)
    if strategy is not None:
        return [strategy]
    names = [state.strategy for state in _states(database_to_read(db))]
    if not names:
        raise ConfigError("no strategy has recorded anything in this database yet: name one with --strategy")
    return names


def _turn(action: str, db: Path | None, names: list[str], who: str | None, reason: str, as_json: bool) -> None:
    """One by one: each is an answer of its own."""
    done = {}
    for name in names:
        done[name] = order(db, action, strategy=name, who=who, reason=reason)
        if not as_json:
            emit(done[name])
    if as_json:
        emit_json([{"strategy": name, "done": text} for name, text in done.items()])


def _states(path: Path) -> list[State]:
    from horizon.store.controls import all_controls
    from horizon.store.migrate import NEWEST_VERSION
    from horizon.store.recovery import strategies
    from horizon.store.sql import CHECKS
    from horizon.store.translate import reading

    with reader(path) as connection, reading(connection):
        if connection.pragma("user_version") != NEWEST_VERSION:
            return []
        rows: list[Any] = connection.execute(CHECKS["controls"]).fetchall()
        known = {name: State(name) for name in strategies(connection)} | {row[0]: State(*row) for row in rows}
        for name, control in all_controls(connection).items():
            # Also by a gap that nobody has accepted (R13), which has no row of its own.
            known[name] = known.get(name, State(name))._replace(hold=control.hold)
    return [known[name] for name in sorted(known)]


def _cells(state: State) -> list[str]:
    switch = "on" if state.kill_switch is not None else "off"
    return [
        *(state.strategy, switch, utc(state.kill_switch_at), state.kill_switch_by or "-"),
        *(state.kill_switch or "-", state.hold or "-"),
    ]

"""`horizon run FILE`: one strategy in this process, without a supervisor, and what it does on the screen."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from horizon.cli.live import StrategyRow, lines, table, wants_table
from horizon.cli.output import emit, remark
from horizon.clock import SYSTEM_CLOCK
from horizon.errors import ConfigError

if TYPE_CHECKING:
    from horizon.channel import Heartbeat

LINES_EVERY_S = 5.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--name", metavar="NAME", help="Run it under this name instead of the file's own.")
@click.option("--db", type=click.Path(path_type=Path), metavar="PATH", help="The database; else HORIZON_DB, else ./NAME.db.")
@click.option(
    "--duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop by itself after this time."
)
@click.option("--plain", is_flag=True, help="Plain lines instead of the live table.")
def run(file: Path, name: str | None, db: Path | None, duration: float | None, plain: bool) -> None:
    """Run one strategy file alone.

    Its database is its own, ./NAME.db, unless one is named. Ctrl-C cancels its orders, drains and ends.
    """
    if not file.is_file():
        raise ConfigError(f"{file} {'is not a file' if file.exists() else 'does not exist'}: name a strategy's Python file")
    from horizon import logs, runner, worker

    watch = _Watch(name or file.stem, duration, plain)
    with watch:
        # After the table has taken its place: the log scrolls above it.
        logs.log_to(sys.stderr)
        worker.look_for_modules(file.absolute(), Path.cwd())
        runner.assignment = runner.Assignment(name=name, db_path=db, observer=watch)
        worker.run_file(file.absolute())
    for line in watch.last_words():
        remark(line)


class _Watch:
    """What the run tells, shown as a table that refreshes or as a line every few seconds; ends the run when its time is over."""

    def __init__(self, name: str, duration_s: float | None, plain: bool) -> None:
        self._row = StrategyRow(name, "starting", os.getpid(), None, 0, 0, 0, 0.0, 0.0, 0, None)
        self._database: Path | None = None
        self._duration_s = duration_s
        self._started_at = SYSTEM_CLOCK.monotonic()
        self._screen: _Lines | _Table = _Lines() if plain or not wants_table(sys.stdout) else _Table()

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._row = self._row._replace(state="failed", uptime_s=self._uptime_s())
        if error is None or (isinstance(error, SystemExit) and not error.code):
            # hz.run raises when not everything was acknowledged.
            self._row = self._row._replace(state="done", unacked=0)
        with suppress(OSError):
            self._screen.close(self._row)

    def started(self, name: str, database: Path | None) -> None:
        self._row = self._row._replace(strategy=name)
        self._database = database
        self._started_at = SYSTEM_CLOCK.monotonic()
        self._show()

    def beat(self, heartbeat: Heartbeat) -> None:
        self._row = StrategyRow(
            strategy=self._row.strategy,
            state="kill switch" if heartbeat.kill_switch else "running",
            pid=self._row.pid,
            uptime_s=self._uptime_s(),
            cycles=heartbeat.cycles,
            orders=heartbeat.orders,
            fills=heartbeat.fills,
            position=heartbeat.position,
            pnl=heartbeat.pnl,
            unacked=heartbeat.unacked,
            latency_ms=heartbeat.latency_ms,
        )
        self._show()
        if self._duration_s is not None and self._uptime_s() >= self._duration_s:
            self._duration_s = None
            signal.raise_signal(signal.SIGTERM)

    def last_words(self) -> list[str]:
        if self._database is None:
            return [f"{self._row.strategy} kept nothing: its file says db_path=None"]
        option = f"--db {shlex.quote(str(self._database))}"
        return [
            f"Recorded in {self._database}. Look at it:",
            f"  horizon summary {option}",
            f"  horizon fills {option} --limit 20",
        ]

    def _show(self) -> None:
        # The terminal may be gone; the strategy trades on.
        with suppress(OSError):
            self._screen.show(self._row)

    def _uptime_s(self) -> float:
        return SYSTEM_CLOCK.monotonic() - self._started_at


class _Lines:
    """A line at once, then one every few seconds, and the last one."""

    def __init__(self) -> None:
        self._next_at = SYSTEM_CLOCK.monotonic()

    def show(self, row: StrategyRow) -> None:
        if row.cycles and SYSTEM_CLOCK.monotonic() >= self._next_at:
            self._next_at = SYSTEM_CLOCK.monotonic() + LINES_EVERY_S
            emit("\n".join(lines([row])))

    def close(self, row: StrategyRow) -> None:
        if row.cycles:
            emit("\n".join(lines([row])))


class _Table:
    """The table at the bottom of the terminal; what the strategy prints and logs scrolls above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # No refreshing thread: a strategy that forks must not inherit one. A stderr that goes elsewhere is left alone.
        self._live = Live(console=Console(), auto_refresh=False, redirect_stderr=sys.stderr.isatty())

    def show(self, row: StrategyRow) -> None:
        self._live.start()
        self._live.update(table([row]), refresh=True)

    def close(self, row: StrategyRow) -> None:
        # One that never came to its first cycle leaves the place to the reason why.
        self._live.update(table([row]) if row.cycles else "", refresh=True)
        self._live.stop()

"""A strategy's file run as people run it: `python strategy.py`, ended by signals and by worse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from eventually import eventually
from road import rows

from horizon.paths import DatabasePaths

SECRET = "hunter2hunter2"
STRATEGY = f"""
    import horizon as hz

    def fair(ctx):
        return ctx.feed.mid()

    def quote(ctx, fair):
        return hz.quotes(fair, spread=0.03, size=1)

    hz.run(
        name="maker",
        markets=["coin"],
        feeds={{"coin": hz.Simulated("probability", seed=3, volatility=0.1)}},
        pipeline=[fair, quote],
        interval=0.02,
        api_key="{SECRET}",
        params={{"password": "{SECRET}"}},
    )
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(database: DatabasePaths) -> Iterator[Start]:
    """Write a strategy's file and run it with its database."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str = STRATEGY) -> subprocess.Popen[str]:
        file = database.database.with_name("strategy.py")
        file.write_text(textwrap.dedent(text))
        root = Path(__file__).parents[2]
        started.append(
            subprocess.Popen(
                [sys.executable, str(file)],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "HORIZON_DB": str(database.database), "PYTHONPATH": str(root)},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _fills(database: DatabasePaths) -> int:
    try:
        return int(rows(database, "SELECT count(*) FROM fills")[0][0])
    except (apsw.CantOpenError, apsw.SQLError):
        return 0  # the writer has not made the database or its tables yet


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_everything_committed(database: DatabasePaths, start: Start, number: signal.Signals) -> None:
    strategy = start()
    eventually(lambda: _fills(database) > 3, what="some fills")
    strategy.send_signal(number)
    _, log = strategy.communicate(timeout=20)
    assert strategy.returncode == 0, log
    assert rows(database, "SELECT status, end_reason FROM strategy_runs") == [("ended", f"stopped by {number.name}")]
    assert rows(database, "SELECT count(*) FROM open_orders") == [(0,)]
    assert rows(database, "SELECT DISTINCT strategy FROM order_events") == [("maker",)]
    ((seq,),) = rows(database, "SELECT committed_seq FROM run_cursors")
    assert rows(database, "SELECT count(*) FROM order_events WHERE status = 'canceled'")[0][0] > 0
    assert seq > 10
    eventually(lambda: not database.journals(), what="the drained journal to go")


def test_a_killed_run_goes_on_where_it_was(database: DatabasePaths, start: Start) -> None:
    first = start()
    eventually(lambda: _fills(database) > 3, what="some fills")
    first.kill()
    first.communicate()
    second = start()
    eventually(lambda: rows(database, "SELECT count(*) FROM strategy_runs") == [(2,)], what="the second run")
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=20)
    assert second.returncode == 0
    assert rows(database, "SELECT status FROM strategy_runs ORDER BY rowid") == [("died",), ("ended",)]
    bought, sold = (
        rows(database, "SELECT coalesce(sum(size), 0) FROM fills WHERE order_side = ?", side)[0][0] for side in ("buy", "sell")
    )
    assert rows(database, "SELECT size FROM position_snapshots ORDER BY id DESC LIMIT 1") == [(bought - sold,)]
    assert rows(database, "SELECT count(*) FROM open_orders") == [(0,)]


def test_no_secret_comes_into_the_database_the_journals_or_the_log(database: DatabasePaths, start: Start) -> None:
    strategy = start()
    eventually(lambda: _fills(database) > 0, what="a fill")
    written = b"".join(path.read_bytes() for path in database.folder.iterdir() if path.is_file() and path.suffix != ".sock")
    strategy.send_signal(signal.SIGTERM)
    _, log = strategy.communicate(timeout=20)
    assert SECRET not in log
    assert SECRET.encode() not in written + database.database.read_bytes()


def test_helpers_that_a_strategy_forks_die_of_the_signals_that_end_them(database: DatabasePaths, start: Start) -> None:
    strategy = start(
        """
        import multiprocessing, signal, sys
        import horizon as hz

        cycles = []

        def quote(ctx):
            cycles.append(1)
            if len(cycles) == 3:
                pool = multiprocessing.get_context("fork").Pool(2)
                assert pool.map(abs, [-1, -2]) == [1, 2]
                pool.terminate()  # by SIGTERM
                pool.join()
                ctx.params["engine"].end_run("the pool is gone")
                raise SystemExit(0)
            return hz.Quote(0.4, 0.6)

        hz.run("maker", markets=["coin"], feeds={"coin": hz.Simulated("probability")}, pipeline=[quote], interval=0.01)
        """
    )
    _, log = strategy.communicate(timeout=30)
    assert strategy.returncode == 0, log
    assert rows(database, "SELECT end_reason FROM strategy_runs") == [("the pool is gone",)]


def test_a_program_that_halts_says_so_by_its_exit_code(database: DatabasePaths, start: Start) -> None:
    strategy = start(
        """
        import horizon as hz

        def quote(ctx):
            raise hz.Halt("the venue and the database disagree")

        hz.run("maker", markets=["coin"], feeds={"coin": hz.Simulated("probability")}, pipeline=[quote])
        """
    )
    _, log = strategy.communicate(timeout=30)
    assert strategy.returncode == 5
    assert "halted: the venue and the database disagree" in log
    assert rows(database, "SELECT end_reason FROM strategy_runs") == [("Halt: the venue and the database disagree",)]

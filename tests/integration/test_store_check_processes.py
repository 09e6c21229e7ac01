"""`horizon db check` by several processes says what it says alone, and says nothing at all when one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import psutil
import pytest
from eventually import eventually
from store_case import FixedClock, Run, fill, order_event, snapshot

from horizon.errors import StoreError
from horizon.paths import DatabasePaths
from horizon.records import Fill, OrderSide, OrderStatus
from horizon.store.append import Store
from horizon.store.check import Report, check

MARKETS = [f"market-{number}" for number in range(5)]


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    """Two strategies that trade five markets each, with a snapshot in the middle and one at the end."""
    paths = DatabasePaths.of(tmp_path / "trades.db")
    with closing(Store(paths, clock=FixedClock())) as store:
        for strategy in ("maker", "taker"):
            run = Run(f"run-{strategy}", strategy)
            made: list[Fill] = []
            store.append([run.start()])
            for turn in range(2):
                for market in MARKETS:
                    order = f"{strategy}-{market}-{turn}"
                    of_order = [
                        fill(f"{order}-{n}", order_id=order, market_id=market, size=0.1, price=100.1 + n, fee=0.00012345 * n,
                             order_side=OrderSide.Sell if turn else OrderSide.Buy)
                        for n in range(3)
                    ]  # fmt: skip
                    made += of_order
                    changes = {"market_id": market, "size": 0.3}
                    store.append(run.entries(order_event(order, **changes), *of_order))
                    store.append([run.entry(order_event(order, OrderStatus.Filled, filled_size=0.3, **changes))])
                store.append([run.entry(snapshot(made))])
            store.append([run.entry(order_event(f"{strategy}-open", market_id=MARKETS[0]))])
    return paths


def damage(paths: DatabasePaths, sql: str) -> None:
    with closing(apsw.Connection(str(paths.database))) as connection:
        connection.execute(sql)


def test_a_sound_database_is_sound_for_all(paths: DatabasePaths) -> None:
    alone, many = check(paths, processes=1), check(paths, processes=3)
    assert many == alone
    assert (many.findings, many.remarks) == ([], [])
    assert (many.runs, many.fills, many.order_events, many.snapshots) == (2, 60, 42, 6)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM fills WHERE rowid % 7 = 0",
        "UPDATE fills SET price = price + 0.00000000000002 WHERE fill_id LIKE '%-0-1'",
        "UPDATE fills SET seq = 3; UPDATE order_events SET seq = 4",
        "UPDATE fills SET commit_no = commit_no + 7 WHERE rowid % 5 = 0",
        "UPDATE fills SET order_side = 'north' WHERE rowid % 9 = 0; UPDATE fills SET size = 'many' WHERE rowid % 11 = 0",
        "UPDATE fills SET market_id = 'elsewhere' WHERE rowid % 4 = 0",
        "UPDATE fills SET market_id = x'00' WHERE rowid % 6 = 0",
        "UPDATE fills SET market_id = x'00' WHERE market_id = 'market-4'",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'market_id TEXT NOT NULL', 'market_id TEXT');"
        "PRAGMA writable_schema = RESET;"
        "UPDATE fills SET market_id = NULL WHERE rowid % 6 = 0; UPDATE order_events SET market_id = NULL WHERE order_id LIKE '%-3-0'",
        "UPDATE position_snapshots SET exact_cost = '1' WHERE id % 3 = 0; DELETE FROM position_snapshots WHERE id % 8 = 0",
        "UPDATE position_snapshots SET market_id = 'nowhere' WHERE market_id = 'market-3'",
        "UPDATE position_snapshots SET commit_no = 1 WHERE seq > 30",
        "DELETE FROM order_events WHERE status = 'filled' AND id % 2; UPDATE order_events SET filled_size = 9 WHERE id % 5 = 0",
        "UPDATE order_events SET status = 'canceled' WHERE status = 'new'; DELETE FROM open_orders WHERE strategy = 'maker'",
        "DELETE FROM run_cursors WHERE run_id = 'run-taker'; UPDATE run_cursors SET orders = 1, fills = 2",
    ],
)
def test_several_processes_find_what_one_finds_in_every_market(paths: DatabasePaths, sql: str) -> None:
    damage(paths, sql)
    alone, many = check(paths, processes=1), check(paths, processes=5)
    assert alone.findings
    assert by_kind(many) == by_kind(alone)
    assert many._replace(findings=[]) == alone._replace(findings=[])


def test_the_damage_of_each_market_is_found_by_the_process_that_has_it(paths: DatabasePaths) -> None:
    for market in MARKETS:
        damage(paths, f"UPDATE fills SET price = 7 WHERE fill_id = 'maker-{market}-0-1'")
        found = [finding.text for finding in check(paths, processes=5).findings]
        assert any(f"{market} long on paper: cost is" in text for text in found), found
        damage(paths, f"UPDATE fills SET price = 101.1 WHERE fill_id = 'maker-{market}-0-1'")


def test_an_order_whose_fills_name_another_market_is_settled_all_the_same(paths: DatabasePaths) -> None:
    damage(paths, "UPDATE order_events SET market_id = 'alias-of-' || market_id")
    assert check(paths, processes=5).findings == []


def test_a_damaged_index_is_found_by_one_of_the_processes(paths: DatabasePaths) -> None:
    damage(
        paths,
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX fills_market ON fills (order_id)' WHERE name = 'fills_market'",
    )
    report = check(paths, processes=3)
    assert {finding.kind for finding in report.findings} == {"integrity"}
    assert "fills_market" in report.findings[0].text
    assert "the rows were not looked at" in report.remarks[0]


def test_it_says_how_far_it_is(paths: DatabasePaths) -> None:
    told: list[float] = []
    check(paths, processes=2, tell=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_processes_leave_the_processors_to_trading(paths: DatabasePaths) -> None:
    before, told = psutil.Process().nice(), list[int]()
    check(paths, processes=2, tell=lambda _: told.extend(child.nice() for child in psutil.Process().children()))
    assert 19 in told
    assert psutil.Process().nice() == before


def test_a_killed_process_is_an_error_and_not_nothing_wrong(paths: DatabasePaths) -> None:
    said: list[object] = []

    def checked() -> None:
        try:
            said.append(check(paths, processes=2))
        except StoreError as error:
            said.append(error)

    thread = threading.Thread(target=checked)
    thread.start()
    victim = eventually(lambda: next(iter(multiprocessing.active_children()), None))
    assert victim is not None
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    thread.join(timeout=60)
    assert isinstance(said[0], StoreError)
    assert "has ended with signal SIGKILL before its work was done" in str(said[0])
    assert "killed for want of memory?" in str(said[0])
    assert multiprocessing.active_children() == []


@pytest.fixture
def asked(paths: DatabasePaths) -> Iterator[subprocess.Popen[bytes]]:
    """A program that checks over and over, in a process group of its own."""
    script = (
        "from horizon.paths import DatabasePaths; from horizon.store.check import check\n"
        f"while True: check(DatabasePaths.of({str(paths.database)!r}), processes=2)"
    )
    program = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, start_new_session=True)
    yield program
    program.kill()
    program.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_who_asked_for_the_check(asked: subprocess.Popen[bytes], number: signal.Signals) -> None:
    parent = psutil.Process(asked.pid)
    crew = eventually(lambda: [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())])
    if number is signal.SIGINT:
        os.killpg(asked.pid, number)  # as a terminal does
    else:
        asked.kill()
    asked.wait(timeout=30)
    eventually(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in crew))


def by_kind(report: Report) -> dict[str, list[str]]:
    return {
        kind: sorted(one.text for one in report.findings if one.kind == kind) for kind in {one.kind for one in report.findings}
    }

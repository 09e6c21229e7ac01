"""An engine with a database: real writer, real recovery."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from engines import LOOSE, fill_of
from eventually import eventually
from road import a_writer_runs, dead_letters, kill_writer, rows
from samples import fill
from scripted_venue import ScriptedVenue

from horizon.engine import Engine
from horizon.errors import AckTimeout, ConfigError, DeadLettered, Halt, HorizonError, StrategyBusy
from horizon.journal import JournalReader
from horizon.paths import DatabasePaths
from horizon.records import OrderRequest, OrderSide, OrderStatus, Quote, Side
from horizon.venues.base import OrderUpdate
from horizon.wire import decode_record

Open = Callable[..., Engine]


@pytest.fixture
def make(database: DatabasePaths) -> Iterator[Open]:
    """Engines on one database, closed at the end whatever the test left of them."""
    made: list[Engine] = []

    def make(**arguments: object) -> Engine:
        engine = Engine(LOOSE, db_path=database.database, lock_timeout_s=5.0, **arguments)  # type: ignore[arg-type]
        made.append(engine)
        return engine

    yield make
    for engine in made:
        with suppress(Halt, AckTimeout):
            engine.close(timeout_s=1.0)


def _buy(engine: Engine, size: float = 5.0, price: float = 0.5, market_id: str = "m") -> str:
    return engine.submit_order(OrderRequest(market_id, Side.Yes, OrderSide.Buy, size, price))


def _in_journal(engine: Engine) -> list[object]:
    """What lies in the run's journal and is not acknowledged: it would survive the death of this process now."""
    with closing(JournalReader(Path(engine.journal_path))) as reader:
        first = reader.first_seq(reader.tail)
        assert first is not None
        return [decode_record(payload) for payload in reader.read(reader.tail, first, dead=False).frames.payloads]


def test_the_engines_seven_methods_do_what_the_page_says(database: DatabasePaths) -> None:
    engine = Engine(db_path=str(database.database))
    assert engine.recover_state() == 0
    assert engine.db_open_order_ids() == []
    assert engine.has_persistence()
    assert engine.db_run_id() is None
    engine.start_run("my_strategy")
    run_id = engine.db_run_id()
    assert run_id is not None
    _buy(engine)
    engine.tick("m", 0.5)
    assert engine.snapshot_positions() == 1
    engine.end_run()
    engine.flush()
    assert rows(database, "SELECT run_id, strategy_name, exchange, status FROM strategy_runs") == [
        (run_id, "my_strategy", "paper", "ended")
    ]
    engine.close()
    again = Engine(db_path=str(database.database))
    assert again.recover_state() == 1
    assert again.recover_state() == 1, "calling it twice changes nothing"
    again.close()


def test_an_order_lies_in_the_journal_before_the_venue_hears_of_it(make: Open) -> None:
    venue = ScriptedVenue()
    engine = make(strategy="s", venue=venue)
    seen: list[object] = []
    venue.on_submit = lambda order: seen.extend(_in_journal(engine))
    order_id = _buy(engine)
    newest = seen[-1]
    assert (newest.order_id, newest.status) == (order_id, OrderStatus.New)  # type: ignore[attr-defined]


def test_positions_are_recovered_exactly_after_a_kill(database: DatabasePaths, make: Open) -> None:
    program = f"""
        import os, signal
        from horizon.engine import Engine
        from horizon.records import Fill, OrderSide, Quote, Side
        engine = Engine(db_path={str(database.database)!r}, strategy="s")
        for number, size in enumerate([0.1, 0.2, 0.7]):
            engine.process_fill(Fill(f"f{{number}}", "by hand", "m", Side.Long, OrderSide.Buy, 0.3, size, fee=0.01, timestamp=1.0))
            if number == 1:
                engine.snapshot_positions()
        engine.submit_quotes("m", [Quote(0.4, 0.6)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert _run(program).returncode == -signal.SIGKILL
    engine = make()
    assert engine.recover_state() == 1
    (position,) = engine.positions()
    assert (position.size, position.avg_entry_price, position.fees) == (1.0, 0.3, 0.03)
    assert len(engine.db_open_order_ids()) == 2
    engine.start_run("s")
    engine.flush()
    assert engine.db_open_order_ids() == [], "the paper venue says at once that they ended with their process (R8)"
    reasons = rows(database, "SELECT status_reason FROM order_events WHERE status = 'canceled'")
    (died,) = rows(database, "SELECT run_id FROM strategy_runs WHERE status = 'died'")
    assert all(reason.startswith(f"orphan of run {died[0]}: the paper venue") for (reason,) in reasons)
    assert len(reasons) == 2


def test_orphans_are_reported_with_their_first_ids(database: DatabasePaths, make: Open, caplog: pytest.LogCaptureFixture) -> None:
    ids = _leave_orders_open(database, 7)
    engine = make(venue=ScriptedVenue(), strategy="s")
    engine.recover_state()
    (warning,) = [record for record in caplog.records if getattr(record, "action", "") == "orphans"]
    assert warning.getMessage() == f"s: earlier runs left 7 orders open: {', '.join(ids[:5])}, …"


def test_orphans_of_a_real_venue_end_when_the_venue_says_so(database: DatabasePaths, make: Open) -> None:
    canceled, alive, unknown = _leave_orders_open(database, 3)
    venue = ScriptedVenue()
    venue.endings = {
        canceled: OrderUpdate(canceled, OrderStatus.Canceled, "cancel on disconnect"),
        alive: OrderUpdate(alive, OrderStatus.Accepted),
    }
    engine = make(venue=venue, strategy="s")
    engine.start_run()
    engine.flush()
    assert engine.db_open_order_ids() == [alive, unknown], "not found is no proof"


def test_orders_of_another_exchange_are_not_asked_about_here(database: DatabasePaths, make: Open) -> None:
    (orphan,) = _leave_orders_open(database, 1)
    engine = make(strategy="s")  # the paper venue would say at once that the order is over
    engine.start_run()
    engine.flush()
    assert engine.db_open_order_ids() == [orphan]


def test_an_order_filled_by_fills_that_outran_its_events_is_recorded_as_filled(database: DatabasePaths, make: Open) -> None:
    program = f"""
        import os, signal
        from engines import fill_of
        from scripted_venue import ScriptedVenue
        from horizon.engine import Engine
        from horizon.records import OrderEvent, OrderRequest, OrderSide, OrderStatus, Side
        venue = ScriptedVenue()
        engine = Engine(db_path={str(database.database)!r}, strategy="s", venue=venue)
        order_id = engine.submit_order(OrderRequest("m", Side.Yes, OrderSide.Buy, 5.0, 0.5))
        record = engine._persistence.record
        def die_before_the_event(one):
            if isinstance(one, OrderEvent):
                os.kill(os.getpid(), signal.SIGKILL)
            return record(one)
        engine._persistence.record = die_before_the_event
        venue.events = [fill_of(order_id, size=5.0)]
        engine.poll_fills()
    """
    assert _run(program).returncode == -signal.SIGKILL
    engine = make(strategy="s", venue=ScriptedVenue())
    engine.start_run()
    engine.flush()
    newest = rows(database, "SELECT status, filled_size, remaining_size FROM order_events ORDER BY id DESC LIMIT 1")
    assert newest == [("filled", 5.0, 0.0)]
    assert engine.positions()[0].size == 5.0


def test_a_fill_of_an_older_run_that_comes_again_is_known_by_its_id(database: DatabasePaths, make: Open) -> None:
    """R1: of an order that is not in memory, it is looked up in the database."""
    first = make(strategy="s", venue=ScriptedVenue())
    order_id = _buy(first)
    told = fill_of(order_id, size=2.0)
    first.process_fill(told)
    first.close()
    venue = ScriptedVenue()
    venue.history = [told]
    second = make(strategy="s", venue=venue)
    second.start_run()
    venue.events = [told, told]
    assert second.poll_fills() == 0
    assert second.positions()[0].size == 2.0
    second.flush()
    assert rows(database, "SELECT count(*) FROM fills") == [(1,)]
    assert dead_letters(database) == []


def test_a_fill_that_was_missed_while_nobody_ran_is_taken_at_the_next_start(make: Open) -> None:
    first = make(strategy="s", venue=ScriptedVenue())
    order_id = _buy(first)
    first.process_fill(fill_of(order_id, 1, 2.0))
    first.close()
    venue = ScriptedVenue()
    venue.history = [fill_of(order_id, 1, 2.0), fill_of(order_id, 2, 1.5)]
    second = make(strategy="s", venue=venue)
    second.start_run()
    assert second.positions()[0].size == 3.5, "of an order that an older run of this strategy sent"


def test_a_fill_of_another_strategys_order_is_not_ours(make: Open) -> None:
    other = make(strategy="other", venue=ScriptedVenue())
    order_id = _buy(other)
    other.flush()
    venue = ScriptedVenue()
    engine = make(strategy="s", venue=venue)
    venue.events = [fill_of(order_id)]
    assert engine.poll_fills() == 0
    assert engine.positions() == []


def test_two_strategies_on_one_account_make_no_dead_letters_of_each_others_fills(database: DatabasePaths, make: Open) -> None:
    """R4: the other one has stored the fill already, and the account tells both of it."""
    first_venue, second_venue = ScriptedVenue(), ScriptedVenue()
    first, second = make(strategy="first", venue=first_venue), make(strategy="second", venue=second_venue)
    order_id = _buy(first)
    first_venue.events = [fill_of(order_id)]
    assert first.poll_fills() == 1
    first.flush()
    second_venue.events = [fill_of(order_id), fill_of(order_id)]
    assert second.poll_fills() == 0
    second.flush()
    assert second.positions() == []
    assert dead_letters(database) == []


def test_a_known_fill_with_other_content_becomes_a_dead_letter_and_flush_says_so(database: DatabasePaths, make: Open) -> None:
    """R4: another price is a conflict, another fee an amendment."""
    engine = make(strategy="s")
    assert engine.process_fill(fill(1))
    engine.flush()
    assert not engine.process_fill(fill(1, price=7.0))
    assert not engine.process_fill(fill(1, fee=7.0))
    with pytest.raises(DeadLettered, match="2 of the flushed records"):
        engine.flush()
    assert [kind for _, _, kind, *_ in dead_letters(database)] == ["conflict", "amended"]
    assert engine.positions()[0].size == 0.1
    engine.close()
    assert rows(database, "SELECT status FROM strategy_runs") == [("ended",)]


def test_another_strategys_fill_cannot_be_taken_over(database: DatabasePaths, make: Open) -> None:
    other = make(strategy="other")
    other.process_fill(fill(1))
    other.flush()
    engine = make(strategy="s")
    assert not engine.process_fill(fill(1))
    assert engine.positions() == []


def test_a_run_whose_fill_cannot_be_stored_halts_without_a_snapshot(database: DatabasePaths, make: Open) -> None:
    """The writer finds the id taken by another strategy in the same instant: memory is in doubt (R3)."""
    other = make(strategy="other")
    engine = make(strategy="s")
    engine.start_run()
    engine._persistence.fill_by_id = lambda fill_id: None  # type: ignore[method-assign]
    other.process_fill(fill(1))
    other.flush()
    engine.process_fill(fill(1))
    with pytest.raises(Halt, match="could not store a fill"):
        engine.flush()
    with pytest.raises(Halt):
        engine.snapshot_positions()
    engine.close()
    assert rows(database, "SELECT count(*) FROM position_snapshots WHERE strategy = 's'") == [(0,)]
    assert rows(database, "SELECT ended_at, status FROM strategy_runs WHERE strategy = 's'")[0][1] != "ended"


def test_an_engine_without_a_name_takes_the_databases_only_strategy(make: Open) -> None:
    """R9."""
    first = make(strategy="only")
    first.process_fill(fill(1))
    first.close()
    second = make()
    assert second.recover_state() == 1
    second.process_fill(fill(2))
    assert second._persistence.strategy == "only"


def test_an_engine_without_a_name_on_several_strategies_names_them(make: Open) -> None:
    for name in ("a", "b"):
        engine = make(strategy=name)
        engine.process_fill(fill(ord(name)))
        engine.close()
    nameless = make()
    with pytest.raises(ConfigError, match="a, b"):
        nameless.recover_state()
    nameless.start_run("a")
    assert nameless.positions()[0].size == 0.1


def test_a_name_is_also_found_in_a_journal_that_nobody_drained_yet(database: DatabasePaths, make: Open) -> None:
    program = f"""
        import os, signal
        from horizon.engine import Engine
        from road import kill_writer
        from samples import fill
        from horizon.paths import DatabasePaths
        engine = Engine(db_path={str(database.database)!r}, strategy="s")
        os.kill(int(open({str(database.writer_lock)!r}).read().split()[0].removeprefix("pid=")), signal.SIGKILL)
        engine.process_fill(fill(1))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert _run(program).returncode == -signal.SIGKILL
    kill_writer(database)
    engine = make()
    assert engine.recover_state() == 1


def test_records_before_a_name_open_a_run_of_the_default_strategy(database: DatabasePaths, make: Open) -> None:
    """R9."""
    engine = make()
    engine.process_fill(fill(1))
    engine.flush()
    assert rows(database, "SELECT strategy FROM fills") == [("default",)]
    with pytest.raises(ConfigError, match="records as strategy 'default' already"):
        engine.start_run("late")


def test_a_second_engine_of_one_strategy_is_refused(database: DatabasePaths, make: Open) -> None:
    """R10."""
    make(strategy="s")
    with pytest.raises(StrategyBusy, match=f"pid {os.getpid()}"):
        Engine(db_path=database.database, strategy="s", lock_timeout_s=0.1)


def test_recovering_in_the_middle_of_a_run_loses_nothing(make: Open) -> None:
    engine = make(strategy="s")
    order_id = _buy(engine)
    for number in range(100):
        engine.process_fill(fill_of(order_id, number, 0.1))
    assert engine.recover_state() == 1
    assert engine.positions()[0].size == 10.0


def test_the_day_goes_on_after_a_restart_until_a_new_one_is_begun(make: Open) -> None:
    first = make(strategy="s")
    first.process_fill(fill(1, size=1.0, price=1000.0))
    first.process_fill(fill(2, size=1.0, price=10.0))
    first.close()
    second = make(strategy="s")
    assert second.recover_state() == 0
    second.update_daily_pnl()
    status = second.status()
    assert (status.total_realized_pnl, status.daily_pnl, status.kill_switch_active) == (-990.0, -990.0, False)
    second.reset_daily_pnl()
    assert second.status().daily_pnl == 0.0


@pytest.mark.parametrize(
    "ending",
    [
        "del engine", "raise RuntimeError('oops')", "sys.exit(0)", "engine.close()", "with engine: pass",
        "with engine: raise RuntimeError('oops')",
    ],
)  # fmt: skip
def test_however_a_program_ends_its_run_is_ended_and_its_orders_canceled(database: DatabasePaths, ending: str) -> None:
    program = f"""
        import sys
        from horizon.engine import Engine
        from horizon.records import OrderRequest, OrderSide, Quote, Side
        from samples import fill
        engine = Engine(db_path={str(database.database)!r}, strategy="s")
        engine.submit_quotes("m", [Quote(0.4, 0.6)])
        engine.process_fill(fill(1))
        {ending}
    """
    _run(program)
    assert rows(database, "SELECT status FROM strategy_runs") == [("ended",)]
    assert rows(database, "SELECT count(*) FROM position_snapshots") == [(1,)]
    assert rows(database, "SELECT status, count(*) FROM order_events GROUP BY status ORDER BY status") == [
        ("accepted", 2),
        ("canceled", 2),
        ("new", 2),
    ]


def test_with_many_threads_nothing_is_lost_doubled_or_kept_waiting(database: DatabasePaths, make: Open) -> None:
    engine = make(strategy="s")
    engine.start_run()
    done: list[int] = []

    def record(thread: int) -> None:
        for number in range(100):
            engine.process_fill(fill(1, fill_id=f"{thread}-{number}"))
            engine.process_fill(fill(1, fill_id=f"{thread}-{number}"))
        done.append(thread)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: engine.wait(0.5) or len(done) == 8, timeout_s=30)
    for thread in threads:
        thread.join()
    engine.flush()
    assert engine.positions()[0].size == 80.0
    assert rows(database, "SELECT count(*) FROM fills") == [(800,)]


def test_a_thread_need_not_wait_for_a_sleeping_engine(make: Open) -> None:
    engine = make(strategy="s")
    engine.start_run()
    engine.flush()
    ours, theirs = socket.socketpair()
    sleeper = threading.Thread(target=engine.wait, args=(60.0, [theirs]))
    sleeper.start()
    for number in range(20):
        engine.process_fill(fill(number))
    assert sleeper.is_alive(), "it sleeps on"
    ours.close()
    sleeper.join(timeout=10.0)
    assert not sleeper.is_alive(), "it wakes up for what it was told to listen to"
    theirs.close()


def test_an_engine_acts_only_in_the_process_that_made_it(database: DatabasePaths, make: Open) -> None:
    """R24."""
    engine = make(strategy="s")
    engine.process_fill(fill(1))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        try:
            engine.process_fill(fill(2))
        except HorizonError as error:
            os.write(write, str(error).encode())
        engine.close()
        del engine
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"is a fork of it and must not act on it" in os.read(read, 4096)
    os.close(read)
    os.close(write)
    engine.process_fill(fill(3))
    engine.flush()
    assert rows(database, "SELECT fill_id FROM fills") == [("fill-00000001",), ("fill-00000003",)]
    assert rows(database, "SELECT status FROM strategy_runs") == [("running",)], "the child ended nothing"


def test_close_names_what_is_not_acknowledged_and_its_journal(database: DatabasePaths) -> None:
    engine = Engine(db_path=database.database, strategy="s")
    engine.process_fill(fill(1))
    engine.flush()
    writer = a_writer_runs(database)
    os.kill(writer, signal.SIGSTOP)
    engine.process_fill(fill(2))
    journal = engine.journal_path
    with pytest.raises(AckTimeout, match="records of s are not acknowledged") as raised:
        engine.close(timeout_s=0.2)
    assert journal in str(raised.value)
    os.kill(writer, signal.SIGCONT)
    eventually(lambda: rows(database, "SELECT count(*) FROM fills") == [(2,)], what="the writer to drain the journal")


def test_quotes_and_fills_are_rows_in_the_order_they_happened(database: DatabasePaths, make: Open) -> None:
    engine = make(strategy="s")
    engine.tick("m", 0.5)
    engine.submit_quotes("m", [Quote(0.45, 0.55, 2.0)])
    engine.tick("m", 0.44)
    engine.flush()
    statuses = rows(database, "SELECT status, seq FROM order_events ORDER BY id")
    assert [status for status, _ in statuses] == ["new", "accepted", "new", "accepted", "filled"]
    ((fill_seq,),) = rows(database, "SELECT seq FROM fills")
    assert fill_seq + 1 == statuses[-1][1]


def _leave_orders_open(database: DatabasePaths, count: int) -> list[str]:
    """Orders at a real venue, whose process was killed. Returns their ids."""
    program = f"""
        import os, signal
        from engines import LOOSE
        from scripted_venue import ScriptedVenue
        from horizon.engine import Engine
        from horizon.records import OrderRequest, OrderSide, Side
        engine = Engine(LOOSE, db_path={str(database.database)!r}, strategy="s", venue=ScriptedVenue())
        for number in range({count}):
            print(engine.submit_order(OrderRequest("m", Side.Yes, OrderSide.Buy, 1.0, 0.5)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    return _run(program).stdout.split()


def _run(program: str) -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
    )

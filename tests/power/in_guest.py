"""What the Debian guest runs: it trades until its power is cut, and after the cut it says what is there.

`in_guest.py boot` is the guest's init and looks for `horizon.mode=` on the kernel's command line; it starts this file again, once for
each durability, or memory_in_guest.py. All that it reports are lines on the serial console, which lies outside the guest: `HZ {json}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

DURABILITIES = ("power", "process")
DATABASES = Path("/var/lib/horizon")
ORDERS_BEFORE = 20  # of the run that ends in peace and is flushed to the disk
FLUSH_AT = 40  # orders, after which the disk has the journal of the run at "process", and not what was committed
SNAPSHOT_EVERY = 30  # orders
TABLES = ("fills", "order_events", "duplicates", "run_gaps", "run_cursors", "strategy_runs")


def say(durability: str, what: str, **details: object) -> None:
    """One write for the whole line: the runs share the console."""
    os.write(1, f"HZ {json.dumps({'durability': durability, 'what': what, **details})}\n".encode())


def boot() -> None:
    """Be process 1: the few things that a run needs, then the runs, then off."""
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")):
        if not os.path.ismount(place):
            subprocess.run(["mount", "-t", kind, kind, place], check=True)
    words = Path("/proc/cmdline").read_text().split()
    mode = next(word.partition("=")[2] for word in words if word.startswith("horizon.mode="))
    DATABASES.mkdir(parents=True, exist_ok=True)
    if mode == "trade":
        _run_both("trade_in_peace")
        os.sync()
    if mode == "limits":
        subprocess.run([sys.executable, Path(__file__).with_name("memory_in_guest.py")], check=False)
    else:
        _run_both(mode)
    say("", "finished")
    os.sync()
    Path("/proc/sysrq-trigger").write_text("o")
    while True:
        time.sleep(1)


def trade_in_peace(durability: str) -> None:
    """A first run, which ends as runs should."""
    engine = _engine(durability)
    with engine:
        for number in range(1, ORDERS_BEFORE + 1):
            _trade(engine, number)
        engine.flush(60)
    say(durability, "ended")


def trade(durability: str) -> None:
    """Order, fill, snapshot without end. Each record is told when it is recorded, each acknowledgement when it is heard."""
    engine = _engine(durability)
    told_seq = number = 0
    while True:
        number += 1
        engine.begin_cycle()
        _trade(engine, number)
        if number % SNAPSHOT_EVERY == 0:
            engine.snapshot_positions()
        engine.ship()
        engine.wait(0.005)
        if number == FLUSH_AT and durability == "process":
            # As the kernel does some day by itself. By another process: closing a file drops what this one has locked in it.
            subprocess.run(["sync", engine.journal_path], check=True)
        if engine._persistence.committed_seq > told_seq:
            told_seq = engine._persistence.committed_seq
            say(durability, "acknowledged", seq=told_seq)


def look(durability: str) -> None:
    """Recover as the next run would, and tell what is there."""
    import apsw
    import msgspec

    try:
        with _engine(durability, quiet=True) as engine:
            engine.recover_state()
            say(durability, "positions", positions=msgspec.to_builtins(engine.all_positions()))
        connection = apsw.Connection(str(_path(durability)), flags=apsw.SQLITE_OPEN_READONLY)
        say(durability, "integrity", answer=connection.pragma("integrity_check"))
        for table in TABLES:
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            for values in connection.execute(f"SELECT * FROM {table} ORDER BY rowid"):
                say(durability, table, **dict(zip(columns, values, strict=True)))
        say(durability, "log", lines=(_path(durability).with_suffix(".db.d") / "writer.log").read_text().splitlines())
    except BaseException:
        say(durability, "failed", traceback=traceback.format_exc())
        raise


def _run_both(mode: str) -> None:
    """One process for each durability, side by side."""
    runs = [subprocess.Popen([sys.executable, __file__, mode, durability]) for durability in DURABILITIES]
    for run in runs:
        run.wait()


def _engine(durability: str, quiet: bool = False) -> Any:
    """An engine that tells what it has recorded."""
    import msgspec

    import horizon as hz

    loose = hz.RiskConfig(
        max_position_per_market=1e9, max_portfolio_notional=1e12, max_order_size=1e9,
        rate_limit_sustained=1e9, rate_limit_burst=1_000_000, dedup_window_ms=0.0,
    )  # fmt: skip
    engine = hz.Engine(loose, db_path=_path(durability), strategy=durability, durability=durability)
    record = engine._persistence.record

    def told(one: Any) -> int:
        seq = record(one)
        say(durability, "recorded", run_id=engine._persistence.run_id, seq=seq, record=msgspec.to_builtins(one))
        return seq

    if not quiet:
        engine._persistence.record = told  # type: ignore[method-assign]
    return engine


def _trade(engine: Any, number: int) -> None:
    """One order, filled at once. Two of three buy, so that a fill more or less moves the position."""
    import horizon as hz

    price = 0.30 + number % 40 / 100
    buys = number % 3 != 0
    side = hz.OrderSide.Buy if buys else hz.OrderSide.Sell
    engine.submit_order(hz.OrderRequest("coin", hz.Side.Yes, side, 1 + number % 7 / 10, price))
    engine.tick("coin", price - 0.01 if buys else price + 0.01)


def _path(durability: str) -> Path:
    return DATABASES / f"{durability}.db"


if __name__ == "__main__":
    mode, *durability = sys.argv[1:]
    {"boot": boot, "trade_in_peace": trade_in_peace, "trade": trade, "look": look}[mode](*durability)  # type: ignore[operator]

"""A process that records: `python recording.py DATABASE STRATEGY EVENTS [PAUSE_S]`.

It alternates fills and order events, writes one line before and one after each call to its log (with os.write, outside its own
memory), and flushes at the end. Its log is what the tests compare the database with.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from samples import fill, order_event

from horizon.errors import AckTimeout
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RunEnded, RunStarted


def main(database: str, strategy: str, events: int, pause_s: float) -> None:
    recorder = Recorder.open(DatabasePaths.of(database), strategy)
    log = os.open(Path(database).with_suffix(f".{strategy}.{os.getpid()}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    recorder.record(RunStarted(strategy, "paper", time.time(), None, os.getpid()))
    for number in range(1, events + 1):
        key = f"{recorder.run_id}-{number:08d}"
        while not recorder.room_for_orders():
            recorder.wait(0.01)
        os.write(log, f"before {key}\n".encode())
        if number % 2:
            recorder.record(fill(number, fill_id=key, order_id=f"order-{key}"))
        else:
            recorder.record(order_event(number, order_id=f"order-{key}"))
        os.write(log, f"after {key}\n".encode())
        if pause_s:
            recorder.wait(pause_s)
    recorder.record(RunEnded(time.time()))
    while True:
        try:
            recorder.flush(30.0)
            break
        except AckTimeout:
            continue
    os.write(log, b"flushed\n")
    recorder.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)

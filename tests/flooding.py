"""A process that records as fast as it can, until its standard input ends: `python flooding.py DATABASE STRATEGY`."""

from __future__ import annotations

import select
import sys

from samples import order_event

from horizon.paths import DatabasePaths
from horizon.recorder import Recorder


def main(database: str, strategy: str) -> None:
    recorder = Recorder.open(DatabasePaths.of(database), strategy)
    event = order_event(1)
    while not select.select([sys.stdin], [], [], 0)[0]:
        recorder.begin_cycle()
        for _ in range(2000):
            recorder.record(event)
        recorder.ship()
        while not recorder.room_for_orders():
            recorder.wait(0.01)
    recorder.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

"""A process that plays recorded fills until it is killed, and goes on when it is started again.

`python playing_on.py DATA DATABASE ACCOUNT [FILLS]` plays a recorded account. Every start begins at the first fill: the venue sends
again whatever it has ever sent. With FILLS the process kills itself (SIGKILL) once it has applied so many that were new.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from recorded_accounts import hummingbot, hyperliquid

from horizon import Engine
from horizon.venues.playback import Playback

SNAPSHOT_EVERY = 50  # fills


def play_on(venue: Playback, database: str, strategy: str, kill_after: int | None = None) -> None:
    """Play to the end, or to the death."""
    with Engine(db_path=database, strategy=strategy, venue=venue) as engine:
        engine.start_run(strategy)
        snapshots = 0
        while not venue.exhausted:
            engine.poll_fills()
            if engine.fills_applied == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if engine.fills_applied // SNAPSHOT_EVERY > snapshots:
                snapshots += 1
                engine.snapshot_positions()


def main(data: Path, database: str, name: str, kill_after: int | None) -> None:
    account = hyperliquid(data, name) if name.startswith("0x") else hummingbot(data)
    play_on(account.playback(data, rows_per_poll=1, redeliver=3), database, account.strategy, kill_after)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else None)

"""The place of one process: what is wanted of it, its incarnation while it lives, and what its incarnations did.

The state is read off these, never stored beside them, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from horizon.channel import Draining, Heartbeat, Ready
from horizon.cli.live import StrategyRow
from horizon.errors import ExitCode
from supervisor.child import Child
from supervisor.policy import Deaths

Start = Callable[[float], Child]  # given the monotonic time; raises OSError


class Did(msgspec.Struct):
    """What a strategy did, over all its incarnations, by the last word of each."""

    starts: int = 0
    cycles: int = 0
    orders: int = 0
    fills: int = 0


class Slot:
    """One strategy of the configuration, or the writer."""

    def __init__(self, name: str, start: Start) -> None:
        self.name = name
        self.start_at: float | None = None  # when the next incarnation is due (monotonic); None: none is wanted
        self.child: Child | None = None
        self.ready = False
        self.heartbeat = Heartbeat()  # the newest of the newest incarnation
        self.draining: Draining | None = None
        self.runs: list[str] = []  # the run id of every incarnation that became ready
        self.deaths = Deaths()
        self.exit_code: int | None = None  # of the incarnation that ended last; None also when it was told to stop and did
        self._start = start
        self._did = Did()

    @property
    def state(self) -> str:
        if self.child is not None:
            leaving = self.child.stop_by is not None or self.draining is not None
            return "stopping" if leaving else "running" if self.ready else "starting"
        if self.start_at is not None:
            return "backoff" if self.deaths.in_a_row else "waiting"
        return "stopped" if self.exit_code is None else "done" if self.exit_code == ExitCode.DONE else "failed"

    @property
    def is_over(self) -> bool:
        """Neither alive nor to be started again."""
        return self.child is None and self.start_at is None

    def start(self, now: float) -> Child:
        """Raises: OSError."""
        self.start_at = None
        self.child = self._start(now)
        self.ready = False
        self.draining = None
        self._did.starts += 1
        return self.child

    def hear(self, now: float) -> None:
        """Take what the process said of itself."""
        assert self.child is not None
        for message in self.child.channel.receive():
            if isinstance(message, Ready):
                self.ready = True
                self.deaths = self.deaths.after_ready(now)
                self.runs.append(message.run_id)
            elif isinstance(message, Heartbeat):
                self.heartbeat = message
            elif isinstance(message, Draining):
                self.draining = message

    def bury(self, exit_code: int) -> None:
        """The process has ended, and its last words were heard."""
        assert self.child is not None
        was_told = self.child.stop_by is not None
        self.child.close()
        self.child = None
        self.ready = False
        self.exit_code = None if was_told and exit_code == ExitCode.DONE else exit_code
        self._did = self.did
        self.heartbeat = msgspec.structs.replace(self.heartbeat, cycles=0, orders=0, fills=0)

    @property
    def did(self) -> Did:
        now = self.heartbeat
        return Did(self._did.starts, self._did.cycles + now.cycles, self._did.orders + now.orders, self._did.fills + now.fills)

    def row(self, now: float) -> StrategyRow:
        beat, did = self.heartbeat, self.did
        return StrategyRow(
            strategy=self.name,
            state=self.state,
            pid=self.child.pid if self.child else None,
            uptime_s=now - self.child.started_at if self.child else None,
            cycles=did.cycles,
            orders=did.orders,
            fills=did.fills,
            position=beat.position,
            pnl=beat.pnl,
            unacked=self.draining.unacked if self.draining else beat.unacked,
            latency_ms=beat.latency_ms,
        )

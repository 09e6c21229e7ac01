"""What a run tells the supervisor while it lives: that it recovers, that it asks its venue, that its cycle turns.

Only the thread that drives the cycle is heard here: a helper thread that orders and cancels would go on beating for a hung cycle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from horizon.channel import Channel, Heartbeat, Message, Phase, Ready
from horizon.clock import SYSTEM_CLOCK, Clock

HEARTBEAT_EVERY_S = 1.0


class Pulse:
    """Of a run that nobody watches: nothing is told."""

    def turn(self) -> None:
        """Called by whatever loops or waits in the run, many times a second."""

    def ready(self, run_id: str) -> None:
        """It has recovered, and its first cycle is about to run."""

    def beat(self, heartbeat: Heartbeat) -> None:
        """What the cycle has counted; until it counts again, that is repeated with every sign of life."""

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around a call of a venue that is not in this process: it may take as long as the venue's own timeout."""
        yield


class ToldPulse(Pulse):
    """Of a run that a supervisor watches. Costs a clock reading a turn, and a message a second."""

    def __init__(self, channel: Channel, clock: Clock = SYSTEM_CLOCK) -> None:
        self._channel = channel
        self._clock = clock
        self._thread = threading.get_ident()
        self._is_ready = False
        self._newest = Heartbeat()
        self._turns = 0
        self._due_at = 0.0

    def turn(self) -> None:
        if threading.get_ident() == self._thread:
            self._turns += 1
            if self._clock.monotonic() >= self._due_at:
                self._tell()

    def ready(self, run_id: str) -> None:
        self._is_ready = True
        self._send(Ready(run_id))

    def beat(self, heartbeat: Heartbeat) -> None:
        self._turns += 1
        self._newest = heartbeat
        self._tell()

    @contextmanager
    def calling(self) -> Iterator[None]:
        if threading.get_ident() != self._thread:
            yield
            return
        self._send(Phase("venue"))
        try:
            yield
        finally:
            # At once: else what the strategy does next would have a venue's time.
            self._turns += 1
            self._tell()

    def _tell(self) -> None:
        self._send(replace(self._newest, progress=self._turns) if self._is_ready else Phase("recovering"))

    def _send(self, message: Message) -> None:
        self._due_at = self._clock.monotonic() + HEARTBEAT_EVERY_S
        self._channel.send(message)

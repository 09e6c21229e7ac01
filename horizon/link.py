"""The run's end of the socket to the writer. It never blocks and never resends: the journal has the bytes.

A message that is lost, refused or still in a queue when somebody dies costs time, not data: the writer reads the journal. So a full
socket and a dead writer need no handling here beyond asking again (R18), and, for a lone run, starting a private writer (R15).
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

import zmq
from msgspec.structs import replace

from horizon import wire
from horizon.clock import Clock
from horizon.errors import CommandRefused, DecodeError, LinkError, StoreError, VersionMismatch
from horizon.journal import Journal
from horizon.paths import SOCKET_NAME, DatabasePaths
from horizon.pulse import Pulse

log = logging.getLogger(__name__)

ASK_AFTER_S = 0.25  # an unacknowledged frame older than this makes the link ask (R18)
WRITER_GONE_AFTER_S = 1.0  # without an answer for this long a lone run looks whether there is a writer at all (R15)
_HELLO_EVERY_S = 0.25
_QUIET_S = 1.0  # a start that waits no longer than this for the writer says nothing of it
_SEND_QUEUE = 256  # messages; beyond that the writer reads the journal


class Readable(Protocol):
    def fileno(self) -> int: ...


class Link:
    """One DEALER socket, whose identity is the run_id (R16)."""

    def __init__(self, paths: DatabasePaths, run_id: str, durability: str, may_start_writer: bool, clock: Clock) -> None:
        self._paths = paths
        self._run_id = run_id
        self._durability = durability
        self._may_start_writer = may_start_writer
        self._clock = clock
        self._starting: subprocess.Popen[bytes] | None = None
        self._started_at = float("-inf")
        self._heard_at = clock.monotonic()
        self._asked_at = float("-inf")
        self.shipped = 0  # the byte of the journal up to which everything was sent
        self.shipped_before = 0  # and up to which it was, before the newest message
        self._waits_for: str | None = None  # why the writer cannot store now
        self.control = wire.Control()  # the newest that arrived
        # Addressed by the folder's descriptor: the path of a socket may have 107 bytes, a folder's any number.
        self._folder = os.open(paths.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, run_id.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 250)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MESSAGE_MAX_BYTES)
        self._socket.connect(f"ipc:///proc/self/fd/{self._folder}/{SOCKET_NAME}")
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    def hello(self, strategy: str, timeout_s: float, pulse: Pulse) -> wire.Welcome:
        """Find or start a writer and be let in by it, once it has drained every older journal of the strategy.

        Raises: LinkError when nobody answers in time, VersionMismatch, StoreError with the writer's reason.
        """
        greeting = wire.encode(wire.Hello(wire.PROTOCOL, strategy, self._run_id, os.getpid()))
        deadline = self._clock.monotonic() + timeout_s
        quiet_until, said = self._clock.monotonic() + _QUIET_S, ""
        greet_at = float("-inf")
        while (now := self._clock.monotonic()) < deadline:
            pulse.turn()
            if now >= greet_at:
                greet_at = now + _HELLO_EVERY_S
                self._start_writer_if_gone()
                self._send(greeting)
            self.wait(greet_at - now)
            for message in self._receive():
                if isinstance(message, wire.Welcome):
                    if message.protocol != wire.PROTOCOL:
                        raise VersionMismatch(_versions(self._paths, message))
                    return message
                if isinstance(message, wire.Refused):
                    raise StoreError(message.reason)
                if isinstance(message, wire.Wait):
                    deadline = now + timeout_s  # the writer lives: its time does not count (R20)
                    if now > quiet_until and message.reason != said:
                        said = message.reason
                        log.warning(
                            "waiting for the writer of %s: %s", self._paths.database, said, extra={"action": "writer_wait"}
                        )
        raise LinkError(
            f"no writer for {self._paths.database} answered within {timeout_s:g} s"
            + (f"; see {self._paths.writer_log}" if self._may_start_writer else "; is the supervisor's writer running?")
        )

    def command(self, command: wire.Command, timeout_s: float) -> str:
        """Have the writer do what a person asks for, and return what it did.

        Sent again until it is answered, also to the next writer: it is done once. Raises: CommandRefused when nothing was changed,
        StoreError, LinkError.
        """
        deadline = self._clock.monotonic() + timeout_s
        question = wire.encode(replace(command, until=deadline))
        ask_at = float("-inf")
        waits_for = "nobody answered"
        while (now := self._clock.monotonic()) < deadline:
            if now >= ask_at:
                ask_at = now + _HELLO_EVERY_S
                self._start_writer_if_gone()
                self._send(question)
            self.wait(min(ask_at, deadline) - now)
            for message in self._receive():
                if isinstance(message, wire.Done):
                    return message.text
                if isinstance(message, wire.NotDone):
                    raise CommandRefused(message.reason)
                if isinstance(message, wire.Refused):
                    raise StoreError(message.reason)
                if isinstance(message, wire.Wait):
                    waits_for = message.reason
        raise LinkError(
            f"the writer of {self._paths.database} has not confirmed it within {timeout_s:g} s ({waits_for}); "
            "look whether it was done before you ask again"
        )

    def ship(self, journal: Journal) -> None:
        """Send what the journal has and this link has not shipped yet."""
        offset = max(self.shipped, journal.tail)
        if offset < journal.head:
            self.shipped_before = offset
        while offset < journal.head:
            offset, frames = journal.since(offset)
            self._send(wire.encode(wire.Ship(offset, frames)))
            offset += len(frames)
        self.shipped = offset

    def hear(self) -> list[wire.Ack]:
        """Every ack that has arrived. Raises: StoreError when the writer refuses this run for good."""
        acks: list[wire.Ack] = []
        for message in self._receive():
            if isinstance(message, wire.Ack):
                acks.append(message)
                self._say_waiting(None)
            elif isinstance(message, wire.Wait):
                self._say_waiting(message.reason)
            elif isinstance(message, wire.Refused):
                raise StoreError(message.reason)
        return acks

    def ask(self, oldest_unacked: float | None) -> None:
        """Ask for the committed seq when an answer is overdue, and look whether there still is a writer."""
        now = self._clock.monotonic()
        if oldest_unacked is None or now - max(oldest_unacked, self._asked_at, self._heard_at) < ASK_AFTER_S:
            return
        self._asked_at = now
        self._send(wire.encode(wire.Ship(0, b"")))
        if now - max(oldest_unacked, self._heard_at) > WRITER_GONE_AFTER_S:
            self._start_writer_if_gone()

    def wait(self, timeout_s: float, also: Sequence[Readable] = ()) -> bool:
        """Sleep until an ack arrives, something in `also` is readable, or the time is over. Returns whether it was in `also`."""
        descriptors = {readable.fileno() for readable in also}
        for descriptor in descriptors:
            self._poller.register(descriptor, zmq.POLLIN)
        try:
            events = self._poller.poll(math.ceil(max(0.0, timeout_s) * 1000))
        finally:
            for descriptor in descriptors:
                self._poller.unregister(descriptor)
        return any(ready in descriptors for ready, _ in events)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
        if self._starting is not None:
            self._starting.wait()
        os.close(self._folder)

    def abandon(self) -> None:
        """In the child of a fork: let go of what was inherited without touching the parent's socket (R24)."""
        os.close(self._folder)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            log.debug("the socket to the writer is full; it will read the journal", extra={"action": "link_full"})

    def _receive(self) -> list[wire.FromWriter]:
        messages: list[wire.FromWriter] = []
        # Asked every time: that nothing is there takes a third of the time as an answer that it takes as an exception.
        while self._poller.poll(0):
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:  # the connection was lost in between
                return messages
            try:
                message = wire.decode_from_writer(data)
            except DecodeError as error:
                log.warning("dropped a message from the writer that cannot be read: %s", error, extra={"action": "wire_garbage"})
                continue
            self._heard_at = self._clock.monotonic()
            if isinstance(message, wire.Control):
                self.control = message
            else:
                messages.append(message)
        return messages

    def _say_waiting(self, reason: str | None) -> None:
        """Tell the operator once why nothing is acknowledged, and once that it is cured."""
        if reason is not None and reason != self._waits_for:
            log.warning("the writer cannot store now, records wait in the journal: %s", reason, extra={"action": "writer_wait"})
        elif reason is None and self._waits_for is not None:
            log.warning("the writer stores again", extra={"action": "writer_resumed"})
        self._waits_for = reason

    def _start_writer_if_gone(self) -> None:
        """Start a private writer when nobody listens on the socket. Losers of a race between two runs leave by themselves."""
        if self._starting is not None and self._starting.poll() is not None:
            self._starting = None
        now = self._clock.monotonic()
        if not self._may_start_writer or self._starting is not None or now - self._started_at < WRITER_GONE_AFTER_S:
            return
        if self._somebody_listens():
            return
        self._started_at = now
        log.info("starting a writer for %s", self._paths.database, extra={"action": "writer_start"})
        try:
            with os.fdopen(os.open(self._paths.writer_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
                self._starting = subprocess.Popen(  # noqa: S603
                    [
                        sys.executable, "-P", "-m", "horizon.writer", "--private",
                        "--database", str(self._paths.database), "--durability", self._durability,
                    ],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            # No memory, no descriptors, a full disk: what was recorded is kept, and the next overdue ack tries again.
            log.error("no writer can be started for %s: %s", self._paths.database, error, extra={"action": "writer_start_failed"})

    def _somebody_listens(self) -> bool:
        """Whether a process has the socket open. The file alone proves nothing: it stays when its owner is killed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(f"/proc/self/fd/{self._folder}/{SOCKET_NAME}")
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True


def _versions(paths: DatabasePaths, welcome: wire.Welcome) -> str:
    return (
        f"the writer of {paths.database} (pid {welcome.writer_pid}) speaks protocol {welcome.protocol}, this program {wire.PROTOCOL}: "
        "stop every program that uses this database, then start them all with one version of Horizon"
    )

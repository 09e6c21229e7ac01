"""The socketpair between the supervisor and one of its processes: one msgspec message per packet, neither side ever blocks.

Not a multiprocessing Connection: that unpickles what it reads and blocks on half a message. The end of file tells a process that the
supervisor is gone, and the supervisor that the process is.
"""

from __future__ import annotations

import socket
from typing import Literal

import msgspec

MESSAGE_MAX_BYTES = 64 * 1024
MESSAGES_MAX = 1000  # of one call of `receive`; more than the kernel keeps, so all that a dead process has said is among them

PhaseName = Literal["loading", "recovering", "venue"]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has recovered and its first cycle is about to run."""

    run_id: str


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """What the process does now takes long, and no heartbeat comes meanwhile; the next message ends it.

    Each phase has a deadline of its own in the supervisor's configuration.
    """

    name: PhaseName


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Sent by the strategy's own cycle, never by a thread: a thread would go on beating for a hung strategy."""

    progress: int = 0  # rises with every turn of the cycle and of its sleep; one that stands still is no sign of life
    cycles: int = 0
    orders: int = 0  # orders submitted in this run
    fills: int = 0
    open_orders: int = 0
    position: float = 0.0  # net over all markets
    pnl: float = 0.0  # realized + unrealized
    unacked: int = 0  # records in the journal that are not yet acknowledged
    journal_bytes: int = 0  # what they take in the journal
    log_dropped: int = 0  # log records that this process dropped because more came than were taken
    last_error: str = ""  # newest sentence of an error or warning that the strategy logged
    latency_ms: float | None = None  # median recorded -> acknowledged of the newest acks
    kill_switch: bool = False
    hold: bool = False


class WriterBeat(msgspec.Struct, frozen=True, tag="writer_beat"):
    """Sent by the writer's own loop."""

    progress: int = 0  # rounds of its loop
    committed: int = 0  # records, since it started
    commit_age_s: float = 0.0  # since it last proved by a commit that the database takes rows; an idle writer commits a probe
    stalled: str = ""  # why the database cannot be written now; empty: it can
    dead_letters: int = 0  # since it started


class Draining(msgspec.Struct, frozen=True, tag="draining"):
    """The worker is on its way out; `unacked` records lie in `journal` if it is killed now."""

    unacked: int
    journal: str
    by_signal: int = 0  # the signal that made it leave, if it was one and not the supervisor


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The supervisor wants the worker to cancel its orders, drain and leave within this time."""

    deadline_s: float


Message = Ready | Phase | Heartbeat | WriterBeat | Draining | Stop

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, non-blocking, not inherited by other children."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class Channel:
    """One end. `closed` turns True at the end of file or after an error."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self.closed = False
        self.garbage = 0  # packets that could not be decoded

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send, or drop the message and return False when the other side does not read."""
        if self.closed:
            return False
        try:
            self._socket.send(_encoder.encode(message), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self.closed = True
            return False
        return True

    def receive(self) -> list[Message]:
        """Every message that has arrived; of a process that goes on sending meanwhile, so many and no more."""
        messages: list[Message] = []
        for _ in range(MESSAGES_MAX):
            if self.closed:
                break
            try:
                data = self._socket.recv(MESSAGE_MAX_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            try:
                messages.append(_decoder.decode(data))
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.garbage += 1
        return messages

    def close(self) -> None:
        self.closed = True
        self._socket.close()

"""What people and programs ask the supervisor over its control socket, and how: fixed verbs, one msgspec message per packet.

The socket is a Unix SOCK_SEQPACKET socket of mode 0660. The supervisor asks the kernel who is there: root and its own user may do all,
members of its group may look (`Status`). Nothing here imports more than msgspec: a health check runs every few seconds.
"""

from __future__ import annotations

import difflib
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from horizon.errors import ExitCode, HorizonError

REQUEST_MAX_BYTES = 16 * 1024
REPLY_MAX_BYTES = 192 * 1024  # the kernel takes a packet of this size with its default buffers
PROTOCOL = 1
_AGAIN_S = 0.01


# ---- requests


class Status(msgspec.Struct, frozen=True, tag="status"):
    """Answered by StatusReply."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Want these strategies to run; what is in quarantine needs Reset."""

    names: list[str]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Want these strategies not to run; survives a restart of the supervisor."""

    names: list[str]


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    names: list[str]


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """End a quarantine, forget the crashes, and start."""

    names: list[str]


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Read the configuration again: all of it is applied, or nothing."""

    dry_run: bool = False


class Dump(msgspec.Struct, frozen=True, tag="dump"):
    """What every thread of a process is doing now. Answered by DumpReply."""

    name: str


class Down(msgspec.Struct, frozen=True, tag="down"):
    """Stop everything in order, then the supervisor itself."""


Request = Status | Start | Stop | Restart | Reset | Reload | Dump | Down


class Envelope(msgspec.Struct, frozen=True):
    protocol: int
    request: Request


# ---- replies


class ProcessStatus(msgspec.Struct, frozen=True):
    """One process now. Seconds are ages unless a name says otherwise; None means not known or not now."""

    name: str
    kind: str  # "strategy", "writer" or "gateway"
    state: str  # stopped, starting, ready, degraded, stopping, backoff, quarantined
    wanted: bool  # whether it shall run
    why: str = ""  # a sentence, where the state needs one
    pid: int | None = None
    run_id: str = ""
    starts: int = 0  # incarnations under this supervisor
    restarts: int = 0  # of them, those after a crash, a hang or a limit
    hangs: int = 0  # how often it was killed because it gave no sign of life
    uptime_s: float | None = None
    heartbeat_age_s: float | None = None
    next_start_s: float | None = None  # in backoff: until the next start
    exit_code: int | None = None  # of the incarnation that ended last; negative: the signal
    last_end: str = ""  # the same in words
    is_done: bool = False  # it ended because it had nothing left to do
    rss_bytes: int | None = None
    cycles: int = 0
    orders: int = 0
    fills: int = 0
    open_orders: int = 0
    position: float = 0.0
    pnl: float = 0.0
    unacked: int = 0
    journal_bytes: int = 0
    latency_ms: float | None = None
    kill_switch: bool = False
    hold: bool = False
    log_dropped: int = 0
    last_error: str = ""


class WriterHealth(msgspec.Struct, frozen=True):
    commit_age_s: float | None = None  # None: no writer has told yet
    stalled: str = ""
    committed: int = 0
    dead_letters: int = 0


class StatusReply(msgspec.Struct, frozen=True, tag="status_reply"):
    version: str
    pid: int
    database: str
    config: str
    uptime_s: float
    loop_lag_ms: float  # the longest turn of the loop in the last seconds
    is_stopping: bool
    probe_max_age_s: float
    writer: WriterHealth
    processes: list[ProcessStatus]  # the strategies in the order of the configuration, then writer and gateway
    log_dropped: int = 0  # entries that the supervisor's own sinks dropped
    why_no_groups: str | None = None  # why the kernel does not keep limits of memory (cgroup v2); empty: it does

    @property
    def strategies(self) -> list[ProcessStatus]:
        return [process for process in self.processes if process.kind == "strategy"]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The command is under way. `starts` tells which incarnation of each strategy it found: a later one is its doing."""

    lines: list[str] = []
    starts: dict[str, int] = {}


class PlanReply(msgspec.Struct, frozen=True, tag="plan"):
    """What a reload changes, by name of the strategy; `live` are keys that change without a restart."""

    add: list[str] = []
    remove: list[str] = []
    restart: list[str] = []
    live: list[str] = []
    applied: bool = False
    starts: dict[str, int] = {}


class DumpReply(msgspec.Struct, frozen=True, tag="dump_reply"):
    text: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str
    exit_code: int = ExitCode.FAILED


Reply = StatusReply | Done | PlanReply | DumpReply | Refused


class NoSupervisor(HorizonError):
    """Nobody answers on the control socket."""

    exit_code = ExitCode.NOBODY


class _NotHeard(NoSupervisor):
    """It hung up before it had read the request."""


class RequestRefused(HorizonError):
    """The supervisor answered, and did not do it."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = ExitCode(exit_code)


class _AnyEnvelope(msgspec.Struct, frozen=True):
    """What every version of an envelope has in common."""

    protocol: int


_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Envelope)
_any_envelope_decoder = msgspec.msgpack.Decoder(_AnyEnvelope)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def ask(path: Path, request: Request, timeout_s: float = 10.0) -> Reply:
    """Ask the supervisor whose control socket this is. Raises: NoSupervisor, RequestRefused."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            data = _exchange(path, _encoder.encode(Envelope(PROTOCOL, request)), timeout_s, deadline)
            break
        except _NotHeard:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN_S)
    if not data:
        raise NoSupervisor(f"the supervisor on {path} hung up; it may be ending")
    try:
        reply = _reply_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise RequestRefused(
            f"the answer of {path} is not understood ({error}): is it of another version?", ExitCode.FAILED
        ) from error
    if isinstance(reply, Refused):
        raise RequestRefused(reply.reason, reply.exit_code)
    return reply


def _exchange(path: Path, data: bytes, timeout_s: float, deadline: float) -> bytes:
    with _connected(path, timeout_s) as client:
        client.send(data)
        _wait_at_most(client, socket.SO_RCVTIMEO, deadline - time.monotonic())
        return client.recv(REPLY_MAX_BYTES)


def pid_of(path: Path, timeout_s: float = 10.0) -> int:
    """The process that listens there, by the word of the kernel; 0 where this one cannot see it. Raises: NoSupervisor."""
    with _connected(path, timeout_s) as client:
        pid: int = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


@contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    """A connection; whatever goes wrong with it is a NoSupervisor."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as client:
        try:
            # The kernel's own timeouts: a non-blocking socket is refused at once while many wait to be let in.
            _wait_at_most(client, socket.SO_SNDTIMEO, timeout_s)
            connect(client, path)
            yield client
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoSupervisor(f"no supervisor runs here: nobody listens on {path}; `horizon up` starts one") from error
        except PermissionError as error:
            raise NoSupervisor(f"{path}: permission denied; ask as root, as the supervisor's user, or join its group") from error
        except BlockingIOError as error:
            raise NoSupervisor(f"the supervisor on {path} did not answer within {timeout_s:g} s") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            # The kernel says so only of what was not read: a crowd pushed us out before we had spoken, and it may be said again.
            raise _NotHeard(f"the supervisor on {path} hung up; it may be ending") from error
        except OSError as error:
            raise NoSupervisor(f"the supervisor on {path} cannot be asked: {error.strerror or error}") from error


def connect(client: socket.socket, path: Path) -> None:
    """Raises: OSError."""
    with _short_name(path) as name:
        client.connect(name)


def bind(listener: socket.socket, path: Path) -> None:
    """Raises: OSError."""
    with _short_name(path) as name:
        listener.bind(name)


def protocol_of(data: bytes) -> int:
    """The version that a request is written in, which need not be ours. Raises: msgspec.DecodeError."""
    return _any_envelope_decoder.decode(data).protocol


def decode_request(data: bytes) -> Envelope:
    """Raises: msgspec.DecodeError (of which ValidationError is one)."""
    return _request_decoder.decode(data)


def encode_reply(reply: Reply) -> bytes:
    return _encoder.encode(reply)


@contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """Through a descriptor of its folder: the name of a socket may have no more than 107 bytes. Raises: OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _wait_at_most(client: socket.socket, option: int, timeout_s: float) -> None:
    whole_s, part_s = divmod(max(timeout_s, 0.001), 1)
    client.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(whole_s), int(part_s * 1e6)))


# ---- what a status means


def sick(status: StatusReply) -> list[str]:
    """Why supervisor, writer and database are not alive now; empty: they are. The question of /healthz and `horizon health`."""
    writer = next(process for process in status.processes if process.kind == "writer")
    problems = []
    if writer.state not in ("ready", "degraded"):
        problems.append(f"the writer is {writer.state}{_because(writer.why)}")
    elif status.writer.stalled:
        problems.append(f"the database cannot be written: {status.writer.stalled}")
    elif status.writer.commit_age_s is None:
        problems.append("the writer has not told yet whether the database takes rows")
    elif status.writer.commit_age_s > status.probe_max_age_s:
        problems.append(f"the last commit is {status.writer.commit_age_s:.0f} s ago")
    return problems


def not_ready(status: StatusReply) -> list[str]:
    """Why not every wanted strategy is ready; empty: all are. The question of /readyz and `horizon health --ready`."""
    return sick(status) + [
        f"{process.name} is {process.state}{_because(process.why)}"
        for process in status.strategies
        if process.wanted and not process.is_done and process.state != "ready"
    ]


def _because(why: str) -> str:
    return f" ({why})" if why else ""


def names_of(status: StatusReply, names: Sequence[str]) -> list[str]:
    """The strategies that a command means; "all" is every one. Raises: RequestRefused for a name that is not there."""
    known = [process.name for process in status.strategies]
    if list(names) == ["all"]:
        return known
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "all"], n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise RequestRefused(f"there is no strategy {name!r}; {hint}", ExitCode.USAGE)
    return list(dict.fromkeys(names))

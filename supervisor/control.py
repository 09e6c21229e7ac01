"""The supervisor's end of the control socket: who asks, one request, one reply, and never a wait.

The work of one call of `serve` is bounded, whoever is at the other end: so many steps and no more, so many clients at once, and a
client that says nothing is let go. A reply goes into the kernel in one piece and the connection is closed: who reads slowly, or never,
costs nothing. What is allowed is decided by what the kernel says of the peer, never by what the peer says.
"""

from __future__ import annotations

import array
import errno
import logging
import os
import pwd
import select
import selectors
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from horizon.control import (
    PROTOCOL,
    REPLY_MAX_BYTES,
    REQUEST_MAX_BYTES,
    Refused,
    Reply,
    Request,
    Status,
    bind,
    connect,
    decode_request,
    encode_reply,
    protocol_of,
)
from horizon.errors import ConfigError, ExitCode, is_disk_full

log = logging.getLogger(__name__)

CLIENTS_MAX = 64
STEPS_MAX = 32  # of one call of `serve`: a connection taken, a request read, a question asked again
_SERVING_S = 0.004  # of one call; none is begun later, except the first
SILENT_MAX_S = 10.0
_MODE = 0o660
_WAITING_MAX = 128  # connections that the kernel holds for us
_LOOK_AT_THE_FILE_S = 5.0
_ACCEPT_AGAIN_S = 1.0
_SAY_REFUSALS_EVERY_S = 10.0
_PEER_GROUPS = 59  # SO_PEERGROUPS, which the socket module does not name
_GROUPS_MAX_BYTES = 1024  # what getsockopt of Python takes


T = TypeVar("T")


class Peer(NamedTuple):
    """Who is at the other end of a connection, as the kernel knew it when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]
    user: str = ""

    def __str__(self) -> str:
        return f"{self.user or 'someone'} (uid {self.uid}, pid {self.pid})"


# A reply that takes longer than a moment: asked every turn until it gives one. Forgotten when the client leaves.
AskAgain = Callable[[], Reply | None]
Answer = Callable[[Request, Peer], Reply | AskAgain]


class ControlServer:
    """Listens at `path`; `answer` is called in the loop's thread and must not wait."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self._answer = answer
        self._poll = select.epoll()
        self._listener: socket.socket | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the socket's file
        self._group = -1
        self._clients: dict[int, _Client] = {}  # by descriptor, oldest first
        self._asked: deque[_Client] = deque()  # those whose reply takes longer
        self._accepts = True
        self._accept_at: float | None = None  # when it is tried again, after there was no descriptor left
        self._look_at = 0.0
        self._said_at: float | None = None
        self._refusals = 0
        self._encoded: tuple[Reply, bytes] | None = None
        # Asked now: a directory of users may be far away.
        self._users = {0: "root", os.geteuid(): _name_of(os.geteuid())}

    def open(self) -> None:
        """Listen. While the disk is full there is no socket, and `serve` tries again (R20). Raises: ConfigError."""
        try:
            self._listen()
        except OSError as error:
            if not is_disk_full(error):
                raise ConfigError(f"the control socket {self.path} cannot be made: {error.strerror or error}") from error
            log.warning("the disk is full: the control socket %s has to wait", self.path, extra={"action": "control"})

    def close(self) -> None:
        """Remove the socket and let everybody go. Idempotent."""
        for client in list(self._clients.values()):
            self._let_go(client)
        self._stop_listening()
        self._poll.close()

    def register(self, selector: selectors.BaseSelector) -> None:
        """Wake up the owner of this selector when there is something to serve."""
        selector.register(self._poll.fileno(), selectors.EVENT_READ)

    def serve(self, now: float) -> int:
        """Do what is to be done now, for some milliseconds and at most `STEPS_MAX` steps; what is left keeps the selector awake.

        Returns the steps.
        """
        until = time.monotonic() + _SERVING_S
        self._look_after_the_socket(now)
        self._let_the_silent_go(now)
        steps = self._ask_again()
        listener = self._listener.fileno() if self._listener else -1
        ready = [fd for fd, _ in self._poll.poll(0, STEPS_MAX - steps)]
        for fd in ready:
            if fd != listener and (not steps or time.monotonic() < until):
                steps += 1
                self._read(self._clients[fd], now)
        # Last: whoever is new takes what steps are left, and may take the place of one who only stays.
        if listener in ready:
            steps += self._accept(now, STEPS_MAX - steps, until)
        return steps

    # ---- the socket's file

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            # Before it has a name: nobody may find it more open than it shall be. The umask may take away, so once more after.
            os.fchmod(listener.fileno(), _MODE)
            self._make_room()
            bind(listener, self.path)
            found = self.path.lstat()
            self._file, self._group = (found.st_dev, found.st_ino), found.st_gid
            self.path.chmod(_MODE)
            listener.listen(_WAITING_MAX)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._accepts = True
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def _make_room(self) -> None:
        """Remove the socket of a supervisor that died, and nothing else. Raises: ConfigError, OSError."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ConfigError(f"supervisor.control_socket: {self.path} is there and no socket; remove it, or name another place")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
            try:
                connect(probe, self.path)
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except BlockingIOError:
                pass  # so many wait there that it takes no more
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:  # somebody listens, and speaks another kind of socket
                    raise
        raise ConfigError(f"supervisor.control_socket: another process listens on {self.path}; name another place")

    def _look_after_the_socket(self, now: float) -> None:
        """Somebody may have removed its file, and the disk may have had no room for it."""
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            self._set_accepting(True)
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_AT_THE_FILE_S
        if self._listener is not None and self._is_lost():
            log.warning("the control socket %s was removed: making it again", self.path, extra={"action": "control"})
            self._stop_listening()
        if self._listener is None:
            with suppress(OSError, ConfigError):
                self._listen()

    def _is_lost(self) -> bool:
        """Whether its name is gone, or names another file. Where that cannot be seen it is not touched."""
        try:
            found = self.path.lstat()
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)
        return (found.st_dev, found.st_ino) != self._file

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        if self._accepts:
            self._poll.unregister(self._listener.fileno())
        self._listener.close()
        self._listener = None
        with suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._file:  # not that of somebody who has taken the name since
                self.path.unlink()

    # ---- clients

    def _accept(self, now: float, steps: int, until: float) -> int:
        """Take those who wait, and read at once what they have already sent. Returns the steps that it took."""
        assert self._listener is not None
        for step in range(steps):
            if step and time.monotonic() >= until:
                return step
            if len(self._clients) >= CLIENTS_MAX and not self._let_the_oldest_idle_go():
                self._set_accepting(False)
                return step
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if (
                    error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
                    and not self._let_the_oldest_idle_go()
                ):
                    # It would stay readable, and the loop awake.
                    self._set_accepting(False)
                    self._accept_at = now + _ACCEPT_AGAIN_S
                return step  # none waits, or it has left already
            connection.setblocking(False)
            client = _Client(connection, now)
            self._clients[connection.fileno()] = client
            self._poll.register(connection.fileno(), select.EPOLLIN)
            self._read(client, now)
        return steps

    def _read(self, client: _Client, now: float) -> None:
        """Hear a client's one request. Whatever comes after it, also its end, means that it does not wait any more."""
        try:
            data = client.connection.recv(REQUEST_MAX_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or client.ask_again is not None:
            self._let_go(client)
            return
        reply = self._reply_to(data, client, now)
        if callable(reply):
            client.ask_again = reply
            self._asked.append(client)
        else:
            self._send(client, reply)

    def _reply_to(self, data: bytes, client: _Client, now: float) -> Reply | AskAgain:
        if len(data) > REQUEST_MAX_BYTES:
            return Refused(f"a request has at most {REQUEST_MAX_BYTES} bytes", ExitCode.USAGE)
        try:
            protocol = protocol_of(data)
            if protocol != PROTOCOL:
                return Refused(
                    f"the supervisor speaks protocol {PROTOCOL}, the command {protocol}: use the command of the supervisor's version",
                    ExitCode.USAGE,
                )
            request = decode_request(data).request
        except msgspec.DecodeError as error:
            return Refused(f"not a request: {error}", ExitCode.USAGE)
        peer = self._peer(client.connection)
        if why_not := self._why_not(request, peer):
            self._note_refusal(why_not, peer, now)
            return Refused(why_not)
        return without_harm(lambda: self._answer(request, peer))

    def _ask_again(self) -> int:
        """Those whose reply was not there yet, in turn. Returns how many."""
        steps = min(len(self._asked), STEPS_MAX // 2)
        for _ in range(steps):
            client = self._asked.popleft()
            assert client.ask_again is not None
            reply = without_harm(client.ask_again)
            if reply is None:
                self._asked.append(client)
            else:
                self._send(client, reply)
        return steps

    def _send(self, client: _Client, reply: Reply) -> None:
        """In one piece, which the kernel keeps for the client when this end is closed."""
        # Many ask the same in one turn, and get the same.
        if self._encoded is None or self._encoded[0] is not reply:
            data = encode_reply(reply)
            if len(data) > REPLY_MAX_BYTES:
                data = encode_reply(Refused(f"the reply has {len(data)} bytes, more than a packet may have ({REPLY_MAX_BYTES})"))
            self._encoded = (reply, data)
        with suppress(OSError):  # it has left
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REPLY_MAX_BYTES)
            client.connection.send(self._encoded[1], socket.MSG_NOSIGNAL)
        self._let_go(client)

    def _let_the_silent_go(self, now: float) -> None:
        for client in list(self._clients.values()):
            if client.ask_again is None and now - client.since >= SILENT_MAX_S:
                self._let_go(client)

    def _let_the_oldest_idle_go(self) -> bool:
        for client in self._clients.values():
            if client.ask_again is None:
                self._let_go(client)
                return True
        return False

    def _let_go(self, client: _Client) -> None:
        fd = client.connection.fileno()
        self._poll.unregister(fd)
        client.connection.close()
        del self._clients[fd]
        if client in self._asked:
            self._asked.remove(client)
        if self._accept_at is None:
            self._set_accepting(True)

    def _set_accepting(self, accepts: bool) -> None:
        if self._listener is None or accepts == self._accepts:
            return
        self._accepts = accepts
        if accepts:
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        else:
            self._poll.unregister(self._listener.fileno())

    # ---- who may ask what

    def _peer(self, connection: socket.socket) -> Peer:
        pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        groups = array.array("I")
        with suppress(OSError):  # in more groups than there is room for: the first one counts
            groups.frombytes(connection.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _GROUPS_MAX_BYTES))
        return Peer(pid, uid, frozenset((gid, *groups)), self._users.get(uid, ""))

    def _why_not(self, request: Request, peer: Peer) -> str:
        if peer.uid in self._users:
            return ""
        if self._group not in peer.groups:
            return (
                f"only {self._masters()} and the group of {self.path} may ask this supervisor, and uid {peer.uid} is none of them"
            )
        if isinstance(request, Status):
            return ""
        return f"only {self._masters()} may {request.__struct_config__.tag}; the group of {self.path} may ask for the status"

    def _masters(self) -> str:
        return " or ".join(dict.fromkeys(self._users.values()))

    def _note_refusal(self, why_not: str, peer: Peer, now: float) -> None:
        """The newest of the last seconds, with how many there were: nobody may fill the log."""
        self._refusals += 1
        if self._said_at is None or now - self._said_at >= _SAY_REFUSALS_EVERY_S:
            log.warning(
                "refused %s (%d since the last such line): %s", peer, self._refusals, why_not, extra={"action": "command_refused"}
            )
            self._said_at = now
            self._refusals = 0


class _Client:
    def __init__(self, connection: socket.socket, since: float) -> None:
        self.connection = connection
        self.since = since
        self.ask_again: AskAgain | None = None


def without_harm(answer: Callable[[], T]) -> T | Refused:
    """A mistake of ours in one command ends that command, and not the loop that watches over everything."""
    try:
        return answer()
    except Exception as error:
        log.exception("a command failed", extra={"action": "command_failed"})
        return Refused(f"it failed unexpectedly ({type(error).__name__}: {error}); the log of the supervisor has more")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"  # without a name, as in a container

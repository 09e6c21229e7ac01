"""A supervisor's control socket without a supervisor: it says what a test tells it to say, and remembers what it was asked."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from horizon.control import (
    REQUEST_MAX_BYTES,
    Done,
    ProcessStatus,
    Refused,
    Reply,
    Request,
    Status,
    StatusReply,
    WriterHealth,
    decode_request,
    encode_reply,
)

MAKER = ProcessStatus(
    name="maker",
    kind="strategy",
    state="ready",
    wanted=True,
    pid=4242,
    run_id="run-1",
    starts=1,
    uptime_s=75.2,
    heartbeat_age_s=0.4,
    cycles=150,
    orders=300,
    fills=12,
    position=0.3,
    pnl=-1.5,
    unacked=4,
    latency_ms=2.345,
)
BROKEN = ProcessStatus(name="broken", kind="strategy", state="quarantined", wanted=True, why="5 crashes within 300 s", restarts=5)
WRITER = ProcessStatus(name="writer", kind="writer", state="ready", wanted=True, pid=4000, uptime_s=80.0)
GATEWAY = ProcessStatus(name="gateway", kind="gateway", state="ready", wanted=True, pid=4001, uptime_s=79.0)


def status(*processes: ProcessStatus, **changes: Any) -> StatusReply:
    """A supervisor that is well, with these strategies."""
    well = StatusReply(
        version="0.1.0",
        pid=os.getpid(),
        database="/nowhere/horizon.db",
        config="/nowhere/horizon.toml",
        uptime_s=81.0,
        loop_lag_ms=1.5,
        is_stopping=False,
        probe_max_age_s=15.0,
        writer=WriterHealth(commit_age_s=0.5, committed=1000),
        processes=[*processes, WRITER, GATEWAY],
    )
    return msgspec.structs.replace(well, **changes)


class ScriptedSupervisor:
    """`status` may be changed at any time; a command is answered Done, or Refused when `refusal` is set."""

    def __init__(self, path: Path, told: StatusReply) -> None:
        self.status = told
        self.refusal = ""
        self.asked: list[Request] = []
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = os.open(path.parent, os.O_PATH)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def commands(self) -> list[Request]:
        return [request for request in self.asked if not isinstance(request, Status)]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close alone does not
        self._socket.close()
        self._thread.join(5)
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(OSError):
                data = client.recv(REQUEST_MAX_BYTES)
                if not data:
                    continue  # who came was killed before it asked
                request = decode_request(data).request
                self.asked.append(request)
                client.send(encode_reply(self._answer(request)))

    def _answer(self, request: Request) -> Reply:
        if isinstance(request, Status):
            return self.status
        return Refused(self.refusal) if self.refusal else Done([f"{type(request).__name__} is under way"])


@contextmanager
def supervising(path: Path, told: StatusReply) -> Iterator[ScriptedSupervisor]:
    path.parent.mkdir(exist_ok=True)
    supervisor = ScriptedSupervisor(path, told)
    try:
        yield supervisor
    finally:
        supervisor.close()

"""Redis: one XADD per event to one stream, with the append-only file synced every second or always."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.alternatives.server import Server, find_program, version_of
from bench.alternatives.way import Caller, Direct, Event, Service, installed, missing_module

_STREAM = "events"


@dataclass(frozen=True)
class RedisStream:
    name: str
    fsync: str  # everysec or always
    paced: bool = True
    flooded: bool = True

    def missing(self) -> str | None:
        if find_program("redis-server") is None:
            return "redis-server (Debian, Ubuntu: apt install redis-server; the benchmark starts its own)"
        return missing_module("redis")

    def made_of(self) -> str:
        return f"{version_of(find_program('redis-server'))} with {installed('redis')}"

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        # A socket's path may be 107 bytes long.
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as sockets:
            (folder / "socket").write_text(f"{sockets}/redis.sock")
            command = [
                str(find_program("redis-server")),
                "--port",
                "0",
                "--unixsocket",
                f"{sockets}/redis.sock",
                "--dir",
                str(folder),
            ]
            command += ["--appendonly", "yes", "--appendfsync", self.fsync, "--save", "", "--daemonize", "no"]
            client = _connected(folder)
            server = Server(command, folder / "redis.log", None, lambda: _answers(client))
            try:
                yield _Redis(server, client)
            finally:
                client.close()
                server.stop()

    def open(self, folder: Path, number: int) -> Caller:
        return _Caller(folder)


class _Redis:
    def __init__(self, server: Server, client: Any) -> None:
        self._server = server
        self._client = client

    def count(self) -> int | None:
        return int(self._client.xlen(_STREAM))

    def kill(self) -> bool:
        self._client.close()
        self._server.kill_and_restart()
        return True


class _Caller(Direct):
    def __init__(self, folder: Path) -> None:
        self._client = _connected(folder)
        self._encode = msgspec.msgpack.Encoder().encode

    def store(self, event: Event) -> None:
        self._client.xadd(_STREAM, {"e": self._encode(event)})

    def close(self) -> None:
        self._client.close()


def _connected(folder: Path) -> Any:
    import redis

    return redis.Redis(unix_socket_path=(folder / "socket").read_text())


def _answers(client: Any) -> bool:
    import redis

    with suppress(redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
        return bool(client.ping())
    return False

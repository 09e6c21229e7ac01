"""`Gateway.run`: hear what processes count, ask the supervisor how they are, and answer whoever asks.

One thread, but for the two questions that may have to wait: those to the supervisor and to dlq.db. What is told is at most a second
old, and an answer never waits for anybody: a supervisor that is silent is the answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from horizon import control, telemetry
from horizon.channel import Channel, Heartbeat, Ready, Stop
from horizon.config import Config
from horizon.control import StatusReply
from horizon.metrics import METRICS, Metrics, Reading, collected
from horizon.paths import DatabasePaths
from supervisor.gateway import look
from supervisor.gateway.merge import Merged
from supervisor.gateway.serve import Answer, Request, Server

T = TypeVar("T")

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_HEAR_EVERY_S = 0.25
_LETTERS_EVERY_S = 5.0
_STATUS_MAX_AGE_S = 3.0
_ENCODED_FOR_S = 1.0  # so that many scrapers cost as much as one
_MESSAGES_A_TURN = 1000
_RECEIVE_QUEUE = 4  # snapshots a process
_OWN_ROOM = 100_000  # samples
_PLAIN = "text/plain; version=0.0.4; charset=utf-8"
_OURS = {metric.name.removesuffix("_total"): metric.type for metric in METRICS}


class Gateway:
    """One gateway of one supervisor, from its first beat to its Stop."""

    def __init__(self, config: Config, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._paths = DatabasePaths.of(config.database.path)
        self._control_socket = config.supervisor.control_socket or self._paths.control_socket
        self._merged = Merged(_OURS, lambda sentence: log.warning("%s", sentence, extra={"action": "metrics"}))
        self._metrics = Metrics()
        self._status: StatusReply | None = None  # the newest
        self._status_at = float("-inf")
        self._silence = "the supervisor has not been asked yet"
        self._letters: list[Reading] = []
        self._encoded: dict[str, tuple[float, bytes]] = {}  # by content type
        self._turns = 0
        self._threads = ThreadPoolExecutor(2)  # one for each question that may wait
        self._generation = time.monotonic_ns()
        self._context = zmq.Context(io_threads=1)
        self._pull: zmq.Socket[bytes] | None = None
        self._said_deaf = False

    async def run(self) -> None:
        """Until the supervisor says so or is gone."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._channel.fileno(), self._hear_supervisor, over)
        self._channel.send(Ready(run_id=""))  # whatever becomes of the port: nobody waits for it
        tasks = [
            asyncio.create_task(_every(_EVERY_S, self._turn)),
            asyncio.create_task(_every(_HEAR_EVERY_S, self._hear)),
            asyncio.create_task(_every(_EVERY_S, self._ask_supervisor)),
            asyncio.create_task(_every(_LETTERS_EVERY_S, self._count_letters)),
            asyncio.create_task(Server(self._config.metrics.address, self._config.metrics.port, self.answer).run()),
            asyncio.create_task(over.wait()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # a bug ends the gateway with its traceback, and the supervisor starts another one
            task.cancel()

    async def answer(self, request: Request) -> Answer:
        if request.path == "/metrics":
            return self._exposition(request.headers.get("accept", ""))
        if request.path == "/healthz":
            return self._verdict(control.sick)
        if request.path == "/readyz":
            return self._verdict(control.not_ready)
        if request.path == "/status":
            return self._status_document()
        return Answer(404, b"/metrics /healthz /readyz /status\n")

    # ---- hear

    async def _turn(self) -> None:
        self._turns += 1
        self._channel.send(Heartbeat(progress=self._turns))
        now = time.monotonic()
        status = self._fresh_status()
        if status is not None:
            self._take("supervisor", look.of_supervisor(status), now)
            strategies = {_source(process.name) for process in status.strategies}
            self._merged.forget_unknown({"supervisor", "gateway", _source(None), *strategies}, now)
        up = Reading("horizon_supervisor_up", status is not None)
        self._take("gateway", [up, *look.of_files(self._paths), *self._letters], now)

    def _take(self, source: str, readings: Iterable[Reading], now: float) -> None:
        """Figures of this process's own making."""
        families = [telemetry.family_of(metric) for metric in collected(readings)]
        if source == "gateway":
            families += [telemetry.family_of(metric) for metric in self._metrics.registry.collect()]
        self._merged.take(source, {}, self._generation, families, now, _OWN_ROOM)

    async def _hear(self) -> None:
        """Take the snapshots that have arrived."""
        self._pull = self._pull or self._bind()
        # Sockets of several incarnations are read in turns: the older ones first, whose time would be over else.
        for snapshot in sorted(self._received(), key=lambda one: one.generation):
            labels = {} if snapshot.strategy is None else {"strategy": snapshot.strategy}
            self._merged.take(_source(snapshot.strategy), labels, snapshot.generation, snapshot.families, time.monotonic())

    def _received(self) -> Iterator[telemetry.Snapshot]:
        for _ in range(_MESSAGES_A_TURN if self._pull is not None else 0):
            assert self._pull is not None
            try:
                yield telemetry.decode(self._pull.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            except msgspec.DecodeError:
                self._metrics.counter("horizon_snapshots_dropped_total").labels("not_a_snapshot").inc()

    def _bind(self) -> zmq.Socket[bytes] | None:
        """The end that every process sends to; None while that cannot be had."""
        pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        try:
            folder = os.open(self._paths.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                pull.setsockopt(zmq.LINGER, 0)
                pull.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
                pull.setsockopt(zmq.MAXMSGSIZE, telemetry.MESSAGE_MAX_BYTES)
                pull.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
                pull.bind(f"ipc:///proc/self/fd/{folder}/{self._paths.metrics_socket.name}")
            finally:
                os.close(folder)
        except OSError as error:  # ZMQError is one
            pull.close()
            if not self._said_deaf:
                self._said_deaf = True
                log.warning(
                    "%s: what the processes count cannot be heard: %s", self._paths.folder, error.strerror or error,
                    extra={"action": "metrics"},
                )  # fmt: skip
            return None
        return pull

    def _hear_supervisor(self, over: asyncio.Event) -> None:
        if any(isinstance(message, Stop) for message in self._channel.receive()) or self._channel.closed:
            over.set()
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    # ---- ask

    async def _ask_supervisor(self) -> None:
        answer = await self._in_thread(lambda: look.supervisor_status(self._control_socket))
        if isinstance(answer, StatusReply):
            self._status, self._status_at = answer, time.monotonic()
        else:
            self._silence = answer

    async def _count_letters(self) -> None:
        told = self._status.strategies if self._status is not None else None
        strategies = list(self._config.strategies) if told is None else [process.name for process in told]
        self._letters = await self._in_thread(lambda: look.of_dead_letters(self._paths, strategies))

    async def _in_thread(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)

    # ---- answer

    def _exposition(self, accept: str) -> Answer:
        wants_open = "application/openmetrics-text" in accept
        content_type = openmetrics.CONTENT_TYPE_LATEST if wants_open else _PLAIN
        now = time.monotonic()
        at, body = self._encoded.get(content_type, (float("-inf"), b""))
        if now - at > _ENCODED_FOR_S:
            body = (openmetrics.generate_latest if wants_open else generate_latest)(_AsCollector(self._merged.collect(now)))
            self._encoded[content_type] = now, body
        return Answer(200, body, content_type)

    def _verdict(self, problems_of: Callable[[StatusReply], list[str]]) -> Answer:
        status = self._fresh_status()
        problems = problems_of(status) if status is not None else [self._silence]
        return (
            Answer(503, self._public("".join(f"{problem}\n" for problem in problems)).encode())
            if problems
            else Answer(200, b"ok\n")
        )

    def _status_document(self) -> Answer:
        status = self._fresh_status()
        document: object = {"error": self._silence}
        if status is not None:
            document = msgspec.to_builtins(
                msgspec.structs.replace(status, database=Path(status.database).name, config=Path(status.config).name)
            )
        body = msgspec.json.format(msgspec.json.encode(self._each_public(document)), indent=2)
        return Answer(503 if status is None else 200, body + b"\n", "application/json")

    def _fresh_status(self) -> StatusReply | None:
        return self._status if time.monotonic() - self._status_at <= _STATUS_MAX_AGE_S else None

    def _each_public(self, value: object) -> object:
        if isinstance(value, str):
            return self._public(value)
        if isinstance(value, list):
            return [self._each_public(one) for one in value]
        if isinstance(value, dict):
            return {key: self._each_public(one) for key, one in value.items()}
        return value

    def _public(self, text: str) -> str:
        return look.without_folders(text, self._paths.folder.parent, self._config.folder)


class _AsCollector:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _source(strategy: str | None) -> str:
    """What a process is called among all: a strategy of a lone run may have any name."""
    return "writer" if strategy is None else f"strategy {strategy}"


async def _every(interval_s: float, do: Callable[[], Awaitable[None]]) -> None:
    while True:
        await do()
        await asyncio.sleep(interval_s)

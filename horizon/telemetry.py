"""What a process counts, sent to the gateway once a second: lossy, bounded, and never waited for.

A snapshot holds everything, so one that is lost is made up for by the next. There is no gateway, it is stopped, its socket is full:
each costs the sender an attempt a second and nothing else. Nothing is shared through files (`metrics.py` says why).
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
import zmq
from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

SEND_EVERY_S = 1.0
MESSAGE_MAX_BYTES = 2 * 1024 * 1024
SAMPLES_MAX = 2000  # of one process
_SAMPLE_MAX_BYTES = 512  # name and labels; so the longest message stays below its bound
_HELP_MAX_CHARS = 200
_QUEUE = 1  # snapshots; a newer one is worth more than an older
_LINGER_MS = 100  # for the last one
PREFIX = "horizon_"  # names that are ours; an author's metric of such a name is left out
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# What prometheus-client registers by itself; of every process, and the supervisor knows it better.
_OF_THE_LIBRARY = frozenset(
    {
        *("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds"),
        *("process_cpu_seconds", "process_open_fds", "process_max_fds", "python_info"),
        *("python_gc_objects_collected", "python_gc_objects_uncollectable", "python_gc_collections"),
    }
)


class Sample(msgspec.Struct, frozen=True, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with all its series, as prometheus-client collects it."""

    name: str
    type: str
    help: str
    samples: list[Sample]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What one process counts at one moment. A newer incarnation has a higher generation, and its counters begin again at 0."""

    strategy: str | None  # None: the writer
    generation: int
    families: list[Family]


class Registry(Protocol):
    def collect(self) -> Iterable[Metric]: ...


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def decode(data: bytes) -> Snapshot:
    """Raises: msgspec.DecodeError (of which ValidationError is one)."""
    return _decoder.decode(data)


class Sender:
    """One process's end of the socket to the gateway. Not thread-safe, and silent in the child of a fork."""

    def __init__(self, path: Path, strategy: str | None, ours: Registry, authors: Registry | None = None) -> None:
        """`path` is the gateway's socket, `authors` the registry in which a strategy's author counts, where there is one."""
        self._path = path
        self._strategy = strategy
        self._ours = ours
        self._authors = authors
        self._generation = time.monotonic_ns()  # of the host: rises from one incarnation to the next whatever the wall clock does
        self._pid = os.getpid()
        self._send_at = float("-inf")
        self._said: set[str] = set()
        self._folder: int | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def maybe_send(self, now: float) -> None:
        """Send a snapshot when a second is over since the last one. `now` is monotonic. Never blocks, never raises."""
        if now >= self._send_at and os.getpid() == self._pid:
            self._send_at = now + SEND_EVERY_S
            self._send()

    def close(self) -> None:
        """Send the last figures of this process and let go of the socket; takes no longer than a tenth of a second."""
        if os.getpid() != self._pid or self._send_at == float("inf"):
            return
        self._send_at = float("inf")
        self._send()
        with suppress(zmq.ZMQError):
            if self._socket is not None:
                self._socket.close(linger=_LINGER_MS)
            if self._context is not None:
                self._context.term()
        if self._folder is not None:
            os.close(self._folder)

    def _send(self) -> None:
        try:
            # Nobody there, or nobody who reads: then there is nothing to collect either.
            if self._open().poll(0, zmq.POLLOUT):
                snapshot = Snapshot(self._strategy, self._generation, self._families())
                self._socket.send(_encoder.encode(snapshot), zmq.NOBLOCK)  # type: ignore[union-attr]
        except zmq.Again:
            pass
        except Exception as error:
            self._say("failed", f"metrics could not be sent: {type(error).__name__}: {error}")

    def _open(self) -> zmq.Socket[bytes]:
        """The socket, connected in the background for as long as this process lives. Raises: OSError, ZMQError."""
        if self._socket is None:
            # Addressed by the folder's descriptor: the path of a socket may have 107 bytes, a folder's any number.
            self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._context = zmq.Context(io_threads=1)
            self._socket = self._context.socket(zmq.PUSH)
            self._socket.setsockopt(zmq.SNDHWM, _QUEUE)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)  # else a queue fills for a gateway that never comes
            self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
            self._socket.connect(f"ipc:///proc/self/fd/{self._folder}/{self._path.name}")
        return self._socket

    def _families(self) -> list[Family]:
        families = [family for metric in self._ours.collect() if (family := family_of(metric)).samples]
        room = SAMPLES_MAX - sum(len(family.samples) for family in families)
        try:
            for family in self._of_author():
                if len(family.samples) > room:
                    self._say("room", f"metric {family.name} is left out: a strategy may have {SAMPLES_MAX} series and has more")
                    continue
                room -= len(family.samples)
                families.append(family)
        except Exception as error:  # a collector of the author's; what came before it is sent
            self._say("collector", f"not all metrics of the strategy are sent: {type(error).__name__}: {error}")
        return families

    def _of_author(self) -> Iterator[Family]:
        for metric in self._authors.collect() if self._authors is not None else ():
            if metric.name in _OF_THE_LIBRARY:
                continue
            if metric.name.startswith(PREFIX):
                self._say(metric.name, f"metric {metric.name} is left out: names that begin with {PREFIX} are Horizon's own")
                continue
            family = family_of(metric)
            if len(family.samples) < len(metric.samples) - sum(
                _is_creation_time(metric, sample.name) for sample in metric.samples
            ):
                self._say(metric.name, f"series of metric {metric.name!a} are left out: their names or labels cannot be sent")
            if family.samples:
                yield family

    def _say(self, what: str, sentence: str) -> None:
        """Once for each thing: this runs every second."""
        if what not in self._said and len(self._said) < SAMPLES_MAX:
            self._said.add(what)
            log.warning("%s", sentence, extra={"action": "metrics"})


def family_of(metric: Metric) -> Family:
    """As it is sent: without creation times, which mean little once a counter goes on over restarts, and without what is too long."""
    samples = [
        Sample(sample.name, dict(sample.labels), float(sample.value))
        for sample in metric.samples
        if not _is_creation_time(metric, sample.name) and _is_fit(sample.name, sample.labels)
    ]
    text = metric.documentation[:_HELP_MAX_CHARS].encode("utf-8", "replace").decode()
    return Family(metric.name, metric.type, text, samples if NAME.fullmatch(metric.name) else [])


def _is_creation_time(metric: Metric, name: str) -> bool:
    return name == f"{metric.name}_created"


def _is_fit(name: str, labels: dict[str, str]) -> bool:
    try:
        size = len(name.encode()) + sum(len(key.encode()) + len(value.encode()) for key, value in labels.items())
    except UnicodeEncodeError:
        return False  # half a character, which no UTF-8 text can hold
    return size <= _SAMPLE_MAX_BYTES and bool(NAME.fullmatch(name)) and all(LABEL.fullmatch(label) for label in labels)

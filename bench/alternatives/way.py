"""What every way to keep events has to say about itself, so that all are driven alike."""

from __future__ import annotations

import importlib.metadata
import select
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.open_loop import Alarm
from horizon.records import Fill, OrderEvent

Event = Fill | OrderEvent


class Caller(Protocol):
    """One process's end: what a strategy would call."""

    @property
    def errors(self) -> int:
        """Events that were refused at first; each was tried again, at once, until it was stored."""

    @property
    def unacked(self) -> int:
        """Stored, in this way's own sense, and not known to be committed; 0 for a way that returns after its commit."""

    def store(self, event: Event) -> None:
        """Return when this way says that the strategy may go on."""

    def end_cycle(self) -> None:
        """What else this way does in the strategy's process for what was stored."""

    def wait(self, alarm: Alarm, timeout_s: float) -> None:
        """Until the alarm rings, doing what this way does between two events."""

    def flood(self, event: Event) -> None:
        """As `store` and `end_cycle`, when the events never stop."""

    def settle(self) -> None:
        """Return when everything is committed."""

    def known_at(self, events: int) -> Sequence[float] | None:
        """When the caller knew of each of its last events that it was committed; None: when `store` returned."""

    def close(self) -> None:
        """After `settle`."""


class Service(Protocol):
    """What stands behind the callers: a file, a server, a writer."""

    def count(self) -> int | None:
        """How many events anybody can read; None for what keeps nothing."""

    def kill(self) -> bool:
        """Kill it with SIGKILL and start it again. False when there is none: the callers do everything themselves."""


class CannotServe(Exception):
    """It is installed and does not run here; the text says why."""


class Way(Protocol):
    """A way to keep events. Goes to other processes, so it holds nothing but its settings."""

    @property
    def name(self) -> str: ...

    @property
    def paced(self) -> bool:
        """Whether a latency means anything: not for one that collects thousands and returns before."""

    @property
    def flooded(self) -> bool:
        """Whether its greatest pace means anything."""

    def missing(self) -> str | None:
        """What would have to be installed, or None."""

    def made_of(self) -> str:
        """Programs and libraries with their versions; empty when the facts of the machine say all. For a way that is not missing."""

    def serve(self, folder: Path) -> AbstractContextManager[Service]:
        """Begin with nothing, in a folder of its own; leave no process. Raises: CannotServe."""

    def open(self, folder: Path, number: int) -> Caller:
        """In the process of caller `number`."""


def missing_module(*names: str) -> str | None:
    """The usual answer of `missing`."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    return f"the Python package {', '.join(absent)} (pip install -e '.[bench]')" if absent else None


def installed(name: str) -> str:
    return f"{name} {importlib.metadata.version(name)}"


class Direct(ABC):
    """A caller whose `store` returns after its commit."""

    errors = 0
    unacked = 0

    @abstractmethod
    def store(self, event: Event) -> None:
        """Returns when the event is committed."""

    def end_cycle(self) -> None:  # noqa: B027
        """Nothing: the event is committed."""

    def wait(self, alarm: Alarm, timeout_s: float) -> None:
        select.select([alarm], [], [], timeout_s)

    def flood(self, event: Event) -> None:
        self.store(event)

    def settle(self) -> None:  # noqa: B027
        """Nothing: every event is committed."""

    def known_at(self, events: int) -> Sequence[float] | None:
        return None

    def close(self) -> None:  # noqa: B027
        """Nothing is open that the end of the process does not close."""


@dataclass(frozen=True)
class Nothing:
    """The floor: an empty call. What it shows is the benchmark's own pace and the machine's other processes."""

    name: str
    paced: bool = True
    flooded: bool = False

    def missing(self) -> str | None:
        return None

    def made_of(self) -> str:
        return ""

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Service]:
        yield _Nobody()

    def open(self, folder: Path, number: int) -> Caller:
        return _Idler()


class _Nobody:
    def count(self) -> int | None:
        return None

    def kill(self) -> bool:
        return False


class _Idler(Direct):
    def store(self, event: Event) -> None:
        pass

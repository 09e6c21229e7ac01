"""What every way to keep events has to say about itself, so that all are driven alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from horizon.records import Fill, OrderEvent

Event = Fill | OrderEvent


class Caller(Protocol):
    """One process's end: what a strategy would call."""

    @property
    def errors(self) -> int:
        """Events that were refused at first; each was tried again, at once, until it was stored."""

    @property
    def unacked(self) -> int:
        """Stored, in this way's own sense, but not committed yet; 0 for a way that returns after its commit."""

    def store(self, event: Event) -> None:
        """Return when this way says that the strategy may go on."""

    def idle(self) -> None:
        """What this way does between two events."""

    def flood(self, event: Event) -> None:
        """As `store`, when the events never stop."""

    def close(self) -> None:
        """Return when everything is committed."""


class Service(Protocol):
    """What stands behind the callers: a file, a server, a writer."""

    def count(self) -> int:
        """How many events anybody can read."""

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

    def missing(self) -> str | None:
        """What would have to be installed, or None."""

    def serve(self, folder: Path) -> AbstractContextManager[Service]:
        """Begin with nothing, in a folder of its own; leave no process. Raises: CannotServe."""

    def open(self, folder: Path, number: int) -> Caller:
        """In the process of caller `number`."""


def missing_module(*names: str) -> str | None:
    """The usual answer of `missing`."""
    from importlib.util import find_spec

    absent = [name for name in names if find_spec(name) is None]
    return f"the Python package {', '.join(absent)} (pip install -e '.[bench]')" if absent else None


class Direct(ABC):
    """A caller whose `store` returns after its commit."""

    errors = 0
    unacked = 0

    @abstractmethod
    def store(self, event: Event) -> None:
        """Returns when the event is committed."""

    def idle(self) -> None:  # noqa: B027
        """Nothing: the event is committed."""

    def flood(self, event: Event) -> None:
        self.store(event)

    def close(self) -> None:  # noqa: B027
        """Nothing is open that the end of the process does not close."""

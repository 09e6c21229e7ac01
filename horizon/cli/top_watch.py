"""What `horizon top` shows, gathered by a thread of its own: a supervisor that hangs, or a disk that does, must not hold up the keys.

Everything is asked for anew each time, in short reads; nothing here writes anything but the commands that a person gave.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from horizon.cli.log_reader import LogFile, merged_newest_first
from horizon.control import Done, DumpReply, NoSupervisor, Request, RequestRefused, Status, StatusReply, ask
from horizon.errors import HorizonError
from horizon.logs import EVENTS, as_text, log_file_name
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.store.read import PositionView

EVERY_S = 0.5
_ASK_TIMEOUT_S = 5.0
_RATE_OVER_S = 5.0
_LINES = 40  # of the log, for one strategy
_LINES_READ = 2000  # at most, to find as many that matter
_WRITER = "writer"
_MATTERS = ("warning", "error", "critical")


class Seen(NamedTuple):
    """All of it at one moment."""

    status: StatusReply | None = None  # the newest; None: there has been none yet
    silence: str = ""  # why there is none now; empty: it is of now
    seen_at: float = 0.0  # monotonic
    rates: Mapping[str, float] = MappingProxyType({})  # events per second: orders and fills of a strategy, commits of the writer
    database_bytes: int | None = None
    wal_bytes: int | None = None
    selected: str = ""  # whose these are:
    positions: tuple[PositionView, ...] = ()
    positions_problem: str = ""
    entries: tuple[str, ...] = ()  # what was logged by it and about it, newest first


class Answer(NamedTuple):
    """What became of a command."""

    request: Request
    text: str
    is_good: bool = True


class Rates:
    """Events per second over the last seconds, from counters that begin anew with each incarnation."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()

    def note(self, now: float, status: StatusReply) -> dict[str, float]:
        counts = {process.name: (process.starts, process.orders + process.fills) for process in status.strategies}
        starts = next((process.starts for process in status.processes if process.kind == "writer"), 0)
        counts[_WRITER] = (starts, status.writer.committed)
        self._samples.append((now, counts))
        while now - self._samples[0][0] > _RATE_OVER_S:
            self._samples.popleft()
        return {
            name: rate for name, (starts, count) in counts.items() if (rate := self._rate(now, name, starts, count)) is not None
        }

    def _rate(self, now: float, name: str, starts: int, count: int) -> float | None:
        for at, counts in self._samples:
            before = counts.get(name)
            if before is not None and before[0] == starts and before[1] <= count and at < now:
                return (count - before[1]) / (now - at)
        return None


class Watcher:
    """`seen` is replaced as a whole, so it may be read at any time; `selected` says whose positions and lines are wanted."""

    def __init__(self, socket: Path, database: Path, logs: Path, every_s: float = EVERY_S) -> None:
        self.seen = Seen()
        self.selected = ""
        self.failure: BaseException | None = None  # a bug; without a word of it the screen would stand still for ever
        self._socket = socket
        self._paths = DatabasePaths.of(database)
        self._logs = logs
        self._every_s = every_s
        self._rates = Rates()
        self._wishes: SimpleQueue[Request | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def select(self, name: str) -> None:
        if name != self.selected:
            self.selected = name
            self._wishes.put(None)

    def tell(self, request: Request) -> None:
        self._wishes.put(request)

    def answers(self) -> Iterator[Answer]:
        """What has been answered since the last call."""
        with suppress(Empty):
            while True:
                yield self._answers.get_nowait()

    def end(self) -> None:
        """Waits for nothing: the thread is a daemon."""
        self._ended = True
        self._wishes.put(None)

    def _run(self) -> None:
        try:
            while not self._ended:
                self.seen = self._look()
                with suppress(Empty):
                    wish = self._wishes.get(timeout=self._every_s)
                    if wish is not None:
                        self._answers.put(self._carry_out(wish))
        except BaseException as error:
            self.failure = error

    def _carry_out(self, request: Request) -> Answer:
        try:
            reply = ask(self._socket, request, _ASK_TIMEOUT_S)
        except (NoSupervisor, RequestRefused) as error:
            return Answer(request, str(error), False)
        if isinstance(reply, DumpReply):
            return Answer(request, reply.text)
        lines = reply.lines if isinstance(reply, Done) else []
        return Answer(request, "; ".join(lines) or f"{_told(request)}: under way")

    def _look(self) -> Seen:
        last = self.seen
        selected = self.selected
        status, silence, seen_at, rates = last.status, "", last.seen_at, last.rates
        try:
            reply = ask(self._socket, Status(), _ASK_TIMEOUT_S)
            assert isinstance(reply, StatusReply)
            status, seen_at = reply, time.monotonic()
            rates = self._rates.note(seen_at, reply)
        except (NoSupervisor, RequestRefused, msgspec.MsgspecError) as error:
            silence, rates = str(error), {}
        positions, problem = self._positions(selected) if selected else ((), "")
        return Seen(
            status=status,
            silence=silence,
            seen_at=seen_at,
            rates=rates,
            database_bytes=_size(self._paths.database),
            wal_bytes=_size(self._paths.database.with_name(self._paths.database.name + "-wal")),
            selected=selected,
            positions=positions,
            positions_problem=problem,
            entries=tuple(self._entries(selected)) if selected else (),
        )

    def _positions(self, strategy: str) -> tuple[tuple[PositionView, ...], str]:
        """Fetched and let go of at once (R28)."""
        from horizon.store import read
        from horizon.store.connection import open_reader

        if not self._paths.database.exists():
            return (), ""
        try:
            with closing(open_reader(self._paths.database)) as connection:
                found = read.positions(connection, strategy=strategy)
        except HorizonError as error:
            return (), str(error)
        return tuple(position for position in found if position.size or position.realized_pnl), ""

    def _entries(self, process: str) -> Iterator[str]:
        """Warnings and errors of a process, and what the supervisor did to it; none when this user may not read them."""
        files = [LogFile(self._logs / log_file_name(process)), LogFile(self._logs / f"{EVENTS}.log")]
        try:
            lines = islice(merged_newest_first(files), _LINES_READ)
            yield from islice((as_text(line.entry) for line in lines if _is_about(line.entry, process)), _LINES)
        except OSError:
            return
        finally:
            for file in files:
                file.close()


def _told(request: Request) -> str:
    return " ".join([type(request).__name__.lower(), *getattr(request, "names", [])])


def _is_about(entry: dict[str, object], process: str) -> bool:
    """Its own warnings and errors, and whatever names it among the events."""
    if entry.get("strategy") == process:
        return entry.get("level") in _MATTERS
    if "about" in entry:
        return entry["about"] == process
    return process in str(entry.get("message", ""))


def _size(path: Path) -> int | None:
    """By its name alone: nothing is opened (R11)."""
    try:
        return path.stat().st_size
    except OSError:
        return None

"""Where every log entry ends: a rotating file of JSON lines per process, and a copy for the terminal.

The files come first in worth and nobody waits for the terminal: one that is stopped (Ctrl-S) or a pipe that nobody reads loses its copy
and nothing else. A disk that is slow or full costs log lines, which are counted, said once, and written about in the file itself when
it takes lines again. Who waits for a slow disk is the receiver thread of one worker, and then that worker drops and counts; the loop
never does, it uses `offer`.

There is no sync: a power cut may cost the last seconds of a log. A kill of the supervisor in the middle of a line leaves a torn one; it is
ended before the next line is written, and readers leave it out.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from horizon.config import Logs
from horizon.logs import EVENTS, as_json, as_text, entry_of, log_file_name, older_files, redacted_text
from horizon.paths import DatabasePaths
from supervisor.rate import BURST, LINES_PER_S, Rate

log = logging.getLogger(__name__)

OWN = "supervisor"
WAITING_MAX = 1000  # entries of one process that the loop has offered and that are not written yet
TEXT_MAX = 64 * 1024  # characters of one entry
_LOOK_EVERY_S = 1.0  # whether the file is still the one that its name names
_TRY_EVERY_S = 0.5  # whether a disk that failed takes lines again
HEALED_AFTER_S = 5.0  # without a failure


class Copies(Protocol):
    """What a Terminal is to the sink."""

    as_json: bool

    def say(self, entry: str) -> None: ...


class Sink:
    """Takes what every process says. Nothing here raises, and only `record` and `line` may wait, for the disk alone."""

    def __init__(self, logs: Logs, paths: DatabasePaths, terminal: Copies) -> None:
        self.folder = logs.folder or paths.logs
        self.dropped = 0  # entries that are in no file
        self._level = logging.getLevelNamesMapping()[logs.level.upper()]
        self._max_bytes = logs.max_bytes
        self._keep = logs.keep
        self._terminal = terminal
        self._files: dict[str, _File] = {}
        self._said: set[int | None] = set()  # errors of the disk that were said and are not over
        self._failed_at = 0.0
        self._lost = 0  # lines since then, of files that are healed
        self._lock = threading.Lock()  # of the names and the counts, never held while something is written
        self._waiting = _Waiting()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log sink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hear_own_log(self) -> None:
        """Take the supervisor's own log. Events are written down whatever level is asked for."""
        logging.root.addHandler(_OwnLog(self))
        logging.root.setLevel(min(self._level, logging.INFO))

    def record(self, process: str, record: logging.LogRecord) -> None:
        """A record of a worker, with its `run_id` on it."""
        try:
            entry = entry_of(record, process)
        except Exception:  # an attribute that cannot be shown; the receiver must not die of it
            self._count_dropped()
            return
        self.entry(process, record.levelno, entry)

    def line(self, process: str, text: str, pid: int | None = None, level: int = logging.WARNING) -> None:
        """What a process wrote to its stdout or stderr itself."""
        self.entry(process, level, _native(process, text, pid, "", level, time.time()))

    def entry(self, process: str, level: int, entry: Mapping[str, object]) -> None:
        """What was made into an entry elsewhere."""
        if level >= self._level:
            line = as_json(entry)
            self._terminal.say(line if self._terminal.as_json else as_text(entry))
            self._write(process, line)

    def offer(self, process: str, text: str, pid: int | None = None, run_id: str = "", level: int = logging.WARNING) -> None:
        """The same for the loop: never waits, drops what comes too fast. A text of several lines is one entry."""
        if level >= self._level and not self._waiting.put(process, _Offered(text, pid, run_id, level, time.time())):
            self._count_dropped()

    def close(self, timeout_s: float) -> None:
        """Write what waits; the disk may be one that never takes anything again."""
        self._closing.set()
        self._thread.join(timeout_s)

    def take_own(self, record: logging.LogRecord) -> None:
        """A record of the supervisor's own log: shown at once, written by the sink's thread."""
        entry = entry_of(record, OWN)
        if record.levelno >= self._level:
            self._terminal.say(as_json(entry) if self._terminal.as_json else as_text(entry))
        if not self._waiting.put(OWN, _Own(as_json(entry), record.levelno >= self._level, "action" in entry)):
            self._count_dropped()

    # ---- the sink's thread

    def _run(self) -> None:
        try_at = 0.0
        while True:
            closing = self._closing.is_set()
            taken = self._waiting.take(0.0 if closing else _TRY_EVERY_S)
            for process, item in taken:
                self._write_offered(process, item)
            for process, lost in self._waiting.lost().items():
                self.line(process, f"{lost} lines were dropped here: more came than could be written")
            if time.monotonic() >= try_at or closing:
                try_at = time.monotonic() + _TRY_EVERY_S
                self._try_what_failed()
            if closing and not taken:
                return

    def _write_offered(self, process: str, item: _Offered | _Own) -> None:
        if isinstance(item, _Own):
            if item.is_wanted:
                self._write(OWN, item.line)
            if item.is_event:
                self._write(EVENTS, item.line)
        else:
            self.entry(process, item.level, _native(process, *item))

    def _try_what_failed(self) -> None:
        with self._lock:
            failed = [(name, file) for name, file in self._files.items() if file.lost]
        for name, file in failed:
            lost = file.lost
            sentence = f"{lost} lines of the log were lost here: they could not be written"
            if file.heal(as_json(_native(name, sentence, os.getpid(), "", logging.WARNING, time.time()))):
                self._lost += lost
        if self._said and not failed and time.monotonic() >= self._failed_at + HEALED_AFTER_S:
            log.warning("the logs are written again; %d lines were lost", self._lost, extra={"action": "logs_healed"})
            self._lost = 0
            with self._lock:
                self._said.clear()

    # ---- the files

    def _write(self, process: str, line: str) -> None:
        with self._lock:
            file = self._files.get(process)
            if file is None:
                name = f"{EVENTS}.log" if process == EVENTS else log_file_name(process)
                file = self._files[process] = _File(self.folder / name, self._max_bytes, self._keep)
        try:
            if not file.write(line):
                self._count_dropped()
        except OSError as error:
            self._count_dropped()
            self._say_once(file, error)

    def _say_once(self, file: _File, error: OSError) -> None:
        """A full disk fails every file, and one that is nearly full fails again and again; one sentence is enough."""
        with self._lock:
            self._failed_at = time.monotonic()
            if error.errno in self._said:
                return
            self._said.add(error.errno)
        log.error(
            "the log cannot be written to %s: %s; its lines are lost until it can, nothing else is touched",
            file.path,
            error.strerror or error,
            extra={"action": "logs_lost"},
        )

    def _count_dropped(self) -> None:
        with self._lock:
            self.dropped += 1


class _Offered(NamedTuple):
    text: str
    pid: int | None
    run_id: str
    level: int
    time: float


class _Own(NamedTuple):
    line: str
    is_wanted: bool  # by its level
    is_event: bool


class _OwnLog(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.take_own(record)
        except Exception:
            self.handleError(record)


class _Waiting:
    """What the loop has offered. Every process has room of its own, so that no flood costs a line of another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[tuple[str, _Offered | _Own]] = deque()
        self._count: defaultdict[str, int] = defaultdict(int)
        self._lost: defaultdict[str, int] = defaultdict(int)
        self._rates: defaultdict[str, Rate] = defaultdict(lambda: Rate(LINES_PER_S, BURST))

    def put(self, process: str, item: _Offered | _Own) -> bool:
        """False when there is no room."""
        with self._changed:
            if self._count[process] >= WAITING_MAX or not self._rates[process].allows(time.monotonic()):
                self._lost[process] += 1
                return False
            self._count[process] += 1
            self._items.append((process, item))
            self._changed.notify()
            return True

    def take(self, timeout_s: float) -> list[tuple[str, _Offered | _Own]]:
        with self._changed:
            if not self._items and timeout_s:
                self._changed.wait(timeout_s)
            taken = list(self._items)
            self._items.clear()
            self._count.clear()
            return taken

    def lost(self) -> dict[str, int]:
        """How many were dropped, per process, since this was asked last."""
        with self._changed:
            lost, self._lost = dict(self._lost), defaultdict(int)
            return lost


class _File:
    """One rotating file. Receivers of an old and a new incarnation write to it at once, so it has a lock.

    After a failure it takes nothing until `heal` has worked: no thread hammers a full disk with every line of a flood.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self.path = path
        self.lost = 0  # lines since the failure; 0: it does not fail
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0
        self._look_at = 0.0

    def write(self, line: str) -> bool:
        """False when it failed before and was not healed. Raises: OSError, once per failure."""
        with self._lock:
            if self.lost:
                self.lost += 1
                return False
            try:
                self._append(line.encode() + b"\n")
            except OSError:
                self.lost = 1
                raise
            return True

    def heal(self, line: str) -> bool:
        """Try again, with a line that says what is missing before it."""
        with self._lock:
            try:
                self._append(line.encode() + b"\n")
            except OSError:
                return False
            self.lost = 0
            return True

    def _append(self, data: bytes) -> None:
        if self._fd >= 0 and time.monotonic() >= self._look_at:
            self._look_whether_it_is_still_there()
        if self._fd < 0:
            self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
            self._open()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)  # half a line is none
            self._close()  # the next one looks how it ends
            raise
        self._size += len(data)

    def _open(self) -> None:
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not blocking, and no link: whoever may write to the folder must not be able to stop this thread or to send it elsewhere.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(None, "it is not a file")
            if folder.stat().st_mode & stat.S_IRGRP and status.st_uid == os.geteuid():
                os.fchmod(fd, 0o640)  # who may look into the folder may read the log
            if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
                os.write(fd, b"\n")  # a supervisor was killed in the middle of a line
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def _look_whether_it_is_still_there(self) -> None:
        """Somebody may have moved or removed it: what is written then would be in no file that anybody finds."""
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            named = self.path.lstat()
        except FileNotFoundError:
            self._close()
            return
        ours = os.fstat(self._fd)
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            self._close()

    def _rotate(self) -> None:
        """The oldest first: a kill between two of them leaves a number out and loses nothing."""
        for number, path in reversed(older_files(self.path)):
            if number >= self._keep:
                path.unlink()
            else:
                path.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def entry_from(line: str, process: str, pid: int | None) -> tuple[int, dict[str, object]]:
    """A line of a process that logs JSON lines itself (writer, gateway); any other text is what it printed. With its level."""
    try:
        said = json.loads(line)
        level = logging.getLevelNamesMapping()[said["level"].upper()]
        entry = {"time": float(said["time"]), "level": said["level"].lower(), "strategy": process}
        return level, entry | {name: value for name, value in said.items() if name not in entry}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return logging.WARNING, _native(process, line, pid, "", logging.WARNING, time.time())


def _native(process: str, text: str, pid: int | None, run_id: str, level: int, at: float) -> dict[str, object]:
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]} …[{len(text) - TEXT_MAX} characters cut]"
    entry: dict[str, object] = {"time": at, "level": logging.getLevelName(level).lower(), "strategy": process}
    entry |= {name: value for name, value in (("run_id", run_id), ("pid", pid)) if value}
    return entry | {"logger": "output", "message": redacted_text(text)}

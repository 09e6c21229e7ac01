"""Reading the log files while they are written: a process's lines from its newest or oldest file on, and what comes to them.

The supervisor rotates under our eyes, so a file is known by its inode and its first bytes and not by its name: the inode of a file that was
removed may be that of a new one. Bytes after the last line feed are no line yet:
somebody is writing it, or was killed in the middle.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from horizon.logs import older_files

_BLOCK = 64 * 1024
_HEAD = 80  # bytes; the time of its first line is among them
_SCANS_MAX = 20


class Line(NamedTuple):
    time: float
    raw: str
    entry: dict[str, Any]


class _Known(NamedTuple):
    """What a file is told by, whatever it is called."""

    inode: int
    head: bytes
    changed_at: float

    def is_same(self, other: _Known) -> bool:
        return (self.inode, self.head) == (other.inode, other.head)


class LogFile:
    """The log of one process: the file that grows and those that it was before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable = 0  # lines that a kill cut off
        self.rotated_away = False  # it grew faster than it was read
        self._file: IO[bytes] | None = None  # the one that is followed
        self._begun = b""

    def newest_first(self) -> Iterator[Line]:
        """From the end of what is there now; `new` goes on behind it."""
        for number, known in enumerate(_files(self.path)):
            yield from self._part(known, _backwards, is_followed=not number)

    def oldest_first(self, since: float) -> Iterator[Line]:
        """From the first line at that time on (Unix seconds); `new` goes on behind the last one."""
        for number, known in reversed(list(enumerate(_files(self.path)))):
            if number == 0 or known.changed_at >= since:
                lines = self._part(known, _forwards, is_followed=not number)
                yield from (line for line in lines if line.time >= since)

    def new(self) -> list[Line]:
        """What has come since the last call, or since what was read; all of it when nothing was read."""
        found: list[Line] = []
        while self._file is not None or self._follow(None):
            found += self._lines(self._complete())
            assert self._file is not None
            if not self._is_rotated():
                break
            # Renamed: nobody writes to it any more. What came between the two looks is still to be read.
            found += self._lines(self._complete())
            if not self._follow(_known(self._file)):
                break
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part(self, known: _Known, read: Callable[[int, int], Iterator[bytes]], is_followed: bool) -> Iterator[Line]:
        """The lines of one file."""
        file = self._opened(known)
        if file is None:
            return
        end = _end_of_lines(file.fileno())
        if is_followed:
            self.close()
            self._file = file
            file.seek(end)
        try:
            yield from self._lines(read(file.fileno(), end))
        finally:
            if not is_followed:
                file.close()

    def _complete(self) -> list[bytes]:
        """The lines that were finished since the last call."""
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # somebody emptied it
            self._begun = b""
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        return lines

    def _is_rotated(self) -> bool:
        assert self._file is not None
        try:
            return self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False  # between two names; the next look will tell

    def _follow(self, last: _Known | None) -> bool:
        """Go on with the file after this one; None: begin with the oldest. False when there is none yet."""
        files = _files(self.path)
        place = next((place for place, known in enumerate(files) if last is not None and known.is_same(last)), None)
        self.rotated_away |= last is not None and place is None
        newer = files[:place]
        for following in reversed(newer):
            file = self._opened(following)
            if file is not None:
                self.close()
                self._file, self._begun = file, b""
                return True
        return False

    def _opened(self, known: _Known) -> IO[bytes] | None:
        """None when it was removed meanwhile."""
        for _ in range(_SCANS_MAX):
            for path in _paths(self.path):
                with suppress(FileNotFoundError):
                    file = path.open("rb")
                    if _known(file).is_same(known):
                        return file
                    file.close()
            if not any(other.is_same(known) for other in _files(self.path)):
                return None
        return None

    def _lines(self, raws: Iterable[bytes]) -> Iterator[Line]:
        for raw in raws:
            if not raw:
                continue
            try:
                entry = json.loads(raw)
                yield Line(float(entry["time"]), raw.decode(), entry)
            except (ValueError, KeyError, TypeError, RecursionError):
                self.unreadable += 1


def merged_newest_first(files: Iterable[LogFile]) -> Iterator[Line]:
    return heapq.merge(*(file.newest_first() for file in files), key=lambda line: line.time, reverse=True)


def merged_oldest_first(files: Iterable[LogFile], since: float) -> Iterator[Line]:
    return heapq.merge(*(file.oldest_first(since) for file in files), key=lambda line: line.time)


def _files(path: Path) -> list[_Known]:
    """The file and its older ones, newest first. While they are renamed a look may miss one: two must see the same."""
    seen: list[_Known] = []
    for _ in range(_SCANS_MAX):
        looked: list[_Known] = []
        for one in _paths(path):
            with suppress(FileNotFoundError), one.open("rb") as file:
                looked.append(_known(file))
        unique = list({(known.inode, known.head): known for known in looked if known.head}.values())
        if len(unique) == len(seen) and all(map(_Known.is_same, unique, seen)):
            break
        seen = unique
    return seen


def _paths(path: Path) -> list[Path]:
    return [path, *(older for _, older in older_files(path))]


def _known(file: IO[bytes]) -> _Known:
    status = os.fstat(file.fileno())
    return _Known(status.st_ino, os.pread(file.fileno(), _HEAD, 0), status.st_mtime)


def _end_of_lines(fd: int) -> int:
    """The place behind the last line feed."""
    position = os.fstat(fd).st_size
    while position > 0:
        start = max(0, position - _BLOCK)
        found = os.pread(fd, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    begun = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        begun, *lines = (os.pread(fd, end - start, start) + begun).split(b"\n")
        yield from reversed(lines)
        end = start
    yield begun


def _forwards(fd: int, end: int) -> Iterator[bytes]:
    begun = b""
    for start in range(0, end, _BLOCK):
        *lines, begun = (begun + os.pread(fd, min(_BLOCK, end - start), start)).split(b"\n")
        yield from lines

"""Exclusive locks on files, held by the kernel for as long as the process lives.

flock and not a pid file: a killed process leaves no stale lock, and no restart has to guess. Lock files are never deleted: a second
process could lock a new file of the same name while the first still holds the old one (R12). Their text is a hint for people.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """An exclusive lock on a file. Not inherited by children of a fork: see `abandon`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._file: tuple[int, int] | None = None  # what is locked, by device and inode

    @property
    def held(self) -> bool:
        return self._fd is not None

    def take(self, text: str = "") -> bool:
        """Take the lock and write a hint into its file. Returns False, at once, when another holds it.

        Raises: OSError, without the lock, when the file cannot be opened or the hint not written (a full disk).
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        except OSError:
            os.close(fd)
            raise
        status = os.fstat(fd)
        self._fd, self._file = fd, (status.st_dev, status.st_ino)
        return True

    def hint(self) -> str:
        """What the holder wrote about itself, or an empty string."""
        try:
            return self.path.read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def has_its_name(self) -> bool:
        """Whether the file that was locked is the one that has its name now (R12)."""
        try:
            named = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (named.st_dev, named.st_ino) == self._file

    def release(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptor. In the child of a fork this keeps the parent's lock from living on in the child (R24)."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock now. Takes and releases it, so a taker at the same instant has to try again."""
    if not path.exists():
        return True
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True

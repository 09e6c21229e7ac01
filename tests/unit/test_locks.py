"""A lock is held by a living process, never by a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from eventually import eventually

from horizon.locks import FileLock, is_free

HOLD = """
import sys
from pathlib import Path
from horizon.locks import FileLock
print(FileLock(Path(sys.argv[1])).take("pid=7"), flush=True)
sys.stdin.read()
"""


def test_a_second_taker_is_refused_at_once_and_told_by_whom(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take("pid=1")
    assert not second.take("pid=2")
    assert second.hint() == "pid=1"
    first.release()
    assert second.take("pid=2")
    assert second.hint() == "pid=2"


def test_a_killed_holder_leaves_a_free_lock(tmp_path: Path) -> None:
    """R10: the kernel says that the old incarnation is dead."""
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert not is_free(path)
    holder.kill()
    holder.communicate()
    assert eventually(lambda: is_free(path))


def test_a_lock_file_is_never_deleted(tmp_path: Path) -> None:
    """R12."""
    lock = FileLock(tmp_path / "lock")
    lock.take()
    lock.release()
    assert (tmp_path / "lock").exists()


def test_a_lock_tells_when_its_name_leads_to_another_file(tmp_path: Path) -> None:
    """R12: whoever locks that one could own the database too."""
    path, aside = tmp_path / "folder" / "lock", tmp_path / "aside"
    path.parent.mkdir()
    lock = FileLock(path)
    lock.take()
    assert lock.has_its_name()
    path.rename(aside)
    assert not lock.has_its_name()
    path.touch()
    assert not lock.has_its_name()
    aside.replace(path)
    assert lock.has_its_name()
    path.parent.rename(aside)
    path.parent.touch()
    assert not lock.has_its_name()


def test_a_lock_nobody_ever_took_is_free(tmp_path: Path) -> None:
    assert is_free(tmp_path / "lock")

"""Where the database lies: who else may touch it, on which file system, with how much room, on how fast a disk.

The database is only looked at from outside here: opening it by other means than SQLite would drop the locks of a connection (R11).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from horizon.cli.text import counted, size
from horizon.config import Config, Durability
from horizon.doctor.finding import Finding, ok, problem, warning
from horizon.errors import StoreError
from horizon.journal import DEFAULT_BYTES
from horizon.paths import DatabasePaths
from horizon.store.place import file_system_of, refuse_unfit_place

_OTHERS_WRITE = stat.S_IWOTH
_GROUP_WRITES = stat.S_IWGRP
_MOUNTS = Path("/proc/self/mountinfo")


# ---- who else may touch it


def check_configuration_files(config: Config) -> list[Finding]:
    """Who may change these files decides which code runs, as the user of the supervisor."""
    files = [config.path, *(table.file for table in config.strategies.values())]
    open_to = [(path, who) for path in dict.fromkeys(files) if (who := _who_may_write(path))]
    if not open_to:
        return [
            ok("code", f"only their owner may change {config.path.name} and {counted(len(config.strategies), 'strategy file')}")
        ]
    return [
        problem("code", f"{who} may change {path}, and so which code runs here", f"chmod go-w {shlex.quote(str(path))}")
        for path, who in open_to
    ]


def check_permissions(paths: DatabasePaths) -> list[Finding]:
    """Others must not be able to read what was traded, nor to replace the database."""
    parent = paths.database.parent
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        return [
            problem(
                "permissions", f"this user may not write into {parent}", f"run as the owner of {parent}, or give it to this user"
            )
        ]
    found = []
    if (who := _who_may_write(parent)) and not parent.stat().st_mode & stat.S_ISVTX:
        found.append(
            warning(
                "permissions",
                f"{who} may replace the database, as they may write into {parent}",
                f"chmod go-w {shlex.quote(str(parent))}",
            )
        )
    for path in _ours(paths):
        found += _check_mode(path)
    return found or [ok("permissions", f"only its owner may use {paths.database}")]


def _ours(paths: DatabasePaths) -> list[Path]:
    database = paths.database
    beside = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")]
    return [path for path in (*beside, paths.folder, paths.dead_letters) if path.exists()]


def _check_mode(path: Path) -> list[Finding]:
    mode = path.stat().st_mode
    quoted = shlex.quote(str(path))
    if who := _who_may_write(path):
        return [problem("permissions", f"{who} may change {path} (mode {mode & 0o777:04o})", f"chmod go-w {quoted}")]
    if mode & (stat.S_IROTH | stat.S_IXOTH):
        return [
            warning("permissions", f"every user of this host may read {path} (mode {mode & 0o777:04o})", f"chmod o= {quoted}")
        ]
    return []


def _who_may_write(path: Path) -> str:
    mode = path.stat().st_mode
    return "everybody" if mode & _OTHERS_WRITE else "its group" if mode & _GROUP_WRITES else ""


# ---- on which file system


def check_file_system(paths: DatabasePaths, durability: Durability, mounts: str | None = None) -> Finding:
    try:
        refuse_unfit_place(paths.database)
    except StoreError as error:
        return problem(
            "file system", str(error), "move the database: stop everything, then `horizon db backup PATH` to the new place"
        )
    kind = file_system_of(paths.database, _MOUNTS.read_text() if mounts is None else mounts)
    if kind in ("tmpfs", "ramfs"):
        sentence = f"{paths.database} lies in memory ({kind}): a reboot takes it away"
        made = problem if durability == "power" else warning
        return made("file system", sentence, "put the database on a disk: path in [database]")
    if kind == "overlay":
        sentence = f"{paths.database} lies in a container's own layer: it goes when the container is made anew"
        return warning("file system", sentence, "mount a volume, and put the database there")
    return ok("file system", kind or "of unknown type")


# ---- with how much room

_ENOUGH_BYTES = 1 << 30
_ENOUGH_SHARE = 0.05
_PLENTY_BYTES = 20 << 30  # five per cent of a large disk are not little
_INODES_AT_LEAST = 1000


def check_space(folder: Path, strategies: int) -> list[Finding]:
    at = os.statvfs(folder)
    return judge_space(
        folder,
        strategies,
        free_bytes=at.f_bavail * at.f_frsize,
        all_bytes=at.f_blocks * at.f_frsize,
        free_inodes=at.f_favail,
        all_inodes=at.f_files,
    )


def judge_space(
    folder: Path, strategies: int, *, free_bytes: int, all_bytes: int, free_inodes: int, all_inodes: int
) -> list[Finding]:
    """A file system that makes inodes as it needs them says that it has none."""
    remedy = f"make room on the disk of {folder}; old log files and copies of the database are the first to go"
    share = free_bytes / all_bytes if all_bytes else 1.0
    # A journal for each strategy, another while the old one is drained, and as much again for the database to grow.
    needed = 4 * DEFAULT_BYTES * max(1, strategies)
    sentence = f"{size(free_bytes)} free ({share:.0%} of {size(all_bytes)})"
    if free_bytes < needed:
        found = [problem("disk space", f"{sentence}; the strategies (here {strategies}) may need {size(needed)} at once", remedy)]
    elif free_bytes < _ENOUGH_BYTES or (share < _ENOUGH_SHARE and free_bytes < _PLENTY_BYTES):
        found = [warning("disk space", f"only {sentence}; a full disk stops new orders", remedy)]
    else:
        found = [ok("disk space", sentence)]
    if all_inodes and free_inodes < _INODES_AT_LEAST:
        found.append(problem("inodes", f"{free_inodes} of {all_inodes} left: soon no file can be made", remedy))
    elif all_inodes and free_inodes / all_inodes < _ENOUGH_SHARE:
        found.append(warning("inodes", f"{free_inodes} of {all_inodes} left", remedy))
    else:
        found.append(ok("inodes", f"{free_inodes} of {all_inodes} left" if all_inodes else "made as they are needed"))
    return found


# ---- on how fast a disk

_PAGE = bytes(4096)
_SYNCS_MAX = 60
_SYNCS_WITHIN_S = 0.5
_SLOW_MS = 30.0
_VERY_SLOW_MS = 300.0
_TOO_FAST_MS = 0.008


def check_disk_speed(paths: DatabasePaths, durability: Durability) -> Finding:
    folder = paths.folder if paths.folder.is_dir() else paths.database.parent
    try:
        return judge_disk_speed(measure_syncs(folder), durability)
    except PermissionError:
        raise  # this user's, and not the disk's fault
    except OSError as error:
        return problem("disk speed", f"no file can be written in {folder}: {error.strerror}", "see disk space and permissions")


def measure_syncs(folder: Path) -> list[float]:
    """Milliseconds that each of some appends of 4 KiB with fdatasync takes: what a commit costs. The file has no name. Raises: OSError."""
    costs_ms: list[float] = []
    until = time.monotonic() + _SYNCS_WITHIN_S
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while len(costs_ms) < _SYNCS_MAX and (not costs_ms or time.monotonic() < until):
            began = time.perf_counter()
            file.write(_PAGE)
            os.fdatasync(file.fileno())
            costs_ms.append((time.perf_counter() - began) * 1000)
    return costs_ms


def judge_disk_speed(costs_ms: Sequence[float], durability: Durability) -> Finding:
    ordered = sorted(costs_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    measured = f"a sync takes {_ms(p50)} (p99 {_ms(p99)})"
    if durability == "process":
        return ok("disk speed", f'{measured}; durability = "process" waits for none')
    if p50 < _TOO_FAST_MS:
        return warning(
            "disk speed",
            f"{measured}: no disk is that fast, so this one does not keep what it says it has; a power cut may take acknowledged records",
            "put the database on a disk that obeys fsync: no tmpfs, no eatmydata, no disk cache that lies",
        )
    meaning = f'with durability = "power" an ack waits that long, and the writer commits about {1000 / p50:.0f} times a second'
    if p50 > _SLOW_MS or p99 > _VERY_SLOW_MS:
        return warning(
            "disk speed", f"{measured}; {meaning}", "use a faster disk (an SSD with power-loss protection takes well under 1 ms)"
        )
    return ok("disk speed", f"{measured}; {meaning}, each time with all records that wait")


def _ms(value: float) -> str:
    return f"{value:.2g} ms" if value < 10 else f"{value:.0f} ms"


# ---- what does not belong there

_CORE = re.compile(r"core(\.\d+)?")


def check_core_files(folders: Iterable[Path]) -> Finding:
    found: list[Path] = []
    for folder in dict.fromkeys(folders):
        with suppress(OSError):
            found += [path for path in folder.iterdir() if _CORE.fullmatch(path.name) and path.is_file()]
    if found:
        names = ", ".join(map(str, sorted(found)))
        return warning(
            "core files",
            f"memory of crashed processes, with the keys they held: {names}",
            "look at them with gdb if you must, then remove them",
        )
    return ok("core files", "none")

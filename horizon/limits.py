"""What a worker does to itself before any code of its strategy runs: its control group, priority, processors, open files.

Threads and helpers inherit all of them. The limit of its memory is the group's, or watched from outside, by the supervisor.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from horizon.config import Limits
from horizon.errors import ConfigError


def enter(group: Path) -> None:
    """Become a member of a cgroup. Raises: OSError."""
    (group / "cgroup.procs").write_text("0")


def take_limits(limits: Limits, where: str) -> None:
    """`where` names the table in error texts. For the main thread, before there is another: both calls are a thread's own.

    Raises: ConfigError when the host refuses one of them.
    """
    if limits.nice is not None:
        _take_nice(limits.nice, where)
    if limits.cpus is not None:
        _take_cpus(set(limits.cpus), where)
    if limits.open_files is not None:
        _take_open_files(limits.open_files, where)


def _take_nice(nice: int, where: str) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        raise ConfigError(
            f"{where}.nice: {nice} is refused by this host ({error.strerror}); the supervisor runs at {now}, and only a higher number "
            "is anybody's to take"
        ) from error


def _take_cpus(cpus: set[int], where: str) -> None:
    allowed = os.sched_getaffinity(0)
    if not cpus:
        raise ConfigError(f"{where}.cpus: the list is empty; leave the key out for all of them")
    # Compared here: the kernel takes what it can of a list and says nothing of the rest.
    if missing := cpus - allowed:
        raise ConfigError(f"{where}.cpus: {_listed(missing)} cannot be used on this host; these can: {_listed(allowed)}")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise ConfigError(f"{where}.cpus: {_listed(cpus)} is refused by this host: {error.strerror}") from error


def _take_open_files(number: int, where: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}.open_files: {number} is refused by this host: the supervisor itself may have no more than {hard} (ulimit -Hn, "
            "LimitNOFILE= of its unit)"
        ) from error


def _listed(cpus: set[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))

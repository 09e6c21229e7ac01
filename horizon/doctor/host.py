"""The host and what is installed on it: Python, libraries, SQLite, the clock, limits, core dumps, systemd.

What asks the kernel and what judges its answer are two functions, so that every answer can be judged on any host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import apsw

from horizon.doctor.finding import Finding, ok, problem, warning

DISTRIBUTION = "horizon-runtime"

Version = tuple[int, ...]

_WAL_RESET_SINCE: Version = (3, 7, 0)
_WAL_RESET_FIXED: Version = (3, 51, 3)
# Older branches that got the fix as well: up to the next minor version.
_WAL_RESET_BACKPORTS: tuple[Version, ...] = ((3, 44, 6), (3, 50, 7))


# ---- Python and libraries


def check_installation() -> list[Finding]:
    """Python and the libraries against what the package asks for."""
    try:
        wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        sentence = f"{DISTRIBUTION} is not installed as a package, so nobody can tell which versions it needs"
        return [warning("libraries", sentence, "install it: pip install . in the checkout")]
    return [judge_python(sys.version_info[:3], wanted), judge_libraries(requirements, _installed(requirements))]


def judge_python(version: Version, wanted: str) -> Finding:
    """`wanted` is the package's Requires-Python, such as ">=3.11"."""
    here = f"Python {_dotted(version)} ({sys.executable})"
    if version < _version(wanted.removeprefix(">=")):
        return problem("python", f"{here} is too old: Horizon needs {wanted}", "make a new environment with a newer Python")
    return ok("python", here)


def judge_libraries(requirements: Iterable[str], installed: Mapping[str, str]) -> Finding:
    """Each requirement's lower bound against what is installed; the extras are for developers and not looked at."""
    bounds = [parsed for requirement in requirements if (parsed := _bound(requirement)) is not None]
    wrong = [
        f"{name} {installed[name]} (needs {least})" if name in installed else f"{name} is missing (needs {least})"
        for name, least in bounds
        if name not in installed or _version(installed[name]) < _version(least)
    ]
    if wrong:
        return problem("libraries", f"too old or missing: {', '.join(wrong)}", "install Horizon again: pip install --upgrade .")
    return ok("libraries", ", ".join(f"{name} {installed[name]}" for name, _ in bounds))


def _installed(requirements: Iterable[str]) -> dict[str, str]:
    found = {}
    for name, _ in filter(None, map(_bound, requirements)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _bound(requirement: str) -> tuple[str, str] | None:
    """`apsw>=3.51.3.0` -> name and least version; None for what an extra asks for."""
    parsed = re.match(r"([\w.-]+)\s*\(?>=\s*([\d.]+)", requirement)
    return None if parsed is None or "extra ==" in requirement else (parsed[1], parsed[2])


def _version(text: str) -> Version:
    """The numbers that a version begins with: 5.9.4rc1 is 5, 9, 4."""
    numbers = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


# ---- SQLite


def check_sqlite() -> Finding:
    return judge_sqlite(_version(apsw.sqlite_lib_version()), sqlite3.sqlite_version_info)


def judge_sqlite(ours: Version, pythons: Version) -> Finding:
    """The library that Horizon uses (apsw's), and the one that the host's other programs are likely to use."""
    if has_wal_reset_bug(ours):
        return problem(
            "sqlite",
            f"SQLite {_dotted(ours)} (apsw's) can lose committed pages when two connections write and checkpoint at once",
            "install apsw 3.51.3 or newer from PyPI, which brings its own SQLite: pip install --upgrade apsw",
        )
    sentence = f"SQLite {_dotted(ours)} (apsw's)"
    if has_wal_reset_bug(pythons):
        sentence += f"; Python's own is {_dotted(pythons)}, which may only read a database of Horizon"
    return ok("sqlite", sentence)


def has_wal_reset_bug(version: Version) -> bool:
    if not _WAL_RESET_SINCE <= version < _WAL_RESET_FIXED:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_RESET_BACKPORTS)


# ---- the clock


class Clock(NamedTuple):
    """The kernel's word about its clock."""

    is_synchronized: bool
    max_error_s: float


_TIME_ERROR = 5
_STA_UNSYNC = 0x40


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), up to the fields that are read; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def check_clock() -> Finding:
    """No network is asked: the kernel knows whether a daemon keeps its clock."""
    try:
        return judge_clock(_ask_clock())
    except OSError as error:
        return warning(
            "clock",
            f"the kernel does not tell about its clock: {error.strerror}",
            "look with `timedatectl` or `chronyc tracking`",
        )


def judge_clock(clock: Clock) -> Finding:
    if not clock.is_synchronized:
        return warning(
            "clock",
            "nothing keeps this host's clock right; times of fills drift away from those of the venues",
            "run one of chrony, systemd-timesyncd or ntpd (in a container or a virtual machine: on the host below)",
        )
    return ok("clock", f"synchronized, off by at most {clock.max_error_s * 1000:.0f} ms")


def _ask_clock() -> Clock:
    libc = ctypes.CDLL(None, use_errno=True)
    timex = _Timex()
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return Clock(state != _TIME_ERROR and not timex.status & _STA_UNSYNC, timex.maxerror / 1e6)


# ---- limits and core dumps


class Limits(NamedTuple):
    """Soft limits of a process; None: no limit."""

    open_files: int | None
    processes: int | None
    core_bytes: int | None


# What a strategy takes of the supervisor (channel, pidfd, log queue, output, dump), and of the user's threads.
_FILES_PER_STRATEGY = 10
_FILES_AT_LEAST = 256
_TASKS_PER_STRATEGY = 16
_TASKS_AT_LEAST = 64


def limits_of(pid: int) -> Limits:
    """Those of a running supervisor, or of this process (0), which a new one would inherit. Raises: OSError."""
    soft = [resource.prlimit(pid, which)[0] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE)]
    return Limits(*(None if limit == resource.RLIM_INFINITY else limit for limit in soft))


def check_limits(pid: int, strategies: int) -> list[Finding]:
    try:
        limits = limits_of(pid)
    except OSError:
        limits = limits_of(0)  # another user's supervisor; what this user has is the next best guess
    pattern = Path("/proc/sys/kernel/core_pattern")
    return [judge_limits(limits, strategies), judge_core_dumps(limits, pattern.read_text().strip() if pattern.exists() else "")]


def judge_limits(limits: Limits, strategies: int) -> Finding:
    files = max(_FILES_AT_LEAST, _FILES_PER_STRATEGY * strategies + 64)
    tasks = max(_TASKS_AT_LEAST, _TASKS_PER_STRATEGY * strategies + 32)
    low = []
    if limits.open_files is not None and limits.open_files < files:
        low.append((f"{limits.open_files} open files (needs {files})", f"LimitNOFILE={files}", f"ulimit -n {files}"))
    if limits.processes is not None and limits.processes < tasks:
        low.append((f"{limits.processes} processes and threads (needs {tasks})", f"LimitNPROC={tasks}", f"ulimit -u {tasks}"))
    if low:
        words, units, shells = zip(*low, strict=True)
        remedy = f"{', '.join(units)} in the unit, or `{'; '.join(shells)}` before `horizon up`"
        return problem("limits", f"too low: {', '.join(words)}", remedy)
    counted = "any number of" if limits.open_files is None else str(limits.open_files)
    return ok("limits", f"{counted} open files, {limits.processes or 'any number of'} processes and threads")


def judge_core_dumps(limits: Limits, pattern: str) -> Finding:
    """A pipe gets the dump whatever the limit says; only systemd's own heeds it."""
    is_piped = pattern.startswith("|")
    heeds_limit = not is_piped or "systemd-coredump" in pattern
    if limits.core_bytes == 0 and heeds_limit:
        return ok("core dumps", "off")
    where = f"given to {pattern[1:].split()[0]}" if is_piped and pattern[1:].split() else "written to disk"
    return warning(
        "core dumps",
        f"the memory of a process that crashes is {where}, with whatever keys it holds",
        "`ulimit -c 0` before `horizon up`, or LimitCORE=0 in the unit"
        if heeds_limit
        else f"change /proc/sys/kernel/core_pattern ({pattern})",
    )


# ---- systemd

_UNIT_FOLDERS = tuple(
    map(
        Path,
        (
            "/etc/systemd/system",
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ),
    )
)
_UNIT = "horizon.service"
_SECRETS = re.compile(r"^\s*(?:EnvironmentFile=-?|LoadCredential(?:Encrypted)?=[^:\s]+:)(/\S+)", re.MULTILINE)


def check_systemd(first_process: str | None = None, folders: Iterable[Path] = _UNIT_FOLDERS) -> list[Finding]:
    """Whether a unit starts Horizon on this host, and whether others can read the secrets that it names."""
    first = first_process or Path("/proc/1/comm").read_text().strip()
    if first != "systemd":
        return [ok("systemd", f"does not run this host (process 1 is {first}); something else has to start `horizon up` again")]
    unit = next((folder / _UNIT for folder in folders if (folder / _UNIT).is_file()), None)
    if unit is None:
        return [ok("systemd", f"{_UNIT} is not installed: after a reboot a person has to start `horizon up`")]
    return [ok("systemd", f"{unit} is installed"), *_check_secrets(unit)]


def _check_secrets(unit: Path) -> list[Finding]:
    found = []
    for path in dict.fromkeys(map(Path, _SECRETS.findall(unit.read_text()))):
        try:
            mode = path.stat().st_mode & 0o777
        except OSError:
            continue  # not there, which systemd judges, or not for this user to see, which is as it should be
        if mode & 0o077:
            found.append(problem("credentials", f"others than its owner may use {path} (mode {mode:04o})", f"chmod 0600 {path}"))
        else:
            found.append(ok("credentials", f"only its owner may use {path}"))
    return found

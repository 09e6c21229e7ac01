"""Control groups (cgroup v2): one for every incarnation of a strategy, where the supervisor's own group is delegated to it.

The kernel then keeps memory_max_mb itself, helpers included, and ends a strategy with all that it has started, whatever sessions they
have made for themselves. A group that has limited groups below it may not have processes of its own, so:

    OWN                    what was delegated: by systemd (Delegate=memory), or by a person (mkdir, chown)
      supervisor           this process, the writer, the gateway
      strategy-NAME.1      a worker and its helpers, and so on

A worker enters its group by itself, before any code of its strategy is loaded; what its interpreter took until then (about 20 MiB) stays
on the supervisor's account. Nothing here is needed: without such groups memory is looked at once a second (limits.py), and an error is
said once, then it is looked at too.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from horizon.config import Limits

log = logging.getLogger(__name__)

PLACE = Path("/sys/fs/cgroup")
OURS = "supervisor"
_STRATEGY = "strategy-"
_MIB = 1 << 20
_SWEEP_EVERY_S = 0.5
_LAST_SWEEP_S = 1.0  # what was killed a moment ago is still in its group
_NAME_MAX = 60  # characters; a folder's name may have 255 bytes


class NotDelegated(Exception):
    """Why there are no groups here, in words."""


class Group:
    """That of one incarnation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limit_mb: int | None = None  # that the kernel keeps

    def limit(self, limits: Limits) -> None:
        """Not by memory.high: above it the kernel makes a process wait, and who trades late is worse off than who starts anew.

        Raises: OSError.
        """
        _write(self.folder / "memory.oom.group", "1")  # all of it: one half of a strategy must not trade on without the other
        if limits.memory_max_mb is not None:
            with suppress(FileNotFoundError, PermissionError):  # a kernel that does not account for swap
                _write(self.folder / "memory.swap.max", "0")
            _write(self.folder / "memory.max", str(limits.memory_max_mb * _MIB))
            self._limit_mb = limits.memory_max_mb

    def keeps_limit_of(self, pid: int) -> bool:
        """Whether the kernel sees to it that the process, and what it starts, stays within its limit."""
        return self._limit_mb is not None and pid in self.pids()

    def pids(self) -> list[int]:
        """Of those that live. Empty where that cannot be read."""
        return _pids(self.folder)

    def kill(self) -> None:
        """SIGKILL to all in it. Whoever is just being forked gets it too."""
        try:
            _write(self.folder / "cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            for pid in self.pids():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def why_killed(self) -> str:
        """A sentence where the kernel killed it for want of memory; else empty."""
        events = self._events()
        if not events.get("oom_kill"):
            return ""
        if self._limit_mb is not None and events.get("oom"):
            return f"was killed because it took more than its limit of {self._limit_mb} MiB of memory"
        return "was killed because the host, or the group that Horizon runs in, had no memory left"

    def _events(self) -> dict[str, int]:
        """How often what happened in it, by the kernel's names."""
        try:
            lines = (self.folder / "memory.events").read_text().splitlines()
        except OSError:
            return {}
        return {name: int(count) for name, _, count in (line.partition(" ") for line in lines)}


class Groups:
    """Those of one supervisor. Used by the loop's thread only; no call waits, and none raises."""

    def __init__(self, home: Path, moved_from_home: bool) -> None:
        """Use `open`."""
        self._home = home
        self._moved = moved_from_home
        self._made = 0
        self._left = list(home.glob(f"{_STRATEGY}*"))  # of a supervisor that was killed
        self._sweep_at = 0.0
        self._said = False

    @classmethod
    def open(cls, place: Path = PLACE, process: Path = Path("/proc/self")) -> Groups:
        """Make the supervisor's own group what the others can be made in, and put this process into its place there.

        Raises: NotDelegated; then nothing is changed.
        """
        try:
            own = _own_group(place, process)
            if own.name == OURS:  # that of a supervisor that was killed, or DelegateSubgroup= of the unit
                home, ours = own.parent, []
            else:
                home, ours = own, [os.getpid(), *_children()]
            _check(home, ours)
            _settle(home, ours)
        except OSError as error:
            raise NotDelegated(f"{error.filename or place}: {error.strerror or error}") from error
        return cls(home, bool(ours))

    def make(self, strategy: str, limits: Limits) -> Group | None:
        """The group of a new incarnation; None where it cannot be made."""
        try:
            group = Group(self._make_folder(strategy))
        except OSError as error:
            self._complain(error)
            return None
        try:
            group.limit(limits)
        except OSError as error:
            self._complain(error)
        return group

    def let_go(self, group: Group) -> None:
        """Remove it when nobody is left in it."""
        self._left.append(group.folder)

    def sweep(self, now: float) -> None:
        """Remove the groups that became empty."""
        if self._left and now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_EVERY_S
            self._left = [folder for folder in self._left if not _remove(folder)]

    def close(self) -> None:
        """Leave the supervisor's group as it was found. Waits a second at the most, for those that were killed last."""
        deadline = time.monotonic() + _LAST_SWEEP_S
        while self._left and time.monotonic() < deadline:
            self._sweep_at = 0.0
            self.sweep(time.monotonic())
            time.sleep(0.01)
        if not self._moved:
            return
        with suppress(OSError):
            _write(self._home / "cgroup.subtree_control", "-memory")
            for pid in _pids(self._home / OURS):
                _write(self._home / "cgroup.procs", str(pid))
            (self._home / OURS).rmdir()

    def _complain(self, error: OSError) -> None:
        """Once."""
        if not self._said:
            self._said = True
            sentence = "%s: %s; the memory of strategies is looked at once a second instead"
            log.warning(sentence, error.filename, error.strerror, extra={"action": "cgroups"})

    def _make_folder(self, strategy: str) -> Path:
        name = re.sub(r"[^\w.-]", "_", strategy)[:_NAME_MAX]
        while True:
            self._made += 1
            folder = self._home / f"{_STRATEGY}{name}.{self._made}"
            with suppress(FileExistsError):  # in a group that a killed supervisor left, the last of a worker may still be there
                folder.mkdir()
                return folder


def _own_group(place: Path, process: Path) -> Path:
    """Raises: NotDelegated, OSError."""
    lines = (process / "cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if path is None:
        raise NotDelegated("this host has no cgroup v2")
    own = place / path
    if os.getpid() not in _pids(own):
        raise NotDelegated(f"the supervisor's cgroup is not below {place}")
    return own


def _check(home: Path, ours: list[int]) -> None:
    """Raises: NotDelegated, OSError."""
    if "memory" not in (home / "cgroup.controllers").read_text().split():
        raise NotDelegated(f"the memory controller of cgroup v2 is not delegated to {home}")
    if not (home / "cgroup.type").exists():
        raise NotDelegated(f"{home} is the root of all groups")
    for path in (home, home / "cgroup.procs", home / "cgroup.subtree_control"):
        if not os.access(path, os.W_OK):
            raise NotDelegated(f"{path} may not be written")
    # A session of a person, say, which is not ours although we may write to it.
    if others := set(_pids(home)) - set(ours):
        raise NotDelegated(f"{home} holds {len(others)} other processes")


def _settle(home: Path, ours: list[int]) -> None:
    """Raises: OSError; then nothing is changed."""
    place = home / OURS
    place.mkdir(exist_ok=True)
    try:
        for pid in ours:
            _write(place / "cgroup.procs", str(pid))
        _write(home / "cgroup.subtree_control", "+memory")
    except OSError:
        with suppress(OSError):
            for pid in ours:
                _write(home / "cgroup.procs", str(pid))
            place.rmdir()
        raise


def _remove(folder: Path) -> bool:
    """Whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _pids(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _children() -> list[int]:
    """Of this process's main thread, which starts them all."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _write(path: Path, text: str) -> None:
    """Raises: OSError, with the file's name."""
    try:
        path.write_text(text)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise

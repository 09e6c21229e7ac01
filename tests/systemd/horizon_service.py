"""The service in the machine, as systemd, its processes and its own commands show it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eventually import eventually
from nspawn_machine import Machine

UNIT = "horizon.service"
HORIZON = "/opt/horizon/venv/bin/horizon"
CONFIG = "etc/horizon/horizon.toml"
DATABASE = "/var/lib/horizon/horizon.db"
SECRET = "hunter2-of-the-venue"  # in its credentials file
STRATEGIES = ("market_maker", "mean_reversion", "momentum")


class Service:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._config = (machine.root / CONFIG).read_text()
        self._cursor = ""  # where the journal of this test begins

    # ---- its life

    def start_anew(self) -> None:
        self.stop_whatever_it_takes()
        self.machine.run("sh", "-c", "rm -rf /var/lib/horizon /var/log/horizon /run/systemd/system/horizon.service.d")
        self.configure(self._config)
        self.machine.run("systemctl", "daemon-reload")
        *_, last = self.machine.run("journalctl", "--lines=0", "--show-cursor").splitlines()
        self._cursor = last.removeprefix("-- cursor: ")

    def stop_whatever_it_takes(self) -> None:
        self.machine.run("systemctl", "kill", "--signal=KILL", UNIT, check=False)
        self.machine.run("systemctl", "stop", UNIT, check=False)
        self.machine.run("systemctl", "reset-failed", UNIT, check=False)
        assert not self.processes()

    def start(self) -> None:
        self.machine.run("systemctl", "start", UNIT)

    def configure(self, text: str) -> None:
        (self.machine.root / CONFIG).write_text(text)

    @property
    def config(self) -> str:
        return (self.machine.root / CONFIG).read_text()

    def add_strategy(self, name: str, text: str) -> None:
        """A file of its own, and its table; heard of at the next start or reload."""
        (self.machine.root / f"opt/horizon/strategies/{name}.py").write_text(text)
        self.configure(f'{self.config}\n[strategies.{name}]\nfile = "/opt/horizon/strategies/{name}.py"\n')

    def drop_in(self, text: str) -> None:
        """Settings of the [Service] section that one test needs."""
        folder = self.machine.root / f"run/systemd/system/{UNIT}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(f"[Service]\n{text}\n")
        self.machine.run("systemctl", "daemon-reload")

    # ---- as systemd sees it

    def show(self, name: str) -> str:
        return self.machine.run("systemctl", "show", UNIT, f"--property={name}", "--value").strip()

    @property
    def state(self) -> str:
        return self.show("ActiveState")

    @property
    def restarts(self) -> int:
        return int(self.show("NRestarts"))

    @property
    def status_text(self) -> str:
        return self.show("StatusText")

    def journal(self) -> str:
        """What the journal took from it, and from systemd about it, since the test began."""
        return self.machine.run("journalctl", f"--unit={UNIT}", f"--after-cursor={self._cursor}", "--output=cat", "--no-pager")

    # ---- its processes

    def processes(self) -> dict[str, int]:
        """By name, with the process ids that this side of the machine's wall knows. A strategy's helpers have `name+`."""
        found: dict[str, int] = {}
        for pid in self.machine.processes_of(f"system.slice/{UNIT}"):
            with suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                comm = Path(f"/proc/{pid}/comm").read_text().strip()
                if arguments != [b""]:  # else it has just ended
                    name = _name(arguments, comm)
                    found[name if name not in found else f"{name}+{pid}"] = pid
        return found

    def pid(self, name: str) -> int:
        return self.processes()[name]

    def wait_for(self, name: str, other_than: int = 0) -> int:
        """Until there is a process of this name, another one than that."""
        return eventually(
            lambda: (pid := self.processes().get(name, 0)) != other_than and pid, timeout_s=30, what=f"a new {name}"
        )

    # ---- by its own commands

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One of Horizon's own commands, as root."""
        return self.machine.ask(HORIZON, *words)

    def horizon(self, *words: str) -> str:
        return self.machine.run(HORIZON, *words)

    def status(self) -> dict[str, dict[str, Any]]:
        """By process."""
        said = self.ask("status", "--json").stdout
        return {process["name"]: process for process in json.loads(said)["processes"]} if said else {}

    def wait_until_ready(self, *names: str) -> None:
        eventually(
            lambda: {name for name, process in self.status().items() if process["state"] == "ready"} >= set(names),
            timeout_s=40, interval_s=0.1, what=f"{', '.join(names)} are ready",
        )  # fmt: skip

    def fills(self) -> dict[str, int]:
        """How many are in the database, by strategy."""
        return Counter(fill["strategy"] for fill in json.loads(self.as_horizon("fills", "--json", "--limit", "1000000")))

    def as_horizon(self, *words: str) -> str:
        """A command that opens the database, as its own user."""
        return self.machine.run("runuser", "-u", "horizon", "--", HORIZON, *words, "--db", DATABASE)

    def as_the_service(self, *command: str) -> subprocess.CompletedProcess[str]:
        """In the supervisor's own view of the file system, as its user."""
        user = ["setpriv", "--reuid=horizon", "--regid=horizon", "--clear-groups"]
        return self.machine.ask("nsenter", f"--target={self.show('MainPID')}", "--mount", "--wd=/", *user, *command)

    def check_the_database(self) -> str:
        """Every record of every run is accounted for; fails where it is not."""
        return self.as_horizon("db", "check")


class Ends:
    """When which of these processes ended, on the monotonic clock: by their pidfds, whatever they log."""

    def __init__(self, processes: dict[str, int]) -> None:
        self.at: dict[str, float] = {}
        self._fds = {os.pidfd_open(pid): name for name, pid in processes.items()}

    def wait(self, timeout_s: float) -> None:
        """Until all have ended; fails at the deadline with the names of those that have not."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        while len(self.at) < len(self._fds):
            left = set(self._fds.values()) - set(self.at)
            assert time.monotonic() < deadline, f"after {timeout_s} s there are still {', '.join(left)}"
            for fd, _ in poll.poll(100):
                poll.unregister(fd)
                self.at[self._fds[fd]] = time.monotonic()

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@contextmanager
def watched(processes: dict[str, int]) -> Iterator[Ends]:
    ends = Ends(processes)
    try:
        yield ends
    finally:
        ends.close()


def _name(arguments: list[bytes], comm: str) -> str:
    """What a process of the service is, by its command line; a strategy by the name that it has given itself."""
    for module, name in ((b"horizon.writer", "writer"), (b"supervisor.gateway", "gateway"), (b"supervisor", "supervisor")):
        if module in arguments:
            return name
    if any(b"resource_tracker" in argument for argument in arguments):
        return "resource tracker"
    return next((name for name in STRATEGIES if f"hz:{name}"[:15] == comm), comm.removeprefix("hz:"))

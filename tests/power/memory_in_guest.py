"""What the Debian guest runs to show memory limits: `horizon up` in a group that was delegated to it, by root and by an ordinary user.

The guest has what few hosts of tests have: control groups of version 2 with the memory controller. All that is seen is reported as lines
`HZ {json}` on the console; who judges it sits outside.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUPS = Path("/sys/fs/cgroup")
USERS = {"root": 0, "trader": 1000}
WAIT_S = 200.0  # an emulated machine is slow

CONFIG = """
[database]
path = "horizon.db"
[supervisor]
start_timeout_s = 200
hang_after_s = 100
degraded_after_s = 50
[metrics]
enabled = false
[strategies.healthy]
file = "healthy.py"
[strategies.leaky]
file = "leaky.py"
limits = { memory_max_mb = 64 }
"""

HEALTHY = """
import horizon as hz

def trade(ctx):
    mid = ctx.feeds["price"].mid()
    return [hz.Quote(mid - 0.01, mid + 0.01, 1.0)]

hz.run("healthy", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=0.1)}, pipeline=[trade],
       risk=hz.Risk.equity(), interval=0.2)
"""

# It leaks, and so does its helper, which has a session of its own: no kill of a process group reaches that one.
LEAKY = """
import subprocess, sys
import horizon as hz

LEAK = "import time\\nheld = []\\nwhile True:\\n    held.append(b'x' * (1 << 20))\\n    time.sleep(0.2)"
held = []

def leak(ctx):
    if not held:
        helper = subprocess.Popen([sys.executable, "-S", "-c", LEAK], start_new_session=True)
        with open("helpers", "a") as helpers:
            print(helper.pid, file=helpers)
    held.append(b"x" * (1 << 20))

hz.run("leaky", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=0.1)}, pipeline=[leak], interval=0.2)
"""


def main() -> None:
    """Both users at once, for that takes half of the time."""
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(GROUPS)], check=True)
    (GROUPS / "cgroup.subtree_control").write_text("+memory")
    Path("/dev/shm").mkdir(exist_ok=True)  # the semaphores of multiprocessing lie there
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm"], check=True)
    runs = [threading.Thread(target=_tell, args=(user,)) for user in USERS]
    for run in runs:
        run.start()
    for run in runs:
        run.join()


def _tell(user: str) -> None:
    try:
        say(user, "seen", **_watch(user))
    except BaseException:
        say(user, "failed", traceback=traceback.format_exc(), log=_log(user))


def _watch(user: str) -> dict[str, Any]:
    """Run until the leaky one was killed, then until it is ready again and the healthy one has traded on; stop; look."""
    group, supervisor = _delegate(user), None
    try:
        supervisor = _start(user, group)
        first = _until(user, lambda now: now["healthy"]["state"] == "ready" and now["leaky"]["state"] == "ready")
        during = _members(group)
        killed = _until(user, lambda now: now["leaky"]["restarts"] > first["leaky"]["restarts"])
        left = _alive(_helpers(user)[:1])
        after = _until(
            user, lambda now: now["leaky"]["state"] == "ready" and now["healthy"]["fills"] > killed["healthy"]["fills"]
        )
        supervisor.send_signal(signal.SIGTERM)
        code = supervisor.wait(WAIT_S)
    finally:
        if supervisor is not None:
            supervisor.kill()
    return {
        "pid": supervisor.pid, "first": first, "during": during, "after": after, "helpers": _helpers(user), "left": left,
        "left_at_the_end": _alive(_helpers(user)),
        "exit_code": code, "groups_left": [str(path) for path in group.glob("*/")], "why_no_groups": after["why_no_groups"],
        "log": _log(user),
    }  # fmt: skip


def say(user: str, what: str, **details: object) -> None:
    """One write for the whole line: the runs share the console."""
    os.write(1, f"HZ {json.dumps({'user': user, 'what': what, **details})}\n".encode())


def _delegate(user: str) -> Path:
    """A group that belongs to the user, as systemd's Delegate= makes it."""
    group = GROUPS / user
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, USERS[user], USERS[user])
    return group


def _start(user: str, group: Path) -> subprocess.Popen[bytes]:
    folder = _folder(user)
    folder.mkdir()
    for name, text in (("horizon.toml", CONFIG), ("healthy.py", HEALTHY), ("leaky.py", LEAKY)):
        (folder / name).write_text(text)
    os.chown(folder, USERS[user], USERS[user])
    become = f"setpriv --reuid={USERS[user]} --regid={USERS[user]} --clear-groups"
    up = f"{sys.executable} -P -m supervisor --config {folder}/horizon.toml --plain"
    with (folder / "log").open("w") as log:
        return subprocess.Popen(["sh", "-c", f"echo $$ >{group}/cgroup.procs && exec {become} {up}"], stdout=log, stderr=log)


def _until(user: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the supervisor says of its strategies, as soon as that is enough."""
    from horizon.control import NoSupervisor, Status, StatusReply, ask
    from horizon.paths import DatabasePaths

    deadline, now = time.monotonic() + WAIT_S, {}
    socket = DatabasePaths.of(_folder(user) / "horizon.db").control_socket
    while time.monotonic() < deadline:
        try:
            reply = ask(socket, Status(), WAIT_S)
        except NoSupervisor:
            time.sleep(0.2)
            continue
        assert isinstance(reply, StatusReply)
        now = {
            process.name: {name: getattr(process, name) for name in ("state", "pid", "restarts", "fills", "why", "last_end")}
            for process in reply.processes
        }
        now["why_no_groups"] = reply.why_no_groups
        if enough(now):
            return now
        time.sleep(0.2)
    raise TimeoutError(f"the last that was seen: {now}")


def _members(group: Path) -> dict[str, list[int]]:
    return {path.name: [int(pid) for pid in (path / "cgroup.procs").read_text().split()] for path in group.glob("*/")}


def _helpers(user: str) -> list[int]:
    return [int(pid) for pid in (_folder(user) / "helpers").read_text().split()]


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _log(user: str) -> list[str]:
    """Without the rows of its table."""
    return [line for line in (_folder(user) / "log").read_text().splitlines() if line.startswith("2")]


def _folder(user: str) -> Path:
    return Path("/srv") / user


if __name__ == "__main__":
    main()

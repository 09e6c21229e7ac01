"""Named points at which a test stops or kills a process, from outside and exactly there.

`HORIZON_FAILPOINT=NAME:ACTION[:WHEN]` arms one point for a process and all that it starts. ACTION is `kill` (SIGKILL) or `stop`
(SIGSTOP, until somebody sends SIGCONT). WHEN is a number (the N-th time this process comes by; 1 if left out) or the path of a file:
then the point is armed while that file is there, for whoever comes by first, who renames it to PATH.reached-PID. So of many processes
with the same environment one is hit, once, and the test says when.

Where nobody asks for it a point is one `if` on a constant: `if ACTIVE: reach("writer.committed")`. That is why the variable is read
here, at import, and nowhere else.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from horizon.errors import ConfigError

VARIABLE = "HORIZON_FAILPOINT"

ACTIVE = os.environ.get(VARIABLE, "")

POINTS = {
    "worker.journal_unnamed": "the run's journal is made and has no name yet",
    "worker.journal_made": "the run's journal has its name, and nothing is recorded",
    "worker.recovering": "the database was read, the positions are not restored yet",
    "worker.appending": "a frame lies in the journal, its head is not published",
    "worker.recorded": "a fill is recorded and not applied",
    "worker.snapshotting": "a snapshot is due and not recorded",
    "worker.ending": "the last snapshot is recorded, the run's end is not",
    "worker.ended": "the run's end is recorded and not acknowledged",
    "writer.starting": "the lock is taken, the databases are not open",
    "writer.batch_taken": "a batch is taken from the runs and not committed",
    "writer.committed": "a batch is committed and not acknowledged",
    "writer.checkpointing": "the databases are about to be checkpointed",
    "writer.checkpointing_beside": "the thread of the checkpoints is about to move what is committed",
    "writer.draining": "a dead run's journal is stored, its run closed, the file still there",
    "writer.stopping": "nobody needs the writer any more, it has closed nothing yet",
    "supervisor.starting": "a child is started and not yet watched",
    "supervisor.running": "the loop has come round",
    "supervisor.stopping": "the strategies were told to stop",
}


def reach(name: str) -> None:
    """Come by a point. Raises: ConfigError when the variable cannot be understood, so that no test waits for nothing."""
    wanted, action, when = _parsed(ACTIVE)
    if name == wanted and _is_due(when):
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        # To this thread: a signal to the process may be taken by another one while this one goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


_times = 0


def _is_due(when: str) -> bool:
    global _times
    if when.isdecimal():
        _times += 1
        return _times == int(when)
    try:
        Path(when).rename(f"{when}.reached-{os.getpid()}")
    except FileNotFoundError:
        return False
    return True


def _parsed(text: str) -> tuple[str, str, str]:
    name, _, rest = text.partition(":")
    action, _, when = rest.partition(":")
    if name not in POINTS or action not in ("kill", "stop"):
        raise ConfigError(f"{VARIABLE}={text!r}: say NAME:kill or NAME:stop, with NAME one of {', '.join(POINTS)}")
    return name, action, when or "1"

"""What dead processes leave behind, and who is spared: in a process of its own, because all of its orphans come to it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, subprocess, sys, time
from supervisor.strangers import Strangers

def lives(pid):
    return os.path.exists(f"/proc/{pid}")

def sleeper(*command):
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])

there_before = sleeper()
strangers = Strangers()
known = sleeper()
# A daemon: its parent has left it, and it has a session of its own.
daemon = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
parent = subprocess.Popen([sys.executable, "-S", "-c", daemon], stdout=subprocess.PIPE)
left_behind = int(parent.stdout.readline())
parent.wait()
deadline = time.monotonic() + 10
while lives(left_behind) and time.monotonic() < deadline:
    strangers.look(time.monotonic(), {known.pid}, someone_died=True)
    time.sleep(0.01)
print("gone" if not lives(left_behind) else "there", known.poll(), there_before.poll())
for process in (known, there_before):
    process.kill()
    process.wait()
"""


def test_what_a_dead_process_left_behind_is_ended_and_nobody_else() -> None:
    program = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert program.stdout == "gone None None\n", program.stderr

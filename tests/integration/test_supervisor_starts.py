"""Starts that fail half-way: in a process of its own, which can be left without descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, resource, sys, time
from pathlib import Path
from horizon import config
from supervisor.child import start
from supervisor.strangers import Strangers

class Sink:
    def record(self, *_): pass
    def entry(self, *_): pass

def is_soon(condition):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True

def opened():
    return len(os.listdir("/proc/self/fd"))

def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

multiprocessing.set_start_method("spawn")
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / "a.py").write_text("import time; time.sleep(600)")
(folder / "horizon.toml").write_text('[strategies.a]\\nfile = "a.py"\\n')
loaded = config.load(folder / "horizon.toml")
first = start(Sink(), None, loaded, name, 0.0)
first.kill(0.0)
assert is_soon(lambda: first.exit_code() is not None)
first.close()
strangers = Strangers()
del first
time.sleep(0.05)
before, family = opened(), children()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
failed = 0
for more in range(20):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + more, hard))
    try:
        child = start(Sink(), None, loaded, name, 0.0)
    except OSError:
        failed += 1
        strangers.look(0.0, set(), someone_died=True)
    else:
        child.kill(0.0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if "child" in globals():
        assert is_soon(lambda: child.exit_code() is not None), more
        child.close()
        del child
    assert is_soon(lambda: opened() <= before), (more, opened(), before)
    assert is_soon(lambda: strangers.look(0.0, set(), someone_died=True) or children() == family), (more, children(), family)
print(failed)
"""


@pytest.mark.parametrize("name", ["a", "writer"])
def test_a_start_for_which_there_are_too_few_descriptors_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), name]
    program = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert program.returncode == 0, program.stderr
    assert int(program.stdout) >= 4

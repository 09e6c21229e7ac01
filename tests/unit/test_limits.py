"""What a worker takes upon itself, each in a process of its own: limits cannot be given back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TAKE = """
import os, resource, sys
import msgspec
from horizon.config import Limits
from horizon.errors import ConfigError
from horizon.limits import take_limits
try:
    take_limits(msgspec.json.decode(sys.argv[1], type=Limits), "horizon.toml: strategies.maker.limits")
except ConfigError as error:
    sys.exit(str(error))
print(os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _take(limits: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*prefix, sys.executable, "-c", TAKE, limits], capture_output=True, text=True, timeout=30, check=False)


def test_a_process_takes_priority_processors_and_open_files_upon_itself() -> None:
    cpu = max(os.sched_getaffinity(0))
    assert _take(f'{{"nice": 7, "cpus": [{cpu}], "open_files": 100}}').stdout.split("\n")[0] == f"7 [{cpu}] (100, 100)"


def test_without_limits_nothing_changes() -> None:
    assert _take("{}").stdout == _take("{}", prefix=("nice", "-n", "0")).stdout
    assert _take("{}").stdout.startswith(f"{os.nice(0)} ")


@pytest.mark.parametrize(
    ("limits", "key", "why"),
    [
        ('{"cpus": [0, 9999]}', "cpus", "9999 cannot be used on this host; these can: "),
        ('{"cpus": []}', "cpus", "the list is empty"),
        ('{"open_files": 2000000000}', "open_files", "ulimit -Hn"),
    ],
)
def test_what_the_host_refuses_is_named_with_its_key_and_what_the_host_has(limits: str, key: str, why: str) -> None:
    sentence = _take(limits).stderr
    assert sentence.startswith(f"horizon.toml: strategies.maker.limits.{key}: ")
    assert why in sentence


def test_a_priority_that_only_root_could_take_is_refused() -> None:
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.getuid() == 0 else ()
    niceness = min(19, os.nice(0) + 9)
    taken = _take(f'{{"nice": {niceness - 1}}}', prefix=("nice", "-n", "9", *drop))
    assert f"limits.nice: {niceness - 1} is refused by this host" in taken.stderr
    assert f"runs at {niceness}" in taken.stderr

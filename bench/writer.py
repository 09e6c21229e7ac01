"""The private writer of a benchmark's database: who it is, and that it has left before its files go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from horizon.locks import FileLock, is_free
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder

_LEAVES_WITHIN_S = 30.0
_CHECKOUT = Path(__file__).parents[1]


def writer_pid(paths: DatabasePaths) -> int:
    hint = FileLock(paths.writer_lock).hint()
    found = re.search(r"pid=(\d+)", hint)
    if found is None:
        raise SystemExit(f"{paths.writer_lock} does not say who the writer is: {hint!r}")
    return int(found[1])


def wait_for_writer_to_leave(paths: DatabasePaths) -> None:
    """A private writer leaves a few seconds after the last run."""
    until = time.monotonic() + _LEAVES_WITHIN_S
    while not is_free(paths.writer_lock):
        if time.monotonic() > until:
            raise SystemExit(f"the writer of {paths.database} has not left after {_LEAVES_WITHIN_S:g} s")
        time.sleep(0.05)


def end_writer(paths: DatabasePaths) -> None:
    """Have it drain, checkpoint and leave now; a private one would wait for another run."""
    if not is_free(paths.writer_lock):
        with suppress(ProcessLookupError):
            os.kill(writer_pid(paths), signal.SIGTERM)
        wait_for_writer_to_leave(paths)


def end_all_in(folder: Path) -> None:
    """Whoever works in a folder, as the command line says: what a benchmark that was interrupted has left behind."""
    found = [process for process in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(process.info["cmdline"] or ())]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, _LEAVES_WITHIN_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def private_writer(paths: DatabasePaths, durability: str, *, checkpoints_inline: bool = False) -> Iterator[None]:
    """A writer that stays while the block lasts, because a run of ours needs it; its files may be removed when it has left."""
    inline: subprocess.Popen[bytes] | None = None
    if checkpoints_inline:
        paths.folder.mkdir()
        command = [sys.executable, "-m", "bench.inline_writer", str(paths.database), durability]
        with paths.writer_log.open("wb") as log:
            inline = subprocess.Popen(command, cwd=_CHECKOUT, start_new_session=True, stderr=log)
    try:
        with closing(Recorder.open(paths, "keeper", durability=durability, may_start_writer=inline is None)):
            yield
    finally:
        end_writer(paths)
        if inline is not None:
            inline.wait()


def cpu_s(process: psutil.Process) -> float:
    """Processor time of a process so far, all its threads together."""
    times = process.cpu_times()
    return float(times.user + times.system)

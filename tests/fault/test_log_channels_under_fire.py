"""One worker's log can fail, flood or be killed: nobody else's log, no thread and no process may suffer from it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import log_talkers
import pytest
from eventually import eventually

from supervisor.log_channels import WAITING_MAX, LogChannel


class Said:
    """The sink: what has arrived so far, and a gate that can be shut."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, entry: str) -> None:
        self.open.wait()
        self.entries.append(entry)

    def has(self, text: str) -> bool:
        return any(text in entry for entry in list(self.entries))

    def count(self, text: str) -> int:
        return sum(text in entry for entry in list(self.entries))


@pytest.fixture
def said() -> Said:
    return Said()


class Workers:
    """Processes that log, each through a channel of its own."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._processes: list[BaseProcess] = []
        self._channels: dict[str, LogChannel] = {}

    def start(self, name: str, what: Callable[..., None], *arguments: Any) -> BaseProcess:
        channel = LogChannel(name, self._said)
        process = multiprocessing.get_context("spawn").Process(target=what, args=(channel.worker_end(), *arguments))
        process.start()
        channel.let_go()
        self._processes.append(process)
        self._channels[name] = channel
        return process

    def waiting(self, name: str) -> int:
        return self._channels[name]._handler.queue.qsize()

    def end(self) -> None:
        for process in self._processes:
            kill(process)
            process.close()
        self._processes.clear()
        self._channels.clear()


@pytest.fixture
def workers(said: Said) -> Iterator[Workers]:
    multiprocessing.set_start_method("spawn", force=True)
    workers = Workers(said)
    yield workers
    said.open.set()
    workers.end()
    eventually(lambda: not receivers(), what="the end of every receiver")
    multiprocessing.set_start_method(None, force=True)


def receivers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("log of ")]


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def test_a_flooding_worker_killed_again_and_again_silences_nobody_else(said: Said, workers: Workers) -> None:
    # Given a worker that logs calmly
    workers.start("calm", log_talkers.say_slowly)
    for number in range(4):
        # When another one is killed while its queue's lock is busy all the time
        flooding = workers.start(f"flood{number}", log_talkers.flood)
        eventually(lambda name=f"flood{number}": said.count(name) > 500)
        kill(flooding)
        # Then the calm one is heard as before
        before = said.count("calm")
        eventually(lambda before=before: said.count("calm") > before + 20, what="more lines of the calm worker")


def test_a_worker_killed_with_its_queues_lock_in_its_hands_silences_nobody_else(said: Said, workers: Workers) -> None:
    workers.start("calm", log_talkers.say_slowly)
    # Given a terminal that takes nothing, and a worker that waits, lock in hand, for room in its pipe
    said.open.clear()
    flooding = workers.start("flood", log_talkers.flood)
    eventually(lambda: workers.waiting("flood") >= WAITING_MAX)
    kill(flooding)
    # When the terminal takes entries again
    said.open.set()
    # Then the other worker is heard
    before = said.count("calm")
    eventually(lambda: said.count("calm") > before + 20, what="more lines of the calm worker")


def test_the_receiver_of_a_killed_worker_ends_by_itself_and_leaves_nothing_behind(said: Said, workers: Workers) -> None:
    def one_incarnation() -> None:
        flooding = workers.start("flood", log_talkers.flood)
        before = said.count("flood")
        eventually(lambda: said.count("flood") > before)
        kill(flooding)
        workers.end()
        eventually(lambda: not receivers(), what="the end of the receiver")

    one_incarnation()  # the first also starts multiprocessing's resource tracker
    open_files, semaphores = count_files(), count_semaphores()
    for _ in range(3):
        one_incarnation()
    assert count_files() <= open_files
    assert count_semaphores() <= semaphores


def test_what_the_supervisor_cannot_import_arrives_as_text_and_kills_no_receiver(said: Said, workers: Workers) -> None:
    workers.start("strange", log_talkers.say_strange_things)
    eventually(lambda: said.has("the last line"))
    assert said.has("with an extra")
    assert said.has("with an argument")
    assert said.has("with too few arguments %d %d (its arguments do not fit")
    assert said.has("characters cut]")


def test_a_traceback_arrives_as_text(said: Said, workers: Workers) -> None:
    workers.start("strange", log_talkers.say_strange_things)
    eventually(lambda: said.has("the last line"))
    (entry,) = (entry for entry in said.entries if "failed" in entry)
    assert "Traceback (most recent call last)" in entry
    assert 'raise ValueError("the traceback\'s own sentence")' in entry


def test_an_entry_names_the_worker_and_the_logger(said: Said, workers: Workers) -> None:
    workers.start("mm-btc", log_talkers.say, "hello")
    entry = eventually(lambda: said.entries and said.entries[0])
    assert entry.endswith("INFO mm-btc talker: hello")


def test_the_last_lines_before_the_end_of_a_worker_are_heard(said: Said, workers: Workers) -> None:
    process = workers.start("brief", log_talkers.say, *(f"line {number}" for number in range(300)))
    process.join(20)
    assert process.exitcode == 0
    eventually(lambda: said.count("brief") == 300)


def test_a_worker_whose_log_is_not_taken_goes_on_and_tells_later_how_much_was_dropped(
    said: Said, workers: Workers, tmp_path: Path
) -> None:
    # Given a terminal that takes nothing
    said.open.clear()
    done = tmp_path / "done"
    process = workers.start("eager", log_talkers.say_much, 2 * WAITING_MAX, str(done))
    # When the worker says more than may wait
    eventually(done.exists, what="the worker to be through with it")
    # Then it did not stop, and what is missing is counted in the stream
    said.open.set()
    eventually(lambda: said.count("line") >= WAITING_MAX)
    done.unlink()
    eventually(lambda: said.has("the last line"))
    (notice,) = (entry for entry in said.entries if "records were dropped" in entry)
    dropped = int(notice.partition(": ")[2].split()[0])
    assert said.count("eager talker: line") + dropped == 2 * WAITING_MAX
    process.join(20)
    assert process.exitcode == 0


def test_a_worker_leaves_although_nobody_takes_its_log(said: Said, workers: Workers) -> None:
    said.open.clear()
    process = workers.start("stuck", log_talkers.say, *(f"line {number} {'x' * 500}" for number in range(1500)))
    process.join(20)
    assert process.exitcode == 0


def test_a_fork_of_a_worker_does_not_touch_its_queue(said: Said, workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    workers.start("forking", log_talkers.say_in_a_fork).join(20)
    eventually(lambda: said.has("said by the parent"))
    assert not said.has("said by the fork")
    assert "forking talker: said by the fork" in capfd.readouterr().err


def test_what_a_killed_supervisor_did_not_take_is_said_on_stderr(tmp_path: Path) -> None:
    # Given a supervisor that has taken one line of fifty when it is killed
    supervisor = subprocess.run(
        [sys.executable, log_talkers.__file__, str(tmp_path / "said")], stderr=subprocess.PIPE, text=True, timeout=30
    )
    # Then the pipe ends when the worker has left, and no line is missing
    assert supervisor.returncode == -signal.SIGKILL
    lines = [line for line in supervisor.stderr.splitlines() if "left talker" in line]
    assert len(lines) in (50, 51)
    assert lines[-2].endswith("line 49")
    assert lines[-1].endswith("the last line")


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_semaphores() -> int:
    """Those that this process has open; other tests may have some too."""
    return Path("/proc/self/maps").read_text().count("/dev/shm/sem.mp-")

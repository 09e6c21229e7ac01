"""One worker's log can fail, flood or be killed: nobody else's log, no thread and no process may suffer from it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import log_talkers
import psutil
import pytest
from eventually import eventually

from horizon.cli.log_reader import LogFile
from horizon.config import Logs
from horizon.logs import JsonFormatter, as_text, entry_of, log_file_name, older_files
from horizon.paths import DatabasePaths
from supervisor import log_files
from supervisor.log_channels import WAITING_MAX, LineChannel, Lines, LogChannel
from supervisor.log_files import Sink
from supervisor.rate import BURST, LINES_PER_S


class Said:
    """The sink: what has arrived so far as text, and a gate that can be shut."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.run_ids: list[object] = []
        self.open = threading.Event()
        self.open.set()

    def record(self, process: str, record: logging.LogRecord) -> None:
        self.open.wait()
        entry = entry_of(record, process)
        self.run_ids.append(entry.get("run_id"))
        entry.pop("run_id", None)
        entry.pop("pid", None)
        self.entries.append(as_text(entry))

    def entry(self, process: str, level: int, entry: Mapping[str, object]) -> None:
        self.open.wait()
        self.entries.append(as_text({**entry, "pid": None}))

    def has(self, text: str) -> bool:
        return any(text in entry for entry in list(self.entries))

    def count(self, text: str) -> int:
        return sum(text in entry for entry in list(self.entries))


@pytest.fixture
def said() -> Said:
    return Said()


class Workers:
    """Processes that log, each through a channel of its own."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self._processes: list[BaseProcess] = []
        self._channels: dict[str, LogChannel] = {}

    def start(self, name: str, what: Callable[..., None], *arguments: Any) -> BaseProcess:
        channel = LogChannel(name, self.sink)
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


def test_a_killed_supervisor_leaves_no_worker_before_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    # Given a stderr that is a full pipe, like a terminal that was stopped
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    # When the supervisor of a worker that has much to say is killed
    said = tmp_path / "said"
    supervisor = subprocess.run([sys.executable, log_talkers.__file__, str(said)], stderr=write_end, timeout=30)
    assert supervisor.returncode == -signal.SIGKILL
    # Then the worker leaves
    worker = int(said.read_text())
    eventually(lambda: not psutil.pid_exists(worker), what="the end of the worker")
    os.close(read_end)
    os.close(write_end)


def test_a_flood_is_bounded_and_counted_and_does_not_hide_errors(said: Said, workers: Workers) -> None:
    begun = time.monotonic()
    workers.start("flood", log_talkers.flood_with_errors_in_it)
    eventually(lambda: said.count("ERROR flood talker: error") > 10)
    taken, seconds = said.count("INFO flood talker: flood"), time.monotonic() - begun
    assert taken <= BURST + LINES_PER_S * seconds
    newest = [entry for entry in said.entries if "ERROR" in entry][-1]
    assert int(newest.split()[-2]) > 100_000
    assert said.has("log records were dropped here")
    assert set(said.run_ids) == {"run-1"}


# ---- the real sink


class Copies:
    """A terminal that shows nothing, as long as it is open."""

    as_json = False

    def say(self, entry: str) -> None:
        pass


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    sink = Sink(Logs(max_bytes=200_000, keep=100), DatabasePaths.of(tmp_path / "horizon.db"), Copies())
    sink.start()
    yield sink
    sink.close(10)


def messages(sink: Sink, process: str) -> list[str]:
    log = LogFile(sink.folder / log_file_name(process))
    try:
        return [line.entry["message"] for line in log.oldest_first(0.0)]
    finally:
        log.close()


def test_whoever_is_killed_while_the_sink_is_stalled_all_others_trade_on_and_are_heard_again(
    sink: Sink, workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wedge of a shared queue, which happened every time: stall the sink, let the victim burst, kill it."""
    workers.sink = sink
    # Given a strategy that trades and logs, and another process that logs
    trader = workers.start("trader", log_talkers.trade, str(tmp_path))
    workers.start("calm", log_talkers.say_slowly)
    size = lambda name: (tmp_path / name).stat().st_size if (tmp_path / name).exists() else 0  # noqa: E731
    eventually(lambda: size("fills") > 3, 30, what="fills")
    eventually(lambda: messages(sink, "trader") and messages(sink, "calm"))
    # When the disk of the logs answers nobody, and a victim that bursts is killed with its queue's lock in its hands
    answers = threading.Event()
    append = log_files._File._append
    monkeypatch.setattr(log_files._File, "_append", lambda file, data: answers.wait(60) and append(file, data))
    victim = workers.start("victim", log_talkers.flood)
    eventually(lambda: workers.waiting("victim") >= WAITING_MAX)
    kill(victim)
    # Then the strategy trades on, far longer than its own log has room for
    cycles, fills = size("cycles"), size("fills")
    eventually(lambda: size("cycles") > cycles + 100 and size("fills") > fills + 5, 30, what="more trading")
    # And when the disk answers, every other process is heard, with all that it said meanwhile
    answers.set()
    before = len(messages(sink, "trader"))
    eventually(lambda: len(messages(sink, "trader")) > before + 150, what="the trader's log")
    calm = [message for message in messages(sink, "calm") if message.startswith("line")]
    eventually(lambda: len(messages(sink, "calm")) > len(calm) + 100, what="the calm one's log")
    assert calm == [f"line {number}" for number in range(len(calm))]
    os.kill(trader.pid or 0, signal.SIGTERM)
    trader.join(20)
    assert trader.exitcode == 0


def test_kills_at_random_instants_cost_no_other_process_a_line(sink: Sink, workers: Workers) -> None:
    workers.sink = sink
    workers.start("calm", log_talkers.say_slowly)
    random = Random(4)
    for number in range(12):
        victim = workers.start("victim", log_talkers.flood)  # one name: old and new incarnation write to one file
        heard = len(messages(sink, "victim"))
        eventually(lambda heard=heard: len(messages(sink, "victim")) > heard)
        moment = time.monotonic() + random.random() * 0.05
        eventually(lambda moment=moment: time.monotonic() >= moment, interval_s=0.001)
        victim.kill()
        if number % 2:
            victim.join()
    before = len(messages(sink, "calm"))
    eventually(lambda: len(messages(sink, "calm")) > before + 50, what="more lines of the calm worker")
    calm = messages(sink, "calm")
    assert calm == [f"line {number}" for number in range(len(calm))]
    assert sink.dropped == 0


def test_a_supervisor_killed_while_it_writes_and_rotates_leaves_files_that_can_be_read(tmp_path: Path) -> None:
    log = tmp_path / "horizon.db.d" / "logs" / "mm.log"
    kills = 8
    for incarnation in range(kills):
        before = len(older_files(log))
        supervisor = subprocess.Popen(
            [sys.executable, log_talkers.__file__, "fill", str(tmp_path / "horizon.db"), str(incarnation)]
        )
        eventually(lambda before=before: len(older_files(log)) >= before + 3, 30)
        kill_process(supervisor)
    file = LogFile(log)
    seen: dict[tuple[str, str], list[int]] = {}
    for line in file.oldest_first(0.0):
        incarnation, receiver, number, _ = line.entry["message"].split()
        seen.setdefault((incarnation, receiver), []).append(int(number))
    file.close()
    assert len(seen) == 2 * kills
    assert all(numbers == list(range(len(numbers))) for numbers in seen.values())
    assert file.unreadable <= kills


@pytest.mark.root
def test_a_full_disk_costs_the_log_its_lines_and_nobody_anything_else(
    workers: Workers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a log folder on a disk of its own, and a worker that logs
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    try:
        sink = Sink(Logs(folder=folder, max_bytes=100_000), DatabasePaths.of(tmp_path / "horizon.db"), Copies())
        sink.start()
        workers.sink = sink
        workers.start("calm", log_talkers.say_slowly)
        eventually(lambda: messages(sink, "calm"))
        # When the disk is full
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        # Then lines are counted, it is said once, and what is in the file can be read
        eventually(lambda: sink.dropped > 100)
        assert sum("No space left" in said for said in caplog.messages) == 1
        kept = messages(sink, "calm")
        assert kept == [f"line {number}" for number in range(len(kept))]
        # And when there is room again, the file goes on and says what is missing
        ballast.unlink()
        eventually(lambda: len(messages(sink, "calm")) > len(kept) + 50)
        notice = messages(sink, "calm")[len(kept)]
        lost = int(notice.split()[0])
        assert notice == f"{lost} lines of the log were lost here: they could not be written"
        assert messages(sink, "calm")[len(kept) + 1] == f"line {len(kept) + lost}"
        assert lost <= sink.dropped
        workers.end()
        sink.close(5)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_process_that_logs_json_lines_keeps_its_levels_and_a_traceback_stays_whole(sink: Sink) -> None:
    channel = LineChannel("writer", sink)
    channel.pid = 7
    record = logging.LogRecord("horizon.writer", logging.ERROR, "", 0, "stalled", None, None)
    record.action = "writer_stalled"
    traceback = "Traceback (most recent call last):\n  File x\n    y\nValueError: no"
    said = f"{JsonFormatter().format(record)}\nprinted by a library\n\n{traceback}\nnot the end"
    os.set_blocking(channel.write_end, True)
    for byte in said.encode():
        os.write(channel.write_end, bytes([byte]))
    channel.let_go()
    eventually(lambda: len(messages(sink, "writer")) == 4)
    assert messages(sink, "writer") == ["stalled", "printed by a library", traceback, "not the end"]
    log = LogFile(sink.folder / "writer.log")
    first, second, *_ = log.oldest_first(0.0)
    log.close()
    assert [first.entry[name] for name in ("level", "logger", "action", "strategy", "pid")] == [
        *("error", "horizon.writer", "writer_stalled", "writer", os.getpid())
    ]
    assert [second.entry[name] for name in ("level", "logger", "pid")] == ["warning", "output", 7]


def test_lines_are_bounded_and_a_traceback_without_an_end_is_not_waited_for() -> None:
    lines = Lines()
    (progress,) = lines.feed(b"x" * 100_000)
    assert len(progress) == 100_000
    assert lines.feed(b"Traceback (most recent call last):\n" + b"  File x\n" * 498) == []
    assert len(lines.feed(b"  File y\n")) == 1
    assert lines.feed(b"Traceback (most recent call last):\n  File x\n\xff") == []
    assert lines.end() == ["Traceback (most recent call last):\n  File x\n\\xff"]
    assert lines.end() == []


def kill_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_semaphores() -> int:
    """Those that this process has open; other tests may have some too."""
    return Path("/proc/self/maps").read_text().count("/dev/shm/sem.mp-")

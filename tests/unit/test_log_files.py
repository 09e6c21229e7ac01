"""The files that logs end in: rotation, disks that fail, names that others moved, and who waits for whom."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually

from horizon.config import Logs
from horizon.paths import DatabasePaths
from supervisor import log_files
from supervisor.log_files import WAITING_MAX, Sink
from supervisor.rate import BURST, Rate


class Shown:
    """A terminal that shows to the test."""

    as_json = False

    def __init__(self) -> None:
        self.entries: list[str] = []

    def say(self, entry: str) -> None:
        self.entries.append(entry)

    def has(self, text: str) -> bool:
        return any(text in entry for entry in self.entries)

    def count(self, text: str) -> int:
        return sum(text in entry for entry in self.entries)


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def sink_of(tmp_path: Path, shown: Shown) -> Iterator[Callable[..., Sink]]:
    """A started sink with these settings."""
    before, level = list(logging.root.handlers), logging.root.level
    sinks = []

    def sink_of(**settings: Any) -> Sink:
        sink = Sink(Logs(**settings), DatabasePaths.of(tmp_path / "horizon.db"), shown)
        sink.start()
        sinks.append(sink)
        return sink

    yield sink_of
    for sink in sinks:
        sink.close(10)
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("talker", level, "", 0, message, None, None)
    made.__dict__.update(extra)
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_log(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").endswith(".log")


def messages(path: Path) -> list[str]:
    return [line["message"] for line in lines(path)]


def test_an_entry_goes_to_the_file_of_its_strategy_and_to_the_terminal(sink_of: Callable[..., Sink], shown: Shown) -> None:
    sink = sink_of()
    sink.record("mm", record("hello", run_id="run-1"))
    (line,) = lines(sink.folder / "mm.log")
    assert (line["strategy"], line["run_id"], line["pid"], line["level"]) == ("mm", "run-1", os.getpid(), "info")
    assert shown.entries[0].endswith(f"INFO mm[{os.getpid()} run-1] talker: hello")
    assert (sink.folder / "mm.log").stat().st_mode & 0o777 == 0o600
    assert sink.folder.stat().st_mode & 0o777 == 0o700


def test_what_the_loop_offers_is_one_entry_however_many_lines_it_has(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of()
    sink.offer("mm", "Thread 1:\n  File x\n  File y", pid=7, run_id="run-1")
    (line,) = eventually(lambda: lines(sink.folder / "mm.log"))
    assert line["message"] == "Thread 1:\n  File x\n  File y"
    assert (line["strategy"], line["pid"], line["run_id"], line["level"]) == ("mm", 7, "run-1", "warning")


def test_a_group_that_may_look_into_the_folder_may_read_the_files(sink_of: Callable[..., Sink], tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    folder.chmod(0o750)
    sink_of(folder=folder).record("mm", record("hello"))
    assert (folder / "mm.log").stat().st_mode & 0o777 == 0o640


def test_below_the_level_nothing_is_written_but_events(sink_of: Callable[..., Sink], shown: Shown) -> None:
    sink = sink_of(level="error")
    sink.hear_own_log()
    sink.record("mm", record("small talk"))
    sink.offer("mm", "printed", level=logging.INFO)
    logging.getLogger("supervisor.loop").info("started mm", extra={"action": "started", "about": "mm"})
    (event,) = eventually(lambda: lines(sink.folder / "events.log"))
    assert (event["action"], event["about"]) == ("started", "mm")
    assert not shown.entries
    assert [path.name for path in sink.folder.iterdir()] == ["events.log"]
    assert sink.dropped == 0


def test_the_supervisors_own_log_is_a_file_too_and_what_has_an_action_is_an_event(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of()
    sink.hear_own_log()
    log = logging.getLogger("supervisor.loop")
    log.info("just so")
    log.warning("mm was killed", extra={"action": "died"})
    eventually(lambda: lines(sink.folder / "events.log"))
    assert messages(sink.folder / "supervisor.log") == ["just so", "mm was killed"]
    assert messages(sink.folder / "events.log") == ["mm was killed"]


def test_secrets_are_in_no_file(sink_of: Callable[..., Sink], shown: Shown) -> None:
    sink = sink_of()
    sink.record("mm", record("refused: api_key=abc123", password="abc123"))
    sink.line("mm", "token=abc123")
    sink.offer("mm", "secret: abc123")
    eventually(lambda: len(lines(sink.folder / "mm.log")) == 3)
    assert "abc123" not in (sink.folder / "mm.log").read_text()
    assert not shown.has("abc123")


def test_an_attribute_that_cannot_be_shown_costs_that_record_and_not_the_receiver(sink_of: Callable[..., Sink]) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    sink = sink_of()
    broken = record("of %s")
    broken.args = (Unspeakable(),)
    sink.record("mm", broken)
    sink.record("mm", record("next"))
    assert messages(sink.folder / "mm.log") == ["next"]
    assert sink.dropped == 1


def test_files_are_rotated_and_no_more_kept_than_asked_for(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of(max_bytes=4096, keep=2)
    for number in range(200):
        sink.record("mm", record(f"line {number} {'x' * 100}"))
    names = {path.name for path in sink.folder.iterdir()}
    assert names == {"mm.log", "mm.log.1", "mm.log.2"}
    assert all(path.stat().st_size <= 4096 for path in sink.folder.iterdir())
    kept = [message.split()[1] for name in ("mm.log.2", "mm.log.1", "mm.log") for message in messages(sink.folder / name)]
    assert kept == [str(number) for number in range(200 - len(kept), 200)]


def test_old_and_new_incarnation_rotate_at_once_and_no_line_is_lost_or_torn(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of(max_bytes=4096, keep=1000)

    def burst(name: str) -> None:
        for number in range(300):
            sink.record("mm", record(f"{name} {number} {'x' * 50}"))

    threads = [threading.Thread(target=burst, args=(name,)) for name in ("old", "new", "native")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [message for path in sink.folder.iterdir() for message in messages(path)]
    assert len(said) == len(set(said)) == 900
    assert len(list(sink.folder.iterdir())) > 10


def test_a_line_that_a_killed_supervisor_left_torn_spoils_no_other(sink_of: Callable[..., Sink]) -> None:
    first = sink_of()
    first.record("mm", record("whole"))
    with (first.folder / "mm.log").open("a") as file:
        file.write('{"time": 1, "mess')
    sink_of().record("mm", record("next"))
    whole, torn, following = (first.folder / "mm.log").read_text().splitlines()
    assert (json.loads(whole)["message"], json.loads(following)["message"]) == ("whole", "next")
    assert torn == '{"time": 1, "mess'


def test_a_file_that_somebody_moved_or_removed_is_made_again(
    sink_of: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "_LOOK_EVERY_S", 0.0)
    sink = sink_of()
    sink.record("mm", record("one"))
    (sink.folder / "mm.log").rename(sink.folder / "moved")
    sink.record("mm", record("two"))
    (sink.folder / "mm.log").unlink()
    sink.record("mm", record("three"))
    assert messages(sink.folder / "mm.log") == ["three"]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_whatever_lies_in_the_place_of_a_file_stops_nobody(
    sink_of: Callable[..., Sink], shown: Shown, tmp_path: Path, kind: str
) -> None:
    sink = sink_of()
    sink.hear_own_log()
    sink.record("mm", record("makes the folder"))
    target = tmp_path / "elsewhere"
    target.write_text("untouched\n")
    place = sink.folder / "evil.log"
    {"fifo": lambda: os.mkfifo(place), "link": lambda: place.symlink_to(target), "folder": place.mkdir}[kind]()
    for number in range(3):
        sink.record("evil", record(f"line {number}"))
    sink.record("mm", record("still there"))
    assert target.read_text() == "untouched\n"
    assert messages(sink.folder / "mm.log")[-1] == "still there"
    assert shown.has("evil[")
    assert sink.dropped == 3
    eventually(lambda: shown.has("the log cannot be written to"))


def test_a_disk_that_fails_costs_lines_that_are_counted_said_once_and_written_about_when_it_is_well(
    sink_of: Callable[..., Sink], shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "HEALED_AFTER_S", 0.6)
    sink = sink_of()
    sink.hear_own_log()
    for name in ("mm", "arb"):
        sink.record(name, record("before"))
    # Given a disk that is full, after half of a line
    write = os.write
    full = threading.Event()
    full.set()

    def write_on_a_full_disk(fd: int, data: bytes) -> int:
        if not full.is_set() or not is_log(fd):
            return write(fd, data)
        if b'{"time"' in data:
            return write(fd, data[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_files.os, "write", write_on_a_full_disk)
    # When both processes say more
    for number in range(10):
        sink.record("mm", record(f"lost {number}"))
        sink.record("arb", record(f"lost {number}"))
    # Then it is counted and said once, and the terminal has it all
    eventually(lambda: shown.has("No space left on device"))
    assert sink.dropped >= 20
    assert shown.count("lost ") >= 20
    # And when there is room again, the files say what is missing and go on
    full.clear()
    eventually(lambda: messages(sink.folder / "mm.log")[-1] == "10 lines of the log were lost here: they could not be written")
    sink.record("mm", record("after"))
    assert messages(sink.folder / "mm.log")[0::2] == ["before", "after"]
    eventually(lambda: shown.has("the logs are written again"))
    assert shown.count("cannot be written") == 1
    eventually(lambda: "logs_healed" in [line.get("action") for line in lines(sink.folder / "events.log")])


def test_the_loop_and_the_supervisors_own_log_never_wait_for_a_disk_that_does_not_answer(
    sink_of: Callable[..., Sink], shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of()
    sink.hear_own_log()
    sink.record("mm", record("before"))
    # Given a disk that does not answer
    answers = threading.Event()
    write = os.write
    monkeypatch.setattr(log_files.os, "write", lambda fd, data: (not is_log(fd) or answers.wait(60)) and write(fd, data))
    try:
        # When the loop offers and logs more than may wait
        begun = time.monotonic()
        for number in range(3 * WAITING_MAX):
            sink.offer("mm", f"line {number}")
        logging.getLogger("supervisor.loop").info("said by the loop")
        # Then it was not held up, what was too much is counted, and people see what the supervisor says
        assert time.monotonic() - begun < 5
        assert sink.dropped >= WAITING_MAX
        assert shown.has("said by the loop")
    finally:
        answers.set()
    eventually(lambda: "said by the loop" in messages(sink.folder / "supervisor.log"))
    eventually(lambda: any("lines were dropped here" in message for message in messages(sink.folder / "mm.log")))
    dropped = sum(int(m.split()[0]) for m in messages(sink.folder / "mm.log") if "were dropped here" in m)
    assert dropped == sink.dropped


def test_the_flood_of_one_process_takes_no_room_from_another(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of()
    for number in range(3 * BURST):
        sink.offer("flood", f"line {number}")
        if number % 1000 == 0:
            sink.offer("calm", f"line {number}")
    eventually(lambda: len(lines(sink.folder / "calm.log")) == 3 * BURST // 1000)


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    rate = Rate(10.0, 5)
    assert [rate.allows(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [rate.allows(100.2) for _ in range(3)] == [True, True, False]
    assert sum(rate.allows(1000.0) for _ in range(100)) == 5


def test_a_sink_that_is_closed_has_written_all_that_was_offered(sink_of: Callable[..., Sink]) -> None:
    sink = sink_of()
    for number in range(WAITING_MAX - 1):
        sink.offer("mm", f"line {number}")
    sink.close(10)
    assert len(lines(sink.folder / "mm.log")) == WAITING_MAX - 1

"""The thread that owns the terminal: what it writes, and whom a terminal that fails or waits can hold up."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest
from eventually import eventually

from horizon.cli.live import StrategyRow
from supervisor import terminal as terminal_module
from supervisor.terminal import WAITING_MAX, Terminal

ROW = StrategyRow("mm", "running", 7, 1.0, 5, 4, 3, 2.0, 1.0, 0, 0.5)


class Gate(io.StringIO):
    """A terminal that takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def write(self, text: str) -> int:
        self.open.wait()
        return super().write(text)


def test_what_a_venue_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(plain=True)
    terminal.start()
    terminal.say("evil \x1b[2J\x07\r text\nsecond line\twith a tab")
    terminal.close(5)
    assert capsys.readouterr().err == "evil ?[2J?? text\nsecond line\twith a tab\n"


def test_all_that_was_said_before_the_end_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(plain=True)
    terminal.start()
    for number in range(WAITING_MAX + 100):
        terminal.say(f"line {number}")
    terminal.close(5)
    assert len(capsys.readouterr().err.splitlines()) == WAITING_MAX + 100


def test_without_a_terminal_there_is_a_line_per_strategy_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_module, "LINES_EVERY_S", 0.01)
    terminal = Terminal()
    terminal.show([ROW])
    terminal.start()
    out = eventually(lambda: capsys.readouterr().out)
    assert out.startswith("mm running  pid 7")
    terminal.close(5)


def test_a_terminal_that_is_gone_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = io.StringIO()
    broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    terminal = Terminal(plain=True)
    terminal.start()
    for number in range(3 * WAITING_MAX):
        terminal.say(f"line {number}")  # would wait for ever if nobody took them
    terminal.close(5)
    assert not terminal._thread.is_alive()


def test_the_supervisors_own_log_never_waits_for_a_terminal_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a terminal that takes nothing, and workers that have said more than may wait
    stopped = Gate()
    monkeypatch.setattr(sys, "stderr", stopped)
    terminal = Terminal(plain=True)
    terminal.start()
    worker = threading.Thread(target=lambda: [terminal.say(f"line {number}") for number in range(WAITING_MAX * 2)])
    worker.start()
    eventually(lambda: terminal._room._value == 0)  # type: ignore[attr-defined]
    # When the supervisor logs, it does not wait, and neither does `show`
    own = terminal.handler()
    for number in range(10):
        own.handle(logging.LogRecord("supervisor.loop", logging.INFO, "", 0, f"own {number}", None, None))
    terminal.show([ROW])
    # Then all of it is there when the terminal goes on
    assert worker.is_alive()
    stopped.open.set()
    worker.join(10)
    terminal.close(5)
    assert "own 9" in stopped.getvalue()
    assert f"line {WAITING_MAX * 2 - 1}" in stopped.getvalue()

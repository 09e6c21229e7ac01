"""The thread that owns the terminal: what it writes, and whom a terminal that fails or waits can hold up."""

from __future__ import annotations

import io
import sys
import threading

import pytest
from eventually import eventually

from horizon.cli.live import StrategyRow
from supervisor import terminal as terminal_module
from supervisor.terminal import Terminal

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
    for number in range(2000):
        terminal.say(f"line {number}")
    terminal.close(5)
    assert len(capsys.readouterr().err.splitlines()) == 2000


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


def test_a_stream_of_json_has_nothing_in_it_but_entries(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_module, "LINES_EVERY_S", 0.0)
    terminal = Terminal(as_json=True)
    terminal.show([ROW])
    terminal.start()
    terminal.say('{"message": "one"}')
    terminal.close(5)
    assert capsys.readouterr() == ("", '{"message": "one"}\n')


def test_a_terminal_that_is_gone_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = io.StringIO()
    broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    terminal = Terminal(plain=True)
    terminal.start()
    for number in range(3000):
        terminal.say(f"line {number}")
    terminal.close(5)
    assert not terminal._thread.is_alive()


def test_a_stopped_terminal_holds_nobody_up_and_says_later_how_much_it_did_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a terminal that takes nothing
    stopped = Gate()
    monkeypatch.setattr(sys, "stderr", stopped)
    monkeypatch.setattr(terminal_module, "WAITING_MAX", 1000)
    terminal = Terminal(plain=True)
    terminal.start()
    # When more is said than may wait, nobody waits
    for number in range(1000):
        terminal.say(f"line {number}")
    terminal.show([ROW])
    # Then it goes on with what was said first, and counts the rest
    stopped.open.set()
    terminal.close(5)
    *shown, notice = stopped.getvalue().splitlines()
    assert shown[0] == "line 0"
    assert f"{1000 - len(shown)} entries were not shown here" in notice

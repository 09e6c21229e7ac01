"""`horizon top` on a terminal of its own, over a control socket that says what the test wants."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from eventually import eventually
from scripted_supervisor import BROKEN, MAKER, ScriptedSupervisor, status, supervising
from store_case import FixedClock, Run, fill

from horizon.control import Refused, Stop
from horizon.errors import ExitCode
from horizon.paths import DatabasePaths
from horizon.store.append import Store

ROOT = Path(__file__).parents[2]
TAKES_THE_SCREEN = b"\x1b[?1049h"
SHOWS_THE_CURSOR = b"\x1b[?25h"
LEAVES_THE_SCREEN = b"\x1b[?1049l"


class Top:
    """The command as a process behind a pseudo-terminal, and all that it ever wrote there."""

    def __init__(self, folder: Path, term: str = "xterm-256color", lines: int = 30, columns: int = 150) -> None:
        self.terminal, self._inner = pty.openpty()
        self.resize(lines, columns)
        self.before = termios.tcgetattr(self._inner)
        self.written = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "horizon", "top"],
            cwd=folder,
            stdin=self._inner,
            stdout=self._inner,
            stderr=self._inner,
            env={**os.environ, "TERM": term, "PYTHONPATH": str(ROOT), "COLUMNS": "90"},  # an old size: the terminal knows better
            start_new_session=True,
        )
        self._ending = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def shows(self, text: str) -> None:
        """Wait until the newest frame has a text."""
        try:
            eventually(lambda: text in self.frame(), 20)
        except AssertionError:
            pytest.fail(f"no {text!r} on the screen:\n{self.frame()}")

    def frame(self) -> str:
        """What the newest complete frame says, without its colours."""
        frames = self.written.split(b"\x1b[H")
        newest = frames[-1] if len(frames) < 2 or b"quit" in frames[-1] or b"y/n" in frames[-1] else b"".join(frames[-2:])
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", newest.decode(errors="replace"))

    def is_at_work(self) -> None:
        """Whether it has taken the terminal: keys pressed before that are lost to nobody, signals are."""
        eventually(lambda: TAKES_THE_SCREEN in self.written, 20, what=f"the alternate screen: {self.written!r}")

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._inner) == self.before and self.written.endswith(SHOWS_THE_CURSOR + LEAVES_THE_SCREEN)

    def wait(self) -> int:
        return self.process.wait(20)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._ending.set()
        self._reader.join(10)
        os.close(self.terminal)
        os.close(self._inner)

    def _read(self) -> None:
        while not self._ending.is_set():
            readable, _, _ = select.select([self.terminal], [], [], 0.05)
            if readable:
                with suppress(OSError):
                    self.written += os.read(self.terminal, 65536)


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    (tmp_path / "maker.py").touch()
    (tmp_path / "horizon.toml").write_text('[strategies.maker]\nfile = "maker.py"\n')
    return DatabasePaths.of(tmp_path / "horizon.db")


@pytest.fixture
def supervisor(paths: DatabasePaths) -> Iterator[ScriptedSupervisor]:
    with supervising(paths.control_socket, status(MAKER, BROKEN)) as scripted:
        yield scripted


@pytest.fixture
def top(tmp_path: Path, paths: DatabasePaths) -> Iterator[Top]:
    shown = Top(tmp_path)
    yield shown
    shown.end()


def test_top_shows_what_the_supervisor_says_and_follows_it(supervisor: ScriptedSupervisor, top: Top) -> None:
    top.shows("quarantined")
    top.shows(">  maker")
    supervisor.status = status(msgspec.structs.replace(MAKER, fills=777, why="slow venue", state="degraded"), BROKEN)
    top.shows("777")
    top.shows("slow venue")


def test_q_gives_the_terminal_back_as_it_was(supervisor: ScriptedSupervisor, top: Top) -> None:
    top.shows("maker")
    top.press("q")
    assert top.wait() == ExitCode.DONE
    eventually(top.is_as_before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, ExitCode.DONE), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_every_signal_that_ends_it_gives_the_terminal_back(
    supervisor: ScriptedSupervisor, top: Top, number: int, code: int
) -> None:
    top.is_at_work()
    top.process.send_signal(number)
    assert top.wait() == code
    eventually(top.is_as_before)


def test_ctrl_z_lends_the_terminal_to_the_shell_and_takes_it_again(supervisor: ScriptedSupervisor, top: Top) -> None:
    top.is_at_work()
    top.process.send_signal(signal.SIGTSTP)
    _, state = os.waitpid(top.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(state)
    eventually(top.is_as_before)
    top.process.send_signal(signal.SIGCONT)
    eventually(lambda: top.written.count(TAKES_THE_SCREEN) == 2, what="the screen again")
    top.press("q")
    assert top.wait() == ExitCode.DONE


def test_a_stop_is_told_after_a_yes_and_says_what_is_at_stake(supervisor: ScriptedSupervisor, top: Top) -> None:
    top.shows("maker")
    top.press("s")
    top.shows("maker has a position of 0.3. Stop maker? y/n")
    assert supervisor.commands() == []
    top.press("n")
    top.shows("? help")
    top.press("s")
    top.shows("y/n")
    top.press("y")
    eventually(lambda: supervisor.commands() == [Stop(["maker"])])
    top.shows("Stop is under way")


def test_a_refusal_is_shown(supervisor: ScriptedSupervisor, top: Top) -> None:
    supervisor.refusal = Refused("the disk is full").reason
    top.shows("maker")
    top.press("\x1b[Bt")
    top.shows("the disk is full")


def test_a_supervisor_may_go_and_come_back(tmp_path: Path, paths: DatabasePaths) -> None:
    paths.folder.mkdir()
    top = Top(tmp_path)
    try:
        top.shows("no supervisor runs here")
        with supervising(paths.control_socket, status(MAKER)):
            top.shows("all is ready")
        top.shows("last seen")
        with supervising(paths.control_socket, status(BROKEN)):
            top.shows("broken is quarantined")
    finally:
        top.end()


def test_positions_come_from_the_database_and_errors_from_the_logs(
    supervisor: ScriptedSupervisor, paths: DatabasePaths, tmp_path: Path
) -> None:
    run = Run(strategy="maker")
    store = Store(paths, clock=FixedClock())
    store.append([run.start(), run.entry(fill("one"))])
    store.close()
    paths.logs.mkdir()
    entries = [
        {"time": 1.0, "level": "info", "strategy": "maker", "message": "nothing of note"},
        {"time": 2.0, "level": "error", "strategy": "maker", "message": "the venue refused"},
    ]
    (paths.logs / "maker.log").write_text("".join(msgspec.json.encode(entry).decode() + "\n" for entry in entries))
    (paths.logs / "events.log").write_text(
        '{"time": 3.0, "level": "info", "strategy": "supervisor", "message": "maker is ready"}\n'
    )
    top = Top(tmp_path)
    try:
        top.shows("the venue refused")
        top.shows("maker is ready")
        top.shows(fill("one").market_id)
        assert "nothing of note" not in top.frame()
    finally:
        top.end()


def test_a_new_size_of_the_terminal_is_drawn(supervisor: ScriptedSupervisor, top: Top) -> None:
    top.shows("cycles")
    top.resize(20, 70)
    eventually(lambda: "maker" in top.frame() and "cycles" not in top.frame(), what="fewer columns")


def test_a_dumb_terminal_gets_lines(supervisor: ScriptedSupervisor, tmp_path: Path, paths: DatabasePaths) -> None:
    top = Top(tmp_path, term="dumb")
    try:
        eventually(lambda: top.written.count(b"maker") >= 2, what=f"two frames: {top.written!r}")
        assert b"\x1b" not in top.written
        top.process.send_signal(signal.SIGINT)
        assert top.wait() == ExitCode.INTERRUPTED
    finally:
        top.end()


def test_a_terminal_that_hangs_up_ends_it(supervisor: ScriptedSupervisor, tmp_path: Path) -> None:
    outer_end, inner_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "horizon", "top"],
        cwd=tmp_path,
        stdin=inner_end,
        stdout=inner_end,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    os.close(inner_end)
    os.read(outer_end, 10)
    os.close(outer_end)
    assert process.wait(20) is not None

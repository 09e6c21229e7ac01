"""What a service manager hears of `horizon up`, with the test at the other end of its socket."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from supervised import Up, configure

from horizon.errors import ExitCode


class Manager:
    """A NOTIFY_SOCKET, and all that came over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        while True:
            try:
                self._heard += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self._heard

    def hears(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.heard().count(text) >= times, 20, what=f"{text} in {self.heard()}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def up(tmp_path: Path, manager: Manager) -> Iterator[Up]:
    configure(tmp_path, "a", "b")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text() + '[strategies.broken]\nfile = "broken.py"\n')
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "400000"}
    up = Up(tmp_path, environment=environment)
    yield up
    up.end()


def test_the_start_is_over_when_every_strategy_is_ready_or_given_up(up: Up, manager: Manager) -> None:
    manager.hears("READY=1")
    assert "STATUS=2/3 ready, 1 quarantined: broken" in manager.heard()
    manager.hears("WATCHDOG=1", times=5)
    assert up.stop() == ExitCode.DONE
    heard = manager.heard()
    assert heard.count("READY=1") == 1
    assert heard.index("READY=1") < heard.index("STOPPING=1")
    assert "EXTEND_TIMEOUT_USEC=10000000" in heard[heard.index("STOPPING=1") :]


def test_a_hangup_reloads_and_a_wrong_file_changes_nothing(up: Up, manager: Manager, tmp_path: Path) -> None:
    manager.hears("READY=1")
    config = tmp_path / "horizon.toml"
    right = config.read_text()
    config.write_text(right + "[nonsense]\n")
    up.send(signal.SIGHUP)
    up.says("the configuration is not reloaded")
    manager.hears("READY=1", times=2)
    pid = up.pid_of("a")
    # When the file is right again, and one strategy is gone
    config.write_text(right.replace('[strategies.b]\nfile = "b.py"\n', ""))
    up.send(signal.SIGHUP)
    up.says("b (pid")
    manager.hears("READY=1", times=3)
    assert manager.heard().count("RELOADING=1") == 2
    assert up.pid_of("a") == pid
    assert up.stop() == ExitCode.DONE

"""What systemd hears from the supervisor, on a NOTIFY_SOCKET of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from notified import Listener

from supervisor.notify import WATCHDOG_SIGNAL, Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    with closing(Listener(str(tmp_path / "notify"))) as listener:
        yield listener


@pytest.fixture
def notifier(systemd: Listener) -> Iterator[Notifier]:
    with closing(Notifier(systemd.address)) as notifier:
        yield notifier


@pytest.fixture
def watched(systemd: Listener) -> Iterator[Notifier]:
    """One that has to say every 15 s that its loop turns."""
    with closing(Notifier(systemd.address, watchdog_s=15.0)) as notifier:
        yield notifier


def test_ready_comes_with_its_status_in_one_message(systemd: Listener, notifier: Notifier) -> None:
    notifier.ready("2/2 ready")
    assert systemd.heard() == ["READY=1\nSTATUS=2/2 ready"]


def test_an_abstract_address_is_understood() -> None:
    address = f"@horizon-notify-{os.getpid()}"
    with closing(Listener(address)) as listener, closing(Notifier(address)) as notifier:
        notifier.stopping()
        assert listener.heard() == ["STOPPING=1"]


def test_a_status_is_told_once_however_often_it_is_said(systemd: Listener, notifier: Notifier) -> None:
    notifier.ready("2/2 ready")
    systemd.heard()
    for _ in range(3):
        notifier.status("2/2 ready")
    assert systemd.heard() == []
    for _ in range(3):
        notifier.status("1/2 ready, 1 quarantined: momentum")
    assert systemd.heard() == ["STATUS=1/2 ready, 1 quarantined: momentum"]


def test_a_status_cannot_smuggle_in_another_assignment(systemd: Listener, notifier: Notifier) -> None:
    notifier.status("1 quarantined: a\nMAINPID=1")
    assert systemd.heard() == ["STATUS=1 quarantined: a MAINPID=1"]


def test_a_status_of_any_length_fits_in_a_message(systemd: Listener, notifier: Notifier) -> None:
    notifier.ready("9000 quarantined: " + "a strategy, " * 9000)
    (message,) = systemd.heard()
    assert message.startswith("READY=1\nSTATUS=9000 quarantined: a strategy, ")
    assert len(message) < 1000


def test_the_watchdog_is_fed_at_half_its_interval(systemd: Listener, watched: Notifier) -> None:
    heard_at = []
    for tenth in range(600):
        now = 1000.0 + tenth / 10
        watched.watchdog(now)
        heard_at += [now] * systemd.heard().count("WATCHDOG=1")
    assert heard_at == [1000.0 + 7.5 * beat for beat in range(8)]


def test_without_a_watchdog_nothing_feeds_it(systemd: Listener, notifier: Notifier) -> None:
    for now in range(100):
        notifier.watchdog(float(now))
    assert systemd.heard() == []


def test_a_reload_begins_with_the_monotonic_time_and_ends_with_ready(systemd: Listener, notifier: Notifier) -> None:
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.ready("3/3 ready")
    begun, ended = systemd.heard()
    word, _, microseconds = begun.partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    assert ended == "READY=1\nSTATUS=3/3 ready"


def test_more_time_is_asked_for_once_a_second(systemd: Listener, notifier: Notifier) -> None:
    for tenth in range(31):
        notifier.extend(tenth / 10, seconds=20.0)
    assert systemd.heard() == ["EXTEND_TIMEOUT_USEC=20000000"] * 4


def test_what_a_full_socket_refuses_is_told_later_and_nothing_waits(systemd: Listener, watched: Notifier) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", systemd.address)
    watched.watchdog(10.0)
    watched.ready("1/2 ready")
    watched.status("2/2 ready")
    assert set(systemd.heard()) == {"X=1"}
    watched.watchdog(10.1)
    (message,) = systemd.heard()
    assert set(message.splitlines()) == {"WATCHDOG=1", "READY=1", "STATUS=2/2 ready"}
    watched.watchdog(10.2)
    assert systemd.heard() == []


def test_a_systemd_that_is_gone_costs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = str(tmp_path / "notify")
    with closing(Notifier(address, watchdog_s=1.0)) as notifier:
        notifier.ready("2/2 ready")
        for now in range(100):
            notifier.watchdog(float(now))
        notifier.stopping()
        assert len(caplog.records) == 1
        with closing(Listener(address)) as systemd:  # which was executed anew
            notifier.watchdog(100.0)
            assert systemd.heard() == ["STOPPING=1\nSTATUS=2/2 ready\nWATCHDOG=1"]


def test_without_a_socket_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.is_heard
    notifier.reloading()
    notifier.ready("ready")
    notifier.status("fine")
    notifier.watchdog(1.0)
    notifier.extend(1.0, 1.0)
    notifier.stopping()


def test_the_variables_are_gone_once_read(systemd: Listener) -> None:
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    with closing(Notifier.from_environment(environ)) as notifier:
        assert environ == {"HOME": "/"}
        assert notifier.is_heard
        for now in (0.0, 1.9, 2.0):
            notifier.watchdog(now)
    assert systemd.heard() == ["WATCHDOG=1", "WATCHDOG=1"]


@pytest.mark.parametrize(
    "wrong",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": ""}],
    ids=lambda wrong: " ".join(f"{key}={value}" for key, value in wrong.items()),
)
def test_a_watchdog_of_another_process_or_of_no_length_is_none(systemd: Listener, wrong: dict[str, str]) -> None:
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000", **wrong}
    with closing(Notifier.from_environment(environ)) as notifier:
        notifier.watchdog(0.0)
    assert systemd.heard() == []


def test_a_child_of_any_kind_inherits_nothing_of_it(systemd: Listener) -> None:
    script = """if True:
        import multiprocessing, subprocess, sys
        from supervisor.notify import Notifier
        Notifier.from_environment()
        look = "import os; print([name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG'))])"
        subprocess.run([sys.executable, "-c", look], check=True)
        child = multiprocessing.get_context("spawn").Process(target=exec, args=(look,))
        child.start()
        child.join()
        """
    environ = {**os.environ, "NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_the_watchdogs_signal_ends_a_process_that_hangs_with_pythons_lock_in_its_hands_and_says_where() -> None:
    script = """if True:
        import ctypes
        from supervisor import notify
        notify.end_when_hung()
        def hang():
            print("hangs", flush=True)
            ctypes.PyDLL(None).sleep(60)
        hang()
        """
    hung = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with hung:
        assert hung.stdout is not None
        hung.stdout.readline()
        hung.send_signal(signal.SIGSTOP)
        hung.send_signal(WATCHDOG_SIGNAL)
        hung.send_signal(signal.SIGCONT)
        _, said = hung.communicate(timeout=30)
    assert hung.returncode == -signal.SIGABRT
    assert "in hang" in said


def test_the_watchdogs_signal_means_nothing_to_any_other_process() -> None:
    script = "import os; os.kill(os.getpid(), int(os.sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", script, str(int(WATCHDOG_SIGNAL))], check=False).returncode == 0

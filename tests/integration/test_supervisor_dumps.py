"""Asking a process what its threads do, when it runs, hangs or does not listen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from eventually import eventually

from supervisor.dumps import Dump

LISTENS = """
import faulthandler, signal, sys
faulthandler.enable(file={fd})
faulthandler.register(signal.SIGUSR2, file={fd}, all_threads=True)
def here():
    print("listens", flush=True)
    {body}
here()
"""
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def dump() -> Iterator[Dump]:
    dump = Dump()
    yield dump
    dump.close()


@pytest.fixture
def start(dump: Dump) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def a_process(body: str) -> subprocess.Popen[bytes]:
        code = LISTENS.format(fd=dump.fd, body=body)
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=(dump.fd,), stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        started.append(process)
        return process

    yield a_process
    for process in started:
        process.kill()
        process.communicate()


def answer(dump: Dump) -> str:
    texts: list[str] = []

    def complete() -> bool:
        text = dump.answer(time.monotonic())
        texts.extend([text] if text is not None else [])
        return text is not None

    eventually(complete)
    return texts[0]


@pytest.mark.parametrize("body", ["import time; time.sleep(60)", "while True: pass", "sum(range(10**12))"])
def test_a_process_that_hangs_says_where(dump: Dump, start: Start, body: str) -> None:
    process = start(body)
    for _ in range(2):  # the second answer is not the first one once more
        assert dump.ask(process.pid, time.monotonic())
        text = answer(dump)
        assert "in here" in text
        assert text.count("most recent call first") == 1
    assert process.poll() is None


def test_a_process_that_does_not_listen_is_not_killed_by_the_question(dump: Dump) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not dump.ask(process.pid, time.monotonic())
        assert not dump.is_asked
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_stopped_process_is_not_waited_for_longer_than_two_seconds(dump: Dump, start: Start) -> None:
    process = start("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    asked_at = time.monotonic()
    eventually(lambda: dump.ask(process.pid, asked_at))
    assert dump.answer(asked_at + 1.9) is None
    assert dump.answer(asked_at + 2.0) == ""


def test_the_last_words_of_a_segmentation_fault_are_there_after_the_death(dump: Dump, start: Start) -> None:
    process = start("import ctypes; ctypes.string_at(1)")
    process.wait(10)
    text = dump.take()
    assert text.startswith("Fatal Python error: Segmentation fault")
    assert "in here" in text
    assert dump.take() == ""

"""A worker as the supervisor starts it, below a parent that a test can kill: `python nursery.py CONFIG STRATEGY [deaf]`.

The parent writes what it hears into STRATEGY.heard, one message a line; the worker's log, what it writes past Python and its answers to
SIGUSR2 come into STRATEGY.log, .out and .dump. A deaf one reads nothing of the output.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import msgspec
import psutil
from eventually import eventually

from horizon import channel, config, worker
from horizon.channel import Channel, Message, Stop


class Worker:
    """The test's side: one strategy below a parent of its own."""

    def __init__(self, folder: Path, name: str, source: str, supervision: str = "", table: str = "", deaf: bool = False) -> None:
        self._folder = folder
        self._name = name
        (folder / f"{name}.py").write_text(source)
        toml = folder / f"{name}.toml"
        toml.write_text(f'[supervisor]\n{supervision}\n[strategies.{name}]\nfile = "{name}.py"\n{table}\n')
        command = [sys.executable, __file__, str(toml), name, *(["deaf"] if deaf else [])]
        self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd=folder)

    def read(self, suffix: str) -> str:
        path = self._folder / f"{self._name}.{suffix}"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def heard(self) -> list[Message]:
        lines = self.read("heard").split("\n")
        return [msgspec.json.decode(line, type=Message) for line in lines[:-1]]

    def hears(self, kind: type, at_least: int = 1) -> None:
        """Wait until it has told so."""
        try:
            eventually(lambda: sum(isinstance(message, kind) for message in self.heard()) >= at_least, 20.0)
        except AssertionError as error:
            raise AssertionError(f"no {kind.__name__}: {self}") from error

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(int(eventually(lambda: self.read("pid"))))

    @property
    def exit_code(self) -> int | None:
        text = self.read("exit")
        return int(text) if text else None

    def ends(self, timeout_s: float = 20.0) -> int:
        return int(eventually(lambda: self.read("exit"), timeout_s, what=str(self)))

    def stop(self, deadline_s: float = 10.0) -> None:
        assert self.parent.stdin is not None
        self.parent.stdin.write(f"{deadline_s}\n".encode())
        self.parent.stdin.flush()

    def __str__(self) -> str:
        return f"{self.heard()[-5:]}\n{self.read('log')}{self.read('out')}"

    def clean_up(self) -> None:
        with suppress(psutil.Error, ValueError):
            for process in [psutil.Process(int(self.read("pid")))]:
                for helper in process.children(recursive=True):
                    helper.kill()
                process.kill()
        self.parent.kill()
        self.parent.wait()
        assert self.parent.stdin is not None
        self.parent.stdin.close()


@contextmanager
def nursery(folder: Path) -> Iterator[_Nursery]:
    opened = _Nursery(folder)
    try:
        yield opened
    finally:
        for one in opened.workers:
            one.clean_up()


class _Nursery:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.workers: list[Worker] = []

    def __call__(self, name: str, source: str, **options: Any) -> Worker:
        self.workers.append(Worker(self._folder, name, source, **options))
        return self.workers[-1]


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: one that is dead and that nobody has reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class FileLog(logging.FileHandler):
    """A log that can be handed to another process."""

    dropped = 0
    last_error = ""

    def __reduce__(self) -> tuple[type[FileLog], tuple[str]]:
        return FileLog, (self.baseFilename,)


class _Handed:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        handed = DupFd(self._fd)
        return type(handed), (handed.fd,)


def _main(toml: Path, name: str, is_deaf: bool) -> None:
    folder = toml.parent
    loaded = config.load(toml)
    ours, theirs = channel.pair()
    dump = os.open(folder / f"{name}.dump", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    log: Any = FileLog(folder / f"{name}.log")
    process = multiprocessing.get_context("spawn").Process(
        target=worker.main, args=(loaded.only(name), theirs, log, os.getpid(), _Handed(dump), _Handed(write_end))
    )
    process.start()
    theirs.close()
    os.close(write_end)
    (folder / f"{name}.pid").write_text(str(process.pid))
    _attend(process, Channel(ours), read_end, folder / name, is_deaf)
    process.join()
    (folder / f"{name}.exit").write_text(str(process.exitcode))
    signal.pause()


def _attend(process: Any, end: Channel, output: int, stem: Path, is_deaf: bool) -> None:
    selector = selectors.DefaultSelector()
    for what in (process.sentinel, end, sys.stdin, *(() if is_deaf else (output,))):
        selector.register(what, selectors.EVENT_READ)
    with stem.with_suffix(".heard").open("wb") as heard, stem.with_suffix(".out").open("wb") as written:
        is_over = False
        while not is_over:
            ready = {key.fileobj for key, _ in selector.select()}
            is_over = process.exitcode is not None
            for message in end.receive():
                heard.write(msgspec.json.encode(message) + b"\n")
                heard.flush()
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if line:
                    end.send(Stop(float(line)))
                else:
                    selector.unregister(sys.stdin)
            if output in ready:
                data = os.read(output, 65536)
                written.write(data)
                written.flush()
                if not data:
                    selector.unregister(output)
            if end.closed and end in ready:
                selector.unregister(end)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], "deaf" in sys.argv)

"""Children of every kind for the supervisor's tests: `python zoo.py BEHAVIOUR CHANNEL_FD ARGUMENT [DUMP_FD]`."""

from __future__ import annotations

import faulthandler
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from horizon.channel import Channel, Draining, Heartbeat, Phase, Ready, Stop


class Zoo:
    """One child; every method is a behaviour."""

    def __init__(self, end: socket.socket, argument: str) -> None:
        self.end = end
        self.channel = Channel(end)
        self.argument = argument

    def good(self) -> int:
        """Ready, then beats until it is told to stop or the supervisor is gone."""
        self.channel.send(Ready(run_id=self.argument))
        self.channel.send(Heartbeat(cycles=3, orders=2, fills=1))
        self._until_told()
        self.channel.send(Draining(unacked=0, journal=""))
        return 0

    def ends(self) -> int:
        self.channel.send(Ready(run_id=""))
        return int(self.argument)

    def never_ready(self) -> int:
        return int(self.argument)

    def dies_by_signal(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def ignores_everything(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.channel.send(Ready(run_id=""))
        while True:
            time.sleep(60)

    def stops_itself(self) -> int:
        """SIGSTOP: it sees neither STOP nor SIGTERM until somebody wakes it."""
        self.channel.send(Ready(run_id=""))
        os.kill(os.getpid(), signal.SIGSTOP)
        self._until_told()
        return 0

    def has_a_helper(self) -> int:
        """A helper in its process group; its pid goes into a file. Then it dies."""
        helper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        with open(self.argument, "w") as file:
            file.write(str(helper.pid))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def closes_its_channel(self) -> int:
        self.channel.send(Ready(run_id=""))
        self.channel.close()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(60)

    def sends_garbage(self) -> int:
        for data in (b"\xc1garbage", b"x" * 60_000, b"\x81\xa4type\xa5nobody"):
            self.end.send(data)
        return self.good()

    def floods_its_channel(self) -> int:
        """With what nobody understands, as fast as it is taken."""
        self.channel.send(Ready(run_id=""))
        while not self._is_told(0.0):
            with suppress(BlockingIOError):
                for _ in range(100):
                    self.end.send(b"\xc1garbage")
        return 0

    def gives_up_when_a_file_appears(self) -> int:
        """A writer whose database becomes unusable."""
        self.channel.send(Ready(run_id=""))
        while not Path(self.argument).exists():
            time.sleep(0.01)
        return 4

    def beats(self) -> int:
        """The healthy one: a sign of life every 50 ms."""
        self.channel.send(Ready(run_id=self.argument))
        for progress in count(1):
            self.channel.send(Heartbeat(progress=progress, cycles=progress))
            if self._is_told(0.05):
                return 0
        raise AssertionError

    def beats_and_is_never_ready(self) -> int:
        self.channel.send(Phase("recovering"))
        for progress in count(1):
            self.channel.send(Heartbeat(progress=progress))
            if self._is_told(0.05):
                return 0
        raise AssertionError

    def beats_without_progress(self) -> int:
        """Its loop goes round, and nothing gets done."""
        self.channel.send(Ready(run_id=""))
        while not self._is_told(0.05):
            self.channel.send(Heartbeat(progress=1))
        return 0

    def holds_the_gil(self) -> int:
        """In C, for ever: no thread of it, and no signal handler in Python, is ever run again."""
        self.channel.send(Ready(run_id=""))
        self.channel.send(Heartbeat(progress=1))
        signal.alarm(60)
        re.match(r"(a+)+$", "a" * 64 + "b")
        return 0

    def leaks(self) -> int:
        """Memory, 16 MiB a turn, up to ARGUMENT MiB; meanwhile it beats."""
        self.channel.send(Ready(run_id=""))
        kept: list[bytearray] = []
        for progress in count(1):
            self.channel.send(Heartbeat(progress=progress))
            if len(kept) * 16 < int(self.argument):
                kept.append(bytearray(os.urandom(4096)) * 4096)
            if self._is_told(0.01):
                return 0
        raise AssertionError

    def has_a_grandchild_that_fled(self) -> int:
        """A grandchild with a session of its own, which no kill of a group reaches; its pid goes into a file. Then it dies."""
        self.channel.send(Ready(run_id=""))
        grandchild = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        with open(self.argument, "a") as file:
            file.write(f"{grandchild.pid}\n")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def floods(self) -> int:
        """stdout and stderr, as fast as they take it; nothing of that keeps it from its beats."""
        self.channel.send(Ready(run_id=""))
        for progress in count(1):
            self.channel.send(Heartbeat(progress=progress))
            for fd in (1, 2):
                with suppress(BlockingIOError):
                    os.write(fd, b"flood " * 1000 + b"\n")
            if self._is_told(0.0):
                return 0
        raise AssertionError

    def sends_frames_that_are_too_long(self) -> int:
        for size in (70_000, 100_000):
            with suppress(OSError):
                self.end.send(b"x" * size)
        return self.beats()

    def exits_in_import(self) -> int:
        """As a library may that does not like its host."""
        raise SystemExit("this host is not supported")

    def stops_slowly_with_progress(self) -> int:
        """ARGUMENT reports of what is left to drain, one every 50 ms."""
        self.channel.send(Ready(run_id=""))
        progress = 0
        while not self._is_told(0.05):
            progress += 1
            self.channel.send(Heartbeat(progress=progress))
        for left in range(int(self.argument), -1, -1):
            self.channel.send(Draining(unacked=left, journal=""))
            time.sleep(0.05)
        return 0

    def ends_when_a_file_appears(self) -> int:
        """Ready, and well until ARGUMENT is there."""
        self.channel.send(Ready(run_id=""))
        for progress in count(1):
            self.channel.send(Heartbeat(progress=progress))
            if Path(self.argument).exists():
                return 1
            if self._is_told(0.02):
                return 0
        raise AssertionError

    def _is_told(self, timeout_s: float) -> bool:
        """Whether it shall leave, or nobody is there any more; waits for that so long."""
        select.select([self.end], [], [], timeout_s)
        return any(isinstance(message, Stop) for message in self.channel.receive()) or self.channel.closed

    def _until_told(self) -> None:
        while not self.channel.closed:
            select.select([self.end], [], [])
            if any(isinstance(message, Stop) for message in self.channel.receive()):
                return


if __name__ == "__main__":
    behaviour, fd, argument, *dump = sys.argv[1:]
    os.setsid()
    # The kernel's: a child that runs nothing of Python's must not outlive a test that was killed.
    signal.alarm(600)
    if dump:
        faulthandler.register(signal.SIGUSR2, file=int(dump[0]), all_threads=True)
    end = socket.socket(fileno=int(fd))
    end.setblocking(False)
    sys.exit(getattr(Zoo(end, argument), behaviour)())

"""Children of every kind for the supervisor's tests: `python zoo.py BEHAVIOUR CHANNEL_FD [ARGUMENT]`."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from horizon.channel import Channel, Draining, Heartbeat, Ready, Stop


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

    def gives_up_when_a_file_appears(self) -> int:
        """A writer whose database becomes unusable."""
        self.channel.send(Ready(run_id=""))
        while not Path(self.argument).exists():
            time.sleep(0.01)
        return 4

    def _until_told(self) -> None:
        while not self.channel.closed:
            select.select([self.end], [], [])
            if any(isinstance(message, Stop) for message in self.channel.receive()):
                return


if __name__ == "__main__":
    behaviour, fd, argument = sys.argv[1:]
    os.setsid()
    end = socket.socket(fileno=int(fd))
    end.setblocking(False)
    sys.exit(getattr(Zoo(end, argument), behaviour)())

"""What a process prints on its stderr, read all the time so that it never blocks."""

from __future__ import annotations

import subprocess
import threading


class Alarms:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.text = ""
        assert process.stderr is not None
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self.text += line.decode()

    def close(self) -> None:
        """Once the process has ended."""
        self._thread.join()
        self._stream.close()

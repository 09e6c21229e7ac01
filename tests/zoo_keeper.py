"""A supervisor over children of the zoo, as a process of its own that a test can stop, wake, starve and look into.

`python zoo_keeper.py FOLDER SETUP`: it writes its log into FOLDER/keeper.log, one JSON object a line, and how everything stands into
FOLDER/status.json, after every turn that shows it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psutil
from eventually import eventually

from horizon import channel
from horizon.channel import Channel
from horizon.cli.live import StrategyRow
from horizon.config import Config, Database, Logs, MetricsServer, StrategyTable, Supervision
from horizon.control import ProcessStatus, StatusReply
from horizon.paths import DatabasePaths
from supervisor import child as child_module
from supervisor import loop as loop_module
from supervisor.child import Child
from supervisor.dumps import Dump
from supervisor.log_files import Sink
from supervisor.loop import Supervisor
from supervisor.output import Output
from supervisor.strangers import Strangers

ZOO = str(Path(__file__).with_name("zoo.py"))
# Ready at once, then it dies. Without anything of Horizon: two thousand of them take seconds, not minutes.
SHORT_LIVED = """
import os, socket, sys
fd = next(int(word.split("=")[1]) for word in sys.argv if word.startswith("--channel-fd"))
socket.socket(fileno=fd).send(bytes.fromhex(sys.argv[1]))
os.write(2, b"the last line\\n")
os._exit(1)
"""
READY = msgspec.msgpack.encode(channel.Ready(run_id="")).hex()


class Keeper:
    """The test's side."""

    def __init__(
        self,
        folder: Path,
        animals: Mapping[str, tuple[str, str]],
        environment: Mapping[str, str] | None = None,
        **supervision: Any,
    ) -> None:
        self.folder = folder
        setup = json.dumps({"animals": {"writer": ("beats", ""), **animals}, "supervision": supervision})
        with (folder / "keeper.err").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(folder), setup],
                stdout=err,
                stderr=err,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )

    def status(self) -> StatusReply | None:
        with suppress(FileNotFoundError):
            return msgspec.json.decode((self.folder / "status.json").read_bytes(), type=StatusReply)
        return None

    def of(self, name: str) -> ProcessStatus | None:
        status = self.status()
        return next((process for process in status.processes if process.name == name), None) if status else None

    def is_in(self, name: str, *states: str, timeout_s: float = 20.0) -> ProcessStatus:
        """Wait until a process is in one of these states."""

        def look() -> ProcessStatus | None:
            process = self.of(name)
            return process if process is not None and process.state in states else None

        return eventually(look, timeout_s, what=f"{name} in {states}: {self.log()[-3000:]}")

    def said(self, action: str, about: str = "") -> list[str]:
        """The sentences about something, so far."""
        entries = [json.loads(line) for line in self.log().splitlines()]
        return [entry["message"] for entry in entries if entry["action"] == action and about in ("", entry["about"])]

    def wall_clock(self) -> float:
        """What the supervisor took for the time of the day when it said something last."""
        lines = self.log().splitlines()
        return float(json.loads(lines[-1])["wall"]) if lines else 0.0

    def says(self, action: str, about: str = "", times: int = 1, timeout_s: float = 20.0) -> list[str]:
        """Wait for it."""

        def look() -> list[str]:
            said = self.said(action, about)
            return said if len(said) >= times else []

        return eventually(look, timeout_s, what=f"{action} about {about}: {self.log()[-3000:]}")

    def log(self) -> str:
        with suppress(FileNotFoundError):
            text = (self.folder / "keeper.log").read_text()
            return text[: text.rfind("\n") + 1]
        return ""

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.process.wait(30)

    def left_processes(self) -> list[int]:
        """Whoever still runs in the test's folder, the supervisor too."""
        left = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.folder:
                    left.append(process.pid)
        return left

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for pid in self.left_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


class _Entries(logging.Handler):
    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        about, action = getattr(record, "about", ""), getattr(record, "action", "")
        entry = {"wall": time.time(), "action": action, "about": about, "message": record.getMessage()}
        self._file.write(json.dumps(entry) + "\n")


class _Soon(Random):
    """A back-off that a test can wait for."""

    def uniform(self, a: float, b: float) -> float:
        return 0.01


class _NoTerminal:
    as_json = True

    def say(self, entry: str) -> None:
        """Nobody looks."""


def main(folder: Path, setup: dict[str, Any]) -> int:
    loop_module._SHOW_EVERY_S = 0.05
    child_module.TERM_GRACE_S = 0.5
    animals: dict[str, list[str]] = setup["animals"]
    paths = DatabasePaths.of(folder / "x.db")
    paths.folder.mkdir(exist_ok=True)
    names = [name for name in animals if name != "writer"]
    config = Config(
        path=folder / "horizon.toml",
        database=Database(path=paths.database),
        supervisor=Supervision(**{"start_limit_burst": 0, "stop_timeout_s": 5.0, **setup["supervision"]}),
        logs=Logs(),
        metrics=MetricsServer(enabled=False),
        strategies={name: StrategyTable(file=Path(ZOO), name=name) for name in names},
    )
    logging.basicConfig(level=logging.INFO, handlers=[_Entries((folder / "keeper.log").open("w", buffering=1))])
    sink = Sink(config.logs, paths, _NoTerminal())
    sink.start()

    def start(config: Config, name: str, now: float) -> Child:
        behaviour, argument = animals[name]
        if behaviour == "short_lived":
            command = [sys.executable, "-I", "-S", "-c", SHORT_LIVED, READY]
            return child_module._start_command(name, command, sink, now)
        ours, theirs = channel.pair()
        dump, output = Dump(), Output()
        command = [sys.executable, "-P", ZOO, behaviour, str(theirs.fileno()), argument, str(dump.fd)]
        with theirs:
            process = subprocess.Popen(
                command, stdout=output.write_end, stderr=output.write_end, pass_fds=(theirs.fileno(), dump.fd)
            )
        output.let_go()
        return Child(process.pid, Channel(ours), process.poll, now, dump, output)

    def show(rows: Sequence[StrategyRow]) -> None:
        new = folder / "status.json.new"
        new.write_bytes(msgspec.json.encode(supervisor.status()))
        new.replace(folder / "status.json")

    supervisor = Supervisor(config, paths, start, show, sink=sink, strangers=Strangers(), random=_Soon())
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))

"""A gateway as a real process, with a test in the place of its supervisor: it answers on the control socket what the test says."""

from __future__ import annotations

import http.client
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import zmq
from eventually import eventually
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from horizon import channel, control
from horizon.channel import Channel, Message, Stop
from horizon.control import ProcessStatus, StatusReply, WriterHealth
from horizon.paths import DatabasePaths
from horizon.telemetry import Sender

HEALTHY = StatusReply(
    version="1",
    pid=1,
    database="/srv/secret-place/horizon.db",
    config="/srv/secret-place/horizon.toml",
    uptime_s=5.0,
    loop_lag_ms=1.5,
    is_stopping=False,
    probe_max_age_s=15.0,
    writer=WriterHealth(commit_age_s=0.5),
    processes=[
        ProcessStatus("calm", "strategy", "ready", wanted=True, starts=1, heartbeat_age_s=0.4, rss_bytes=1000),
        ProcessStatus("writer", "writer", "ready", wanted=True, starts=1),
        ProcessStatus("gateway", "gateway", "ready", wanted=True, starts=1),
    ],
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Supervisor:
    """Answers on a control socket what the test says."""

    def __init__(self, path: Path) -> None:
        self.status: StatusReply | None = HEALTHY  # None: it takes the question and does not answer
        self.asked = 0
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.bind(self._listener, path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        waiting = []
        while not self._over.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            self.asked += 1
            if self.status is None:
                waiting.append(client)
                continue
            with client:
                client.settimeout(5)
                if client.recv(control.REQUEST_MAX_BYTES):
                    client.send(control.encode_reply(self.status))
        for client in waiting:
            client.close()


class Scraped:
    """A gateway over a folder of the test, and the test in the place of its supervisor."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        self.paths = DatabasePaths.of(folder / "horizon.db")
        self.paths.folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "horizon.toml").write_text(f"[metrics]\nport = {self.port}\n")
        self.supervisor = Supervisor(self.paths.control_socket)
        ours, theirs = channel.pair()
        self.channel = Channel(ours)
        self.heard: list[Message] = []
        self.err = folder / "gateway.txt"
        command = [sys.executable, "-P", "-m", "supervisor.gateway", "--config", str(folder / "horizon.toml")]
        with theirs, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*command, f"--channel-fd={theirs.fileno()}"], stderr=err, pass_fds=[theirs.fileno()], start_new_session=True
            )

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of an answer; (0, "") while nobody listens."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            client.close()

    def listens(self) -> None:
        eventually(lambda: self.get("/healthz")[0], what="an answer")

    def series(self) -> dict[str, float]:
        """Every series of /metrics as it stands there, `name{label="value"}`, after the format was checked."""
        code, text = self.get("/metrics")
        if code != 200:
            return {}
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                name = f"{sample.name}{{{labels}}}" if labels else sample.name
                assert name not in found, f"{name} stands there twice"
                found[name] = sample.value
        return found

    def shows(self, series: str, value: float, timeout_s: float = 10.0) -> None:
        eventually(lambda: self.series().get(series) == value, timeout_s, 0.1, f"{series} = {value}")

    def hear(self) -> list[Message]:
        self.heard += self.channel.receive()
        return self.heard

    def has_heard(self, kind: type[Message]) -> bool:
        return any(isinstance(message, kind) for message in self.hear())

    def log(self) -> str:
        return self.err.read_text()

    def stop(self) -> int:
        self.channel.send(Stop(2.0))
        return self.process.wait(5)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)
        self.channel.close()
        self.supervisor.close()


class Process:
    """An incarnation of a strategy (or, without a name, of the writer) that counts and sends."""

    def __init__(self, gateway: Scraped, strategy: str | None, ours: CollectorRegistry, authors: CollectorRegistry | None = None):
        self._sender = Sender(gateway.paths.metrics_socket, strategy, ours, authors)
        self._now = 0.0

    def send(self) -> None:
        self._now += 2.0
        self._sender.maybe_send(self._now)

    def deliver(self) -> None:
        """Wait for the connection, then send."""
        assert self._sender._open().poll(5000, zmq.POLLOUT)
        self.send()

    def close(self) -> None:
        self._sender.close()

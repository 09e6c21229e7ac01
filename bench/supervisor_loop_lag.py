"""How long does the supervisor's loop take for a turn, with fifty strategies and hostile clients?

The loop must come round in time: it notices deaths and hangs, feeds systemd's watchdog and answers people. Models fifty
strategies that run one cycle a second under one supervisor, and then makes it hard:

- `start`: all of them are being started.
- `quiet`: they run, and do nothing else.
- `chatty`: each logs 100 records and prints 100 lines a second.
- `hostile`: quiet, while eight clients of the control socket connect as fast as they can and send nothing, garbage, half a
  request, or ask for the status and never read the answer.

`lag_ms` is what the supervisor says of itself: the longest turn of its loop in the last seconds, asked for once a second.
`answer_ms` is how long that question took. `cpu` is the share of one core that the supervisor used. On a machine whose cores
are busy with fifty interpreters a turn also waits for a core.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from bench.options import Options, Row
from bench.repeats import spread
from bench.supervised import Supervised, supervised
from horizon.control import PROTOCOL, Envelope, Status, connect

_STRATEGIES = 50
_CLIENTS = 8
_SETTLE_S = 11.0  # until the supervisor has forgotten the longest turn of what was before

_IDLE = """
import horizon as hz

def trade(ctx):
    return None

hz.run("idle", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=1.0)}, pipeline=[trade], risk=hz.Risk.equity())
"""
_CHATTY = """
import logging
import horizon as hz

def trade(ctx):
    for number in range(100):
        logging.getLogger("chatty").info("record %d of this cycle, as long as such records are", number)
        print("line", number, "of this cycle, as long as such lines are", flush=True)
    return None

hz.run("chatty", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=1.0)}, pipeline=[trade], risk=hz.Risk.equity())
"""


def measure(folder: Path, options: Options) -> list[Row]:
    rows = []
    with _running(folder / "quiet", _IDLE) as running:
        rows.append(_row("start", running, 0.0, settle_s=0.0))
        rows.append(_row("quiet", running, options.seconds))
        with _hostile_clients(running.paths.control_socket):
            rows.append(_row("hostile", running, options.seconds))
    with _running(folder / "chatty", _CHATTY) as running:
        rows.append(_row("chatty", running, options.seconds))
    return rows


def _running(folder: Path, text: str) -> AbstractContextManager[Supervised]:
    strategies = {f"s{number}": text for number in range(_STRATEGIES)}
    return supervised(folder, strategies, "start_timeout_s = 120", tables="interval = 1.0")


def _row(what: str, running: Supervised, seconds: float, settle_s: float = _SETTLE_S) -> Row:
    time.sleep(settle_s)
    process = psutil.Process(running.process.pid)
    process.cpu_percent()
    lags_ms: list[float] = []
    answers_ms: list[float] = []
    until = time.monotonic() + seconds
    while not lags_ms or time.monotonic() < until:
        time.sleep(1.0)
        asked = time.perf_counter()
        status = running.status()
        if status is None:
            raise SystemExit("the supervisor has ended")
        answers_ms.append((time.perf_counter() - asked) * 1000)
        lags_ms.append(status.loop_lag_ms)
    return {
        "strategies": _STRATEGIES,
        "what": what,
        **spread("lag_ms", lags_ms, 2),
        **spread("answer_ms", answers_ms, 2),
        "cpu": round(process.cpu_percent() / 100, 3),
    }


@contextmanager
def _hostile_clients(path: Path) -> Iterator[None]:
    ended = threading.Event()
    status = msgspec.msgpack.encode(Envelope(PROTOCOL, Status()))
    packets = (b"", b"\x00" * 100, status[: len(status) // 2], status)
    threads = [threading.Thread(target=_pester, args=(path, packets[number % len(packets)], ended)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _pester(path: Path, packet: bytes, ended: threading.Event) -> None:
    """Come, say it, and never read."""
    while not ended.is_set():
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as client, suppress(OSError):
            client.settimeout(0.2)
            connect(client, path)
            if packet:
                client.send(packet)

"""What a figure was measured on: without it no figure means anything, and with it two machines can be told apart."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import time
from pathlib import Path

import apsw
import psutil
import zmq

from bench.open_loop import quantiles

_SYNCS = 300
_PAGE = bytes(4096)


def facts(folder: Path) -> dict[str, object]:
    """The machine, the libraries, and what the disk under `folder` takes to keep 4 KiB through a power cut."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgspec": importlib.metadata.version("msgspec"),
        "file_system": _file_system(folder),
        "fdatasync_us": sync_cost_us(folder),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    resolved = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if resolved.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype


def sync_cost_us(folder: Path) -> dict[str, float]:
    """A 4 KiB append and fdatasync, as a WAL does them."""
    costs_us = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), _PAGE)
            os.fdatasync(file.fileno())
            costs_us.append((time.perf_counter() - began) * 1e6)
    measured = quantiles(costs_us)
    return {"p50": round(measured.p50), "p99": round(measured.p99)}

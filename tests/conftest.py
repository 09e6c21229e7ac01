"""What every test may use: helper modules beside this file, and the recorded data when it is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from horizon.paths import DatabasePaths
from horizon.recorder import Recorder

sys.path.insert(0, str(Path(__file__).parent))

from road import OpenRecorder, stop_writer

DATA_VARIABLE = "HORIZON_TEST_DATA"
# Asked for by their names, they fail where they cannot run: a green run that has tested nothing is the main risk.
ON_DEMAND = {
    "slow": "they take minutes; `make test-power` runs them",
    "root": "they mount small disks to fill them up, or ask as other users; `make test-root` runs them",
    "systemd": "they boot a machine with a systemd of its own; `make test-systemd` runs them",
    "compiler": "they make system calls fail by a library that has to be compiled; `make test-root` runs them",
    "faketime": "they need libfaketime to turn the clock; `make test-root` runs them",
}

_DESELECTED = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, by marker, what cannot run here; `pytest_terminal_summary` says how many tests that were and why."""
    deselected: dict[str, list[pytest.Item]] = {}
    for marker in _obstacles(config):
        if marked := [item for item in items if item.get_closest_marker(marker)]:
            deselected[marker] = marked
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
    config.stash[_DESELECTED] = {marker: len(marked) for marker, marked in deselected.items()}
    if hasattr(config, "workeroutput"):
        config.workeroutput["deselected"] = config.stash[_DESELECTED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Under xdist the workers collect, each of them everything; the process that reports to the person collects nothing."""
    node.config.stash[_DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, count in config.stash.get(_DESELECTED, {}).items():
        terminalreporter.write_line(f"{count} tests marked '{marker}' were deselected: {_obstacles(config)[marker]}.")


def _obstacles(config: pytest.Config) -> dict[str, str]:
    """Markers of tests that cannot run here, or run only when they are asked for by `-m`, and why."""
    obstacles = {marker: why for marker, why in ON_DEMAND.items() if marker not in config.option.markexpr}
    if not os.environ.get(DATA_VARIABLE):
        obstacles["recorded"] = f"they replay real market data and need its folder in {DATA_VARIABLE}"
    return obstacles


@pytest.fixture
def recorded_data() -> Path:
    return Path(os.environ[DATA_VARIABLE])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[DatabasePaths]:
    """An empty place for a database; the writer that a test leaves behind is stopped."""
    paths = DatabasePaths.of(tmp_path / "trades.db")
    yield paths
    if paths.writer_lock.exists():
        stop_writer(paths)


@pytest.fixture
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process get the smallest journal there is, which a test can fill up."""
    monkeypatch.setattr(Recorder, "open", partial(Recorder.open, journal_bytes=2 << 20))


@pytest.fixture
def open_recorder() -> Iterator[OpenRecorder]:
    """Recorder.open, and the close at the end of the test."""
    opened: list[Recorder] = []

    def open_one(*arguments: Any, **options: Any) -> Recorder:
        opened.append(Recorder.open(*arguments, **options))
        return opened[-1]

    yield open_one
    for recorder in opened:
        recorder.close()

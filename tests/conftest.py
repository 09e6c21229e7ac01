"""What every test may use: helper modules beside this file, and the recorded data when it is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from horizon.paths import DatabasePaths

sys.path.insert(0, str(Path(__file__).parent))

from road import stop_writer

DATA_VARIABLE = "HORIZON_TEST_DATA"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the recorded data its tests are deselected, by marker, and `pytest_terminal_summary` says so."""
    if os.environ.get(DATA_VARIABLE):
        return
    recorded = [item for item in items if item.get_closest_marker("recorded")]
    if recorded:
        config.hook.pytest_deselected(items=recorded)
        items[:] = [item for item in items if not item.get_closest_marker("recorded")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get(DATA_VARIABLE):
        terminalreporter.write_line(
            f"Tests marked 'recorded' were deselected: they replay real market data and need its folder in {DATA_VARIABLE}."
        )


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

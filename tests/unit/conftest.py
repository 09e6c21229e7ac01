"""A store over an empty folder, for the tests of the store package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_case import FixedClock

from horizon.paths import DatabasePaths
from horizon.store.append import Store


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return DatabasePaths.of(tmp_path / "x.db")


@pytest.fixture
def store(paths: DatabasePaths) -> Iterator[Store]:
    store = Store(paths, clock=FixedClock())
    yield store
    store.close()

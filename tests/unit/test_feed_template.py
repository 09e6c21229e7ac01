"""The feed that `horizon init` hands out as a template works as it stands."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import horizon
from horizon.errors import ConfigError
from horizon.feeds.base import Feed

TEMPLATE = Path(horizon.__file__).parent / "cli" / "templates" / "feed.py"


@pytest.fixture(scope="module")
def template() -> ModuleType:
    spec = importlib.util.spec_from_file_location("feed_template", TEMPLATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "quotes.csv"
    path.touch()
    return path


@pytest.fixture
def feed(template: ModuleType, source: Path) -> Iterator[Any]:
    feed = template.TailedFile(str(source))
    feed.start()
    yield feed
    feed.stop()


def append(source: Path, text: str) -> None:
    with source.open("a") as file:
        file.write(text)


def test_the_template_keeps_the_feed_protocol(feed: Any) -> None:
    assert isinstance(feed, Feed)
    assert feed.paced
    assert feed.next_time() is None


def test_the_template_is_stale_until_its_first_line(feed: Any, source: Path) -> None:
    assert feed.advance()
    assert feed.snapshot().is_stale()


def test_the_template_takes_in_what_was_appended(feed: Any, source: Path) -> None:
    append(source, "1000000000,1,2\n1000000001,1.5,2.5\n")
    assert feed.advance()
    data = feed.snapshot()
    assert (data.timestamp, data.bid, data.ask, data.price) == (1_000_000_001.0, 1.5, 2.5, 2.0)


def test_the_template_waits_for_the_end_of_a_line(feed: Any, source: Path) -> None:
    append(source, "1000000000,1,2\n1000000001,1.5,2")
    feed.advance()
    assert feed.snapshot().ask == 2.0
    append(source, ".5\n")
    feed.advance()
    assert feed.snapshot().ask == 2.5


@pytest.mark.parametrize("line", ["oops", "1,2", "1000000001,nan,2", "1000000001,1,2,3"])
def test_the_template_logs_and_skips_a_broken_line(feed: Any, source: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    append(source, f"1000000000,1,2\n{line}\n")
    with caplog.at_level(logging.WARNING):
        assert feed.advance()
    assert feed.snapshot().timestamp == 1_000_000_000.0
    assert "is skipped" in caplog.text


def test_the_template_says_what_to_do_when_its_file_is_missing(template: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read: No such file"):
        template.TailedFile(str(tmp_path / "none.csv")).start()


def test_a_stopped_template_gives_nothing_more(feed: Any) -> None:
    feed.stop()
    feed.stop()
    assert not feed.advance()

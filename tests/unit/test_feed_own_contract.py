"""Our own feeds, and the template, keep the contract that `horizon.testing` checks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from manual_clock import ManualClock

from horizon.cli.templates.feed import TailedFile
from horizon.feeds.replay import Replay
from horizon.feeds.simulated import MODELS, Simulated
from horizon.testing import check_feed


@pytest.mark.parametrize("model", MODELS)
def test_a_simulated_feed_keeps_the_contract(model: str) -> None:
    check_feed(lambda: Simulated(model, seed=1, paced=False, events=200, first_time=1e9))


def test_a_paced_feed_keeps_the_contract() -> None:
    clock = ManualClock()
    check_feed(lambda: Simulated(seed=1, clock=clock), wait=lambda: clock.forward(0.1))


def test_a_replay_keeps_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp,price,size,side\n1000000000,10.5,1,buy\n1000000001.5,10.25,2,sell\n1000000001.5,10.75,0.5,buy\n")
    check_feed(lambda: Replay(path, speed="max"))


def test_the_template_keeps_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    path.touch()

    def append() -> None:
        with path.open("a") as file:
            file.write(f"{time.time()},1,2\n")

    check_feed(lambda: TailedFile(str(path)), wait=append, updates=5)

"""What hz.run makes of its arguments and of what whoever runs the file decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_venue import ScriptedVenue

import horizon as hz
from horizon import runner
from horizon.errors import ConfigError, NotThereYet, StrategyError
from horizon.job import Assignment, Job, config_of, job_of
from horizon.records import Market
from horizon.risk import Risk, RiskConfig


@pytest.fixture(autouse=True)
def _first_run_of_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "has_run", False)
    monkeypatch.setattr(runner, "assignment", None)
    monkeypatch.delenv("HORIZON_DB", raising=False)
    monkeypatch.chdir(tmp_path)


def _job(assigned: Assignment | None = None, **arguments: Any) -> Job:
    given = {
        "name": "s", "exchange": None, "exchanges": None, "markets": ["m"], "feeds": None, "pipeline": [lambda ctx: None], "risk": None,
        "interval": 0.5, "mode": "paper", "params": None, "db_path": ...,
    }  # fmt: skip
    return job_of(assigned or Assignment(), **(given | arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"exchange": "paper", "exchanges": ["paper"]}, "exchange or exchanges, not both"),
        ({"interval": 0}, "interval must be a number of seconds above 0, got 0"),
        ({"interval": float("nan")}, "interval"),
        ({"interval": "fast"}, "interval"),
        ({"mode": "shadow"}, 'mode must be "paper" or "live", got \'shadow\''),
        ({"mode": "live"}, "there is no exchange"),
        ({"markets": []}, "markets is empty"),
        ({"markets": ["m", Market("m")]}, "named twice"),
        ({"markets": [7]}, "markets must be ids or hz.Market objects"),
        ({"name": ""}, "name must be a printable text"),
        ({"name": "two\nlines"}, "name must be a printable text"),
        ({"exchange": "binance"}, "object that keeps horizon.venues.base.Venue"),
        ({"exchange": hz.Paper}, "object that keeps horizon.venues.base.Venue"),
        ({"exchange": ScriptedVenue()}, "pass mode='live'"),
        ({"feeds": {"f": "binance"}}, "feed 'f' must be an object"),
        ({"feeds": {"f": hz.Simulated}}, "feed 'f' must be an object"),
        ({"risk": 5}, "risk must be a hz.Risk"),
        ({"orphans": "kill"}, 'orphans must be "warn" or "cancel" or "hold", got \'kill\''),
        ({"intent": "sure"}, 'intent must be "journal" or "committed", got \'sure\''),
        ({"snapshot_every": 0}, "snapshot_every must be a whole number of cycles from 1 on, got 0"),
        ({"snapshot_every": 2.5}, "snapshot_every"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _job(**arguments)


@pytest.mark.parametrize("argument", ["events", "dashboard", "netting_pairs", "compliance"])
def test_what_is_not_there_says_so(argument: str) -> None:
    with pytest.raises(NotThereYet, match=rf"hz\.run\({argument}=\.\.\.\): Horizon does not have"):
        hz.run("s", markets=["m"], pipeline=[lambda ctx: None], **{argument: True})  # type: ignore[arg-type]


def test_several_exchanges_and_multipliers_on_paper_are_not_there_yet() -> None:
    with pytest.raises(NotThereYet, match="one strategy per exchange"):
        _job(exchanges=["paper", "paper"])
    with pytest.raises(NotThereYet, match="multiplier"):
        _job(markets=[Market("es", multiplier=50.0)])


def test_an_error_in_the_arguments_leaves_the_process_free_to_run() -> None:
    with pytest.raises(StrategyError, match="no pipeline"):
        hz.run("s", markets=["m"])
    hz.run("s", markets=["m"], feeds={"m": hz.Simulated(paced=False, events=1)}, pipeline=[lambda ctx: None], db_path=None)
    with pytest.raises(StrategyError, match="a second time"):
        hz.run("s", markets=["m"], pipeline=[lambda ctx: None], db_path=None)


def test_markets_are_ids_or_objects_or_one_of_them() -> None:
    assert _job(markets="m").markets == (Market("m"),)
    assert _job(markets=[Market("a", name="A"), "b"]).markets == (Market("a", name="A"), Market("b"))


def test_a_real_venue_is_used_in_live_mode() -> None:
    venue = ScriptedVenue()
    job = _job(exchange=venue, mode="live")
    assert job.venue is venue
    assert job.is_live


def test_alone_the_database_is_the_argument_else_the_variable_else_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _job(db_path="given.db").db_path == Path("given.db")
    assert _job(db_path=None).db_path is None
    assert _job().db_path == Path("s.db")
    with pytest.raises(ConfigError, match="pass db_path="):
        _job(name="a/b")
    monkeypatch.setenv("HORIZON_DB", "/data/all.db")
    assert _job().db_path == Path("/data/all.db")
    assert _job(db_path="given.db").db_path == Path("given.db")


def test_whoever_runs_the_file_decides_the_database(tmp_path: Path) -> None:
    assigned = Assignment(db_path=tmp_path / "all.db")
    assert _job(assigned).db_path == tmp_path / "all.db"
    assert _job(assigned, db_path="all.db").db_path == tmp_path / "all.db", "the same one under another name"
    assert _job(assigned, db_path=None).db_path is None, "off stays off"
    with pytest.raises(ConfigError, match="leave db_path out"):
        _job(assigned, db_path="other.db")


def test_the_table_decides_and_the_file_fills_what_it_leaves_out() -> None:
    feed, other = hz.Simulated(), hz.Simulated()
    assigned = Assignment(
        name="two", interval=2.0, params={"a": 1}, feeds={"m": other}, risk={"max_position": 7, "price_max": 2}, exchange="paper"
    )
    job = _job(
        assigned, name="one", interval=1.0, params={"a": 0, "b": 2}, feeds={"m": feed, "n": feed}, risk=Risk(max_order_size=3.0)
    )
    assert (job.name, job.interval_s) == ("two", 2.0)
    assert job.params == {"a": 1, "b": 2}
    assert job.feeds == {"m": other, "n": feed}
    assert job.risk == RiskConfig(max_position_per_market=7.0, max_order_size=3.0, price_max=2.0)


def test_recovery_and_intent_come_from_the_table_else_from_the_file() -> None:
    def chosen(job: Job) -> tuple[str, str, int]:
        return job.orphans, job.intent, job.snapshot_every

    assert chosen(_job()) == ("warn", "journal", 50)
    assert chosen(_job(orphans="hold", intent="committed", snapshot_every=7)) == ("hold", "committed", 7)
    table = Assignment(orphans="cancel", intent="journal", snapshot_every=9)
    assert chosen(_job(table, orphans="hold", intent="committed", snapshot_every=7)) == ("cancel", "journal", 9)
    assert json.loads(config_of(_job(orphans="hold")))["orphans"] == "hold"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [({"max_positon": 5}, "unknown max_positon; known: max_position_per_market"), ({"max_order_size": "big"}, "max_order_size")],
)
def test_a_wrong_limit_in_the_table_is_refused_by_its_name(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _job(Assignment(risk=table))


def test_what_a_run_was_started_with_is_stored_without_secrets() -> None:
    job = _job(
        params={"spread": 0.1, "api_key": "abc123", "deep": {"password": "abc123"}, "model": object(), "day": {1, 2}},
        feeds={"m": hz.Simulated()},
    )
    text = config_of(job)
    stored = json.loads(text)
    assert "abc123" not in text
    assert stored["params"]["spread"] == 0.1
    assert (stored["markets"], stored["feeds"], stored["mode"], stored["interval"]) == (["m"], {"m": "Simulated"}, "paper", 0.5)
    assert stored["risk"]["max_order_size"] == 50.0
    assert stored["params"]["model"] == "object"


def test_a_configuration_that_is_too_long_is_still_json() -> None:
    job = _job(markets=[f"market-{number}" for number in range(1000)], params={"names": ["x" * 100] * 100, "spread": 0.1})
    stored = json.loads(config_of(job))
    assert stored["markets"] == stored["params"] == "too long to be kept"
    assert stored["risk"]["max_order_size"] == 50.0

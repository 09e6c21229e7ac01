"""The reading commands over a database that the store itself has written."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from store_case import FixedClock, Run, fill, order_event, snapshot

from horizon.__main__ import main
from horizon.errors import ExitCode
from horizon.paths import DatabasePaths
from horizon.records import OrderSide, OrderStatus, RunEnded, Side
from horizon.store.append import Store
from horizon.store.sql import SCHEMA

DAY = 1_700_000_000.0


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two strategies: `maker` holds btc and is flat in rain, `trend` still runs."""
    path = tmp_path / "my_strategy.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HORIZON_DB", raising=False)
    maker, trend = Run("run-maker", "maker"), Run("run-trend", "trend")
    rain = {"market_id": "will-it-rain", "side": Side.Yes, "price": 0.4, "size": 5.0}
    made = [
        fill("m-1", price=100.5, size=0.1, fee=1e-07, timestamp=DAY),
        fill("m-2", price=101.5, size=0.2, fee=0.01, timestamp=DAY + 60),
        fill("m-3", timestamp=DAY + 120, **rain),
        fill("m-4", timestamp=DAY + 180, **{**rain, "price": 0.5, "order_side": OrderSide.Sell}),
    ]
    store = Store(DatabasePaths.of(path), clock=FixedClock())
    store.append(
        [
            maker.start(),
            maker.entry(order_event("o-1", recorded_at=DAY)),
            maker.entry(order_event("o-1", OrderStatus.Accepted, recorded_at=DAY + 1)),
            maker.entry(order_event("o-2", recorded_at=DAY + 2)),
            maker.entry(order_event("o-2", OrderStatus.Canceled, status_reason="requoted", recorded_at=DAY + 3)),
            *maker.entries(*made),
            maker.entry(made[0]),
            maker.entry(None, "not a record"),
            maker.entry(snapshot(made, taken_at=DAY + 200)),
            maker.entry(RunEnded(DAY + 300, "stopped by SIGINT")),
            trend.start(),
            trend.entry(fill("t-1", order_side=OrderSide.Sell, size=3.0, timestamp=DAY + 90)),
        ]
    )
    store.close()
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == ExitCode.DONE
    return capsys.readouterr().out


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(shown(capsys, *arguments, "--json"))


def test_the_commands_of_the_persistence_page_work_letter_for_letter(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "m-1" in shown(capsys, "fills", "--db", "./my_strategy.db", "--limit", "50")
    assert "m-3" in shown(capsys, "fills", "--db", "./my_strategy.db", "--market", "will-it-rain")
    assert "btc" in shown(capsys, "positions", "--db", "./my_strategy.db")
    assert "o-1" in shown(capsys, "orders", "--db", "./my_strategy.db")
    assert "o-2" in shown(capsys, "orders", "--db", "./my_strategy.db", "--all")


def test_fills_are_shown_newest_first_with_readable_numbers_and_utc(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "fills", "--strategy", "maker").splitlines()

    assert lines[0].split() == ["time", "strategy", "market", "side", "price", "size", "fee", "exchange", "fill_id"]
    assert [line.split()[-1] for line in lines[1:]] == ["m-4", "m-3", "m-2", "m-1"]
    assert " ".join(lines[4].split()) == "2023-11-14 22:13:20Z maker btc buy long 100.5 0.1 0.0000001 paper m-1"


def test_fills_can_be_narrowed_by_strategy_market_time_and_number(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*arguments: str) -> list[str]:
        return [row["fill_id"] for row in decoded(capsys, "fills", *arguments)]

    assert ids() == ["t-1", "m-4", "m-3", "m-2", "m-1"]
    assert ids("--strategy", "trend") == ["t-1"]
    assert ids("--market", "will-it-rain") == ["m-4", "m-3"]
    assert ids("--since", "2023-11-14T22:14:20Z") == ["t-1", "m-4", "m-3", "m-2"]
    assert ids("--since", str(DAY + 150)) == ["m-4"]
    assert ids("--since", "10m") == []
    assert ids("--limit", "2") == ["t-1", "m-4"]
    assert ids("--all") == ["t-1", "m-4", "m-3", "m-2", "m-1"]


def test_rows_beyond_the_limit_are_mentioned_beside_the_data(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fills", "--limit", "2"])
    out, err = capsys.readouterr()

    assert len(out.splitlines()) == 3
    assert err == "more fills not shown; see --limit\n"
    main(["fills", "--limit", "5"])
    assert capsys.readouterr().err == ""


def test_json_has_every_column_and_exact_numbers(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = decoded(capsys, "fills", "--strategy", "maker")[-1]

    assert row["fee"] == 1e-07
    assert row["price"] == 100.5
    assert row["timestamp"] == DAY
    assert (row["side"], row["order_side"], row["strategy"], row["run_id"], row["seq"]) == (
        "long",
        "buy",
        "maker",
        "run-maker",
        6,
    )
    assert row["token_id"] is None


def test_positions_hide_flat_ones_and_total_all(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["positions"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]

    assert lines[1] == ["maker", "paper", "btc", "long", "0.3", "101.166667", "0", "0", "0.01"]
    assert lines[2][:5] == ["trend", "paper", "btc", "long", "-3"]
    assert lines[3][:2] == ["total", "0.5"]
    assert err == "1 flat position not shown; see --all\n"
    assert "will-it-rain" in shown(capsys, "positions", "--all")


def test_positions_can_be_narrowed_by_what_changed_since(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def markets(*arguments: str) -> list[str]:
        return [f"{row['strategy']}/{row['market_id']}" for row in decoded(capsys, "positions", *arguments)]

    assert markets("--all", "--since", str(DAY + 150)) == ["maker/will-it-rain"]
    assert markets("--strategy", "trend", "--since", str(DAY)) == ["trend/btc"]
    assert markets("--since", "1h") == []


def test_orders_are_the_open_ones_unless_all_are_asked_for(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["order_id"] for row in decoded(capsys, "orders")] == ["o-1"]
    assert [(row["order_id"], row["status"]) for row in decoded(capsys, "orders", "--all")] == [
        ("o-2", "canceled"),
        ("o-1", "accepted"),
    ]
    assert "requoted" in shown(capsys, "orders", "--all")


def test_runs_tell_how_each_one_ended_and_what_it_did(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trend, maker = decoded(capsys, "runs")

    assert (trend["run_id"], trend["status"], trend["fills"]) == ("run-trend", "running", 1)
    assert (maker["status"], maker["end_reason"], maker["fills"], maker["dead_letters"], maker["duplicates"]) == (
        *("ended", "stopped by SIGINT", 4),
        *(1, 1),
    )
    assert [row["run_id"] for row in decoded(capsys, "runs", "--market", "will-it-rain")] == ["run-maker"]
    assert [row["run_id"] for row in decoded(capsys, "runs", "--since", str(DAY + 301))] == ["run-trend"]
    assert "stopped by SIGINT" in shown(capsys, "runs", "--strategy", "maker")


@pytest.mark.parametrize("command", ["fills", "positions", "orders", "runs"])
def test_nothing_found_is_a_sentence_for_people_and_an_empty_list_for_programs(
    database: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--strategy", "nobody"]) == ExitCode.DONE
    out, err = capsys.readouterr()

    assert out == ""
    assert f" in {database} for strategy nobody" in err
    assert decoded(capsys, command, "--strategy", "nobody") == []


def test_summary_tells_what_is_there_what_is_missing_and_how_to_look_closer(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "summary")

    assert str(database) in text
    assert "1 run, 2 orders (1 open), 4 order events, 4 fills" in text
    assert "volume 34.85, fees 0.03, position 0.3, realized PnL 0.5, unrealized" in text
    assert "1 fill told again and stored once" in text
    assert "1 dead letter in" in text
    assert "\n  horizon fills --limit 20\n" in text
    assert "\n  horizon fills --limit 20 --db my_strategy.db\n" in shown(capsys, "summary", "--db", "my_strategy.db")


def test_summary_as_json_counts_the_same(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker, trend = decoded(capsys, "summary")

    assert (maker["strategy"], maker["fills"], maker["dead_letters"], maker["gaps"], maker["realized_pnl"]) == (
        "maker",
        4,
        1,
        0,
        0.5,
    )
    assert (trend["strategy"], trend["position"], trend["volume"]) == ("trend", -3.0, 301.5)


def test_summary_reads_very_many_fills_only_when_it_is_asked_to(
    database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("horizon.cli.summary.VOLUME_FILLS", 3)
    assert "volume not summed (see --volume), fees 0.03, position 0.3" in shown(capsys, "summary")
    assert decoded(capsys, "summary")[0]["volume"] is None
    assert "volume 34.85, fees" in shown(capsys, "summary", "--volume")


def test_runs_are_told_apart_by_market_and_by_when_they_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.db"
    first, second = Run("run-1"), Run("run-2")
    with closing(Store(DatabasePaths.of(path), clock=FixedClock())) as store:
        store.append([first.start(), first.entry(fill("f-1", market_id="btc")), first.entry(RunEnded(1500.0))])
        store.append([second.start(), second.entry(fill("f-2", market_id="eth"))])

    def found(*options: str) -> list[str]:
        return [run["run_id"] for run in decoded(capsys, "runs", "--db", str(path), *options)]

    assert found("--market", "btc") == ["run-1"]
    assert found("--market", "sol") == []
    assert found("--since", "1600") == ["run-2"]
    assert found("--since", "1400") == ["run-2", "run-1"]
    assert found("--since", "1400", "--limit", "1") == ["run-2"]


def test_a_database_of_the_original_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.db"
    connection = apsw.Connection(str(path))
    connection.execute(SCHEMA)
    connection.execute("INSERT INTO strategy_runs VALUES ('r', 'oldie', 'paper', 1.0, NULL, NULL)")
    connection.execute("INSERT INTO fills VALUES ('f', 'o', 'm', 'yes', 'buy', 0.4, 5.0, 0.0, 2.0, NULL, 'paper', 3.0)")
    connection.close()

    for command in ("fills", "positions", "orders", "runs", "summary"):
        assert main([command, "--db", str(path)]) == ExitCode.DONE
    capsys.readouterr()
    assert decoded(capsys, "fills", "--db", str(path))[0]["strategy"] == "oldie"
    assert decoded(capsys, "positions", "--db", str(path))[0]["size"] == 5.0
    assert decoded(capsys, "summary", "--db", str(path))[0]["volume"] == 2.0


def test_a_database_that_is_not_there_is_one_sentence_and_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fills", "--db", str(tmp_path / "none.db")]) == ExitCode.STORE
    assert capsys.readouterr().err == f"horizon: there is no database at {tmp_path / 'none.db'}\n"


def test_without_any_database_the_sentence_lists_what_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HORIZON_DB", raising=False)
    (tmp_path / "a.db").touch()
    (tmp_path / "b.db").touch()

    assert main(["positions"]) == ExitCode.USAGE
    assert "a.db, b.db" in capsys.readouterr().err

from __future__ import annotations

import io

import pytest
from rich.console import Console

from horizon.cli import live
from horizon.cli.live import StrategyRow

MAKER = StrategyRow("market_maker", "running", 4242, 75.2, 150, 300, 12, 0.30000000000000004, -1.23456789, 4, 2.345)
BROKEN = StrategyRow("mom[red]entum", "backoff", None, None, 0, 0, 0, 0.0, 0.0, 0, None)


def draw(rows: list[StrategyRow], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(live.table(rows, width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_lines_say_everything_once_per_strategy() -> None:
    first, second = live.lines([MAKER, BROKEN])

    assert first == (
        "market_maker  running  pid 4242  uptime 1m15s  cycles 150  orders 300  fills 12  position 0.3  pnl -1.2346"
        "  unacked 4  latency 2.3 ms"
    )
    assert second.startswith("mom[red]entum backoff  pid -  uptime -")
    assert live.lines([]) == []


def test_the_table_shows_every_column_where_there_is_room() -> None:
    drawn = draw([MAKER, BROKEN], 120)

    for title in ("strategy", "state", "pid", "uptime", "cycles", "orders", "fills", "position", "pnl", "unacked", "latency"):
        assert title in drawn
    for text in ("market_maker", "running", "4242", "1m15s", "150", "300", "12", "0.3", "-1.2346", "4", "2.3 ms"):
        assert text in drawn


def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    assert "mom[red]entum" in draw([BROKEN], 120)


def test_a_terminal_of_80_columns_loses_whole_columns_and_never_half_a_number() -> None:
    drawn = draw([MAKER, BROKEN], 80)

    assert "cycles" not in drawn
    for text in ("market_maker", "-1.2346", "2.3 ms", "latency"):
        assert text in drawn
    assert max(map(len, drawn.splitlines())) <= 80


def test_every_state_has_a_colour_that_says_how_much_it_matters() -> None:
    assert {live.style_of(state) for state in ("running", "ready")} == {"green"}
    assert {live.style_of(state) for state in ("starting", "stopping", "waiting")} == {"cyan"}
    assert {live.style_of(state) for state in ("degraded", "backoff")} == {"bold yellow"}
    assert {live.style_of(state) for state in ("stopped", "done")} == {"dim"}
    assert {live.style_of(state) for state in ("quarantined", "failed", "kill switch", "new word")} == {"bold red"}


@pytest.mark.parametrize(
    ("is_terminal", "environment", "wanted"),
    [
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_only_a_capable_terminal_gets_a_refreshing_table(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)

    assert live.wants_table(stream) is wanted

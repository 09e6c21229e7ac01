"""What the keys of `horizon top` do, and what its screen shows, without a terminal."""

from __future__ import annotations

import io
import os
import pty
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eventually import eventually
from rich.console import Console
from scripted_supervisor import BROKEN, GATEWAY, MAKER, WRITER, status, supervising

from horizon.cli.keyboard import Hangup, keys_of, read_keys, single_keys
from horizon.cli.top_screen import draw
from horizon.cli.top_session import Session, asked
from horizon.cli.top_watch import Answer, Rates, Seen, Watcher
from horizon.control import Dump, ProcessStatus, Reset, Restart, Start, StatusReply, Stop, WriterHealth
from horizon.store.read import PositionView

NOW = 100.0
HELD = PositionView("maker", "paper", "BTC-USD", "yes", 0.3, 50_000.25, 1.5, -0.25, 0.125, 0.0, None, 1.0)
SEEN = Seen(
    status=status(MAKER, BROKEN),
    seen_at=NOW,
    rates={"maker": 12.5, "writer": 40.25},
    database_bytes=5 << 20,
    wal_bytes=1 << 20,
    selected="maker",
    positions=(HELD,),
    entries=("2026-11-21 04:00:00.000Z ERROR maker[4242 run-1] mine: no price\n    Traceback",),
)


def session(selected: str = "maker") -> Session:
    made = Session()
    made.selected = selected
    return made


def press(made: Session, *keys: str, told: StatusReply | None = SEEN.status, silence: str = "") -> list[Any]:
    return [request for key in keys if (request := made.press(key, told, silence, NOW)) is not None]


def drawn(seen: Seen = SEEN, made: Session | None = None, width: int = 160, height: int = 40, now: float = NOW) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    made = made or session()
    made.follow(seen.status, now)
    console.print(draw(seen, made, now, width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text.splitlines()


# ---- keys


def test_keys_have_names_however_they_arrive() -> None:
    assert keys_of(b"\x1b[A\x1b[Bk\x1bOAs\r") == ["up", "down", "k", "up", "s", "enter"]
    assert keys_of(b"\x1b") == ["escape"]
    assert len(keys_of(b"\x1b[1;5C")) == 1


def test_the_selection_moves_and_stays_inside() -> None:
    made = session()
    assert press(made, "down") == []
    assert made.selected == "broken"
    press(made, "j", "j", "j", "page down")
    assert made.selected == "gateway"
    press(made, "up", "k", "page up", "up")
    assert made.selected == "maker"


def test_what_was_selected_and_is_gone_gives_way_to_the_first() -> None:
    made = session("removed")
    press(made, "s")
    made.follow(SEEN.status, NOW)
    assert (made.selected, made.question) == ("maker", None)
    made.follow(None, NOW)
    assert made.selected == ""


@pytest.mark.parametrize(("key", "request_"), [("s", Stop(["maker"])), ("r", Restart(["maker"])), ("x", Reset(["maker"]))])
def test_what_ends_a_process_is_done_after_a_yes_alone(key: str, request_: Any) -> None:
    assert press(session(), key) == []
    assert press(session(), key, "y") == [request_]
    for no in ("n", "q", "enter", "escape", key):
        refused = session()
        assert press(refused, key, no) == []
        assert (refused.question, refused.is_over) == (None, False)


def test_a_start_and_a_dump_end_nothing_and_are_not_asked_about() -> None:
    assert press(session("broken"), "t") == [Start(["broken"])]
    assert press(session("writer"), "d") == [Dump("writer")]


def test_the_question_is_about_the_strategy_it_was_asked_for() -> None:
    made = session()
    press(made, "s")
    made.selected = "broken"
    assert press(made, "y") == [Stop(["maker"])]


def test_writer_and_gateway_are_not_for_stopping() -> None:
    for name in ("writer", "gateway"):
        made = session(name)
        assert press(made, "s", "y") == []
        assert "no strategy" in made.message


def test_nobody_is_told_anything_while_no_supervisor_answers() -> None:
    made = session()
    assert press(made, "s", "y", silence="it hung up") == []
    assert press(made, "t", told=None) == []
    assert "no supervisor" in made.message


def test_the_question_says_what_is_at_stake_at_that_moment() -> None:
    made = session()
    press(made, "s")
    assert made.question is not None
    with_orders = msgspec.structs.replace(MAKER, open_orders=2)
    assert asked(made.question, with_orders, 0) == "maker has 2 open orders and a position of 0.3. Stop maker? y/n"
    flat = msgspec.structs.replace(MAKER, position=0.0)
    assert asked(made.question, flat, 0) == "Stop maker? y/n"
    assert asked(made.question, flat, 2) == "maker has 2 open positions. Stop maker? y/n"  # long one, short the other
    assert asked(made.question, msgspec.structs.replace(with_orders, pid=None), 0) == "Stop maker? y/n"


def test_a_dump_is_shown_in_pages_and_any_other_key_leaves_it() -> None:
    made = session()
    made.hear(Answer(Dump("maker"), "\n".join(f"line {number}" for number in range(100))), NOW)
    press(made, "down", "page down")
    shown = drawn(made=made, height=20)
    assert shown[0] == "line 11"
    assert "70 lines below" in shown[-1]
    assert press(made, "q") == []
    assert (made.pages, made.is_over) == (None, False)
    press(made, "q")
    assert made.is_over


def test_an_answer_is_shown_for_a_while() -> None:
    made = session()
    made.hear(Answer(Stop(["maker"]), "the disk is \x1b[2J full", False), NOW)
    assert drawn(made=made)[-1] == "the disk is \\x1b[2J full"
    assert "quit" in drawn(made=made, now=NOW + 11)[-1]


def test_help_names_every_key() -> None:
    made = session()
    press(made, "?")
    shown = "\n".join(drawn(made=made))
    for what in ("stop the strategy", "restart it", "reset it", "dump", "quit"):
        assert what in shown


def test_a_terminal_is_as_it_was_after_an_exception() -> None:
    outer, inner = pty.openpty()
    try:
        before = termios.tcgetattr(inner)
        with suppress(ZeroDivisionError), single_keys(inner):
            assert termios.tcgetattr(inner) != before
            raise ZeroDivisionError
        assert termios.tcgetattr(inner) == before
        with single_keys(inner):
            os.write(outer, b"\x1b[As")
            assert eventually(lambda: read_keys(inner, 0.1)) == ["up", "s"]
            assert read_keys(inner, 0.0) == []
    finally:
        os.close(outer)
    with pytest.raises(Hangup):
        read_keys(inner, 1.0)
    os.close(inner)


# ---- the thread that gathers


def test_a_bug_in_what_gathers_is_told_and_does_not_freeze_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(tmp_path / "control.sock", tmp_path / "horizon.db", tmp_path)
    monkeypatch.setattr(Rates, "note", lambda *_: 1 / 0)
    with supervising(tmp_path / "control.sock", status(MAKER)):
        watcher.start()
        eventually(lambda: isinstance(watcher.failure, ZeroDivisionError))


# ---- the screen


def test_everything_a_person_asks_for_is_on_the_screen() -> None:
    text = "\n".join(drawn())
    for part in (
        "1 of 2 ready",
        "loop lag 1.5 ms",
        "5.0 MiB, wal 1.0 MiB",
        "writer committed 1000",
        "40.2/s",
        "last commit 0.5 s ago",
    ):
        assert part in text
    for part in (">  maker", "4242", "1m15s", "12.5", "0.3", "-1.5", "2.3 ms", "quarantined", "5 crashes within 300 s"):
        assert part in text
    for part in ("BTC-USD", "50000.25", "run run-1", "ERROR maker[4242 run-1] mine: no price"):
        assert part in text
    assert "Traceback" not in text
    assert drawn()[-1].startswith("up/down select")


@pytest.mark.parametrize("height", [5, 8, 12, 24, 60])
@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_nothing_is_wider_or_higher_than_the_terminal(width: int, height: int) -> None:
    named = msgspec.structs.replace(MAKER, name="名前" * 30, why="because of something that takes long to tell " * 5)
    seen = SEEN._replace(status=status(named, MAKER, BROKEN), entries=SEEN.entries * 30)
    lines = drawn(seen, width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_keeps_the_state_and_loses_whole_columns() -> None:
    text = "\n".join(drawn(width=80))
    assert "quarantined" in text
    assert "-1.5" in text
    assert "cycles" not in text


def test_the_selected_row_is_in_sight_among_many() -> None:
    many = [msgspec.structs.replace(MAKER, name=f"s{number:02}") for number in range(50)]
    seen = SEEN._replace(status=status(*many))
    for name in ("s00", "s25", "s49"):
        assert any(line.startswith(f">  {name}") for line in drawn(seen, session(name), height=24))


def test_states_have_the_colours_of_the_supervisors_own_table() -> None:
    text = draw(SEEN, session(), NOW, 160, 40)
    styles = {text.plain[span.start : span.end].strip(): str(span.style) for span in text.spans}
    assert styles["ready"] == "green"
    assert styles["quarantined"] == "bold red"


def test_a_supervisor_that_is_gone_is_told_above_what_was_seen_last() -> None:
    lines = drawn(SEEN._replace(silence="nobody listens on control.sock"), now=NOW + 75)
    assert lines[0] == "last seen 1m15s ago: nobody listens on control.sock"
    assert any("maker" in line for line in lines)
    assert drawn(Seen(silence="nobody listens"))[0] == "nobody listens"
    assert drawn(Seen())[0] == "asking the supervisor"


def test_trouble_of_the_whole_is_in_the_head() -> None:
    ill = status(
        msgspec.structs.replace(MAKER, kill_switch=True),
        is_stopping=True,
        writer=WriterHealth(commit_age_s=30.0, stalled="disk full", dead_letters=2),
        log_dropped=7,
    )
    head = "\n".join(drawn(SEEN._replace(status=ill))[:5])
    for part in (
        "stopping everything",
        "STALLED: disk full",
        "2 dead letters",
        "7 lines of log dropped",
        "kill switch is on: maker",
    ):
        assert part in head


def test_positions_of_another_strategy_are_never_shown_for_the_selected_one() -> None:
    assert "BTC-USD" not in "\n".join(drawn(SEEN, session("broken")))


def test_what_comes_from_outside_cannot_steer_the_terminal() -> None:
    evil = msgspec.structs.replace(MAKER, name="a\x1b[2Jb", last_error="c\rd\x1b]0;x\x07")
    seen = SEEN._replace(status=status(evil), entries=("\x1b[31m red",), selected=evil.name)
    assert not {"\x1b", "\r", "\x07"} & set("".join(drawn(seen, session(evil.name))))


# ---- rates


def counted(orders: int, starts: int = 1, committed: int = 0) -> StatusReply:
    strategy = ProcessStatus(name="maker", kind="strategy", state="ready", wanted=True, starts=starts, orders=orders)
    told = status(strategy, writer=WriterHealth(committed=committed))
    return msgspec.structs.replace(told, processes=[strategy, WRITER, GATEWAY])


def test_rates_are_over_the_last_seconds() -> None:
    rates = Rates()
    assert rates.note(0.0, counted(0)) == {}
    assert rates.note(1.0, counted(10, committed=30)) == {"maker": 10.0, "writer": 30.0}
    for second in range(2, 10):
        measured = rates.note(float(second), counted(10, committed=30))
    assert measured == {"maker": 0.0, "writer": 0.0}


def test_a_restart_makes_no_negative_rate() -> None:
    rates = Rates()
    rates.note(0.0, counted(1000))
    assert "maker" not in rates.note(1.0, counted(5, starts=2))
    assert rates.note(2.0, counted(9, starts=2))["maker"] == 4.0

"""The replay of recorded trades and quotes: what it reads, when it plays it, and how it refuses what is broken."""

from __future__ import annotations

import datetime
import gzip
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from manual_clock import ManualClock

from horizon.errors import ConfigError
from horizon.feeds.base import Feed, FeedData
from horizon.feeds.replay import Replay

TRADES = "timestamp,price,size,side\n1000000000,10.5,1,buy\n1000000001.5,10.25,2,sell\n1000000001.5,10.75,0.5,Buy\n"
QUOTES = "timestamp,bid,ask\n1000000000,9.5,10.5\n1000000060,9.75,10.25\n"


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    return written(tmp_path / "trades.csv", TRADES)


@pytest.fixture
def quotes(tmp_path: Path) -> Path:
    return written(tmp_path / "quotes.csv", QUOTES)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def played(feed: Replay) -> list[FeedData]:
    feed.start()
    seen = []
    while feed.advance():
        seen.append(feed.snapshot())
    feed.stop()
    return seen


def refusal(path: Path, **options: Any) -> str:
    """What the replay says to a file, after playing what comes before the fault."""
    with pytest.raises(ConfigError) as caught:
        played(Replay(path, **{"speed": "max", **options}))
    return str(caught.value)


def test_replay_keeps_the_feed_protocol(trades: Path) -> None:
    assert isinstance(Replay(trades), Feed)


def test_trades_give_price_size_side_and_volume(trades: Path) -> None:
    seen = played(Replay(trades, speed="max"))
    assert [(data.timestamp, data.price, data.last_trade_size, data.last_trade_is_buy, data.volume_24h) for data in seen] == [
        (1e9, 10.5, 1.0, True, 1.0),
        (1e9 + 1.5, 10.25, 2.0, False, 3.0),
        (1e9 + 1.5, 10.75, 0.5, True, 3.5),
    ]
    assert {(data.bid, data.ask, data.source, data.age_s) for data in seen} == {(0.0, 0.0, "replay:trades.csv", 0.0)}


def test_quotes_give_bid_ask_and_their_middle_as_price(quotes: Path) -> None:
    seen = played(Replay(quotes, "quotes", speed="max"))
    assert [(data.timestamp, data.bid, data.ask, data.price) for data in seen] == [
        (1e9, 9.5, 10.5, 10.0),
        (1e9 + 60, 9.75, 10.25, 10.0),
    ]
    assert seen[-1].last_trade_is_buy is None
    assert seen[-1].volume_24h == 0.0


def test_columns_are_found_by_the_names_of_the_header(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id, when ,px,qty\n1,1000000000,10.5,3\n")
    (data,) = played(Replay(path, speed="max", columns={"timestamp": "when", "price": "px", "size": "qty"}))
    assert (data.timestamp, data.price, data.last_trade_size, data.last_trade_is_buy) == (1e9, 10.5, 3.0, None)


def test_columns_are_found_by_number_where_there_is_no_header(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "buy;3;10.5;1000000000\n")
    columns = {"timestamp": 3, "price": 2, "size": 1, "side": 0}
    (data,) = played(Replay(path, speed="max", header=False, delimiter=";", columns=columns))
    assert (data.timestamp, data.price, data.last_trade_size, data.last_trade_is_buy) == (1e9, 10.5, 3.0, True)


def test_trades_without_a_size_have_no_volume(tmp_path: Path) -> None:
    (data,) = played(Replay(written(tmp_path / "t.csv", "timestamp,price\n1000000000,10.5\n"), speed="max"))
    assert (data.price, data.last_trade_size, data.volume_24h) == (10.5, 0.0, 0.0)


def test_the_words_for_sides_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "timestamp,price,maker\n1000000000,1,True\n1000000000,1,false\n1000000000,1,n\n")
    sides = {"True": "sell", "False": "buy", "N": "unknown"}
    seen = played(Replay(path, speed="max", columns={"side": "maker"}, sides=sides))
    assert [data.last_trade_is_buy for data in seen] == [False, True, None]


@pytest.mark.parametrize(
    ("text", "options", "timestamp"),
    [
        ("1609459200.25", {"time_unit": "s"}, 1609459200.25),
        ("1609459200250", {"time_unit": "ms"}, 1609459200.25),
        ("1609459200250000", {"time_unit": "us"}, 1609459200.25),
        ("1609459200250000000", {"time_unit": "ns"}, 1609459200.25),
        ("2021-01-01T00:00:00.250Z", {"time_unit": "iso"}, 1609459200.25),
        ("2021-01-01 00:00:00.25", {"time_unit": "iso"}, 1609459200.25),
        ("2021-01-01T05:30:00.25+05:30", {"time_unit": "iso"}, 1609459200.25),
        ("250", {"time_unit": "ms", "date": "2021-01-01"}, 1609459200.25),
        ("250", {"time_unit": "ms", "date": datetime.date(2021, 1, 1)}, 1609459200.25),
    ],
)
def test_times_are_read_in_every_unit_as_utc(tmp_path: Path, text: str, options: dict[str, Any], timestamp: float) -> None:
    path = written(tmp_path / "t.csv", f"timestamp,price\n{text},1\n")
    (data,) = played(Replay(path, speed="max", **options))
    assert data.timestamp == timestamp


@pytest.mark.parametrize("name", ["trades.csv", "trades.csv.gz", "trades.zip", "misleading.txt"])
def test_the_content_says_how_a_file_is_packed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.mkdir("folder")
            archive.writestr("folder/any.csv", TRADES)
    else:
        path.write_bytes(TRADES.encode() if name == "trades.csv" else gzip.compress(TRADES.encode()))
    assert [data.price for data in played(Replay(path, speed="max"))] == [10.5, 10.25, 10.75]


def test_a_byte_order_mark_blank_lines_and_quoted_fields_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbftimestamp,price\r\n\r\n"1000000000","1.5"\r\n\r\n')
    assert [data.price for data in played(Replay(path, speed="max"))] == [1.5]


def test_negative_prices_and_crossed_quotes_are_played_as_recorded(tmp_path: Path) -> None:
    trades = written(tmp_path / "t.csv", "timestamp,price\n1000000000,-37.63\n")
    assert [data.mid() for data in played(Replay(trades, speed="max"))] == [-37.63]
    quotes = written(tmp_path / "q.csv", "timestamp,bid,ask\n1000000000,2,1\n")
    assert [(data.bid, data.ask) for data in played(Replay(quotes, "quotes", speed="max"))] == [(2.0, 1.0)]


def test_real_time_plays_what_is_due_and_measures_age(quotes: Path) -> None:
    clock = ManualClock()
    feed = Replay(quotes, "quotes", clock=clock)
    feed.start()
    assert feed.paced
    assert feed.next_time() == 1e9
    assert feed.snapshot().is_stale()
    assert feed.advance()
    clock.forward(31.0)
    assert feed.advance()
    assert feed.snapshot().bid == 9.5
    assert feed.snapshot().age_s == 31.0
    assert feed.snapshot().is_stale()
    clock.forward(29.0)
    assert feed.advance()
    assert feed.snapshot().bid == 9.75
    assert not feed.snapshot().is_stale()
    assert not feed.advance()
    clock.forward(31.0)
    assert feed.snapshot().is_stale()


def test_scaled_time_measures_age_in_the_time_of_the_market(quotes: Path) -> None:
    clock = ManualClock()
    feed = Replay(quotes, "quotes", speed=120, clock=clock)
    feed.start()
    feed.advance()
    clock.forward(0.25)
    assert feed.snapshot().age_s == 30.0
    clock.forward(0.25)
    assert feed.advance()
    assert feed.snapshot().bid == 9.75


def test_as_fast_as_possible_is_not_paced_and_gives_one_row_a_call(trades: Path) -> None:
    feed = Replay(trades, speed="max")
    feed.start()
    times = []
    while True:
        times.append(feed.next_time())
        if not feed.advance():
            break
    assert not feed.paced
    assert times == [1e9, 1e9 + 1.5, 1e9 + 1.5, None]
    assert not feed.advance()


def test_volume_is_that_of_the_last_24_hours_of_market_time(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "timestamp,price,size\n1000000000,1,5\n1000050000,1,7\n1000090000,1,1\n")
    assert [data.volume_24h for data in played(Replay(path, speed="max"))] == [5.0, 12.0, 8.0]


def test_a_stopped_replay_gives_nothing_more_and_a_second_start_begins_anew(trades: Path) -> None:
    feed = Replay(trades, speed="max")
    feed.start()
    feed.advance()
    feed.stop()
    assert not feed.advance()
    assert feed.next_time() is None
    assert feed.snapshot().price == 10.5
    assert [data.price for data in played(feed)] == [10.5, 10.25, 10.75]


def open_position(path: Path) -> int | None:
    """How far this process has read the file; None when it is not open."""
    opened = [file for file in psutil.Process().open_files() if file.path == str(path)]
    return opened[0].position if opened else None


def test_rows_are_read_only_when_they_are_needed_and_the_file_is_closed_at_the_end(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "timestamp,price\n" + "".join(f"{1_000_000_000 + n},1\n" for n in range(50_000)))
    feed = Replay(path, speed="max")
    feed.start()
    for _ in range(1_000):
        assert feed.advance()
    read = open_position(path)
    assert read is not None
    assert 10_000 < read < path.stat().st_size / 10
    feed.stop()
    assert open_position(path) is None
    assert len(played(feed)) == 50_000
    feed.start()
    while feed.advance():
        pass
    assert open_position(path) is None


def test_what_comes_before_a_broken_line_is_played_and_then_every_call_says_the_line(tmp_path: Path) -> None:
    feed = Replay(written(tmp_path / "t.csv", TRADES + "1000000002,oops,1,buy\n1000000003,1,1,buy\n"), speed="max")
    feed.start()
    assert [feed.advance() for _ in range(3)] == [True, True, True]
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"t\.csv, line 5: price 'oops' is not a number"):
            feed.advance()
    assert feed.snapshot().price == 10.75


def test_a_paced_replay_too_stops_at_a_broken_line(tmp_path: Path) -> None:
    clock = ManualClock()
    feed = Replay(written(tmp_path / "t.csv", TRADES + "1000000002,1,-1,buy\n"), clock=clock)
    feed.start()
    clock.forward(100.0)
    assert feed.advance()
    assert feed.snapshot().price == 10.75
    with pytest.raises(ConfigError, match="line 5: size '-1' is negative"):
        feed.advance()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1000000002,nan,1,buy", "price 'nan' is not finite"),
        ("1000000002,1,inf,buy", "size 'inf' is not finite"),
        ("1000000002,1,-0.5,buy", "size '-0.5' is negative"),
        ("1000000002,,1,buy", "price '' is not a number"),
        ("1000000002,1,1,up", "side 'up' is none of buy, b, bid, sell, s, ask, a; say with sides= what it means"),
        ("1000000002,1,1", "there are 3 columns instead of 4"),
        ("1000000002,1,1,buy,x", "there are 5 columns instead of 4"),
        ("1000000002000,1,1,buy", "check time_unit"),
        ("12345,1,1,buy", "give date="),
        ("nan,1,1,buy", "timestamp 'nan' is not finite"),
        ("1000000001,1,1,buy", "the time 2001-09-09T01:46:41+00:00 is before the 2001-09-09T01:46:41.500000+00:00 above it"),
    ],
)
def test_a_broken_line_is_named_with_file_line_and_value(tmp_path: Path, line: str, says: str) -> None:
    text = refusal(written(tmp_path / "t.csv", TRADES + line + "\n"))
    assert "t.csv, line 5: " in text
    assert says in text


def test_an_iso_time_that_is_none_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "timestamp,price\nyesterday,1\n")
    assert "line 2: timestamp 'yesterday' is not an ISO 8601 time" in refusal(path, time_unit="iso")


def test_an_unfinished_quote_is_found(tmp_path: Path) -> None:
    assert "is damaged after line 4" in refusal(written(tmp_path / "t.csv", TRADES + '"1000000002,1,1,buy\n' * 3))


def test_bytes_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(TRADES.encode() + b"\xff\xfe\n")
    assert "t.csv is damaged" in refusal(path)


def test_a_cut_gzip_is_found_after_its_good_rows(tmp_path: Path) -> None:
    text = "timestamp,price\n" + "".join(f"{1_000_000_000 + n},{n * 7919 % 1013}\n" for n in range(20_000))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-2_000])
    assert "t.csv.gz is damaged after line 1" in refusal(path)


@pytest.mark.parametrize("flipped", [30, 200])
def test_a_damaged_zip_is_found(tmp_path: Path, flipped: int) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", "timestamp,price\n" + "".join(f"{1_000_000_000 + n},{n * 7919 % 1013}\n" for n in range(5_000)))
    data = bytearray(path.read_bytes())
    data[flipped] ^= 0xFF
    path.write_bytes(data)
    assert "t.zip" in refusal(path)


def test_a_zip_of_two_files_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.csv", TRADES)
        archive.writestr("two.csv", TRADES)
    assert "must hold exactly one file, it holds 2: one.csv, two.csv" in refusal(path)


def test_a_file_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read: No such file or directory"):
        Replay(tmp_path / "none.csv").start()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Replay(tmp_path).start()


@pytest.mark.parametrize("text", ["", "timestamp,price\n", "timestamp,price\n\n\n"])
def test_a_file_without_rows_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv holds no trades"):
        Replay(written(tmp_path / "t.csv", text)).start()


def test_a_column_that_is_not_there_is_named_with_those_that_are(trades: Path) -> None:
    assert "has no column 'px' for price; it has timestamp, price, size, side" in refusal(trades, columns={"price": "px"})
    assert "has no column 'bid' for bid; it has timestamp, price, size, side" in refusal(trades, kind="quotes")
    assert "columns.size is 4, counted from 0, but" in refusal(trades, columns={"size": 4})
    assert "has no column 'qty' for size" in refusal(trades, columns={"size": "qty"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "bars"}, "kind"),
        ({"columns": {"bid": "bid"}}, r"columns\.bid is unknown; trades have timestamp, price, size, side"),
        ({"columns": {"price": -1}}, r"columns\.price"),
        ({"columns": {"price": True}}, r"columns\.price"),
        ({"columns": {"price": 1.5}}, r"columns\.price"),
        ({"columns": "price"}, "columns"),
        ({"header": False}, "must give the number of timestamp, price"),
        ({"header": False, "columns": {"timestamp": 0, "price": "price"}}, "there is no header"),
        ({"header": 1}, "header"),
        ({"time_unit": "m"}, "time_unit must be one of s, ms, us, ns or iso"),
        ({"time_unit": "iso", "date": "2021-01-01"}, "date"),
        ({"date": "07.05.2014"}, 'date must look like "2014-05-07"'),
        ({"date": 20140507}, "date"),
        ({"speed": 0}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"speed": True}, "speed"),
        ({"speed": float("inf")}, "speed"),
        ({"delimiter": ""}, "delimiter"),
        ({"sides": {"x": "up"}}, r"sides\.x must be one of buy, sell, unknown"),
        ({"sides": "buy"}, "sides"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Replay("any.csv", **options)


def test_a_path_must_be_a_name() -> None:
    with pytest.raises(ConfigError, match="path"):
        Replay(7)  # type: ignore[arg-type]

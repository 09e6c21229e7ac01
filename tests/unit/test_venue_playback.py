from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from horizon.errors import ConfigError
from horizon.positions import Book
from horizon.records import FeeCurrency, Fill, Order, OrderSide, OrderStatus, Side
from horizon.testing import FakeClock
from horizon.venues.base import Venue
from horizon.venues.paper import Paper
from horizon.venues.playback import Playback

HEADER = ("Account", "Order", "Coin", "Side", "Price", "Size", "Fee", "Time", "Crossed")
ROWS = [
    dict(zip(HEADER, cells, strict=True))
    for cells in (
        ("a", "7", "SOL", "BUY", "0.1", "3", "0.25", "100", "TRUE"),
        ("b", "9", "SOL", "SELL", "0.2", "1", "0.01", "110", "FALSE"),
        ("a", "7", "SOL", "BUY", "0.1", "2", "0.15", "130", "TRUE"),
        ("a", "8", "ETH", "SELL", "20", "1.5", "-0.1", "120", "FALSE"),
    )
]
COLUMNS = {
    "order_id": "Order",
    "market_id": "Coin",
    "order_side": "Side",
    "price": "Price",
    "size": "Size",
    "fee": "Fee",
    "timestamp": "Time",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "fills.csv")


def write_csv(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def fills(events: object) -> list[Fill]:
    return list(events)  # type: ignore[call-overload]


def test_playback_is_a_venue_that_vouches_for_its_fills(path: Path) -> None:
    playback = Playback(path, COLUMNS)
    assert isinstance(playback, Venue)
    assert playback.vouches
    assert not hasattr(Paper(), "vouches")


def test_a_row_becomes_a_fill_of_its_own_texts(path: Path) -> None:
    playback = Playback(
        path,
        {**COLUMNS, "is_maker": lambda row: row["Crossed"] == "FALSE", "token_id": lambda row: f"token-{row['Coin']}"},
        {"fee_currency": FeeCurrency.Base, "multiplier": 5},
        name="hyper",
    )
    assert playback.poll()[0] == Fill(
        fill_id="hyper-fills-00000001",
        order_id="7",
        market_id="SOL",
        side=Side.Long,
        order_side=OrderSide.Buy,
        price=0.1,
        size=3.0,
        fee=0.25,
        timestamp=100.0,
        token_id="token-SOL",
        exchange="hyper",
        is_maker=False,
        multiplier=5.0,
        fee_currency=FeeCurrency.Base,
    )


def test_words_are_read_in_any_case_and_flags_as_text(path: Path) -> None:
    playback = Playback(path, {**COLUMNS, "is_maker": "Crossed"}, {"side": "No", "fee_currency": "quote"})
    assert [fill.is_maker for fill in playback.fills] == [True, False, True, False]
    assert {fill.side for fill in playback.fills} == {Side.No}


def test_gzip_and_rows_give_the_same_fills(tmp_path: Path, path: Path) -> None:
    zipped = write_csv(tmp_path / "fills.csv.gz")
    assert Playback(zipped, COLUMNS).fills == Playback(str(path), COLUMNS).fills
    from_rows = Playback(iter(ROWS), COLUMNS).fills
    assert [fill.price for fill in from_rows] == [0.1, 0.2, 0.1, 20.0]


def test_ids_are_unique_over_the_accounts_of_one_file_and_stable(path: Path) -> None:
    def ids(account: str) -> list[str]:
        return [fill.fill_id for fill in Playback(path, COLUMNS, where=lambda row: row["Account"] == account).fills]

    assert ids("a") == ["playback-fills-00000001", "playback-fills-00000003", "playback-fills-00000004"]
    assert ids("b") == ["playback-fills-00000002"]
    assert ids("a") == ids("a")


def test_an_id_column_is_taken_as_it_is(path: Path) -> None:
    playback = Playback(path, {**COLUMNS, "fill_id": lambda row: f"hyper-{row['Coin']}-{row['Time']}"})
    assert playback.fills[0].fill_id == "hyper-SOL-100"


def test_all_fills_come_at_the_first_poll_by_default(path: Path) -> None:
    playback = Playback(path, COLUMNS)
    assert not playback.exhausted
    assert fills(playback.poll()) == list(playback.fills)
    assert playback.exhausted
    assert fills(playback.poll()) == []


def test_rows_per_poll_paces_by_the_poll(path: Path) -> None:
    playback = Playback(path, COLUMNS, rows_per_poll=3)
    assert [len(playback.poll()) for _ in range(3)] == [3, 1, 0]


def test_speed_paces_by_the_recorded_time_and_keeps_the_recorded_order(path: Path) -> None:
    clock = FakeClock()
    playback = Playback(path, COLUMNS, speed=10.0, clock=clock)
    clock.advance(60)
    playback.connect()
    seen = []
    for _ in range(4):
        seen.append([fill.order_id for fill in fills(playback.poll())])
        clock.advance(1)
    # 100, 110 and then 130 with the row of 120 that the recording has after it
    assert seen == [["7"], ["9"], [], ["7", "8"]]


def test_speed_does_not_follow_a_wall_clock_that_jumps(path: Path) -> None:
    clock = FakeClock()
    playback = Playback(path, COLUMNS, speed=1.0, clock=clock)
    playback.connect()
    clock.set_wall(clock.now() + 1_000_000)
    assert len(playback.poll()) == 1


def test_redelivery_repeats_the_last_fills_before_the_new_ones(path: Path) -> None:
    playback = Playback(path, COLUMNS, rows_per_poll=1, redeliver=2)
    deliveries = [[fill.fill_id[-1] for fill in fills(playback.poll())] for _ in range(5)]
    assert deliveries == [["1"], ["1", "2"], ["1", "2", "3"], ["2", "3", "4"], []]


def test_fills_since_tells_what_was_delivered(path: Path) -> None:
    playback = Playback(path, COLUMNS, rows_per_poll=2)
    assert fills(playback.fills_since(0.0)) == []
    playback.poll()
    assert fills(playback.fills_since(110.0)) == [playback.fills[1]]


def test_playback_takes_no_orders_and_knows_no_endings(path: Path) -> None:
    playback = Playback(path, COLUMNS)
    order = Order("mine", "SOL", Side.Long, OrderSide.Buy, 1.0, 1.0)
    for answer in (playback.submit(order), playback.cancel("mine"), playback.amend("mine", 1.0, 2.0)):
        assert answer.status is OrderStatus.Rejected
        assert "takes no orders" in str(answer.reason)
    assert playback.order_by_client_id("7") is None
    assert playback.order_ids == ("7", "9", "8")


def test_a_fee_in_the_base_currency_leaves_the_position(path: Path) -> None:
    def fee_currency(row: dict[str, str]) -> FeeCurrency:
        return FeeCurrency.Base if row["Side"] == "BUY" else FeeCurrency.Quote

    account = Playback(path, {**COLUMNS, "fee_currency": fee_currency}, where=lambda row: row["Account"] == "a")
    book = Book()
    for fill in account.poll():
        assert isinstance(fill, Fill)
        book.apply(fill)
    positions = {position.market_id: position for position in book.positions()}
    assert (positions["SOL"].size, positions["SOL"].base_fees, positions["SOL"].fees) == (4.6, 0.4, 0.0)
    assert (positions["ETH"].size, positions["ETH"].base_fees, positions["ETH"].fees) == (-1.5, 0.0, -0.1)


def without(columns: dict[str, object], field: str) -> dict[str, object]:
    return {name: column for name, column in columns.items() if name != field}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({**COLUMNS, "pnl": "Fee"}, "has no field 'pnl' to map; it has fill_id, order_id"),
        ({**COLUMNS, "exchange": "Coin"}, "has no field 'exchange'"),
        (without(COLUMNS, "price"), "no column or constant is given for price"),
        ({**COLUMNS, "price": "Cost"}, "row 1, field price: there is no column 'Cost'; the row has Account, Order, Coin"),
        ({**COLUMNS, "price": "Coin"}, "row 1, field price: 'SOL' cannot be read: could not convert"),
        ({**COLUMNS, "order_side": "Coin"}, "field order_side: 'SOL' cannot be read: 'sol' is not a valid OrderSide"),
        ({**COLUMNS, "is_maker": "Coin"}, "field is_maker: 'SOL' cannot be read: expected true or false"),
        ({**COLUMNS, "price": lambda row: row["Cost"]}, "field price: the function for it raised KeyError\\('Cost'\\)"),
        ({**COLUMNS, "order_id": lambda row: " "}, "field order_id: ' ' cannot be read: it is empty"),
        ({**COLUMNS, "size": lambda row: "nan"}, "row 1: fill 'playback-fills-00000001': size must be a finite number, got nan"),
        ({**COLUMNS, "size": lambda row: -1}, "row 1: fill .* size must be positive, got -1.0"),
    ],
)
def test_a_wrong_mapping_names_file_row_and_field(path: Path, columns: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Playback(path, columns)  # type: ignore[arg-type]


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.csv"):
        Playback(tmp_path / "nothing.csv", COLUMNS)
    damaged = write_csv(tmp_path / "damaged.csv.gz")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"cannot read .*damaged\.csv\.gz"):
        Playback(damaged, COLUMNS)
    long = tmp_path / "long.csv"
    long.write_text("Order,Coin,Side,Price,Size,Fee,Time\n7,SOL,BUY,1,000.5,3,0,100\n")
    with pytest.raises(ConfigError, match=r"long\.csv, row 1: it has more cells than the header"):
        Playback(long, COLUMNS)
    short = tmp_path / "short.csv"
    short.write_text("Order,Coin,Side,Price,Size,Fee,Time\n7,SOL,BUY,0.1\n")
    with pytest.raises(ConfigError, match="row 1, field size: the row ends before the column 'Size'"):
        Playback(short, COLUMNS)


@pytest.mark.parametrize(
    ("pace", "sentence"),
    [
        ({"rows_per_poll": 0}, "rows_per_poll must be at least 1, got 0"),
        ({"speed": 0.0}, "speed must be above 0"),
        ({"speed": "fast"}, "or \"max\", got 'fast'"),
        ({"speed": 1.0, "rows_per_poll": 1}, "rows_per_poll or speed, not both"),
        ({"redeliver": -1}, "redeliver must not be negative, got -1"),
    ],
)
def test_a_pace_that_makes_no_sense_is_refused(path: Path, pace: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Playback(path, COLUMNS, **pace)  # type: ignore[arg-type]

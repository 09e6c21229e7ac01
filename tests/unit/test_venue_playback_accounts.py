"""The readers of the recorded accounts, on small files written by hand in the same columns: they run without the recorded data."""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from recorded_accounts import HUMMINGBOT_FILE, HYPERLIQUID_ACCOUNTS, HYPERLIQUID_FILE, flat_fee, hummingbot, hyperliquid

from horizon.positions import Book, Holding
from horizon.records import Fill, Side

MINE, OTHER = HYPERLIQUID_ACCOUNTS
HYPERLIQUID_HEADER = (
    "Account,Coin,Execution Price,Size Tokens,Side,Timestamp IST,Start Position,Direction,Closed PnL,Order ID,Crossed,Fee"
)
HYPERLIQUID_ROWS = [
    f"{MINE},SOL,100,2,BUY,02-12-2024 22:50,0,Open Long,0,1,TRUE,0.2",
    f"{MINE},@107,8,10,BUY,02-12-2024 22:50,5,Buy,0,2,FALSE,0.01",  # 5 were there before the record begins
    f"{OTHER},SOL,100,7,SELL,02-12-2024 22:51,0,Open Short,0,9,TRUE,0.7",
    f"{MINE},SOL,110,3,SELL,02-12-2024 22:52,2,Close Long,20,3,TRUE,0.3",  # through zero
    f"{MINE},@107,9,4,SELL,02-12-2024 22:53,14.99,Sell,0,4,FALSE,0.1",
    f"{MINE},SOL,105,0.5,BUY,02-12-2024 22:54,-1,Close Short,2.5,5,TRUE,0.05",
    f"{MINE},@107,9,1,BUY,02-12-2024 22:55,0,Buy,0,6,TRUE,0.001",  # 10.99 left without a fill
]
FEE = "{{'fee_type': 'DeductedFromReturns', 'percent': '0', 'percent_token': '{0}', 'flat_fees': [{{'token': '{0}', 'amount': '{1}'}}]}}"
HUMMINGBOT_HEADER = "exchange_trade_id,market,symbol,base_asset,quote_asset,timestamp,order_id,trade_type,price,amount,trade_fee"
HUMMINGBOT_ROWS = [
    ("SELL", "0.12370000", "80.00000000", FEE.format("USDT", "0.00989600")),
    ("BUY", "0.12300000", "100.00000000", FEE.format("SEI", "0.10000000")),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "fills").mkdir()
    with gzip.open(tmp_path / HYPERLIQUID_FILE, "wt") as file:
        file.write("\n".join([HYPERLIQUID_HEADER, *HYPERLIQUID_ROWS]) + "\n")
    with (tmp_path / HUMMINGBOT_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HUMMINGBOT_HEADER.split(","))
        for number, (direction, price, amount, fee) in enumerate(HUMMINGBOT_ROWS):
            time_ms = 1695032343000 + number
            writer.writerow([number, "binance", "SEI-USDT", "SEI", "USDT", time_ms, f"x-{number}", direction, price, amount, fee])
    return tmp_path


def held(book: Book, fill: Fill) -> Holding:
    return {key.market_id: holding for key, holding in book}.get(fill.market_id, Holding())


def test_positions_and_pnl_follow_the_venue_fill_by_fill(data: Path) -> None:
    account, book = hyperliquid(data, MINE), Book()
    realized = []
    for fill, said in zip(account.fills, account.said, strict=True):
        before = held(book, fill)
        assert before.size + said.unrecorded == said.position_before
        book.apply(fill)
        if said.is_perpetual:
            assert held(book, fill).realized_pnl - before.realized_pnl == said.closed_pnl
            realized.append(said.closed_pnl)
    assert realized == [0, 20, Decimal("2.5")]
    assert account.closed_pnl == {"SOL": Decimal("22.5")}


def test_what_the_record_lacks_is_found(data: Path) -> None:
    breaks = hyperliquid(data, MINE).breaks
    assert [(gap.market_id, gap.size) for gap in breaks] == [("@107", 5), ("@107", Decimal("-15.99") + 5)]


def test_fees_stay_in_their_currency(data: Path) -> None:
    book = Book.restore((), hyperliquid(data, MINE).fills)
    sums = {position.market_id: (position.size, position.fees, position.base_fees) for position in book.positions()}
    assert sums == {"SOL": (-0.5, 0.55, 0.0), "@107": (6.989, 0.1, 0.011)}


def test_an_account_gets_its_own_rows_with_ids_and_times(data: Path) -> None:
    (fill,) = hyperliquid(data, OTHER).fills
    assert (fill.fill_id, fill.order_id, fill.side, fill.is_maker) == (
        "hyperliquid-hyperliquid-fills-00000003",
        "9",
        Side.Long,
        False,
    )
    assert fill.timestamp == 1_733_160_060.0  # 22:51 in India is 17:21 UTC


def test_a_bots_base_fees_leave_its_position(data: Path) -> None:
    account = hummingbot(data)
    assert [fill.fill_id for fill in account.fills] == ["binance-SEI-USDT-0", "binance-SEI-USDT-1"]
    (position,) = Book.restore((), account.fills).positions()
    assert (position.size, position.fees, position.base_fees) == (19.9, 0.009896, 0.1)
    assert len(account.between("2023-09-18T10:19:03", "2023-09-18T10:19:03")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        FEE.format("SEI", '1"'),
        FEE.format("SEI", "0").replace("'percent': '0'", "'percent': '0.1'"),
        FEE.format("SEI", "0").replace("[", "[{},"),
    ],
)
def test_a_fee_that_is_not_as_the_bot_writes_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        flat_fee(text)

"""The recorded accounts, folded by our positions, against what their venue and their bot said."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from recorded_accounts import (
    HYPERLIQUID_ACCOUNTS,
    POSITION_TOLERANCE,
    Break,
    HummingbotAccount,
    HyperliquidAccount,
    hummingbot,
    hyperliquid,
)

from horizon.positions import Book, Holding, exact
from horizon.records import FeeCurrency, Fill, OrderSide, Side

pytestmark = pytest.mark.recorded


@pytest.fixture(params=HYPERLIQUID_ACCOUNTS, ids=lambda address: address[:6])
def account(request: pytest.FixtureRequest, recorded_data: Path) -> HyperliquidAccount:
    return hyperliquid(recorded_data, request.param)


@pytest.fixture
def bot(recorded_data: Path) -> HummingbotAccount:
    return hummingbot(recorded_data)


def folded(fills: Iterable[Fill]) -> Book:
    book = Book()
    for fill in fills:
        book.apply(fill)
    return book


def holdings(book: Book) -> dict[str, Holding]:
    return {key.market_id: holding for key, holding in book}


def total(numbers: Iterable[float]) -> Decimal:
    return sum((exact(number) for number in numbers), Decimal(0))


# Hyperliquid


def test_every_row_is_one_fill_with_its_own_id(account: HyperliquidAccount) -> None:
    figures = account.figures
    assert len({fill.fill_id for fill in account.fills}) == len(account.fills) == figures.fills
    assert len({fill.order_id for fill in account.fills}) == figures.orders
    assert len({fill.market_id for fill in account.fills}) == figures.markets
    assert sum(said.is_perpetual for said in account.said) == figures.perpetual_fills
    assert sum(said.is_perpetual and said.is_closing for said in account.said) == figures.perpetual_closings


def test_the_two_accounts_of_the_file_share_no_id(recorded_data: Path) -> None:
    first, second = (hyperliquid(recorded_data, address) for address in HYPERLIQUID_ACCOUNTS)
    assert not {fill.fill_id for fill in first.fills} & {fill.fill_id for fill in second.fills}


def test_the_only_gaps_in_the_record_are_the_known_ones(account: HyperliquidAccount) -> None:
    rounded = [Break(market, at, round(size, 2)) for market, at, size in account.breaks]
    if account.address.startswith("0x72c6"):
        opening = Break("@107", "29-11-2024 13:11", Decimal("171.22"))
        assert rounded == [opening, Break("@107", "25-01-2025 03:34", Decimal("-195.98"))]
    else:
        assert rounded == []


def test_positions_before_each_fill_are_what_the_venue_said(account: HyperliquidAccount) -> None:
    book = Book()
    for fill, said in zip(account.fills, account.said, strict=True):
        ours = holdings(book).get(fill.market_id, Holding()).size + said.unrecorded
        assert abs(ours - said.position_before) <= said.tolerance, (
            f"before {fill} we hold {ours}, the venue {said.position_before}"
        )
        book.apply(fill)


def test_end_positions_are_what_the_venue_holds(account: HyperliquidAccount) -> None:
    book = folded(account.fills)
    ends = {position.market_id: exact(position.size) for position in book.positions()}
    assert ends.keys() == account.end_positions.keys()
    for market_id, size in account.end_positions.items():
        assert abs(ends[market_id] - size) <= POSITION_TOLERANCE


def test_realised_pnl_of_each_closing_fill_is_what_the_venue_said(account: HyperliquidAccount) -> None:
    book = Book()
    for fill, said in zip(account.fills, account.said, strict=True):
        before = holdings(book).get(fill.market_id, Holding()).realized_pnl
        book.apply(fill)
        realized = holdings(book)[fill.market_id].realized_pnl - before
        if said.is_perpetual:
            tolerance = max(Decimal("0.01"), abs(said.closed_pnl) / 1000)
            assert abs(realized - said.closed_pnl) <= tolerance, f"{fill} realised {realized}, the venue said {said.closed_pnl}"


def test_realised_pnl_of_each_market_is_what_the_venue_said(account: HyperliquidAccount) -> None:
    assert sum(said.closed_pnl for said in account.said) == account.figures.closed_pnl
    ours = holdings(folded(account.fills))
    for market_id, closed_pnl in account.closed_pnl.items():
        assert abs(ours[market_id].realized_pnl - closed_pnl) <= max(Decimal("0.01"), abs(closed_pnl) / 1000)


def test_fees_add_up_to_the_last_digit_in_both_currencies(account: HyperliquidAccount) -> None:
    ours = holdings(folded(account.fills))
    assert sum(holding.fees + holding.base_fees for holding in ours.values()) == account.figures.fees
    spot = [fill for fill in account.fills if fill.fee_currency is FeeCurrency.Base]
    assert {fill.market_id for fill in spot} == {"@107"}
    assert ours["@107"].base_fees == total(fill.fee for fill in spot)


def test_redelivered_fills_change_nothing_when_compared_by_id(account: HyperliquidAccount, recorded_data: Path) -> None:
    playback = account.playback(recorded_data, rows_per_poll=7, redeliver=50)
    known: dict[str, Fill] = {}
    delivered = 0
    while not playback.exhausted:
        for event in playback.poll():
            assert isinstance(event, Fill)
            assert known.setdefault(event.fill_id, event) == event
            delivered += 1
    assert delivered > 5 * len(known)
    assert folded(known.values()).snapshot() == folded(account.fills).snapshot()


def test_a_book_restored_after_each_fill_is_the_same_to_the_bit(account: HyperliquidAccount) -> None:
    whole, pieces = folded(account.fills), Book()
    for fill in account.fills:
        pieces = Book.restore(pieces.snapshot(), [fill])
    assert pieces.snapshot() == whole.snapshot()


# Hummingbot


def test_the_bots_volumes_are_those_of_its_report(bot: HummingbotAccount) -> None:
    buys = [fill for fill in bot.fills if fill.order_side is OrderSide.Buy]
    sells = [fill for fill in bot.fills if fill.order_side is OrderSide.Sell]
    assert (len(buys), len(sells)) == (bot.buys, bot.sells)
    assert len({fill.order_id for fill in bot.fills}) == bot.orders
    assert len({fill.fill_id for fill in bot.fills}) == len(bot.fills)
    assert (total(fill.size for fill in buys), total(fill.size for fill in sells)) == (bot.bought, bot.sold)
    assert round(sum(exact(fill.size) * exact(fill.price) for fill in buys), 4) == bot.paid
    assert round(sum(exact(fill.size) * exact(fill.price) for fill in sells), 4) == bot.received


def test_the_bots_mid_report_is_matched_too(bot: HummingbotAccount) -> None:
    window = bot.between("2023-09-18T14:51:12", "2023-09-19T06:45:29")
    buys = [fill for fill in window if fill.order_side is OrderSide.Buy]
    sells = [fill for fill in window if fill.order_side is OrderSide.Sell]
    assert (len(buys), len(sells)) == (113, 112)
    assert (total(fill.size for fill in buys), total(fill.size for fill in sells)) == (9_040, 8_800)


def test_the_bots_net_position_is_that_of_its_report_when_its_fees_are_put_back(bot: HummingbotAccount) -> None:
    ours = holdings(folded(bot.fills))[bot.market_id]
    assert (ours.fees, ours.base_fees) == (bot.quote_fees, bot.base_fees)
    assert ours.size == bot.net - bot.base_fees


def test_the_bots_pnl_is_that_of_its_report(bot: HummingbotAccount) -> None:
    without_fees = folded(msgspec.structs.replace(fill, fee=0.0) for fill in bot.fills)
    without_fees.mark(bot.market_id, Side.Long, bot.end_price)
    (position,) = without_fees.positions()
    assert round(position.realized_pnl + position.unrealized_pnl, 4) == bot.trade_pnl

    ours = holdings(folded(bot.fills))[bot.market_id]
    cash = bot.received - bot.paid - ours.fees
    assert round(float(cash + ours.size * exact(bot.end_price)), 2) == bot.total_pnl

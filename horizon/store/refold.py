"""Whether every snapshot is what its fills add up to: all fills are folded again, from the first one, and no snapshot is believed.

Only what the original left, which has no commit order, begins as recovery takes it. Texts are compared, so the last bit counts; the
page's REAL columns are compared with the rounded view of the same state. Several processes fold some markets each, and each looks at
its own part of every snapshot.

`Holdings.fold` is `positions.fold` once more, for rows and by the page: the same operations on the same decimals in the same order, without
a record, a call and a frozen state for each fill, which takes less than half the time. A property test holds it to the last digit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from horizon.positions import EXACT, ROUND, ZERO, Holding, average_price, exact, fold
from horizon.records import Fill, Side

_EXACT_NAMES = ("token_id", "size", "cost", "realized_pnl", "fees", "base_fees", "multiplier")
_REAL = ("size", "avg_entry_price", "realized_pnl")
_SIDES = frozenset(side.value for side in Side)
_NUMBERS_MAX = 30_000  # decimals remembered: prices and sizes come again and again
_FEES_MAX = 1000  # fees come again always or never
_FEE_UNITS = 1e8  # fees with eight decimals are summed as whole numbers of these
_WHOLE_MAX = 10**15  # up to here a decimal of so many digits and its float name each other

_ROWID = itemgetter(0)

Key = tuple[str, str, str]  # exchange, market_id, side
# A holding's fields in their order, then its fees in units and whether there are any. A list: changed in place, fill by fill.
State = list[Any]
_SIZE, _COST, _REALIZED_PNL, _FEES, _BASE_FEES, _MULTIPLIER, _TOKEN_ID, _FEES_IN_UNITS, _HAS_UNITS = range(9)


class StoredRow(NamedTuple):
    """A row of `position_snapshots`."""

    id: int
    strategy: str
    run_id: str
    seq: int
    commit_no: int
    exchange: str
    market_id: str
    side: str
    token_id: str | None
    exact_size: str
    exact_cost: str
    exact_realized_pnl: str
    exact_fees: str
    exact_base_fees: str
    multiplier: float
    size: float
    avg_entry_price: float
    realized_pnl: float
    snapshot_batch: float


class Stored(NamedTuple):
    """A whole snapshot, at its place in the commit order."""

    commit_no: int
    name: str  # for a sentence
    strategy: str
    taken_at: float | None
    rows: tuple[StoredRow, ...]


class Difference(NamedTuple):
    """What one process has found wrong with its part of a snapshot. The lowest rank of all parts is named, the rest mostly follows."""

    rank: int
    text: str


PASSED = -1  # the rank of a snapshot that lies at the wrong place, and is not compared


class Compared(NamedTuple):
    """What became of the snapshots, by their number in the order in which they are stored."""

    compared: set[int]
    outdated: set[int]  # from before a dead letter was replayed: the fills were others then
    differences: dict[int, Difference]


class Holdings:
    """The state of every position of some markets, by strategy."""

    def __init__(self, begun: Mapping[str, Iterable[tuple[Key, Holding]]]) -> None:
        """`begun`: what strategies had before their first fill."""
        self._states: dict[str, dict[Key, State]] = {
            strategy: {key: _state(holding) for key, holding in holdings} for strategy, holdings in begun.items()
        }
        self._numbers: dict[float, Decimal] = {}
        self._fees: dict[float, Decimal] = {}

    def fold(self, rows: Sequence[Any], irregular: Callable[[int], None]) -> None:
        """Rows of `fills_share`. One that is not regular is handed over by its rowid, at its turn."""
        states, number_of, fee_of = self._states, self._numbers.get, self._fees.get
        with localcontext(EXACT):
            for rowid, kind, strategy, _, _, _, exchange, market_id, side, price, size, fee, token_id, multiplier in rows:
                if kind is None:
                    irregular(rowid)
                    continue
                try:
                    state = states[strategy][exchange, market_id, side]
                except KeyError:
                    if side not in _SIDES or type(exchange) is not str or type(market_id) is not str or not market_id:
                        irregular(rowid)
                        continue
                    state = states.setdefault(strategy, {})[exchange, market_id, side] = _state(Holding())
                paid = number_of(price) or _remembered(price, self._numbers, _NUMBERS_MAX)
                quantity = number_of(size) or _remembered(size, self._numbers, _NUMBERS_MAX)
                if kind & 1:
                    quantity = -quantity
                held = state[_SIZE]
                if not held or held.is_signed() == quantity.is_signed():
                    state[_COST] += quantity * paid
                    state[_SIZE] = held + quantity
                else:
                    rest = held + quantity
                    cost = state[_COST]
                    if not rest:
                        gain = held * paid - cost
                        state[_SIZE] = state[_COST] = ZERO
                    elif rest.is_signed() != held.is_signed():
                        gain = held * paid - cost
                        state[_SIZE], state[_COST] = rest, rest * paid
                    else:
                        removed = ROUND.divide(cost * -quantity, held)
                        gain = -quantity * paid - removed
                        state[_SIZE], state[_COST] = rest, cost - removed
                    state[_REALIZED_PNL] += gain if multiplier == 1.0 else gain * exact(multiplier)
                if fee:
                    whole = int(fee * _FEE_UNITS + 0.5)
                    # With a last digit of its own, its decimal has just these digits, and the sum in decimals has eight places too.
                    if kind < 2 and fee > 0.0 and whole % 10 and whole / _FEE_UNITS == fee and whole < _WHOLE_MAX:
                        state[_FEES_IN_UNITS] += whole
                        state[_HAS_UNITS] = True
                        state[_MULTIPLIER] = multiplier
                        if token_id:
                            state[_TOKEN_ID] = token_id
                        continue
                    units = fee_of(fee) or _remembered(fee, self._fees, _FEES_MAX)
                    if kind & 2:
                        held = state[_SIZE]
                        rest = state[_SIZE] = held - units
                        if not rest:
                            state[_SIZE] = state[_COST] = ZERO
                        elif not held:
                            state[_COST] = rest * paid
                        else:
                            state[_COST] = ROUND.divide(state[_COST] * rest, held)
                        state[_BASE_FEES] += units
                    else:
                        state[_FEES] += units
                state[_MULTIPLIER] = multiplier
                if token_id:
                    state[_TOKEN_ID] = token_id

    def apply(self, strategy: str, fill: Fill) -> None:
        """One fill, by `positions.fold` itself."""
        states = self._states.setdefault(strategy, {})
        key = (fill.exchange, fill.market_id, fill.side.value)
        states[key] = _state(fold(_holding(states[key]) if key in states else Holding(), fill))

    def of(self, strategy: str) -> dict[Key, Holding]:
        """Every position of a strategy as it is now."""
        return {key: _holding(state) for key, state in self._states.get(strategy, {}).items()}


def _remembered(number: float, numbers: dict[float, Decimal], most: int) -> Decimal:
    """As `positions.exact`."""
    if len(numbers) >= most:
        numbers.clear()
    value = numbers[number] = Decimal(repr(number + 0.0))
    return value


def _state(holding: Holding) -> State:
    return [
        holding.size, holding.cost, holding.realized_pnl, holding.fees, holding.base_fees, holding.multiplier, holding.token_id, 0, False
    ]  # fmt: skip


def _holding(state: State) -> Holding:
    *of_holding, whole, has_whole = state
    if has_whole:
        of_holding[_FEES] = EXACT.add(of_holding[_FEES], Decimal(whole).scaleb(-8, EXACT))
    return Holding(*of_holding)


class Refold:
    """Takes the fills of some markets in commit order, and compares its part of each snapshot as soon as the fills it includes are in."""

    def __init__(
        self, snapshots: Iterable[Stored], is_mine: Callable[[str], bool], holdings: Holdings, replayed_at: Mapping[str, float]
    ) -> None:
        """`replayed_at`: fills of a strategy were changed then."""
        self._snapshots = enumerate(snapshots)
        self._next = next(self._snapshots, None)
        self._is_mine = is_mine
        self._holdings = holdings
        self._replayed_at = replayed_at
        self._at = 0
        self.found = Compared(set(), set(), {})

    def fills(self, rows: Sequence[Any], irregular: Callable[[int], None]) -> None:
        """A page of rows of `fills_share`."""
        begin = 0
        while self._next is not None and rows and self._next[1].commit_no < rows[-1][0]:
            commit_no = self._next[1].commit_no
            end = bisect_right(rows, commit_no, begin, key=_ROWID)
            self._fold(rows[begin:end], irregular)
            self._compare_up_to(commit_no)
            begin = end
        self._fold(rows[begin:] if begin else rows, irregular)

    def fill(self, place: int, strategy: str, fill: Fill) -> None:
        """A row that is not regular; its place in the commit order may not be its rowid."""
        if self._next is not None and self._next[1].commit_no < place:
            self._compare_up_to(place - 1)
        self._at = place
        self._holdings.apply(strategy, fill)

    def close(self) -> None:
        """Compare the snapshots behind the last fill."""
        while self._next is not None:
            self._compare_up_to(self._next[1].commit_no)

    def _fold(self, rows: Sequence[Any], irregular: Callable[[int], None]) -> None:
        if rows:
            self._holdings.fold(rows, irregular)
            self._at = max(self._at, rows[-1][0])

    def _compare_up_to(self, commit_no: int) -> None:
        while self._next is not None and self._next[1].commit_no <= commit_no:
            number, stored = self._next
            if stored.commit_no < self._at:
                self.found.differences[number] = Difference(
                    PASSED, f"{stored.name} says that it includes fill number {stored.commit_no}, which an earlier one had passed"
                )
            elif stored.taken_at is not None and stored.taken_at <= self._replayed_at.get(stored.strategy, 0.0):
                self.found.outdated.add(number)
            else:
                self.found.compared.add(number)
                found = self._difference(stored)
                if found is not None:
                    self.found.differences[number] = found
            self._next = next(self._snapshots, None)

    def _difference(self, stored: Stored) -> Difference | None:
        folded = self._holdings.of(stored.strategy)
        for rank, row in enumerate(stored.rows):
            if not self._is_mine(row.market_id):
                continue
            expected = folded.pop((row.exchange, row.market_id, row.side), None)
            what = f"{stored.name}: {row.market_id} {row.side} on {row.exchange}"
            if expected is None:
                return Difference(rank, f"{what} has a position, and no fill gives one")
            if found := _difference(row, expected):
                return Difference(rank, f"{what}: {found}")
        for exchange, market, side in folded:
            return Difference(
                len(stored.rows), f"{stored.name}: {market} {side} on {exchange} is missing, and the fills give a position"
            )
        return None


def add_up(parts: Iterable[Compared]) -> Compared:
    """What all processes together say. A snapshot that one of them could not compare was not compared."""
    total = Compared(set(), set(), {})
    for part in parts:
        total.compared.update(part.compared)
        total.outdated.update(part.outdated)
        for number, difference in part.differences.items():
            known = total.differences.get(number)
            if known is None or difference.rank < known.rank:
                total.differences[number] = difference
    passed = {number for number, difference in total.differences.items() if difference.rank == PASSED}
    return total._replace(compared=total.compared - passed)


def whole_snapshots(rows: Iterable[tuple[Any, ...]], pointed: Iterable[Stored]) -> Iterator[Stored]:
    """Rows in their order, and those that `newest_snapshots` points to, as snapshots by their place in the commit order."""
    return merge(_grouped(StoredRow(*row) for row in rows), pointed, key=lambda stored: stored.commit_no)


def _grouped(rows: Iterable[StoredRow]) -> Iterator[Stored]:
    # What a program of the original has written has no run, no place, and nothing exact.
    ours = (row for row in rows if row.run_id is not None and row.commit_no is not None)
    for (strategy, run_id, seq, commit_no), group in groupby(
        ours, key=lambda row: (row.strategy, row.run_id, row.seq, row.commit_no)
    ):
        rows_of_one = tuple(group)
        name = f"snapshot of {strategy} (run {run_id}, seq {seq})"
        yield Stored(commit_no, name, strategy, rows_of_one[0].snapshot_batch, rows_of_one)


def _difference(row: StoredRow, expected: Holding) -> str:
    exact_state = (
        row.token_id, row.exact_size, row.exact_cost, row.exact_realized_pnl, row.exact_fees, row.exact_base_fees, row.multiplier,
    )  # fmt: skip
    folded = (
        expected.token_id, str(expected.size), str(expected.cost), str(expected.realized_pnl), str(expected.fees),
        str(expected.base_fees), expected.multiplier,
    )  # fmt: skip
    for name, stored, by_fills in zip(_EXACT_NAMES, exact_state, folded, strict=True):
        if stored != by_fills:
            return f"{name} is {stored}, and the fills give {by_fills}"
    rounded = (float(expected.size), float(average_price(expected)), float(expected.realized_pnl))
    for name, shown, value in zip(_REAL, (row.size, row.avg_entry_price, row.realized_pnl), rounded, strict=True):
        if shown != value:
            return f"the column {name} shows {shown!r}, and its exact state is {value!r}"
    return ""

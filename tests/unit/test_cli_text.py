from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horizon.cli.text import Column, cell_width, duration, number, one_line, rounded, table, utc


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (5.0, "5"),
        (-0.0, "0"),
        (1e-07, "0.0000001"),
        (0.00000012, "0.00000012"),
        (1234567.1234567, "1234567.1234567"),
        (1e22, "10000000000000000000000"),
        (5e-324, "5E-324"),
        (Decimal("0.30000000000000000000000000004"), "0.30000000000000000000000000004"),
        (Decimal("1E+3"), "1000"),
        (float("inf"), "Infinity"),
        (100, "100"),
        (None, "-"),
    ],
)
def test_a_number_is_its_shortest_readable_text(value: float | Decimal | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same_float(value: float) -> None:
    assert float(number(value)) == value


def test_a_computed_figure_is_rounded() -> None:
    assert rounded(0.1 + 0.2) == "0.3"
    assert rounded(Decimal(2) / 3) == "0.666667"
    assert rounded(None) == "-"
    assert rounded(float("nan")) == "NaN"


def test_a_time_is_shown_as_utc_to_the_second() -> None:
    assert utc(1_700_000_000.9) == "2023-11-14 22:13:20Z"
    assert utc(None) == "-"


def test_a_number_that_is_no_time_is_shown_as_it_is() -> None:
    assert utc(1e18) == "1000000000000000000"


def test_a_duration_has_two_units() -> None:
    assert [duration(s) for s in (0.4, 42, 185, 7620, 356_400, None)] == ["0s", "42s", "3m05s", "2h07m", "4d03h", "-"]


COLUMNS = (
    Column("market", cut="end"),
    Column("price", right=True),
    Column("exchange", dispensable=2),
    Column("id", cut="front", dispensable=1),
)
ROW = ["rain-in-london-tomorrow", "0.5", "paper", "run-0123456789-0000000001"]


def test_a_table_in_a_pipe_is_aligned_and_never_cut() -> None:
    made = table(COLUMNS, [["btc", "1", "paper", "x" * 300], ["eth-usd", "20.5", "p", "y"]])

    assert made.lines == [
        "market   price  exchange  id",
        "btc          1  paper     " + "x" * 300,
        "eth-usd   20.5  p         y",
    ]
    assert made.left_out == []


def test_on_a_narrow_terminal_names_lose_their_end_and_ids_their_front() -> None:
    made = table(COLUMNS, [ROW], width=50)

    assert made.lines[1] == "rain-in-london-tom…    0.5  paper     …-0000000001"
    assert made.left_out == []


def test_a_narrower_terminal_loses_whole_columns_and_says_which() -> None:
    made = table(COLUMNS, [ROW], width=36)
    assert made.lines[0].split() == ["market", "price", "id"]
    assert made.left_out == ["exchange"]

    made = table(COLUMNS, [ROW], width=22)
    assert made.lines[0].split() == ["market", "price"]
    assert made.left_out == ["exchange", "id"]


@given(st.integers(1, 200), st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=5))
def test_no_line_is_wider_than_the_terminal_unless_figures_are(width: int, rows: list[tuple[str, str, str, str]]) -> None:
    figures = max([5, *(cell_width(one_line(row[1])) for row in rows)])
    for line in table(COLUMNS, rows, width).lines:
        assert cell_width(line) <= max(width, 12 + 2 + figures)


def test_wide_and_combining_characters_keep_columns_aligned() -> None:
    made = table((Column("m"), Column("n")), [["日本", "1"], ["e\u0301", "2"], ["abcd", "3"]])

    assert made.lines == ["m     n", "日本  1", "e\u0301     2", "abcd  3"]


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    made = table((Column("reason"),), [["\x1b[2Jgone\nnext"]])

    assert made.lines == ["reason", "\\x1b[2Jgone\\nnext"]

"""Every rule of the road is shown by a test that names it: by its number, in the file of that test."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

RULES = {
    1: "Known fills are compared by id before they are recorded",
    2: "The writer gives a snapshot its place, and refuses one of a run that does not know all fills",
    3: "Doubtful memory is never stored",
    4: "What makes two fills the same; the rest is a conflict or an amendment",
    5: "A snapshot is the fold's exact state, in one frame and one transaction",
    6: "A snapshot equal to the last one stores no rows",
    7: "Fills are numbered in the order they are committed, and no number is used again",
    8: "Fill and order event are two frames; recovery folds fills into open orders",
    9: "An engine without a name uses the database's only strategy",
    10: "A strategy has one incarnation at a time, by a lock of the kernel",
    11: "No process opens a database's files beside SQLite",
    12: "A database is one file, and its writer stops when it is another one",
    13: "What is missing is written down as a gap; a database is not made over journals that are left",
    14: "Every journal of a dead run is found and drained",
    15: "The private writer belongs to nobody",
    16: "A writer is found by its lock and a Hello, not by a text or a path",
    17: "A message that is not intact is dropped; only the journal's bytes become dead letters",
    18: "Silence on the link costs time, not records",
    19: "After a failed commit everything is read from the journals again, record by record if need be",
    20: "What time can cure is waited for",
    21: "After a failed sync nothing is acknowledged before a reopened connection has checkpointed",
    22: "The journal's space is real, and its reserve is kept for fills",
    23: "Which bytes of a journal are a frame",
    24: "An engine acts only in the process that made it",
    25: "One lock covers everything an engine does",
    26: "The writer commits at the highest durability that any run asked for",
    27: "A dead letter is committed before its seq is passed",
    28: "Readers fetch before they print, and hold no read transaction",
}


@pytest.fixture(scope="module")
def named() -> dict[int, set[str]]:
    """Rule -> the tests that name it in their own docstring: a comment, or a file that speaks of many rules, shows nothing."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and path != Path(__file__):
                for number in re.findall(r"\bR(\d+)\b", ast.get_docstring(node) or ""):
                    found[int(number)].add(node.name)
    return dict(found)


@pytest.mark.parametrize("number", RULES, ids=lambda number: f"R{number}")
def test_a_rule_is_named_by_a_test_that_shows_it(number: int, named: dict[int, set[str]]) -> None:
    assert number in named, f"no test names R{number}: {RULES[number]}"


def test_no_test_names_a_rule_that_there_is_not(named: dict[int, set[str]]) -> None:
    assert set(named) <= set(RULES)

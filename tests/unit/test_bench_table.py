"""The tables of the page about speed: written from results, never by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.table import README, Results, rendered


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    assert rendered(README.read_text(), Results(README.parent / "results")) == README.read_text(), "run `python -m bench.table`"


def test_what_was_not_measured_is_a_dash_and_what_stands_around_a_table_stays(tmp_path: Path) -> None:
    page = rendered(README.read_text(), Results(tmp_path))
    asked = next(line for line in page.splitlines() if "processes writing one SQLite file" in line)
    assert asked.endswith("| – |")
    assert page.splitlines()[0] == README.read_text().splitlines()[0]


def test_a_figure_comes_from_the_row_of_its_way(tmp_path: Path) -> None:
    row = {"way": "SQLite, one file, autocommit", "workers": 4, "rate": "max", "less_per_s": 7.25, "lost_caller": 0}
    (tmp_path / "alternatives.json").write_text(json.dumps({"rows": [row]}))
    page = rendered(README.read_text(), Results(tmp_path))
    asked = next(line for line in page.splitlines() if "processes writing one SQLite file" in line)
    assert asked.endswith("| 7.25× |")


def test_a_page_without_a_place_for_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="<!-- machine -->"):
        rendered("# Benchmarks", Results(tmp_path))

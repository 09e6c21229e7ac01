from __future__ import annotations

import re
from pathlib import Path

import pytest

from horizon.paths import DatabasePaths
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.sql import MIGRATIONS, QUERIES, parse_queries, read_migrations


def test_a_query_is_the_lines_behind_its_name_without_its_comment() -> None:
    queries = parse_queries("-- a title\n\n-- name: one\n-- Why it is there.\nSELECT 1\nFROM t;\n\n-- name: two\nSELECT 2;\n")
    assert queries == {"one": "SELECT 1\nFROM t;", "two": "SELECT 2;"}


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two queries are called 'one'"):
        parse_queries("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")


def test_a_statement_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no name before the statement 'SELECT 1;'"):
        parse_queries("SELECT 1;\n")


def test_migrations_are_numbered_without_a_hole(tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("SELECT 1;")
    (tmp_path / "0003_third.sql").write_text("SELECT 3;")
    with pytest.raises(ValueError, match=r"'0003_third.sql' is not number 2"):
        read_migrations(tmp_path)
    assert [migration.version for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_understood_by_the_database_it_is_for(name: str, tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "x.db")
    Store(paths).close()
    sql = QUERIES[name]
    connection = open_reader(paths.database)
    if name in ("insert_dead_letter", "dead_letter_seqs", "dead_letter", "mark_replayed", "mark_dismissed"):
        connection.execute("ATTACH ? AS letters", (str(paths.dead_letters),))
    assert list(connection.execute(f"EXPLAIN {sql}", _something_for_every_parameter(sql)))
    connection.close()


def _something_for_every_parameter(sql: str) -> dict[str, None] | tuple[None, ...]:
    names = re.findall(r":(\w+)", sql)
    numbers = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    return dict.fromkeys(names) if names else (None,) * max(numbers, default=sql.count("?"))

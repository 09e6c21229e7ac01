"""The SQL files of this package: the schema, the migrations, and the named statements of queries.sql.

All SQL lies in files, so that it can be read, planned and tested as SQL; Python never builds any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

_FOLDER = Path(__file__).parent
_NAME = "-- name: "


class Migration(NamedTuple):
    """One numbered step of the schema. `version` is what PRAGMA user_version says afterwards."""

    version: int
    name: str
    script: str


def parse_queries(text: str) -> Mapping[str, str]:
    """Name -> statement. A line `-- name: NAME` begins one; the comment lines behind it explain it and are left out.

    Raises: ValueError for a name that comes twice and for a statement without a name.
    """
    lines_by_name: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith(_NAME):
            name = line.removeprefix(_NAME).strip()
            if name in lines_by_name:
                raise ValueError(f"two queries are called {name!r}")
            lines = lines_by_name[name] = []
        elif line.strip() and not line.startswith("--"):
            if lines is None:
                raise ValueError(f"no name before the statement {line!r}")
            lines.append(line)
    return MappingProxyType({name: "\n".join(lines) for name, lines in lines_by_name.items()})


def read_migrations(folder: Path) -> tuple[Migration, ...]:
    """The files NNNN_NAME.sql of a folder, in order. Raises: ValueError unless they are numbered 1, 2, 3 …"""
    migrations = []
    for expected, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        number, _, name = path.stem.partition("_")
        if not number.isdecimal() or int(number) != expected:
            raise ValueError(f"migration {path.name!r} is not number {expected}")
        migrations.append(Migration(expected, name, path.read_text(encoding="utf-8")))
    return tuple(migrations)


SCHEMA = (_FOLDER / "schema.sql").read_text(encoding="utf-8")
DEAD_LETTERS_STEPS = tuple(
    (_FOLDER / name).read_text(encoding="utf-8") for name in ("dead_letters.sql", "dead_letters_decisions.sql")
)
MIGRATIONS = read_migrations(_FOLDER / "migrations")
QUERIES = parse_queries((_FOLDER / "queries.sql").read_text(encoding="utf-8"))
CHECKS = parse_queries((_FOLDER / "check.sql").read_text(encoding="utf-8"))

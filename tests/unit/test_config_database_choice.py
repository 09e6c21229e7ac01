"""Which database a command means when nobody says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from horizon.config import resolve_database
from horizon.errors import ConfigError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_the_option_wins_over_everything(tmp_path: Path) -> None:
    touch(tmp_path, "horizon.db")
    assert resolve_database("other.db", tmp_path, {"HORIZON_DB": "/env.db"}) == tmp_path / "other.db"


def test_the_variable_wins_over_what_lies_here(tmp_path: Path) -> None:
    touch(tmp_path, "horizon.db")
    assert resolve_database(None, tmp_path, {"HORIZON_DB": "/env.db"}) == Path("/env.db")


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "horizon.db")
    assert resolve_database(None, tmp_path, {"HORIZON_DB": ""}) == tmp_path / "horizon.db"


def test_the_configuration_here_wins_over_a_database_here(tmp_path: Path) -> None:
    touch(tmp_path, "horizon.db")
    (tmp_path / "horizon.toml").write_text('[database]\npath = "mine.db"\n[strategies.gone]\nfile = "removed.py"\n')
    assert resolve_database(None, tmp_path, {}) == tmp_path / "mine.db"


def test_horizon_db_wins_over_other_databases_here(tmp_path: Path) -> None:
    touch(tmp_path, "a.db", "horizon.db")
    assert resolve_database(None, tmp_path, {}) == tmp_path / "horizon.db"


def test_the_only_database_here_is_meant(tmp_path: Path) -> None:
    touch(tmp_path, "mm.db", "notes.txt")
    (tmp_path / "mm.db.d").mkdir()
    assert resolve_database(None, tmp_path, {}) == tmp_path / "mm.db"


def test_several_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "b.db", "a.db")
    with pytest.raises(ConfigError, match=r"Say --db PATH or set HORIZON_DB; in .* these lie here: a\.db, b\.db"):
        resolve_database(None, tmp_path, {})


def test_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.db and no horizon\.toml lies here"):
        resolve_database(None, tmp_path, {})

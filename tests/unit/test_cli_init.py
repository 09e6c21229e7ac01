from __future__ import annotations

from pathlib import Path

import pytest

from horizon.__main__ import main
from horizon.config import load
from horizon.errors import ExitCode

STRATEGIES = ("market_maker", "mean_reversion", "momentum")


def test_init_writes_a_configuration_that_is_accepted_and_survives_a_power_cut(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "demo")]) == ExitCode.DONE

    config = load(tmp_path / "demo" / "horizon.toml")
    assert tuple(config.strategies) == STRATEGIES
    assert config.database.durability == "power"
    assert config.database.path == tmp_path / "demo" / "horizon.db"
    assert "*.db.d/" in (tmp_path / "demo" / ".gitignore").read_text()


def test_init_says_what_it_wrote_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["init", "demo"])
    out = capsys.readouterr().out

    assert "  demo/strategies/momentum.py\n" in out
    assert "  cd demo\n  horizon up " in out
    main(["init", ".", "--force"])
    assert "  cd " not in capsys.readouterr().out


def test_init_overwrites_nothing_unless_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "horizon.toml").write_text("mine")

    assert main(["init", str(tmp_path)]) == ExitCode.USAGE
    assert f"{tmp_path}/horizon.toml would be overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["horizon.toml"]
    assert (tmp_path / "horizon.toml").read_text() == "mine"

    assert main(["init", str(tmp_path), "--force"]) == ExitCode.DONE
    assert load(tmp_path / "horizon.toml").strategies


def test_init_into_something_that_is_no_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()

    assert main(["init", str(tmp_path / "file")]) == ExitCode.USAGE
    assert f"cannot write {tmp_path}/file" in capsys.readouterr().err


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_example_is_short_enough_to_be_read(tmp_path: Path, name: str) -> None:
    main(["init", str(tmp_path)])
    text = (tmp_path / "strategies" / f"{name}.py").read_text()

    assert len(text.splitlines()) < 60
    assert f"python strategies/{name}.py" in text
    assert f"horizon run strategies/{name}.py" in text

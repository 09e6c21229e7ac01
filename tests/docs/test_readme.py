"""What README says is so: its commands, codes, links, and the strategy it begins with."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import click
import pytest
from eventually import eventually

import horizon as hz
from horizon import config
from horizon.cli.app import cli
from horizon.errors import ExitCode, NotThereYet
from supervisor.policy import Verdict, judge_worker

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "CHANGELOG.md", "bench/README.md")


def test_every_make_target_that_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make (?:PYTHON=\S+ )?([a-z-]+)", README, re.MULTILINE))
    assert {"run", "test", "check", "format", "bench"} <= named <= targets


def test_readme_lists_every_command_and_no_other() -> None:
    named = [line.split()[2] for line in README.splitlines() if line.startswith("| `horizon ")]
    assert sorted(name.strip("`") for name in named) == sorted(_commands())


def test_every_option_that_readme_names_exists() -> None:
    known = {option for command in _commands().values() for parameter in command.params for option in parameter.opts}
    # After `help` and `make` stand options of other programs.
    named = set(re.findall(r"(?<=[`\s\[])--[a-z-]+", README))
    assert named <= known


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning, _ in rows] == [(code.value, code.meaning) for code in ExitCode]
    outcomes = {Verdict.DONE: "done", Verdict.AGAIN: "started again", Verdict.FINAL: "left as it is"}
    assert not [code for code, _, outcome in rows if not outcome.startswith(outcomes[judge_worker(int(code))])]


@pytest.mark.parametrize("argument", ["compliance", "netting_pairs", "dashboard", "events"])
def test_what_is_not_there_yet_is_refused_and_named_in_readme(argument: str) -> None:
    with pytest.raises(NotThereYet, match=argument):
        hz.run("refused", markets=["coin"], pipeline=[lambda ctx: None], db_path=None, **{argument: ["something"]})
    assert f"(`{argument}=`)" in README.partition("## Not there yet")[2]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    missing = [target for target in targets if "://" not in target and not ((ROOT / page).parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("promise", ["P1", "P2", "P3", "P4", "P5"])
def test_every_promise_names_tests_that_exist(promise: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| {promise} |")]
    shown_by = re.findall(r"\[`?(test_\w+)`?\]\(([^)]+)\)", row)
    assert shown_by, f"{promise} names no test"
    for name, path in shown_by:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


def test_the_configuration_in_readme_is_accepted(tmp_path: Path) -> None:
    strategy = tmp_path / "strategies" / "market_maker.py"
    strategy.parent.mkdir()
    strategy.touch()
    (tmp_path / "horizon.toml").write_text(_block("toml"))
    assert {"calm", "eager"} == set(config.load(tmp_path / "horizon.toml").strategies)


def test_the_first_strategy_of_readme_trades_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(_block("python"))
    with (tmp_path / "log").open("w") as log:
        strategy = subprocess.Popen([sys.executable, "first.py"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        eventually(lambda: _fills_in(tmp_path / "first.db") or strategy.poll() is not None, timeout_s=60, what="a fill")
        strategy.send_signal(signal.SIGINT)
        strategy.wait(30)
    finally:
        strategy.kill()
        print((tmp_path / "log").read_text())
    assert strategy.returncode == ExitCode.DONE
    assert _fills_in(tmp_path / "first.db")


def test_the_template_of_a_venue_passes_the_test_that_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "horizon/cli/templates/venue.py", tmp_path / "my_venue.py")
    monkeypatch.syspath_prepend(tmp_path)
    written: dict[str, Any] = {}
    exec(_block("python", 1), written)
    written["test_my_venue_keeps_the_contract"]()


def _commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in commands.items() if command is not None}


def _block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


def _fills_in(database: Path) -> int:
    if not database.exists():
        return 0
    try:
        connection = apsw.Connection(f"file:{database}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.Error:
        return 0
    try:
        (count,) = next(connection.execute("SELECT count(*) FROM fills"))
        return int(count)
    except apsw.Error:
        return 0  # the writer has not made its tables yet
    finally:
        connection.close()

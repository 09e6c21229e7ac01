from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import horizon
from horizon.__main__ import main
from horizon.cli import app
from horizon.errors import ConfigError, ExitCode, Halt

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version_is_printed_both_ways(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == ExitCode.DONE
    assert capsys.readouterr().out == f"horizon {horizon.__version__}\n"


def test_version_as_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    main(["version", "--json"])
    assert json.loads(capsys.readouterr().out)["version"] == horizon.__version__


@pytest.mark.parametrize("arguments", ["version", "version --json", "--version", "help", "help exit-codes", "fills --help"])
def test_a_health_check_does_not_pay_for_rich_zeromq_or_sqlite(arguments: str) -> None:
    script = (
        "import sys; from horizon.__main__ import main; code = main(sys.argv[1:]); "
        "heavy = {'rich', 'zmq', 'apsw', 'psutil', 'multiprocessing_logging', 'prometheus_client'} & set(sys.modules); "
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments.split()], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_help_alone_is_the_same_as_the_help_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == ExitCode.DONE
    by_command = capsys.readouterr().out
    assert main(["--help"]) == ExitCode.DONE
    assert capsys.readouterr().out == by_command
    for name in ("init", "up", "run", "fills", "positions", "orders", "runs", "summary", "version"):
        assert f"\n  {name} " in by_command


def test_help_explains_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["help", "fills"])
    by_command = capsys.readouterr().out
    main(["fills", "--help"])
    assert capsys.readouterr().out == by_command
    assert by_command.startswith("Usage: horizon fills [OPTIONS]")


def test_help_exit_codes_prints_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "exit-codes"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == [code.value for code in ExitCode]
    assert lines[4] == f"   4  {ExitCode.STORE.meaning}"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["fills", "--nonsense"], ["fills", "--limit", "0"], ["fills", "--since", "x"], ["help", "x"], ["init"]],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("the key x is wrong"), ExitCode.USAGE), (Halt("the key x is wrong"), ExitCode.HALTED)]
)
def test_an_error_of_horizon_is_one_sentence_and_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: ExitCode
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(app.click, "echo", fail)

    assert main(["version"]) == code
    assert capsys.readouterr().err == "horizon: the key x is wrong\n"


def test_an_unexpected_error_keeps_its_traceback_and_is_exit_code_1(tmp_path: Path) -> None:
    script = (
        "import sys; from horizon.cli import app; from horizon import __main__; app.click.echo = lambda text: 1 / 0; "
        "sys.exit(__main__.main(['version']))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.returncode == ExitCode.FAILED
    assert "ZeroDivisionError" in done.stderr


def test_the_shell_completes_commands() -> None:
    environment = {**ENVIRONMENT, "_HORIZON_COMPLETE": "bash_complete", "COMP_WORDS": "horizon po", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "horizon"], env=environment, capture_output=True, text=True, check=False)

    assert done.stdout == "plain,positions\n"

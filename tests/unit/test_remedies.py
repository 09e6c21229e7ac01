"""Every command that a sentence of Horizon names can be pasted as it is printed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import horizon
from horizon.cli.app import cli

_FOLDER = Path(horizon.__file__).parent
_GROUPS = "db|journal|dlq|kill-switch|orphans"


def sentences(path: Path) -> Iterator[str]:
    """The texts of a source, with a word for each value that is filled in, and without docstrings."""
    done: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # what is around comes before what is in it
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            done.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            done |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in done:
            yield node.value


SENTENCES = [sentence for path in sorted(_FOLDER.rglob("*.py")) for sentence in sentences(path)]
COMMANDS = sorted({command for sentence in SENTENCES for command in re.findall(r"`horizon ([^`]+)`", sentence)})


def parse(arguments: list[str]) -> None:
    """As `horizon` would, without running it. Raises: click.UsageError."""
    command: click.Command | None = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
    assert command is not None
    command.make_context(name, arguments)


def test_the_sentences_name_the_commands_that_accept_a_gap_and_release_a_strategy() -> None:
    assert "journal accept-gap VALUE --reason WHY" in COMMANDS
    assert "orphans release --strategy VALUE --reason WHY" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_a_sentence_names_is_complete(command: str) -> None:
    parse(shlex.split(command))


def test_a_command_without_its_reason_would_be_noticed() -> None:
    with pytest.raises(click.MissingParameter, match="reason"):
        parse(["journal", "accept-gap", "VALUE"])


def test_a_sentence_marks_where_a_command_begins_and_ends() -> None:
    assert [sentence for sentence in SENTENCES if re.search(rf"(?<!`)\bhorizon ({_GROUPS}) ", sentence)] == []

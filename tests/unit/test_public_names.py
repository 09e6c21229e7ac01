"""`import horizon as hz` knows every public name and pays for none of them before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import horizon

DOOR = Path(horizon.__file__)


def _for_type_checkers() -> set[str]:
    """What the imports under TYPE_CHECKING name."""
    (block,) = [node for node in ast.parse(DOOR.read_text()).body if isinstance(node, ast.If)]
    return {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_type_checkers_and_programs_see_the_same_names() -> None:
    assert _for_type_checkers() | {"__version__"} == set(dir(horizon))


@pytest.mark.parametrize("name", sorted(_for_type_checkers()))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(horizon, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Polymarket'"):
        horizon.Polymarket  # noqa: B018


def test_importing_horizon_imports_nothing_heavy() -> None:
    heavy = ("zmq", "apsw", "msgspec", "prometheus_client", "psutil", "rich", "click")
    program = f"import sys, horizon; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=DOOR.parents[1])
    assert done.stdout.strip() == "[]"

"""The shape of the repository: what lies at the top, who may import whom, and which names are taken by supervisord."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOP_LEVEL = {
    *("README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "Makefile", "pyproject.toml", ".ci", ".gitignore", ".dockerignore"),
    *("horizon", "supervisor", "tests", "deploy", "bench"),
}

LEVELS = (
    {"errors", "clock", "ids", "lifeline", "logs", "paths", "locks", "failpoints"},
    {"records", "config", "metrics"},
    {"wire", "positions", "orders", "risk", "venues", "feeds", "channel", "control", "limits", "pulse", "telemetry", "testing"},
    {"journal", "link", "recorder", "store"},
    {"writer", "operator"},
    {"engine", "desk", "figures", "lifecycle", "persistence", "turns", "not_there_yet", "context", "pipeline"},
    {"runner", "job", "stopping", "faults", "worker"},
    {"cli", "chaos", "doctor"},
)
# The two files that name everything for others: lazily, or as the program's beginning.
DOORS = {"__init__", "__main__"}

# supervisord 4.3: `pip install supervisor` puts these into the folder that is ours too.
OF_SUPERVISORD = {
    *("childutils", "compat", "confecho", "datatypes", "dispatchers", "events", "http", "http_client", "loggers", "medusa"),
    *("options", "pidproxy", "poller", "process", "rpcinterface", "scripts", "skel", "socket_manager", "states", "supervisorctl"),
    *("supervisord", "templating", "tests", "ui", "version", "web", "xmlrpc"),
}

HORIZON_FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "horizon").rglob("*.py") if "templates" not in path.parts)


def test_only_what_the_map_names_lies_at_the_top() -> None:
    in_git = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False)
    # A copy without git has no list of what is ours: there the ignored folders would be taken for strangers.
    names = {name.split("/")[0] for name in in_git.stdout.split("\0") if name}
    assert names <= TOP_LEVEL


@pytest.mark.parametrize("path", HORIZON_FILES, ids=str)
def test_a_file_imports_only_from_its_own_level_or_lower(path: Path) -> None:
    own = _module(path)
    if own in DOORS:
        return
    too_high = [name for name in _imported_modules(path) if _level(name) > _level(own)]
    assert not too_high, f"{path} is on level {_level(own)} and imports {too_high}"


def test_horizon_never_imports_the_supervisor() -> None:
    guilty = [str(path) for path in HORIZON_FILES for name in _imports(path) if name.split(".")[0] == "supervisor"]
    assert not guilty


def test_no_file_of_the_supervisor_has_a_name_of_supervisord() -> None:
    ours = {path.stem for path in (ROOT / "supervisor").iterdir() if not path.name.startswith("_")} - {"py"}
    assert not ours & OF_SUPERVISORD


def test_the_supervisor_package_itself_holds_no_code() -> None:
    tree = ast.parse((ROOT / "supervisor" / "__init__.py").read_text())
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body)


def _level(module: str) -> int:
    for level, modules in enumerate(LEVELS):
        if module in modules:
            return level
    raise AssertionError(f"horizon.{module} stands on no level: say in the map and in LEVELS of this file on which")


def _module(path: Path) -> str:
    """`horizon/store/append.py` is part of `store`."""
    return path.with_suffix("").parts[1]


def _imported_modules(path: Path) -> Iterator[str]:
    """The second part of every `horizon.something` that a file imports, anywhere in it."""
    for name in _imports(path):
        package, _, rest = name.partition(".")
        if package == "horizon" and rest and rest != "__version__":
            yield rest.split(".")[0]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            # `from horizon import records` names a module as well as `from horizon.records import Fill` does.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

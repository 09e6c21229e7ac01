"""What a changed horizon.toml means for the processes that run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended import write_config

from horizon.errors import ConfigError
from supervisor.reload import Plan, plan, read


def planned(folder: Path, names: str, more: str = "", **tables: str) -> Plan:
    """From two plain strategies to these."""
    old = write_config(folder, "calm", "eager")
    return plan(old, write_config(folder, *names.split(), more=more, tables=tables))


def test_the_same_file_changes_nothing(tmp_path: Path) -> None:
    assert not any(planned(tmp_path, "calm eager"))
    assert not any(planned(tmp_path, "eager calm")), "their order is no change"


def test_strategies_come_and_go(tmp_path: Path) -> None:
    assert planned(tmp_path, "calm bold") == Plan(add=("bold",), remove=("eager",))


@pytest.mark.parametrize(
    "line",
    ["interval = 2.0", "params = {size = 3}", 'exchange = "paper"', "limits = {nice = 5}", 'orphans = "hold"', 'name = "x"'],
)
def test_a_changed_table_starts_its_strategy_again_and_no_other(tmp_path: Path, line: str) -> None:
    decided = planned(tmp_path, "calm eager", eager=line)
    assert decided == (Plan(add=("x",), remove=("eager",)) if "name" in line else Plan(restart=("eager",)))


def test_what_only_the_supervisor_reads_takes_effect_at_once(tmp_path: Path) -> None:
    decided = planned(tmp_path, "calm eager", "[supervisor]\nstop_timeout_s = 3\nstart_limit_burst = 9", calm='on_hang = "alert"')
    assert decided == Plan(live=("supervisor.stop_timeout_s", "supervisor.start_limit_burst", "strategies.calm.on_hang"))


def test_a_live_key_beside_another_one_is_a_new_start(tmp_path: Path) -> None:
    assert planned(tmp_path, "calm eager", calm="hang_after_s = 4\ninterval = 1.5") == Plan(restart=("calm",))


def test_the_gateway_follows_its_table(tmp_path: Path) -> None:
    assert planned(tmp_path, "calm eager", "[metrics]\nport = 9200") == Plan(restart=("gateway",))
    assert planned(tmp_path, "calm eager", "[metrics]\nenabled = false") == Plan(remove=("gateway",))
    off = write_config(tmp_path, "calm", more="[metrics]\nenabled = false")
    assert plan(off, write_config(tmp_path, "calm")) == Plan(add=("gateway",))
    assert not any(plan(off, write_config(tmp_path, "calm", more="[metrics]\nenabled = false\nport = 9200")))


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ('[database]\npath = "other.db"', "database.path"),
        ('[database]\ndurability = "power"', "database.durability"),
        ('[supervisor]\ncontrol_socket = "other.sock"', "supervisor.control_socket"),
        ('[logs]\nfolder = "elsewhere"', "logs.folder"),
        ("[logs]\nkeep = 2", "logs.keep"),
    ],
)
def test_what_needs_a_new_start_is_refused_whole(tmp_path: Path, table: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} cannot be changed by a reload, because .*`horizon down`.*nothing was changed"):
        planned(tmp_path, "calm bold", table)


def test_a_file_without_a_strategy_or_with_a_wrong_feed_is_not_read(tmp_path: Path) -> None:
    write_config(tmp_path)
    with pytest.raises(ConfigError, match="there is no strategy in it"):
        read(tmp_path / "horizon.toml")
    write_config(tmp_path, "calm", tables={"calm": '[strategies.calm.feeds.btc]\ntype = "simulated"\nspeed = 3'})
    with pytest.raises(ConfigError, match="speed"):
        read(tmp_path / "horizon.toml")

"""`horizon.toml`: what is read, and the sentence for everything that is wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from horizon.config import Config, FeedTable, load
from horizon.errors import ConfigError, ExitCode

Load = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Write a file beside two strategies and load it."""
    (tmp_path / "strategies").mkdir()
    for name in ("mm.py", "momentum.py"):
        (tmp_path / "strategies" / name).write_text("")

    def read(text: str) -> Config:
        path = tmp_path / "horizon.toml"
        path.write_text(text)
        return load(path)

    return read


@pytest.fixture
def refusal(read: Load, tmp_path: Path) -> Callable[[str], str]:
    """The sentence that a file is refused with, without the file's own name."""

    def refusal(text: str) -> str:
        with pytest.raises(ConfigError) as refused:
            read(text)
        assert refused.value.exit_code == ExitCode.USAGE
        prefix = f"{tmp_path / 'horizon.toml'}: "
        assert str(refused.value).startswith(prefix)
        return str(refused.value).removeprefix(prefix).replace(str(tmp_path), "HERE")

    return refusal


def strategy(line: str) -> str:
    return f'[strategies.mm]\nfile = "strategies/mm.py"\n{line}\n'


def test_a_whole_file_is_read_with_absolute_paths(read: Load, tmp_path: Path) -> None:
    config = read("""
        [database]
        path = "data.db"
        durability = "power"
        [supervisor]
        stop_timeout_s = 5
        [strategies.mm]
        file = "strategies/mm.py"
        interval = 0.25
        exchange = "my.venues:Mine"
        params = { size = 3 }
        risk = { max_order_size = 10 }
        [strategies.mm.feeds.btc]
        type = "simulated"
        seed = 7
        [strategies.momentum]
        file = "strategies/momentum.py"
    """)
    assert config.folder == tmp_path
    assert config.database.path == tmp_path / "data.db"
    assert config.database.durability == "power"
    assert config.supervisor.stop_timeout_s == 5.0
    mm, momentum = config.strategies.values()
    assert mm.file == tmp_path / "strategies" / "mm.py"
    assert (mm.name, mm.interval, mm.exchange) == ("mm", 0.25, "my.venues:Mine")
    assert (mm.params, mm.risk) == ({"size": 3}, {"max_order_size": 10})
    assert mm.feeds == {"btc": FeedTable(type="simulated", options={"seed": 7})}
    assert (momentum.interval, momentum.exchange, momentum.params, momentum.risk, momentum.feeds) == (None,) * 5


def test_what_is_left_out_has_the_documented_defaults(read: Load, tmp_path: Path) -> None:
    config = read("")
    assert config.database.path == tmp_path / "horizon.db"
    assert config.database.durability == "process"
    assert config.supervisor.stop_timeout_s == 20.0
    assert config.strategies == {}


def test_one_file_can_be_two_strategies(read: Load) -> None:
    config = read('[strategies.a]\nfile = "strategies/mm.py"\n[strategies.b]\nfile = "strategies/mm.py"\nparams = { x = 1 }\n')
    assert list(config.strategies) == ["a", "b"]


def test_a_worker_is_told_of_its_own_strategy_only(read: Load) -> None:
    config = read('[strategies.a]\nfile = "strategies/mm.py"\n[strategies.b]\nfile = "strategies/momentum.py"\n')
    assert list(config.only("b").strategies) == ["b"]


def test_a_name_key_renames_a_strategy(read: Load) -> None:
    assert list(read(strategy('name = "Market maker, BTC"')).strategies) == ["Market maker, BTC"]


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "horizon.toml").write_bytes(b"\xef\xbb\xbf[supervisor]\r\nstop_timeout_s = 3\r\n")
    assert load(tmp_path / "horizon.toml").supervisor.stop_timeout_s == 3.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (strategy("intervall = 3"), "strategies.mm.intervall: unknown key; did you mean interval?"),
        (
            strategy("zzz = 3"),
            "strategies.mm.zzz: unknown key; known here: file, name, interval, exchange, params, risk, "
            "orphans, intent, snapshot_every, feeds, on_hang, hang_after_s, limits",
        ),
        ("[databse]", "databse: unknown key; did you mean database?"),
        ("[database]\ndurable = 1", "database.durable: unknown key; did you mean durability?"),
        (strategy('orphans = "kill"'), 'strategies.mm.orphans: expected "warn" or "cancel" or "hold", got \'kill\''),
        (strategy("intent = 1"), 'strategies.mm.intent: expected "journal" or "committed", got 1'),
        (strategy("snapshot_every = 0"), "strategies.mm.snapshot_every: expected a whole number >= 1, got 0"),
        (strategy('interval = "x"'), "strategies.mm.interval: expected a number, got 'x'"),
        (strategy("interval = true"), "strategies.mm.interval: expected a number, got True"),
        (strategy("interval = 0"), "strategies.mm.interval: expected a number > 0.0, got 0"),
        (strategy("interval = nan"), "strategies.mm.interval: expected a number > 0.0, got nan"),
        (strategy("interval = inf"), "strategies.mm.interval: expected a number <= 86400.0, got inf"),
        (strategy("params = 3"), "strategies.mm.params: expected a table, got 3"),
        (strategy("exchange = 'papr'"), 'strategies.mm.exchange: expected "paper" or "package.module:Name", got \'papr\''),
        (strategy("feeds = 3"), "strategies.mm.feeds: expected a table, got 3"),
        (strategy("feeds.btc = 3"), "strategies.mm.feeds.btc: expected a table, got 3"),
        (
            strategy("feeds.btc = { seed = 1 }"),
            'strategies.mm.feeds.btc.type: missing; expected "simulated" or "replay" or "package.module:Name"',
        ),
        (
            strategy('feeds."b c" = { type = "sim" }'),
            'strategies.mm.feeds."b c".type: expected "simulated" or "replay" or "package.module:Name", got \'sim\'',
        ),
        ("database = 3", "database: expected a table, got 3"),
        ("strategies = []", "strategies: expected a table, got []"),
        ('[strategies]\nfile = "x"', "strategies.file: expected a table, got 'x'"),
        ("[database]\ndurability = 'full'", 'database.durability: expected "process" or "power", got \'full\''),
        ("[database]\npath = '.'", "database.path: HERE is a folder, not a database"),
        ("[database]\npath = 'nowhere/x.db'", "database.path: the folder HERE/nowhere does not exist"),
        ("[strategies.mm]", "strategies.mm.file: missing"),
        ("[strategies.mm]\nfile = 3", "strategies.mm.file: expected a path, got 3"),
        ("[strategies.mm]\nfile = ''", "strategies.mm.file: expected a path, got ''"),
        ("[strategies.mm]\nfile = 'no.py'", "strategies.mm.file: HERE/no.py does not exist"),
        ("[strategies.mm]\nfile = 'strategies'", "strategies.mm.file: HERE/strategies is not a file"),
        ("[supervisor]\nstop_timeout_s = -1", "supervisor.stop_timeout_s: expected a number > 0.0, got -1"),
        (
            "[supervisor]\nhang_after_s = 2",
            "supervisor.hang_after_s: must not be less than degraded_after_s, which is 3",
        ),
        (
            strategy("[strategies.mm.limits]\nmemory_high_mb = 200\nmemory_max_mb = 100"),
            "strategies.mm.limits.memory_high_mb: the alarm must come before memory_max_mb, 100",
        ),
        ("x = ", "not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(refusal: Callable[[str], str], text: str, sentence: str) -> None:
    assert refusal(text) == sentence


def test_the_same_table_twice_is_a_sentence_about_names(refusal: Callable[[str], str]) -> None:
    sentence = "the table [strategies.mm] is declared a second time (at line 4, column 15); two strategies need two names"
    assert refusal(strategy("") + "[strategies.mm]\nx = 1\n") == sentence


def test_two_tables_with_one_name_are_refused(refusal: Callable[[str], str]) -> None:
    text = strategy("") + '[strategies.other]\nfile = "strategies/momentum.py"\nname = "mm"\n'
    assert refusal(text).startswith("strategies.other.name: 'mm' is already the name of strategies.mm;")


@pytest.mark.parametrize("name", ["", " mm", "a\\nb", "x" * 101])
def test_a_name_that_cannot_be_shown_is_refused(refusal: Callable[[str], str], name: str) -> None:
    assert "cannot be a strategy's name" in refusal(f'[strategies."{name}"]\nfile = "strategies/mm.py"\n')


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"horizon\.toml does not exist; name another with --config, or let `horizon init DIR` write one"
    ):
        load(tmp_path / "horizon.toml")


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_bytes_that_are_no_text_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "horizon.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 5\)"):
        load(tmp_path / "horizon.toml")

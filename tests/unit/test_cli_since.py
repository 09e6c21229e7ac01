from __future__ import annotations

import click
import pytest

from horizon.cli.since import moment_of, since_option

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30s", 1_699_999_970.0),
        ("10m", 1_699_999_400.0),
        ("2h", 1_699_992_800.0),
        ("1.5d", 1_699_870_400.0),
        ("1w", 1_699_395_200.0),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        ("2023-11-14", 1_699_920_000.0),
    ],
)
def test_since_takes_unix_seconds_iso_8601_and_how_long_ago(text: str, moment: float) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "-", "", "nan", "inf", "10 parsecs", "2023-13-01"])
def test_since_refuses_what_is_no_time_and_says_what_is(text: str) -> None:
    option = click.Option(["--since"])

    with pytest.raises(click.BadParameter, match="10m, 2h, 1d"):
        since_option(click.Context(click.Command("fills")), option, text)

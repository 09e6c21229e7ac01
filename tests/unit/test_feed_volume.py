"""The rolling volume of 24 hours."""

from __future__ import annotations

import pytest

from horizon.feeds.volume import RollingVolume

DAY_S = 86_400.0


def test_volume_is_the_sum_of_what_was_traded() -> None:
    volume = RollingVolume()
    for timestamp, size in ((0.0, 1.0), (30.0, 2.0), (90.0, 4.0)):
        volume.add(timestamp, size)
    assert volume.total(90.0) == 7.0


def test_volume_leaves_minute_by_minute_after_24_hours() -> None:
    volume = RollingVolume()
    volume.add(10.0, 1.0)
    volume.add(70.0, 2.0)
    assert volume.total(DAY_S - 1) == 3.0
    assert volume.total(DAY_S) == 2.0
    assert volume.total(DAY_S + 60) == 0.0


def test_volume_falls_to_exactly_zero_when_all_has_left() -> None:
    volume = RollingVolume()
    for second in range(0, 6_000, 7):
        volume.add(float(second), 0.1)
    assert volume.total(6_000.0) == pytest.approx(85.8)
    assert volume.total(3 * DAY_S) == 0.0


def test_volume_of_a_busy_year_needs_one_entry_per_minute_of_a_day() -> None:
    volume = RollingVolume()
    for hour in range(24 * 365):
        volume.add(hour * 3_600.0, 1.0)
        volume.add(hour * 3_600.0 + 1, 1.0)
    assert volume.total((24 * 365 - 1) * 3_600.0 + 1) == 48.0
    assert len(volume._closed) < 24

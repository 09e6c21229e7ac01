"""What the doctor says of the place where a database lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from horizon.doctor import place
from horizon.doctor.finding import Finding
from horizon.paths import DatabasePaths

GIB = 1 << 30


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


def space(free_bytes: int, all_bytes: int = 100 * GIB, free_inodes: int = 10**6, all_inodes: int = 10**7) -> dict[str, str]:
    found = place.judge_space(
        Path("/data"), 3, free_bytes=free_bytes, all_bytes=all_bytes, free_inodes=free_inodes, all_inodes=all_inodes
    )
    return levels(found)


def test_a_disk_that_runs_full_is_told_before_it_stops_orders() -> None:
    assert space(50 * GIB)["disk space"] == "ok"
    assert space(30 * GIB, all_bytes=1000 * GIB)["disk space"] == "ok"  # three per cent, and plenty
    assert space(4 * GIB)["disk space"] == "warning"
    assert space(GIB // 2, all_bytes=GIB)["disk space"] == "warning"
    assert space(100 << 20)["disk space"] == "problem"


def test_inodes_run_out_apart_from_space_and_some_file_systems_have_none() -> None:
    assert space(50 * GIB)["inodes"] == "ok"
    assert space(50 * GIB, free_inodes=10**5)["inodes"] == "warning"
    assert space(50 * GIB, free_inodes=10)["inodes"] == "problem"
    assert space(50 * GIB, free_inodes=0, all_inodes=0)["inodes"] == "ok"


def test_what_a_sync_costs_is_said_as_what_it_means_for_the_durability() -> None:
    fast = place.judge_disk_speed([0.5] * 50, "power")
    assert fast.level == "ok"
    assert "about 2000 times a second" in fast.sentence
    assert place.judge_disk_speed([45.0] * 10, "power").level == "warning"
    assert place.judge_disk_speed([1.0] * 9 + [2000.0], "power").level == "warning"
    assert place.judge_disk_speed([45.0] * 10, "process").level == "ok"


def test_a_disk_that_is_too_fast_to_be_true_is_a_warning() -> None:
    lying = place.judge_disk_speed([0.002] * 50, "power")
    assert lying.level == "warning"
    assert "a power cut may take" in lying.sentence


def test_the_scratch_file_has_no_name_and_leaves_nothing(tmp_path: Path) -> None:
    assert place.measure_syncs(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "durability", "level"),
    [
        ("ext4", "power", "ok"),
        ("overlay", "power", "warning"),
        ("tmpfs", "process", "warning"),
        ("tmpfs", "power", "problem"),
    ],
)
def test_a_database_that_a_reboot_takes_away_is_told(tmp_path: Path, kind: str, durability: str, level: str) -> None:
    mounts = f"36 35 98:0 / / rw shared:1 - {kind} none rw\n"
    found = place.check_file_system(DatabasePaths.of(tmp_path / "x.db"), durability, mounts)  # type: ignore[arg-type]
    assert found.level == level


def test_a_database_with_two_names_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    os.link(tmp_path / "x.db", tmp_path / "y.db")
    found = place.check_file_system(DatabasePaths.of(tmp_path / "x.db"), "power")
    assert found.level == "problem"
    assert "hard links" in found.sentence


def test_whoever_else_may_read_or_replace_a_database_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    paths = DatabasePaths.of(tmp_path / "x.db")
    paths.database.touch(mode=0o600)
    paths.folder.mkdir(mode=0o700)
    assert levels(place.check_permissions(paths)) == {"permissions": "ok"}

    paths.database.chmod(0o644)
    (readable,) = place.check_permissions(paths)
    assert (readable.level, readable.remedy) == ("warning", f"chmod o= {paths.database}")
    paths.folder.chmod(0o770)
    _, writable = place.check_permissions(paths)
    assert (writable.level, writable.remedy) == ("problem", f"chmod go-w {paths.folder}")
    assert "its group may change" in writable.sentence
    tmp_path.chmod(0o777)
    assert "everybody may replace the database" in place.check_permissions(paths)[0].sentence
    tmp_path.chmod(0o1777)  # as /tmp: only owners rename there
    assert "replace" not in place.check_permissions(paths)[0].sentence


def test_core_files_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "core.py").touch()
    assert place.check_core_files([tmp_path, tmp_path / "not there"]).level == "ok"
    (tmp_path / "core.4242").touch()
    found = place.check_core_files([tmp_path])
    assert found.level == "warning"
    assert "core.4242" in found.sentence

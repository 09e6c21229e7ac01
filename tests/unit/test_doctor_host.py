"""What the doctor says of a host, for answers of a kernel that this one may never give."""

from __future__ import annotations

from pathlib import Path

import pytest

from horizon.doctor import host
from horizon.doctor.host import Clock, Limits


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "problem"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
def test_python_is_compared_with_what_the_package_asks_for(version: tuple[int, ...], level: str) -> None:
    assert host.judge_python(version, ">=3.11").level == level


def test_every_library_that_is_too_old_or_missing_is_named() -> None:
    requirements = ["apsw>=3.51.3.0", "click>=8.1", "rich>=13.7", 'pytest>=8.3; extra == "dev"']
    good = host.judge_libraries(requirements, {"apsw": "3.54.1.0", "click": "8.1", "rich": "13.7.0rc1"})
    assert (good.level, good.sentence) == ("ok", "apsw 3.54.1.0, click 8.1, rich 13.7.0rc1")

    wrong = host.judge_libraries(requirements, {"apsw": "3.9.2", "click": "8.1"})
    assert wrong.level == "problem"
    assert "apsw 3.9.2 (needs 3.51.3.0), rich is missing (needs 13.7)" in wrong.sentence
    assert "pytest" not in wrong.sentence


def test_what_is_installed_here_is_good_enough() -> None:
    assert {finding.level for finding in [*host.check_installation(), host.check_sqlite()]} == {"ok"}


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 1), False),
    ],
)
def test_the_sqlites_that_can_lose_committed_pages_are_known(version: tuple[int, ...], has_bug: bool) -> None:
    assert host.has_wal_reset_bug(version) is has_bug
    assert host.judge_sqlite(version, (3, 54, 0)).level == ("problem" if has_bug else "ok")


def test_an_old_sqlite_of_other_programs_is_told_and_is_no_fault_of_ours() -> None:
    finding = host.judge_sqlite((3, 54, 1), (3, 40, 1))
    assert finding.level == "ok"
    assert "3.40.1, which may only read" in finding.sentence


def test_a_clock_that_nobody_keeps_is_a_warning() -> None:
    assert host.judge_clock(Clock(False, 16.0)).level == "warning"
    good = host.judge_clock(Clock(True, 0.0123))
    assert (good.level, good.sentence) == ("ok", "synchronized, off by at most 12 ms")
    assert host.check_clock().check == "clock"


def test_limits_are_measured_by_how_many_strategies_there_are() -> None:
    assert host.judge_limits(Limits(1024, None, 0), 4).level == "ok"
    low = host.judge_limits(Limits(1024, 100, 0), 200)
    assert low.level == "problem"
    assert "1024 open files (needs 2064), 100 processes and threads (needs 3232)" in low.sentence
    assert "LimitNOFILE=2064" in low.remedy
    assert "ulimit -n 2064" in low.remedy


@pytest.mark.parametrize(
    ("core_bytes", "pattern", "level"),
    [
        (0, "core", "ok"),
        (None, "core", "warning"),
        (1 << 20, "/var/cores/%p", "warning"),
        (0, "|/usr/lib/systemd/systemd-coredump %P", "ok"),
        (None, "|/usr/lib/systemd/systemd-coredump %P", "warning"),
        (0, "|/usr/share/apport/apport %p", "warning"),  # a pipe gets the dump whatever the limit says
    ],
)
def test_memory_that_would_be_written_to_disk_is_a_warning(core_bytes: int | None, pattern: str, level: str) -> None:
    assert host.judge_core_dumps(Limits(1024, None, core_bytes), pattern).level == level


def test_a_host_without_systemd_is_told_that_nobody_starts_horizon() -> None:
    (finding,) = host.check_systemd("bash")
    assert finding.level == "ok"
    assert "process 1 is bash" in finding.sentence


def test_secrets_that_a_unit_names_are_for_their_owner_alone(tmp_path: Path) -> None:
    assert "not installed" in host.check_systemd("systemd", [tmp_path])[0].sentence
    secrets = tmp_path / "credentials"
    secrets.write_text("KEY=1")
    secrets.chmod(0o640)
    (tmp_path / "horizon.service").write_text(f"[Service]\nEnvironmentFile=-{secrets}\nLoadCredential=key:/not/there\n")

    installed, finding = host.check_systemd("systemd", [tmp_path])
    assert "is installed" in installed.sentence
    assert (finding.level, finding.remedy) == ("problem", f"chmod 0600 {secrets}")
    secrets.chmod(0o600)
    assert [finding.level for finding in host.check_systemd("systemd", [tmp_path])] == ["ok", "ok"]

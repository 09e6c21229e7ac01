"""The unit as it is installed: what systemd thinks of it, who may do what, and what the service is kept from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from horizon_service import CONFIG, DATABASE, HORIZON, SECRET, STRATEGIES, UNIT, Service
from nspawn_machine import ROOT

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(300)]

EXPOSURE_MAX = 2.0
UNIT_FILE = ROOT / "deploy/systemd/horizon.service"


def test_systemd_has_no_remark_on_the_unit(installed: Service) -> None:
    """An unknown key is only printed, with exit code 0."""
    assert installed.machine.run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{UNIT}") == ""


def test_the_unit_is_exposed_to_little() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(UNIT_FILE)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert float(re.findall(r"Overall exposure level for horizon.service: ([\d.]+)", judged.stdout)[0]) <= EXPOSURE_MAX


def test_the_unit_names_no_number_of_an_account() -> None:
    assert not re.findall(r"^(User|Group)=\d", UNIT_FILE.read_text(), re.MULTILINE)


def test_it_is_there_again_after_a_boot(installed: Service) -> None:
    assert installed.machine.run("systemctl", "is-enabled", UNIT) == "enabled\n"


@pytest.fixture(scope="module")
def running(installed: Service) -> Service:
    """One start for all tests that only look."""
    installed.start_anew()
    installed.start()
    installed.wait_until_ready(*STRATEGIES, "gateway")
    return installed


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (CONFIG, "644 root:root"),
        ("etc/horizon/credentials.env", "600 horizon:horizon"),
        ("opt/horizon/strategies", "755 root:root"),
        ("var/lib/horizon", "750 horizon:horizon"),
        ("var/lib/horizon/horizon.db", "600 horizon:horizon"),
        ("var/lib/horizon/horizon.db.d", "700 horizon:horizon"),
        ("var/log/horizon", "750 horizon:horizon"),
        ("run/horizon", "750 horizon:horizon"),
        ("run/horizon/control.sock", "660 horizon:horizon"),
    ],
)
def test_a_path_belongs_to_whom_it_should(running: Service, path: str, meant: str) -> None:
    assert running.machine.run("stat", "--format=%a %U:%G", f"/{path}").strip() == meant


def test_no_process_has_a_privilege_or_may_get_one_or_leaves_its_memory_in_a_file(running: Service) -> None:
    processes = running.processes()
    assert set(processes) >= {"supervisor", "writer", "gateway", *STRATEGIES}
    for name, pid in processes.items():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert {int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}, name
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name
        assert "0" not in status["Uid"].split(), name
        assert re.search(r"Max core file size +0 +0 ", limits), name


def test_the_service_writes_nowhere_but_to_its_own_directories(running: Service) -> None:
    assert {path for path in _PLACES if running.as_the_service("touch", f"{path}/x").returncode == 0} == {
        "/var/lib/horizon",
        "/var/log/horizon",
        "/run/horizon",
        "/tmp",  # one of its own
        "/var/tmp",
        "/dev/shm",
    }
    running.machine.run("sh", "-c", "rm /var/lib/horizon/x /var/log/horizon/x /run/horizon/x /dev/shm/x; test ! -e /tmp/x")


_PLACES = (
    *("/", "/etc", "/etc/horizon", "/opt/horizon", "/opt/horizon/strategies", "/opt/horizon/venv", "/usr", "/usr/local", "/boot"),
    *(
        "/root",
        "/home",
        "/srv",
        "/var",
        "/var/lib",
        "/var/log",
        "/var/spool",
        "/run",
        "/dev",
        "/proc/sys/kernel",
        "/sys/fs/cgroup",
    ),
    *("/var/lib/horizon", "/var/log/horizon", "/run/horizon", "/tmp", "/var/tmp", "/dev/shm"),
)


def test_the_service_sees_no_home_directory(running: Service) -> None:
    assert running.as_the_service("ls", "-A", "/root", "/home", "/run/user").stdout == ""


def test_a_member_of_the_group_may_look_and_not_steer(running: Service) -> None:
    running.machine.run("sh", "-c", "id watcher || useradd --no-create-home --groups horizon watcher")
    look = running.machine.ask("runuser", "-u", "watcher", "--", HORIZON, "status")
    steer = running.machine.ask("runuser", "-u", "watcher", "--", HORIZON, "stop", "momentum", "--yes")
    assert look.returncode == 0, look
    assert all(name in look.stdout for name in STRATEGIES)
    assert steer.returncode == 1, steer
    assert running.status()["momentum"]["state"] == "ready"


def test_a_stranger_may_not_even_look(running: Service) -> None:
    running.machine.run("sh", "-c", "id stranger || useradd --no-create-home stranger")
    refused = running.machine.ask("runuser", "-u", "stranger", "--", HORIZON, "status")
    assert refused.returncode == 6, refused
    assert "permission denied" in refused.stderr.lower()


def test_a_secret_reaches_the_strategies_and_no_file_and_no_log(running: Service) -> None:
    assert SECRET.encode() in Path(f"/proc/{running.pid('momentum')}/environ").read_bytes()
    running.horizon("dump", "momentum")
    running.machine.run("systemctl", "stop", UNIT)
    written = running.machine.ask("grep", "-rlF", SECRET, "/var/lib/horizon", "/var/log/horizon", "/run/horizon")
    assert written.stdout == ""
    assert SECRET not in running.journal()
    assert SECRET not in running.machine.run("systemctl", "show", UNIT)
    running.start()


def test_the_commands_of_the_readme_work_as_root(running: Service) -> None:
    """The database stays the service's: what root has to open runs as its user."""
    assert running.horizon("status")
    assert "ready" in running.machine.run("systemctl", "status", UNIT, "--no-pager")
    running.check_the_database()
    strange = running.machine.run("find", "/var/lib/horizon", "/var/log/horizon", "/run/horizon", "!", "-user", "horizon")
    assert strange == ""
    assert DATABASE in (ROOT / "deploy/systemd/README.md").read_text()

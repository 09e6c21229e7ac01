"""A throw-away machine with a real systemd: a container on an overlay of this host's files, without its network and its services.

It is made so that nothing of it can reach the host or outlive the test, also when that is killed: the kernel then kills the first process
of a process namespace, and so all that are in it; all mounts lie in a mount namespace, which ends with its last process. The host's files
are only the overlay's lower layer. Never start a systemd on the host's own root, by whatever means: it would clean the host's /tmp.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from eventually import eventually

ROOT = Path(__file__).parents[2]
SOURCES = ("horizon", "supervisor", "deploy", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
CHECKOUT = "/usr/src/horizon"  # in the machine
WHEELS = "/usr/src/wheels"
PYTHON = "/opt/python"  # away from the home directories, which the service cannot see
NEEDED = {"systemd-nspawn": "systemd-container", "systemd-analyze": "systemd", "nsenter": "util-linux", "setpriv": "util-linux"}
TARGET = "only-what-is-started.target"
TARGET_UNIT = "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"
# Its arguments: the overlay's three folders and its mount point, the cgroups to enter, then the container's command.
START = """
mount -t overlay overlay -o "lowerdir=/,upperdir=$1,workdir=$2" "$3" || exit
mount -t tmpfs -o mode=755 tmpfs /run
shift 3
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done
shift
exec "$@"
"""


def refuse_without_prerequisites() -> None:
    """A missing tool is a failure with a sentence: a green run that has tested nothing is the main risk."""
    if os.geteuid() != 0:
        pytest.fail("a machine with a systemd of its own needs root", pytrace=False)
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        pytest.fail(f"more tools are needed: apt-get install --no-install-recommends {' '.join(missing)}", pytrace=False)


class Machine:
    """Booted by the constructor, with this checkout in CHECKOUT and what it needs in WHEELS; nothing of Horizon is installed yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._console = folder / "console"
        self._name = f"horizon-test-{os.getpid()}"
        self._cgroups: list[Path] = []
        self._container: subprocess.Popen[bytes] | None = None
        self._systemd = 0  # its process id, as the host sees it
        try:
            self._lay_out()
            self._boot()
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> Path:
        """Its files, as it sees them."""
        return Path(f"/proc/{self._systemd}/root")

    def run(self, *command: str, check: bool = True, environ: Mapping[str, str] | None = None) -> str:
        """Run a command in the machine, as root in its checkout, and return what it wrote."""
        done = self.ask(*command, environ=environ)
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, f"{' '.join(command)[:100]} ended with {done.returncode}:\n{said}"
        return said

    def ask(self, *command: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The same, where the exit code matters."""
        inside = ["nsenter", "-t", str(self._systemd), "-m", "-u", "-i", "-n", "-p", "-C", f"--wd={self.root}{CHECKOUT}"]
        path = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", **(environ or {})}
        return subprocess.run([*inside, *command], env=clean, capture_output=True, text=True, check=False, timeout=100)

    def processes_of(self, cgroup: str) -> list[int]:
        """The processes in a cgroup of the machine and in those below it, by the numbers that the host knows."""
        folder = self._cgroups[0] / "payload" / cgroup
        with contextlib.suppress(FileNotFoundError):
            return [int(pid) for file in folder.rglob("cgroup.procs") for pid in file.read_text().split()]
        return []

    def close(self) -> None:
        """Pull the plug and remove every trace; there is nothing in it to be kept."""
        if self._container is not None:
            self._container.kill()
            self._container.wait()
        for cgroup in self._cgroups:
            eventually(lambda cgroup=cgroup: _remove_cgroup(cgroup), what=f"{cgroup} is empty")
        shutil.rmtree(self._folder)

    # ---- its files

    def _lay_out(self) -> None:
        upper = self._folder / "upper"
        for folder in (upper, self._folder / "work", self._folder / "root"):
            folder.mkdir()
            folder.chmod(0o755)
        self._write(upper / "etc/machine-id", "")
        self._write(upper / f"etc/systemd/system/{TARGET}", TARGET_UNIT)
        for name in SOURCES:
            there = upper / CHECKOUT[1:] / name
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, there)
        pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--quiet"]
        # setuptools too: the machine builds Horizon from its checkout and has no network.
        _run([*pip, "wheel", "--wheel-dir", f"{upper}{WHEELS}", f"{upper}{CHECKOUT}", "setuptools>=77"])
        shutil.rmtree(upper / CHECKOUT[1:] / "build")
        self._give_it_python(upper)

    def _give_it_python(self, upper: Path) -> None:
        """The interpreter of this test, without what was installed into it; the system's own is there already."""
        home = Path(sys.base_prefix)
        if home == Path("/usr"):
            return
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        there = upper / PYTHON[1:]
        not_needed = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a")
        shutil.copytree(home / "lib", there / "lib", symlinks=True, ignore=not_needed)
        (there / "lib" / version / "site-packages").mkdir()
        (there / "bin").mkdir()
        shutil.copy(home / "bin" / version, there / "bin")
        (there / "bin/python3").symlink_to(version)
        self._write(upper / "etc/ld.so.conf.d/horizon-test-python.conf", f"{PYTHON}/lib\n")

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    # ---- its life

    def _boot(self) -> None:
        self._cgroups = [folder / self._name for folder in _own_cgroups()]
        for cgroup in self._cgroups:
            cgroup.mkdir()
        # Not registered and not in a unit: there may be neither systemd nor D-Bus here. The target keeps this host's services down.
        container = [
            "systemd-nspawn", "--directory", str(self._folder / "root"), "--boot", "--register=no", "--keep-unit", "--console=pipe",
            "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--machine={self._name}",
            "--", f"--unit={TARGET}",
        ]  # fmt: skip
        folders = [str(self._folder / name) for name in ("upper", "work", "root")]
        alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        with self._console.open("wb") as console:
            self._container = subprocess.Popen(
                [*alone, "sh", "-c", START, "sh", *folders, *map(str, self._cgroups), "--", *container],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._systemd = eventually(self._find_systemd, timeout_s=30, what="the container starts its systemd")
        eventually(self._is_up, timeout_s=60, interval_s=0.1, what="the machine is up")
        self.run("ldconfig")

    def _find_systemd(self) -> int:
        """The first process of the container, two or three generations down."""
        assert self._container is not None
        if self._container.poll() is not None:
            pytest.fail(f"the container did not start:\n{self._console.read_text(errors='replace')}", pytrace=False)
        generation = [self._container.pid]
        while generation:
            for one in generation:
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{one}/comm").read_text() == "systemd\n":
                        return one
            generation = [child for one in generation for child in _children(one)]
        return 0

    def _is_up(self) -> bool:
        return self.ask("systemctl", "is-active", TARGET).stdout == "active\n"


def _own_cgroups() -> list[Path]:
    """The folders of this process in the hierarchies that a systemd wants to see: its own, and that of version 2."""
    folders = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            unified = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
            hierarchy = Path("/sys/fs/cgroup/systemd") if controllers else unified
            if (hierarchy / "cgroup.procs").exists():
                folders.append(hierarchy / path[1:])
    return folders


def _remove_cgroup(folder: Path) -> bool:
    """From the deepest up. False while there is still a process in it."""
    with contextlib.suppress(FileNotFoundError):
        for inner, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(inner)
            except OSError:
                return False
    return True


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        pytest.fail(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{last}", pytrace=False)

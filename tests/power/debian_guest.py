"""A small Debian with Horizon in it, run by an emulator whose plug can be pulled.

Killing the emulator drops the guest's page cache, and with it everything that nobody has flushed: what a power cut does, apart from a
drive's own volatile cache. The tree is made once, by debootstrap, and kept in build/power (or $SCRATCH/horizon-power); Horizon and the
image, which every pair of boots gets anew, are put together in seconds.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUITE, PYTHON = "bookworm", "3.11"
ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ["SCRATCH"]) / "horizon-power" if os.environ.get("SCRATCH") else ROOT / "build" / "power"
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86", "debootstrap": "debootstrap", "mke2fs": "e2fsprogs", "setpriv": "util-linux",
}  # fmt: skip
# Of the Debian tree, for a smaller disk: the modules that a boot needs lie in its initial file system.
UNUSED = ("usr/lib/modules", "usr/share/doc", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")
# In software, so that it works in any virtual machine and container; and never longer than the test.
MACHINE = (
    *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
    *("-m", "1024", "-smp", "2", "-display", "none", "-nodefaults", "-no-reboot", "-nic", "none", "-serial", "stdio"),
)

Said = list[dict[str, Any]]


def refuse_without_prerequisites() -> None:
    """A missing tool is a failure with a sentence: a green run that has tested nothing is the main risk."""
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        pytest.fail(f"the power cut needs more tools: apt-get install --no-install-recommends {' '.join(missing)}", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("the power cut builds a Debian tree, which needs root", pytrace=False)
    if platform.machine() != "x86_64":
        pytest.fail(f"the guest is made for x86_64, this is {platform.machine()}", pytrace=False)


class Guest:
    """One disk image and what the boots from it said."""

    def __init__(self, folder: Path) -> None:
        self._tree = _tree()
        self._image = folder / "disk.img"
        self._console = folder / "console"
        _install_horizon(self._tree, folder)
        with self._image.open("wb") as file:
            file.truncate(1 << 30)
        _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(self._tree), str(self._image)])

    def boot(self, mode: str, until: Callable[[Said], bool], timeout_s: float) -> Said:
        """Boot, and kill the emulator as soon as what the guest said satisfies `until`. Returns all that it said by then."""
        kernel, initial = (next(iter((self._tree / "boot").glob(name))) for name in ("vmlinuz-*", "initrd.img-*"))
        words = f"root=LABEL=root rw console=ttyS0 quiet loglevel=1 panic=-1 init=/opt/test/init horizon.mode={mode}"
        deadline = time.monotonic() + timeout_s
        with self._console.open("wb") as console:
            emulator = subprocess.Popen(
                [*MACHINE, "-kernel", str(kernel), "-initrd", str(initial), "-append", words,
                 "-drive", f"file={self._image},format=raw,if=virtio,cache=writeback"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            while not until(self._said()):
                if emulator.poll() is not None or time.monotonic() > deadline:
                    last = "\n".join(self._console.read_text(errors="replace").splitlines()[-30:])
                    pytest.fail(
                        f"the guest did not get as far as it should in {timeout_s:g} s; its last lines:\n{last}", pytrace=False
                    )
                time.sleep(0.1)
        finally:
            emulator.kill()
            emulator.wait()
        return self._said()  # also what was on its way to the console when the plug was pulled

    def discard(self) -> None:
        """Remove the image: pytest keeps the folders of several runs."""
        self._image.unlink()

    def _said(self) -> Said:
        said = []
        for line in self._console.read_text(errors="replace").splitlines():
            _, mark, text = line.partition("HZ ")
            if mark and text.endswith("}"):
                said.append(json.loads(text))
        return said


def _tree() -> Path:
    """The Debian tree without Horizon, made once. An unfinished one is made anew."""
    tree, unfinished = CACHE / SUITE, CACHE / f"{SUITE}.new"
    if not tree.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        packages = "python3,initramfs-tools,linux-image-amd64"
        _run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(unfinished)])
        for folder in UNUSED:
            shutil.rmtree(unfinished / folder)
        unfinished.rename(tree)
    return tree


def _install_horizon(tree: Path, folder: Path) -> None:
    """Horizon as pip installs it, for the guest's Python, from a copy: a build leaves things beside its sources."""
    sources, wheels, packages, test = folder / "sources", folder / "wheels", tree / "opt/horizon", tree / "opt/test"
    for old in (packages, test):
        shutil.rmtree(old, ignore_errors=True)
    for name in ("horizon", "supervisor"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(sources)])
    _run([*pip, "install", "--target", str(packages), "--python-version", PYTHON, "--only-binary", ":all:",
          "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64", *map(str, wheels.glob("*.whl"))])  # fmt: skip
    test.mkdir()
    for program in Path(__file__).parent.glob("*in_guest.py"):
        shutil.copy(program, test)
    init = test / "init"
    init.write_text(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/horizon\nexec /usr/bin/python3 /opt/test/in_guest.py boot\n"
    )
    init.chmod(0o755)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        pytest.fail(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{last}", pytrace=False)

"""One machine with Horizon in it, installed as deploy/systemd/README.md says, and the service as new for each test."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from horizon_service import SECRET, Service
from nspawn_machine import ROOT, WHEELS, Machine, refuse_without_prerequisites


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    refuse_without_prerequisites()
    # On a file system of the host: an overlay cannot lie on another one.
    with tempfile.TemporaryDirectory(prefix="horizon-systemd-", dir=os.environ.get("SCRATCH")) as folder:
        machine = Machine(Path(folder))
        try:
            yield machine
        finally:
            machine.close()


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Service:
    """By the commands of the README, without a network: pip finds in a folder what it would fetch."""
    (commands,) = re.findall(r"## Install\n.*?```sh\n(.*?)```", (ROOT / "deploy/systemd/README.md").read_text(), re.DOTALL)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIP_CONFIG_FILE": os.devnull}
    machine.run("sh", "-euc", commands, environ=offline)
    (machine.root / "etc/horizon/credentials.env").write_text(f"VENUE_API_SECRET={SECRET}\n")
    return Service(machine)


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """Stopped, without a database, as it was installed. What it logged is shown when the test fails."""
    installed.start_anew()
    yield installed
    print(installed.journal())
    installed.stop_whatever_it_takes()

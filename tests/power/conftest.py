"""The machine that all of these tests share: making its disk takes longer than a boot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from debian_guest import Guest, refuse_without_prerequisites


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    refuse_without_prerequisites()
    guest = Guest(tmp_path_factory.mktemp("guest"))
    yield guest
    guest.discard()

"""What people decided about strategies: what a restart of the supervisor finds, and what a bad disk does to it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from eventually import eventually

from horizon.errors import StoreError
from supervisor.desired import Desired


def stored(desired: Desired) -> bool:
    desired.keep(now=0.0)
    return desired.stored == desired.version


def test_a_new_supervisor_finds_what_was_decided(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "desired.json")
    desired.note("a", is_stopped=True, quarantine=None)
    desired.note("b", is_stopped=False, quarantine="died too often")
    eventually(lambda: stored(desired))
    found = Desired(tmp_path / "desired.json")
    assert found.is_stopped("a")
    assert found.quarantine_of("b") == "died too often"
    assert not found.is_stopped("b")
    assert found.quarantine_of("a") is None


def test_what_changes_nothing_is_no_decision(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "desired.json")
    desired.note("a", is_stopped=False, quarantine=None)
    assert desired.version == 0
    desired.keep(now=0.0)
    assert not (tmp_path / "desired.json").exists()


def test_a_decision_during_a_save_is_saved_too(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "desired.json")
    desired.note("a", is_stopped=True, quarantine=None)
    desired.keep(now=0.0)
    desired.note("a", is_stopped=False, quarantine=None)
    eventually(lambda: stored(desired))
    assert not Desired(tmp_path / "desired.json").is_stopped("a")


def test_the_end_of_the_supervisor_waits_for_the_newest_decision(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "desired.json")
    desired.note("a", is_stopped=True, quarantine=None)
    desired.keep(now=0.0)
    desired.note("b", is_stopped=True, quarantine=None)
    desired.finish(5.0)
    assert Desired(tmp_path / "desired.json").is_stopped("b")


def test_a_strategy_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "desired.json")
    desired.note("a", is_stopped=True, quarantine=None)
    desired.forget("a")
    eventually(lambda: stored(desired))
    assert not Desired(tmp_path / "desired.json").is_stopped("a")


def test_a_save_that_fails_is_said_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    desired = Desired(folder / "desired.json")
    desired.note("a", is_stopped=True, quarantine=None)
    version = desired.version

    def failed() -> bool:
        desired.keep(now=0.0)
        return desired.failed(version)

    eventually(failed)
    assert "No such file or directory" in desired.problem
    folder.mkdir()
    desired.keep(now=1.0)
    assert desired.failed(version), "not at once: the disk may be full for long"
    desired.keep(now=6.0)
    eventually(lambda: stored(desired))
    assert not desired.failed(version)


@pytest.mark.parametrize("text", ["", "{", '{"stopped": "a"}', '{"stopped": [], "unknown": 1}'])
def test_a_damaged_file_starts_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "desired.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"desired\.json is damaged .* remove it to start every strategy"):
        Desired(path)


def test_a_host_without_a_thread_to_give_costs_a_save_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    desired = Desired(tmp_path / "desired.json")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        desired.note("a", is_stopped=True, quarantine=None)
        for _ in range(2):
            desired.keep(now=0.0)
        assert desired.failed(desired.version)
        assert "can't start new thread" in desired.problem
        desired.finish(0.1)
    desired.finish(10.0)
    assert Desired(tmp_path / "desired.json").is_stopped("a")

"""`horizon doctor` over folders that were broken on purpose: each fault is found, named, and comes with what to do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from scripted_supervisor import BROKEN, MAKER, status, supervising
from store_case import FixedClock, Run, original_database

import horizon
from horizon.__main__ import main
from horizon.config import load
from horizon.control import ProcessStatus, WriterHealth
from horizon.doctor import plane
from horizon.doctor.finding import Finding
from horizon.errors import ExitCode
from horizon.journal import About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.store.append import Store

Findings = dict[str, list[dict[str, str]]]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabasePaths]:
    """A folder with a configuration, a strategy, and a port that is free."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "maker.py").write_text("")
    (tmp_path / "maker.py").chmod(0o644)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        port = reserved.getsockname()[1]
        (tmp_path / "horizon.toml").write_text(
            f'[database]\ndurability = "power"\n[metrics]\nport = {port}\n[strategies.maker]\nfile = "maker.py"\n'
        )
        (tmp_path / "horizon.toml").chmod(0o644)
        yield DatabasePaths.of(tmp_path / "horizon.db")


def made(paths: DatabasePaths, run: Run | None = None, *entries: Any) -> Store:
    umask = os.umask(0o077)  # as the writer has it
    try:
        store = Store(paths, clock=FixedClock())
    finally:
        os.umask(umask)
    store.append([(run or Run()).start(), *entries])
    return store


def examined(capsys: pytest.CaptureFixture[str]) -> Findings:
    capsys.readouterr()
    main(["doctor", "--json"])
    found: Findings = {}
    for finding in json.loads(capsys.readouterr().out):
        found.setdefault(finding["check"], []).append(finding)
    return found


def only(found: Findings, check: str, level: str) -> dict[str, str]:
    (one,) = [finding for finding in found[check] if finding["level"] == level]
    assert one["remedy"] or level == "ok"
    return one


def test_a_healthy_place_has_findings_and_nothing_wrong(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    made(paths).close()
    found = examined(capsys)
    # The clock, the core dumps and the disk are those of whoever runs this test.
    of_the_host = {"clock", "core dumps", "limits", "disk space", "disk speed", "file system", "inodes", "credentials"}
    assert [one for check, all_ in found.items() if check not in of_the_host for one in all_ if one["level"] != "ok"] == []
    assert {"python", "libraries", "sqlite", "configuration", "code", "permissions", "supervisor", "journals"} <= set(found)


def test_people_get_a_line_for_each_finding_and_its_remedy_below(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    (paths.database.parent / "maker.py").chmod(0o666)
    assert main(["doctor"]) == ExitCode.FINDINGS
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("problem  code"))
    assert "everybody may change" in lines[at]
    assert lines[at + 1].strip() == f"-> chmod go-w {paths.database.parent / 'maker.py'}"
    assert "findings: 1 problem" in lines[-1]


def test_the_exit_code_says_whether_anything_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("python", "ok", "fine")]
    monkeypatch.setattr("horizon.doctor.examine.examine", lambda _: found)
    assert main(["doctor"]) == ExitCode.DONE
    found.append(Finding("clock", "warning", "it drifts", "keep it"))
    assert main(["doctor"]) == ExitCode.FINDINGS


def test_a_configuration_that_does_not_load_is_told_with_its_key(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    (paths.database.parent / "horizon.toml").write_text("[databas]\n")
    found = examined(capsys)
    assert "databas: unknown key; did you mean database?" in only(found, "configuration", "problem")["sentence"]
    assert "python" in found
    assert "disk space" not in found


def test_no_configuration_at_all_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "does not exist" in only(examined(capsys), "configuration", "problem")["sentence"]


def test_a_newer_schema_is_a_problem_and_one_of_the_original_is_upgraded(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    original_database(paths.database)
    assert "the original's schema" in only(examined(capsys), "database", "warning")["sentence"]
    connection = apsw.Connection(str(paths.database))
    connection.pragma("user_version", 99)
    connection.close()
    assert "use the newer Horizon" in only(examined(capsys), "database", "problem")["sentence"]


def test_a_database_that_is_gone_while_its_journals_are_there_is_a_problem(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.folder.mkdir(mode=0o700)
    paths.journal("run").touch()
    assert "is missing, and 1 journal" in only(examined(capsys), "database", "problem")["sentence"]


def test_what_waits_for_a_person_is_found(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    store = made(paths, run)
    store.append([run.entry(None, "not a record")])
    store.record_gap(run.run_id, run.strategy, 3, 7, "cut off")
    store.close()
    (paths.folder / "old.damaged").touch()
    paths.database.with_name("horizon.db.before-upgrade-20261121T000000Z").write_bytes(bytes(2048))

    found = examined(capsys)
    gap = only(found, "gaps", "problem")
    assert "records 3 to 7" in gap["sentence"]
    assert f"horizon journal accept-gap {run.run_id}" in gap["remedy"]
    assert "1 record could not be stored" in only(found, "dead letters", "warning")["sentence"]
    assert "old.damaged" in only(found, "journals", "warning")["sentence"]
    assert "2.0 KiB" in found["copies"][0]["sentence"]


def test_journals_are_wrong_only_when_nobody_will_store_them(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    store = made(paths, run)
    database_id = store.database_id
    store.close()
    lock = FileLock(paths.strategy_lock(run.strategy))
    assert lock.take()
    journal = Journal(paths.journal(run.run_id), About(database_id, run.run_id, run.strategy, "process", 1), 2 << 20)
    journal.append(run.start().records[0])
    journal.append(run.start().records[0])
    assert "1 journal of live runs" in only(examined(capsys), "journals", "ok")["sentence"]

    lock.release()
    assert "left 1 record in its journal alone" in only(examined(capsys), "journals", "warning")["sentence"]
    writer = FileLock(paths.writer_lock)
    assert writer.take()
    assert "nothing left behind" in only(examined(capsys), "journals", "ok")["sentence"]
    writer.release()

    paths.strategy_lock(run.strategy).unlink()
    assert "never delete lock files" in only(examined(capsys), "journals", "problem")["remedy"]
    journal.close()
    paths.journal(run.run_id).write_bytes(b"nothing")
    assert "cannot be read" in only(examined(capsys), "journals", "problem")["sentence"]


def test_a_supervisor_that_does_not_answer_is_told_by_its_lock(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    made(paths).close()
    assert "none runs" in only(examined(capsys), "supervisor", "ok")["sentence"]
    lock = FileLock(paths.supervisor_lock)
    assert lock.take("pid=77")
    silent = only(examined(capsys), "supervisor", "problem")
    assert "pid=77" in silent["sentence"]
    lock.release()


def test_a_quarantine_is_told_with_and_without_a_supervisor(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    made(paths).close()
    paths.desired.write_text('{"stopped": [], "quarantined": {"maker": "5 crashes within 300 s"}}')
    assert "5 crashes" in only(examined(capsys), "quarantine", "problem")["sentence"]
    paths.desired.write_text("{")
    assert "damaged" in only(examined(capsys), "quarantine", "problem")["sentence"]
    with supervising(paths.control_socket, status(MAKER, BROKEN)):
        assert only(examined(capsys), "quarantine", "problem")["remedy"].endswith("horizon reset broken")


def test_a_supervisor_that_is_not_well_is_told(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    ill = status(
        ProcessStatus(name="maker", kind="strategy", state="degraded", wanted=True, why="no heartbeat for 4 s"),
        version="0.0.9",
        loop_lag_ms=900.0,
        writer=WriterHealth(commit_age_s=90.0),
        log_dropped=3,
    )
    with supervising(paths.control_socket, ill):
        found = examined(capsys)
    told = " ".join(one["sentence"] for one in found["supervisor"])
    assert f"version 0.0.9 runs, and {horizon.__version__} is installed" in told
    assert "900 ms" in told
    assert "the last commit is 90 s ago" in only(found, "writer", "problem")["sentence"]
    assert "no heartbeat for 4 s" in only(found, "processes", "warning")["sentence"]
    assert "3 entries were dropped" in only(found, "logs", "warning")["sentence"]


@pytest.mark.parametrize(
    ("why_no_groups", "sentence"),
    [
        ("", "kept by the kernel (cgroup v2)"),
        ("this host has no cgroup v2", "looked at once a second; the kernel cannot keep them: this host has no cgroup v2"),
    ],
)
def test_who_keeps_the_memory_limits_is_told(why_no_groups: str, sentence: str) -> None:
    found = plane.judge_status(status(MAKER, why_no_groups=why_no_groups))
    assert [one.sentence for one in found if one.check == "memory limits"] == [sentence]


def test_whoever_has_the_port_of_the_metrics_is_named(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is free" in only(examined(capsys), "metrics port", "ok")["sentence"]
    config = load(paths.database.parent / "horizon.toml").metrics
    ours = plane.Listener(config.address, config.port, 4001, "python")
    assert "the gateway listens" in plane.judge_port(config, status(MAKER), [ours]).sentence
    assert plane.judge_port(config, status(MAKER), []).level == "warning"
    assert plane.judge_port(config, None, [ours._replace(address="10.0.0.1")]).level == "ok"

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        (found,) = plane.listeners(holder.getsockname()[1])
    assert found.pid == os.getpid()
    taken = plane.judge_port(config, None, [found])
    assert (taken.level, f"pid {os.getpid()}" in taken.sentence) == ("warning", True)


def test_what_a_user_may_not_look_at_is_a_warning_and_stops_no_other_check(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(paths.folder))

    monkeypatch.setattr("horizon.doctor.place.check_space", refuse)
    found = examined(capsys)
    assert "Permission denied" in only(found, "disk space", "warning")["sentence"]
    assert "database" in found

"""What a log line looks like, and what never stands in one."""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path

import pytest

from horizon.logs import (
    REDACTED,
    JsonFormatter,
    TextFormatter,
    as_json,
    as_text,
    entry_of,
    log_file_name,
    log_to,
    older_files,
    redacted,
    redacted_text,
)


def _record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("horizon.engine", logging.WARNING, "", 0, message, args, None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    record.__dict__.update(extra)
    return record


def test_a_text_line_says_when_how_bad_who_and_what() -> None:
    assert TextFormatter().format(_record("%d orders", 3)) == "2023-11-14 22:13:20.250Z WARNING horizon.engine: 3 orders"


def test_a_json_line_carries_the_action_and_what_else_was_given() -> None:
    line = json.loads(JsonFormatter().format(_record("lost", action="orphans", seq=7)))
    assert line == {
        "time": 1_700_000_000.25, "level": "warning", "pid": os.getpid(), "logger": "horizon.engine", "message": "lost",
        "action": "orphans", "seq": 7,
    }  # fmt: skip


def test_an_exception_is_one_field_of_a_json_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record = _record("failed")
        record.exc_info = (ValueError, error, error.__traceback__)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_an_entry_says_which_strategy_run_and_process_it_is_of() -> None:
    entry = entry_of(_record("lost", run_id="run-1"), "mm")
    assert [entry[name] for name in ("strategy", "run_id", "pid")] == ["mm", "run-1", os.getpid()]
    assert as_text(entry) == f"2023-11-14 22:13:20.250Z WARNING mm[{os.getpid()} run-1] horizon.engine: lost"


def test_what_is_given_in_extra_cannot_take_the_place_of_what_an_entry_says() -> None:
    entry = entry_of(_record("lost", time="never", level="fine", strategy="another", pid=1), "mm")
    assert (entry["time"], entry["level"], entry["strategy"], entry["pid"]) == (1_700_000_000.25, "warning", "mm", os.getpid())


def test_numbers_that_json_does_not_know_do_not_make_a_line_that_nobody_can_read() -> None:
    entry = entry_of(_record("odd", price=float("nan"), size=float("-inf"), count=10**5000, done=True))
    line = json.loads(as_json(entry), parse_constant=lambda name: pytest.fail(name))
    assert (line["price"], line["size"], line["done"]) == ("nan", "-inf", True)
    assert line["count"].startswith("0x")


def test_a_text_can_neither_steer_a_terminal_nor_pass_for_another_entry() -> None:
    text = as_text(entry_of(_record("evil \x1b[2J\x9b1A\r\u202e text\n2023-11-14 22:13:20.250Z INFO mm: all is well"), "mm"))
    first, second = text.splitlines()
    assert first.endswith("evil ?[2J?1A?? text")
    assert second == "    2023-11-14 22:13:20.250Z INFO mm: all is well"


def test_a_line_of_json_is_ascii_whatever_is_said() -> None:
    assert as_json({"message": "\x1b \u009b \u202e \udc80 ü\n"}).isascii()


@pytest.mark.parametrize("name", ["mm", "mm-btc_1.5", "gateway"])
def test_a_strategys_file_is_called_like_it(name: str) -> None:
    assert log_file_name(name) == f"{name}.log"


def test_names_that_are_no_file_names_have_files_of_their_own_in_the_folder() -> None:
    names = ["..", ".", "../up", "/etc/passwd", "a/b", "a b", "a_b", "events", "ü", "市" * 100, "x" * 100, "a+b", "-", "mm.log.1"]
    files = [log_file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert not {"events.log", "..", "."} & set(files)
    assert all("/" not in file and not file.startswith(".") and len(file) < 120 and file.isascii() for file in files)


def test_older_files_are_those_of_this_name_newest_first(tmp_path: Path) -> None:
    for name in ("mm.log", "mm.log.2", "mm.log.10", "mm.log.1", "mm.log.x", "mm2.log.1", "mm.log.1.log", "mm.log."):
        (tmp_path / name).touch()
    assert older_files(tmp_path / "mm.log") == [(number, tmp_path / f"mm.log.{number}") for number in (1, 2, 10)]


@pytest.mark.parametrize(
    "text", ["api_key=abc123", "api_key: 'abc123'", 'password="abc123"', "secret = abc123", "token=abc123&x=1"]
)
def test_values_of_secrets_are_cut_out_of_sentences(text: str) -> None:
    assert "abc123" not in redacted_text(f"request failed: {text}")
    assert "abc123" not in TextFormatter().format(_record("request failed: %s", text))
    assert "abc123" not in JsonFormatter().format(_record("failed", request=text))


def test_everything_under_a_name_that_sounds_like_a_secret_is_replaced_at_any_depth() -> None:
    given = {
        "spread": 0.1,
        "api_key": "abc123",
        "venue": {"Passphrase": ["abc123"], "yes_token_id": "42", "account": None},
        "list": [{"private_key": {"pem": "abc123"}}, "password=abc123"],
        "secret": None,
    }
    assert redacted(given) == {
        "spread": 0.1,
        "api_key": REDACTED,
        "venue": {"Passphrase": REDACTED, "yes_token_id": "42", "account": None},
        "list": [{"private_key": REDACTED}, f"password={REDACTED}"],
        "secret": None,
    }


def test_a_program_that_set_up_its_log_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    own = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(root, "handlers", [own])
    log_to(io.StringIO())
    assert root.handlers == [own]


def test_a_program_without_a_log_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    stream = io.StringIO()
    try:
        log_to(stream, as_json=True)
        logging.getLogger("horizon.test").info("hello", extra={"action": "greet"})
    finally:
        root.setLevel(level)
    assert json.loads(stream.getvalue())["action"] == "greet"

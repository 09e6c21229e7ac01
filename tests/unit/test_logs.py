"""What a log line looks like, and what never stands in one."""

from __future__ import annotations

import io
import json
import logging

import pytest

from horizon.logs import REDACTED, JsonFormatter, TextFormatter, log_to, redacted, redacted_text


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
        "time": 1_700_000_000.25, "level": "warning", "logger": "horizon.engine", "message": "lost", "action": "orphans", "seq": 7,
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

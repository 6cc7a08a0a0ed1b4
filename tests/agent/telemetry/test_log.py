"""Log of the endpoint: its format, and no texts of errors."""

import json
import logging
from typing import Any

import pytest
import structlog

from gpt2flow.agent.telemetry.log import logging_to_stderr


def fail(text: str) -> Exception:
    """Return an error with a traceback."""
    try:
        int(text)
    except ValueError as error:
        return error
    raise AssertionError


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_lines_of_the_program_and_of_libraries_have_one_format(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logging_to_stderr("json"):
        structlog.get_logger().info("turn", session="会话", other={1, 2}.union)
        logging.getLogger("uvicorn.error").warning("a %s", "warning")
        logging.getLogger("uvicorn.error").info("a step of the start")
    first, second = lines(capsys)
    assert (first["event"], first["session"], first["level"]) == ("turn", "会话", "info")
    assert (second["event"], second["logger"], second["level"]) == (
        "a warning",
        "uvicorn.error",
        "warning",
    )
    assert {"timestamp"} <= set(first) & set(second)


@pytest.mark.parametrize("library", ["uvicorn.error", "dbos"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_error_has_its_calls_but_not_its_text(
    capsys: pytest.CaptureFixture[str], library: str, log_format: Any
) -> None:
    """The text of an error may quote a message of a customer."""
    with logging_to_stderr(log_format):
        logging.getLogger(library).error("failed", exc_info=fail("my code is 123456"))
    text = capsys.readouterr().err
    assert "123456" not in text
    assert "ValueError" in text
    assert "in fail" in text


def test_the_loggers_are_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("", "gpt2flow", "dbos")]
    before = [(each.level, list(each.handlers), each.propagate) for each in loggers]
    with logging_to_stderr("json"):
        pass
    assert [(each.level, list(each.handlers), each.propagate) for each in loggers] == before
    logging.getLogger("uvicorn.error").warning("not logged here")
    assert "{" not in capsys.readouterr().err


def test_lines_for_people_are_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("console"):
        structlog.get_logger().info("turn", session="a")
    text = capsys.readouterr().err
    assert "turn" in text
    assert "session=a" in text
    assert not text.startswith("{")

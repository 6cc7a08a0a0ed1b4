"""Failures of turns: statuses, log lines, and what callers read."""

import pytest
from structlog.testing import capture_logs
from tests.support.http_endpoint import RunningEndpoint, Served, error, new_session

from gpt2flow.agent.errors import (
    DatabaseError,
    ModelError,
    ModelUnavailableError,
    UnanswerableError,
    UnknownModelError,
)

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "failure, refusal",
    [
        (UnanswerableError("too long"), (422, "text", "too long")),
        (
            UnknownModelError("no model 'x'"),
            (503, None, "the model server has no such model; send"),
        ),
        (
            ModelError("at 10.0.0.1:1"),
            (503, None, "the model server failed; send the message again"),
        ),
        (ModelUnavailableError("at 10.0.0.1:1"), (503, None, "the model server failed; send")),
        (DatabaseError("at db:5432"), (503, None, "the database failed; send the message again")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_failed_turn_has_the_status_of_its_cause(
    endpoint: RunningEndpoint,
    served: Served,
    failure: Exception,
    refusal: tuple[int, str | None, str],
) -> None:
    served.model.error = failure
    session = new_session()
    response = endpoint.post("hello", session, id="m1")
    status, field, message = error(response)
    assert (status, field) == refusal[:2]
    assert message.startswith(refusal[2])
    assert ("retry-after" in response.headers) is (status == 503)
    served.model.error = None
    # The same id goes on where the turn failed.
    assert endpoint.post("hello", session, id="m1").status_code == 200


def test_a_defect_costs_one_turn_and_keeps_texts_out_of_the_log(
    endpoint: RunningEndpoint, served: Served
) -> None:
    served.model.error = ZeroDivisionError("my code is 123456")
    with capture_logs() as logs:
        status, field, message = error(endpoint.post("hello"))
    assert (status, field) == (500, None)
    [line] = [each for each in logs if each["event"] == "turn"]
    assert message == f"internal error, incident {line['incident']}"
    assert (line["result"], line["error"]) == ("internal_error", "ZeroDivisionError")
    assert "choose" in line["calls"]
    assert "123456" not in str(logs)
    assert endpoint.count("turns_total", result="internal_error") == 1
    served.model.error = None
    assert endpoint.post("hello").status_code == 200

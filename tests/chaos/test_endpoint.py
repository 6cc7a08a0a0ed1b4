"""Answers of an endpoint, as the caller of chaos runs reads them."""

import json

import httpx
import pytest
from tests.chaos.processes.endpoint import read_answer

REPORT = {"session": "s", "actions": []}
BUSY = {"error": {"field": None, "message": "queue full"}}
DEFECT = {"error": {"field": None, "message": "internal error, incident 1"}}


def stream(*lines: str) -> httpx.Response:
    headers = {"content-type": "text/event-stream"}
    return httpx.Response(200, text="".join(lines), headers=headers)


def event(content: object) -> str:
    return f"event: x\ndata: {json.dumps(content)}\n\n"


def test_a_report_comes_as_json_or_as_an_event() -> None:
    expected = [REPORT, None, True]
    assert read_answer(httpx.Response(200, json=REPORT)) == expected
    assert read_answer(stream(": waiting\n\n", event(REPORT))) == expected


def test_a_refusal_is_a_clear_error_and_an_internal_error_is_none() -> None:
    expected = [None, "503: queue full", True]
    assert read_answer(httpx.Response(503, json=BUSY)) == expected
    assert read_answer(stream(": waiting\n\n", event({"status": 503, **BUSY}))) == expected
    assert read_answer(httpx.Response(500, json=DEFECT))[2] is False


@pytest.mark.parametrize("cut", [": waiting\n\n", event(REPORT)[:-1], event(REPORT)[:9]])
def test_a_stream_without_its_event_is_no_answer(cut: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        read_answer(stream(cut))

"""Page of the payments: its examples and its table of codes."""

import json
import re
from pathlib import Path

import httpx
import pytest
from tests.support.doc_pages import DOCS, blocks
from tests.support.payment_process import payment_service
from tests.support.waiting import SECONDS

from gpt2flow.agent.payments.contract import ErrorCode

PAGE = "payments.md"


@pytest.mark.process
def test_the_service_answers_the_examples_as_the_page_says(tmp_path: Path) -> None:
    body, answer, error = (json.loads(block) for block in blocks(PAGE, "json"))
    with payment_service(tmp_path) as service:
        url, headers = f"{service.url}/v1/payments", {"idempotency-key": "SO-1001%2F1%2Fcharge"}
        made = httpx.post(url, json=body, headers=headers, timeout=SECONDS)
        assert (made.status_code, made.json()) == (201, answer)
        wrong = httpx.post(url, json=body | {"amount": 49.9}, headers=headers, timeout=SECONDS)
        assert (wrong.status_code, wrong.json()) == (400, error)


def test_the_page_has_every_code() -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| [\d, ]+ \|", text, re.MULTILINE)) == {*ErrorCode}

"""Pages of figures, and the playground."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import UNREACHABLE
from tests.support.console import RunningConsole, Tokens, Visitor, plain_text, running_console
from tests.support.desk import large_refund
from tests.support.shop import Shop

from gpt2flow.client.results import TokenLogprob
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.errors import ConsoleConfigError
from gpt2flow.console.pages.playground import Branch, beam_tree
from gpt2flow.console.reading.evaluations import compare_reports

pytestmark = pytest.mark.process

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"


@pytest.fixture
def full_ben(full_console: RunningConsole) -> Iterator[Visitor]:
    """Somebody at a console with a server and reports."""
    with full_console.person("ben") as visitor:
        yield visitor


def generate(visitor: Visitor, **fields: str) -> Any:
    """Send the form of the playground."""
    hidden = visitor.forms("/playground")["/playground"]
    return visitor.client.post("/playground", data={**hidden, "prompt": PROMPT, **fields})


def test_the_coverage_counts_what_happened(shop: Shop, ben: Visitor) -> None:
    large_refund(shop)
    page = plain_text(ben.read("/flows"))
    assert "register 1" in page
    assert "needs_approval: 1" in page
    assert "of " in page
    assert "After-sales" in page


def test_reports_stand_side_by_side(full_ben: Visitor) -> None:
    page = plain_text(full_ben.read("/evaluations"))
    assert "62.5 % (57.5–67.5)" in page
    assert "85.8 % (80.8–90.8)" in page
    assert "kind messy" in page
    assert "other.json: is no report" in page


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"pass^1": ', encoding="utf-8")
    (tmp_path / "large.json").write_text(" " * 6_000_000, encoding="utf-8")
    (tmp_path / "odd.json").write_text('{"pass^1": {"rate": "x"}, "by_kind": 3}', encoding="utf-8")
    found = compare_reports(tmp_path)
    assert set(found.unreadable) == {"half.json", "large.json"}
    assert [report.figures for report in found.reports] == [{"by kind": "3"}]


def test_the_live_figures_are_the_servers(full_ben: Visitor) -> None:
    assert generate(full_ben, max_new_tokens="5").status_code == 200
    figures = full_ben.client.get("/live.json").json()
    assert figures["completion_tokens"] >= 1
    assert figures["first_tokens"] >= 1
    assert figures["running"] == 0


def test_without_a_server_the_pages_say_what_is_missing(ben: Visitor) -> None:
    assert "--metrics" in ben.read("/live")
    assert "--reports" in ben.read("/evaluations")
    assert ben.client.get("/live.json").status_code == 404


def test_an_endpoint_that_does_not_answer_is_an_error_on_the_page(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    settings = {"metrics": "http://127.0.0.1:9/metrics", "server": "127.0.0.1:9"}
    with (
        running_console(database, tokens, shop.clock, **settings) as console,
        console.person("ben") as visitor,
    ):
        response = visitor.client.get("/live.json")
        assert response.status_code == 502
        assert "127.0.0.1:9" in response.json()["error"]


def test_the_playground_shows_the_answer_with_its_tokens(full_ben: Visitor) -> None:
    response = generate(full_ben, max_new_tokens="8")
    assert response.status_code == 200
    assert "add_to_cart" in plain_text(response.text).replace(" ", "")
    assert "data-top=" in response.text
    assert "ms" in response.text


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"max_new_tokens": "0"}, "max_new_tokens is &#39;0&#39;"),
        ({"max_new_tokens": "x"}, "max_new_tokens is &#39;x&#39;"),
        ({"max_new_tokens": "99999"}, "context"),
        ({"num_beams": "65"}, "num_beams is"),
        ({"temperature": "nan"}, "temperature is"),
        ({"temperature": "-1"}, "temperature is"),
        ({"constraint": "x"}, "constraint is"),
        ({"constraint": "json_schema", "grammar": "{"}, "json_schema"),
        ({"constraint": "regex", "grammar": "("}, "regex"),
    ],
)
def test_a_bad_field_of_the_playground_is_named(
    full_ben: Visitor, fields: dict[str, str], words: str
) -> None:
    response = generate(full_ben, **fields)
    assert response.status_code == 422
    assert words in response.text
    assert PROMPT.replace("<", "&lt;").replace(">", "&gt;") in response.text


def test_a_server_that_is_away_is_an_error_on_the_page(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    # Another test may have a server at the default address.
    with (
        running_console(database, tokens, shop.clock, server=UNREACHABLE) as console,
        console.person("ben") as ben,
    ):
        response = generate(ben, max_new_tokens="5")
    assert response.status_code == 422
    assert "Traceback" not in response.text


def token(number: int) -> TokenLogprob:
    return TokenLogprob(number, bytes([number]), math.log(0.5))


def shape(branch: Branch) -> Any:
    return branch.text, branch.ends, [shape(each) for each in branch.branches]


def test_beams_share_what_they_begin_with() -> None:
    beams = [
        ([token(97), token(98), token(99)], -1.0),
        ([token(97), token(98), token(100)], -2.0),
        ([token(97), token(98)], -3.0),
        ([token(120)], -4.0),
    ]
    assert shape(beam_tree(beams)) == (
        "",
        [],
        [("ab", [-3.0], [("c", [-1.0], []), ("d", [-2.0], [])]), ("x", [-4.0], [])],
    )


def test_one_beam_is_one_branch() -> None:
    assert shape(beam_tree([([token(97), token(98)], -1.0)])) == ("ab", [-1.0], [])


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"metrics": "127.0.0.1:9090"}, "metrics is"),
        ({"metrics": "ftp://x/metrics"}, "metrics is"),
        ({"session_hours": 0}, "session_hours is 0"),
        ({"session_hours": float("nan")}, "session_hours is nan"),
        ({"body_seconds": float("inf")}, "body_seconds is inf"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"allowed_hosts": ("a b",)}, "allowed_host is 'a b'"),
        ({"reports": Path("nowhere")}, "reports nowhere"),
        ({"address": "8090"}, "address is '8090'"),
        ({"https_key": Path("k.pem")}, "need each other"),
        (
            {"https_key": Path("k.pem"), "https_certificate": Path("c.pem")},
            "https_certificate c.pem",
        ),
    ],
)
def test_a_bad_setting_is_named_with_its_value(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConsoleConfigError) as caught:
        ConsoleConfig(tokens=Path("tokens.toml"), **settings)
    assert words in str(caught.value)

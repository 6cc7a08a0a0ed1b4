"""Signing in and out, and requests that are refused."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.console import RunningConsole, Tokens, Visitor, running_console
from tests.support.desk import changes, large_refund
from tests.support.shop import Shop
from tests.support.website import new_tls_files

from gpt2flow.agent.shop import Case, CaseStatus

pytestmark = pytest.mark.process

PAGES = ["/", "/cases/C-1", "/cases/C-1/changed", "/conversations", "/conversations/s"]
PAGES += ["/cases/C-1/pictures/1"]
DECISIONS = ["approve", "reject", "assign", "reply", "close"]


@pytest.fixture
def stranger(console: RunningConsole) -> Iterator[Visitor]:
    with console.visitor() as visitor:
        yield visitor


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_for_people_who_signed_in(stranger: Visitor, path: str) -> None:
    response = stranger.client.get(path)
    assert response.status_code == 303
    assert response.headers["location"].startswith("/sign-in?next=")
    assert not response.content


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_decision_is_for_people_who_signed_in(
    shop: Shop, stranger: Visitor, decision: str
) -> None:
    number = large_refund(shop)
    before = changes(shop)
    response = stranger.client.post(f"/cases/{number}/{decision}", data={"text": "hello"})
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert changes(shop) == before


def test_who_signs_in_comes_back_to_the_page_they_wanted(
    console: RunningConsole, stranger: Visitor
) -> None:
    asked = stranger.client.get("/conversations?q=lamp").headers["location"]
    assert "next=%2Fconversations%3Fq%3Dlamp" in asked
    token = console.tokens.secrets["ben"]
    response = stranger.sign_in(token, next="/conversations?q=lamp")
    assert response.headers["location"] == "/conversations?q=lamp"
    assert stranger.client.get("/conversations?q=lamp").status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/a\r\nb: c"]
)
def test_a_sign_in_leads_to_no_other_site(
    console: RunningConsole, stranger: Visitor, target: str
) -> None:
    response = stranger.sign_in(console.tokens.secrets["ben"], next=target)
    assert response.headers["location"] == "/"


@pytest.mark.parametrize("token", ["", "g2f_wrong", "x" * 100_000, "密码", "\x00"])
def test_an_unknown_token_opens_nothing(stranger: Visitor, token: str) -> None:
    response = stranger.sign_in(token)
    assert response.status_code in {401, 413}
    assert "set-cookie" not in response.headers
    assert stranger.client.get("/").status_code == 303


def test_a_token_of_a_program_is_no_persons(console: RunningConsole, stranger: Visitor) -> None:
    response = stranger.sign_in(console.tokens.secrets["bot"])
    assert response.status_code == 401
    assert "may not handle cases" in response.text


def test_an_expired_token_opens_nothing(console: RunningConsole, stranger: Visitor) -> None:
    console.tokens.add("old", 'may = "approve"\nexpires = 2026-01-01T00:00:00Z\n')
    response = stranger.sign_in(console.tokens.secrets["old"])
    assert response.status_code == 401
    assert "has expired" in response.text


def test_a_cookie_is_worthless_after_the_sign_out(ben: Visitor, stranger: Visitor) -> None:
    stolen = dict(ben.client.cookies)
    csrf = ben.forms("/")["/sign-out"]["csrf"]
    assert ben.client.post("/sign-out", data={"csrf": csrf}).status_code == 303
    stranger.client.cookies.update(stolen)
    assert stranger.client.get("/").status_code == 303


def test_a_cookie_is_worthless_once_the_token_is_withdrawn(
    console: RunningConsole, ben: Visitor
) -> None:
    assert ben.client.get("/").status_code == 200
    console.tokens.remove("ben")
    assert ben.client.get("/").status_code == 303


def test_a_cookie_of_another_process_opens_nothing(
    console: RunningConsole, shop: Shop, database: Path, ben: Visitor
) -> None:
    with (
        running_console(database, console.tokens, shop.clock) as other,
        other.visitor() as visitor,
    ):
        visitor.client.cookies.update(dict(ben.client.cookies))
        assert visitor.client.get("/").status_code == 303


def test_a_changed_cookie_opens_nothing(ben: Visitor) -> None:
    [(name, value)] = ben.client.cookies.items()
    for forged in (value[:-1], value[1:], f"{value}x", "a.b.c", ""):
        ben.client.cookies = httpx.Cookies({name: forged})
        assert ben.client.get("/").status_code == 303


def test_the_cookie_is_kept_from_scripts_and_other_sites(
    console: RunningConsole, stranger: Visitor
) -> None:
    cookie = stranger.sign_in(console.tokens.secrets["ben"]).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "max-age=28800" in cookie


@pytest.mark.parametrize("csrf", ["", "0" * 64, None])
def test_a_form_of_another_site_changes_nothing(shop: Shop, ben: Visitor, csrf: str | None) -> None:
    number = large_refund(shop)
    form = dict(ben.forms(f"/cases/{number}")[f"/cases/{number}/approve"])
    del form["csrf"]
    response = ben.submit(f"/cases/{number}", "approve", form | ({"csrf": csrf} if csrf else {}))
    assert response.status_code == 403
    assert shop.rows(Case)[-1].status is CaseStatus.AWAITING_APPROVAL


def test_a_form_of_another_person_changes_nothing(shop: Shop, ben: Visitor, eva: Visitor) -> None:
    number = large_refund(shop)
    form = eva.forms(f"/cases/{number}")[f"/cases/{number}/approve"]
    assert ben.submit(f"/cases/{number}", "approve", form).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_request_from_another_site_is_refused(
    shop: Shop, ben: Visitor, headers: dict[str, str]
) -> None:
    number = large_refund(shop)
    form = ben.forms(f"/cases/{number}")[f"/cases/{number}/approve"]
    response = ben.client.post(f"/cases/{number}/approve", data=form, headers=headers)
    assert response.status_code == 403
    assert shop.rows(Case)[-1].status is CaseStatus.AWAITING_APPROVAL


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "[::1", ""])
def test_a_foreign_name_is_refused(ben: Visitor, host: str) -> None:
    """A foreign page's own name may resolve to 127.0.0.1."""
    assert ben.client.get("/", headers={"Host": host}).status_code in {400, 403}


def test_every_answer_forbids_scripts_of_others(ben: Visitor, stranger: Visitor) -> None:
    for response in (ben.client.get("/"), stranger.client.get("/"), ben.client.get("/nowhere")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/files/..%2Fapp.py", "/files/app.py", "/files/console.css/", "/files/", "/nowhere"]
)
def test_other_files_are_not_served(ben: Visitor, path: str) -> None:
    response = ben.client.get(path)
    assert response.status_code == 404
    assert "Traceback" not in response.text


def test_a_body_beyond_the_limit_is_refused(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    response = ben.submit(f"/cases/{number}", "reply", text="x" * 70_000)
    assert response.status_code == 413


@pytest.mark.parametrize("body", [b"\xff\xfe", b"csrf=%ff", b"&".join([b"a=1"] * 60)])
def test_a_body_that_is_no_form_is_refused(shop: Shop, ben: Visitor, body: bytes) -> None:
    number = large_refund(shop)
    response = ben.client.post(f"/cases/{number}/reply", content=body)
    assert response.status_code in {400, 403}
    assert "Traceback" not in response.text


def test_another_method_is_refused_with_a_page(ben: Visitor) -> None:
    response = ben.client.put("/")
    assert response.status_code == 405
    assert "This did not work" in response.text


def test_over_tls_the_cookie_belongs_to_this_host(
    shop: Shop, database: Path, tokens: Tokens, tmp_path: Path
) -> None:
    files = new_tls_files(tmp_path)
    with (
        running_console(database, tokens, shop.clock, **files.settings) as console,
        files.client(console.url) as client,
    ):
        response = client.post("/sign-in", data={"token": tokens.secrets["ben"]})
        assert response.headers["set-cookie"].startswith("__Host-gpt2flow=")
        assert "; Secure" in response.headers["set-cookie"]
        assert response.headers["strict-transport-security"]
        assert client.get("/").status_code == 200

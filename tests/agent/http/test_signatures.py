"""Signed requests: Standard Webhooks, rotation of secrets, and refusals."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from tests.support.http_endpoint import (
    OTHER_SECRET,
    SECRET,
    RunningEndpoint,
    Served,
    error,
    new_session,
    sign,
)

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.http.requests import RequestError
from gpt2flow.agent.http.signatures import SignatureVerifier, read_secrets

BODY = '{"session": "s", "text": "hello"}'


@pytest.fixture
def verifier(secret_file: Path) -> SignatureVerifier:
    return SignatureVerifier(secret_file)


def refusal(verifier: SignatureVerifier, headers: dict[str, str], body: str = BODY) -> str | None:
    """Return the header that a refusal names."""
    with pytest.raises(RequestError) as caught:
        verifier.verify(headers, body)
    assert caught.value.status == 401
    return caught.value.field


def test_a_signature_of_the_secret_is_accepted(verifier: SignatureVerifier) -> None:
    verifier.verify(sign(BODY, SECRET), BODY)
    verifier.verify(sign("你好", SECRET), "你好")


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(verifier: SignatureVerifier, missing: str) -> None:
    headers = sign(BODY, SECRET)
    del headers[missing]
    assert refusal(verifier, headers) == missing


@pytest.mark.parametrize("seconds_ago", [301.0, -301.0], ids=["old", "ahead"])
def test_a_time_that_is_five_minutes_off_is_refused(
    verifier: SignatureVerifier, seconds_ago: float
) -> None:
    assert refusal(verifier, sign(BODY, SECRET, None, seconds_ago)) == "webhook-timestamp"


@pytest.mark.parametrize("seconds_ago", [290.0, -290.0], ids=["old", "ahead"])
def test_a_time_within_five_minutes_is_accepted(
    verifier: SignatureVerifier, seconds_ago: float
) -> None:
    verifier.verify(sign(BODY, SECRET, None, seconds_ago), BODY)


@pytest.mark.parametrize("time", ["now", "nan", "inf", "1e400", "-1e30"])
def test_a_time_that_is_no_number_is_refused(verifier: SignatureVerifier, time: str) -> None:
    assert refusal(verifier, sign(BODY, SECRET) | {"webhook-timestamp": time}) == (
        "webhook-timestamp"
    )


@pytest.mark.parametrize(
    "signature",
    ["v1,", "v1,AAAA", "v1", "nonsense", "v1,ü", "v1,a,b", "v1,===", "v2,AAAA", " ", "," * 100],
)
def test_a_malformed_signature_is_refused(verifier: SignatureVerifier, signature: str) -> None:
    headers = sign(BODY, SECRET) | {"webhook-signature": signature}
    assert refusal(verifier, headers) == "webhook-signature"


def test_another_secret_body_or_id_is_refused(verifier: SignatureVerifier) -> None:
    assert refusal(verifier, sign(BODY, OTHER_SECRET)) == "webhook-signature"
    assert refusal(verifier, sign(BODY, SECRET), BODY + " ") == "webhook-signature"
    assert refusal(verifier, sign(BODY, SECRET) | {"webhook-id": "x"}) == "webhook-signature"


def test_secrets_rotate_without_a_restart(secret_file: Path, verifier: SignatureVerifier) -> None:
    assert refusal(verifier, sign(BODY, OTHER_SECRET)) == "webhook-signature"
    secret_file.write_text(f"{SECRET}\n\n{OTHER_SECRET}\n")
    for secret in (SECRET, OTHER_SECRET):
        verifier.verify(sign(BODY, secret), BODY)
    # A sender may sign with both during the change.
    both = sign(BODY, SECRET, "m1")
    both["webhook-signature"] += " " + sign(BODY, OTHER_SECRET, "m1")["webhook-signature"]
    secret_file.write_text(f"{OTHER_SECRET}\n")
    verifier.verify(both, BODY)
    assert refusal(verifier, sign(BODY, SECRET)) == "webhook-signature"


def test_a_file_that_became_unusable_leaves_the_former_secrets(
    secret_file: Path, verifier: SignatureVerifier
) -> None:
    for content in ("nonsense\n", ""):
        secret_file.write_text(content)
        verifier.verify(sign(BODY, SECRET), BODY)
    secret_file.unlink()
    verifier.verify(sign(BODY, SECRET), BODY)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\xff", "is not UTF-8"),
        (
            SECRET.encode() + b"\nwhsec_c2hvcnQ=",
            "line 2 is no secret, must be whsec_ and the base6",
        ),
        (b"whsec_" + b"A" * 88, "24 to 64 bytes"),
        (b"whsec_not base64 at all, but long enough", "line 1 is no secret"),
    ],
    ids=["empty", "blank", "latin-1", "short", "long", "no base64"],
)
def test_an_unusable_file_is_refused_without_its_content(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "secrets"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_secrets(path)
    assert str(caught.value).startswith(f"--secret-file {path}: ")
    assert message in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_secrets(tmp_path / "nowhere")


@pytest.mark.process
def test_a_signed_message_is_answered_and_its_id_is_that_of_the_webhook(
    signed: RunningEndpoint,
) -> None:
    body = json.dumps({"session": new_session(), "text": "hello"})
    response = signed.send(body, **sign(body, SECRET, "msg-a"))
    assert (response.status_code, response.json()["message_id"]) == (200, "msg-a")


@pytest.mark.process
def test_a_replayed_request_gives_the_same_report(signed: RunningEndpoint, served: Served) -> None:
    body = json.dumps({"session": new_session(), "text": "a kettle"})
    headers = sign(body, SECRET, "msg-b")
    first = signed.send(body, **headers)
    calls = len(served.model.prompts)
    again = signed.send(body, **headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["actions"] == first.json()["actions"]
    assert len(served.model.prompts) == calls


@pytest.mark.process
def test_a_wrong_signature_or_an_old_time_is_answered_with_401(
    signed: RunningEndpoint, served: Served
) -> None:
    body = json.dumps({"session": new_session(), "text": "hello"})
    calls = len(served.model.prompts)
    wrong = signed.send(body, **sign(body, OTHER_SECRET))
    assert error(wrong) == (
        401,
        "webhook-signature",
        "no secret of this endpoint has made this signature",
    )
    assert wrong.headers["www-authenticate"] == "Webhook-Signature"
    old = signed.send(body, **sign(body, SECRET, None, 301))
    assert error(old) == (
        401,
        "webhook-timestamp",
        "must be the Unix time in seconds, at most 5 minutes from now",
    )
    assert len(served.model.prompts) == calls


@pytest.mark.process
def test_a_signature_is_verified_before_the_body_is_read_as_json(signed: RunningEndpoint) -> None:
    assert error(signed.send("{", webhook_signature="v1,AAAA"))[:2] == (401, "webhook-signature")
    assert error(signed.send("{"))[:2] == (400, "body")


@pytest.mark.process
def test_a_webhook_id_that_is_no_message_id_is_named(signed: RunningEndpoint) -> None:
    body = json.dumps({"session": new_session(), "text": "hello"})
    response = signed.send(body, **sign(body, SECRET, "x" * 201))
    assert error(response)[:2] == (422, "webhook-id")


def test_the_library_signs_what_the_page_says() -> None:
    """The signature covers id, time and content, joined by dots."""
    headers = sign(BODY, SECRET, "m1")
    signed = f"m1.{headers['webhook-timestamp']}.{BODY}".encode()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert Webhook(SECRET).verify(BODY, headers) == json.loads(BODY)

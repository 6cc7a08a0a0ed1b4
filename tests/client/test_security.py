"""Tests of TLS, client certificates and bearer tokens."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.certificates import AuthorityFiles, Pair
from tests.support.flaky_server import BOTH, FlakyService, ask, listening

from gpt2flow.client import (
    Client,
    Security,
    SettingsError,
    Tls,
    UnavailableError,
)

REMOTE = "192.0.2.1:50051"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> AuthorityFiles:
    return AuthorityFiles(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> AuthorityFiles:
    return AuthorityFiles(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def mine(authority: AuthorityFiles) -> Pair:
    return authority.pair("client")


@pytest.fixture(scope="module")
def secure(authority: AuthorityFiles) -> Iterator[tuple[str, FlakyService]]:
    """Server with a certificate of the authority."""
    flaky = FlakyService()
    with listening(flaky, _credentials(authority.pair("inner"))) as address:
        yield address, flaky


@pytest.fixture(scope="module")
def mutual(authority: AuthorityFiles) -> Iterator[str]:
    """Server that requires a client certificate of the authority."""
    credentials = _credentials(authority.pair("server"), authority.ca)
    with listening(FlakyService(), credentials) as address:
        yield address


def _credentials(pair: Pair, ca: Path | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        root_certificates=None if ca is None else ca.read_bytes(),
        require_client_auth=ca is not None,
    )


def call_model(kind: type[Any], address: str, security: Security) -> Any:
    return ask(kind, address, lambda c: c.model(), security=security, retry=None)


@pytest.mark.parametrize("kind", BOTH)
def test_tls_call_sends_the_token(
    kind: type[Any], secure: tuple[str, FlakyService], authority: AuthorityFiles
) -> None:
    address, flaky = secure
    assert call_model(kind, address, Security(tls=Tls(ca=authority.ca), token="s3cret"))  # noqa: S106 - made up
    assert flaky.calls[-1].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "security",
    [
        lambda _, other: Security(tls=Tls(ca=other.ca)),
        lambda _, __: Security(tls=Tls()),
        lambda _, __: Security(),
        lambda ours, _: Security(tls=Tls(ca=ours.ca, server_name="other.example")),
    ],
    ids=["another authority", "public authorities", "plain text", "another name"],
)
def test_an_untrusted_server_receives_no_call(
    kind: type[Any],
    secure: tuple[str, FlakyService],
    authority: AuthorityFiles,
    other: AuthorityFiles,
    security: Callable[[AuthorityFiles, AuthorityFiles], Security],
) -> None:
    address, flaky = secure
    before = len(flaky.calls)
    chosen = replace(security(authority, other), token="s3cret")  # noqa: S106 - made up
    with pytest.raises(UnavailableError, match=address):
        call_model(kind, address, chosen)
    assert len(flaky.calls) == before


@pytest.mark.parametrize("kind", BOTH)
def test_server_name_replaces_the_host_of_the_address(
    kind: type[Any], secure: tuple[str, FlakyService], authority: AuthorityFiles
) -> None:
    assert call_model(kind, secure[0], Security(tls=Tls(ca=authority.ca, server_name="inner")))


@pytest.mark.parametrize("kind", BOTH)
def test_mutual_tls_requires_a_certificate_of_the_authority(
    kind: type[Any], mutual: str, authority: AuthorityFiles, mine: Pair, other: AuthorityFiles
) -> None:
    tls = Tls(ca=authority.ca, certificate=mine.certificate, key=mine.key)
    assert call_model(kind, mutual, Security(tls=tls))
    stranger = other.pair("client")
    for untrusted in (
        Tls(ca=authority.ca),
        replace(tls, certificate=stranger.certificate, key=stranger.key),
    ):
        with pytest.raises(UnavailableError):
            call_model(kind, mutual, Security(tls=untrusted))


@pytest.mark.parametrize("kind", BOTH)
def test_a_changed_token_file_is_reread(kind: type[Any], tmp_path: Path) -> None:
    flaky, path = FlakyService(), tmp_path / "token"
    path.write_text("first\n")

    def replace_token(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(path)

    def sync_calls(client: Any) -> None:
        client.model()
        for change in changes:
            change()
            client.model()

    async def async_calls(client: Any) -> None:
        await client.model()
        for change in changes:
            change()
            await client.model()

    changes: list[Callable[[], Any]] = [
        lambda: replace_token("second"),
        # An invalid or missing file leaves the last valid token in use.
        lambda: replace_token("two\nlines"),
        lambda: replace_token(""),
        path.unlink,
        lambda: replace_token("third"),
        lambda: path.write_text("fourth"),
    ]
    calls = sync_calls if kind is Client else async_calls
    with listening(flaky) as address:
        ask(kind, address, calls, security=Security(token=path))
    tokens = [call.metadata["authorization"] for call in flaky.calls]
    names = ["first", "second", "second", "second", "second", "third", "fourth"]
    assert tokens == [f"Bearer {name}" for name in names]


@pytest.mark.parametrize("kind", BOTH)
def test_without_a_token_no_authorization_is_sent(kind: type[Any]) -> None:
    flaky = FlakyService()
    with listening(flaky) as address:
        call_model(kind, address, Security())
    assert "authorization" not in flaky.calls[0].metadata


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "address",
    [
        REMOTE,
        "server.example:50051",
        "dns:///server.example:1",
        "[2001:db8::1]:1",
        "localhost.evil:1",
    ],
)
def test_a_token_does_not_leave_the_machine_in_plain_text(kind: type[Any], address: str) -> None:
    with pytest.raises(SettingsError, match="in plain text"):
        kind(address, security=Security(token="s3cret"))  # noqa: S106 - made up


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.8.8.8:1",
        "localhost:1",
        "[::1]:1",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "ipv6:[::1]:1",
        "unix:/nowhere",
        "unix:///nowhere",
    ],
)
def test_a_token_may_be_sent_in_plain_text_on_this_machine(address: str) -> None:
    Client(address, security=Security(token="s3cret")).close()  # noqa: S106 - made up


def test_plain_text_can_be_allowed_explicitly() -> None:
    security = Security(token="s3cret", token_in_plain_text=True)  # noqa: S106 - made up
    Client(REMOTE, security=security).close()
    assert "s3cret" not in repr(security)


def test_local_calls_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = FlakyService()
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with listening(flaky) as address:
        assert call_model(Client, address, Security(token="s3cret"))  # noqa: S106 - made up


@pytest.mark.parametrize(
    "settings, message",
    [
        (lambda p: {"tls": Tls(ca=p / "no.pem")}, "ca: cannot read .*no.pem: No such file"),
        (lambda p: {"tls": Tls(ca=p)}, "ca: cannot read .*: Is a directory"),
        (lambda p: {"tls": Tls(ca=p / "text")}, "ca: .*text holds no certificate in PEM"),
        (
            lambda p: {"tls": Tls(certificate=p / "text", key=p / "text")},
            "key: .*text holds no private key in PEM",
        ),
        (lambda p: {"tls": Tls(key=p)}, "key is given without certificate"),
        (lambda p: {"tls": Tls(certificate=p)}, "certificate is given without key"),
        (lambda p: {"token": p / "no"}, "token: cannot read .*no: No such file"),
        (lambda p: {"token": p / "text"}, "token of .*text must be printable ASCII"),
        (lambda p: {"token": p / "empty"}, "token of .*empty is empty"),
        (lambda _: {"token": ""}, "token is empty"),
        (lambda _: {"token": "naïve"}, "token must be printable ASCII"),
        (lambda _: {"token": "a\r\nb"}, "token must be printable ASCII"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_invalid_settings_are_named(
    kind: type[Any], tmp_path: Path, settings: Callable[[Path], dict[str, Any]], message: str
) -> None:
    (tmp_path / "text").write_text("two words")
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match=message) as caught:
        kind("127.0.0.1:1", security=Security(**settings(tmp_path)))
    assert "two words" not in str(caught.value)

"""TLS, client certificates and tokens, against servers that ask for them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.certificates import AuthorityFiles, Pair
from tests.support.flaky_server import BOTH, Flaky, ask, listening

from gpt2flow.client import (
    Client,
    Security,
    SettingsError,
    Tls,
    UnavailableError,
)

FAR = "192.0.2.1:50051"


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
def secure(authority: AuthorityFiles) -> Iterator[tuple[str, Flaky]]:
    """A server that shows a certificate of the authority."""
    flaky = Flaky()
    with listening(flaky, _credentials(authority.pair("inner"))) as address:
        yield address, flaky


@pytest.fixture(scope="module")
def mutual(authority: AuthorityFiles) -> Iterator[str]:
    """A server that wants one of the client too."""
    credentials = _credentials(authority.pair("server"), authority.ca)
    with listening(Flaky(), credentials) as address:
        yield address


def _credentials(pair: Pair, ca: Path | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        root_certificates=None if ca is None else ca.read_bytes(),
        require_client_auth=ca is not None,
    )


def model(kind: type[Any], address: str, security: Security) -> Any:
    return ask(kind, address, lambda c: c.model(), security=security, retry=None)


@pytest.mark.parametrize("kind", BOTH)
def test_tls_with_a_token(
    kind: type[Any], secure: tuple[str, Flaky], authority: AuthorityFiles
) -> None:
    address, flaky = secure
    assert model(kind, address, Security(tls=Tls(ca=authority.ca), token="s3cret"))  # noqa: S106 - made up
    assert flaky.seen[-1].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "security",
    [
        lambda _, other: Security(tls=Tls(ca=other.ca)),
        lambda _, __: Security(tls=Tls()),
        lambda _, __: Security(),
        lambda ours, _: Security(tls=Tls(ca=ours.ca, server_name="somebody.example")),
    ],
    ids=["another authority", "public authorities", "plain text", "another name"],
)
def test_a_server_that_is_not_the_right_one_gets_nothing(
    kind: type[Any],
    secure: tuple[str, Flaky],
    authority: AuthorityFiles,
    other: AuthorityFiles,
    security: Callable[[AuthorityFiles, AuthorityFiles], Security],
) -> None:
    address, flaky = secure
    before = len(flaky.seen)
    chosen = replace(security(authority, other), token="s3cret")  # noqa: S106 - made up
    with pytest.raises(UnavailableError, match=address):
        model(kind, address, chosen)
    assert len(flaky.seen) == before


@pytest.mark.parametrize("kind", BOTH)
def test_a_name_instead_of_the_address(
    kind: type[Any], secure: tuple[str, Flaky], authority: AuthorityFiles
) -> None:
    assert model(kind, secure[0], Security(tls=Tls(ca=authority.ca, server_name="inner")))


@pytest.mark.parametrize("kind", BOTH)
def test_mutual_tls(
    kind: type[Any], mutual: str, authority: AuthorityFiles, mine: Pair, other: AuthorityFiles
) -> None:
    tls = Tls(ca=authority.ca, certificate=mine.certificate, key=mine.key)
    assert model(kind, mutual, Security(tls=tls))
    stranger = other.pair("client")
    for wrong in (
        Tls(ca=authority.ca),
        replace(tls, certificate=stranger.certificate, key=stranger.key),
    ):
        with pytest.raises(UnavailableError):
            model(kind, mutual, Security(tls=wrong))


@pytest.mark.parametrize("kind", BOTH)
def test_a_token_file_is_read_again_when_it_changes(kind: type[Any], tmp_path: Path) -> None:
    flaky, path = Flaky(), tmp_path / "token"
    path.write_text("first\n")

    def put(text: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.replace(path)

    def sync_question(client: Any) -> None:
        client.model()
        for change in changes:
            change()
            client.model()

    async def async_question(client: Any) -> None:
        await client.model()
        for change in changes:
            change()
            await client.model()

    changes: list[Callable[[], Any]] = [
        lambda: put("second"),
        # What is no token, and what is not there, leaves the last one.
        lambda: put("two\nlines"),
        lambda: put(""),
        path.unlink,
        lambda: put("third"),
        lambda: path.write_text("fourth"),
    ]
    question = sync_question if kind is Client else async_question
    with listening(flaky) as address:
        ask(kind, address, question, security=Security(token=path))
    tokens = [call.metadata["authorization"] for call in flaky.seen]
    names = ["first", "second", "second", "second", "second", "third", "fourth"]
    assert tokens == [f"Bearer {name}" for name in names]


@pytest.mark.parametrize("kind", BOTH)
def test_no_token_sends_none(kind: type[Any]) -> None:
    flaky = Flaky()
    with listening(flaky) as address:
        model(kind, address, Security())
    assert "authorization" not in flaky.seen[0].metadata


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "address",
    [FAR, "server.example:50051", "dns:///server.example:1", "[2001:db8::1]:1", "localhost.evil:1"],
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
def test_it_may_stay_on_the_machine(address: str) -> None:
    Client(address, security=Security(token="s3cret")).close()  # noqa: S106 - made up


def test_plain_text_can_be_asked_for() -> None:
    security = Security(token="s3cret", token_in_plain_text=True)  # noqa: S106 - made up
    Client(FAR, security=security).close()
    assert "s3cret" not in repr(security)


def test_what_is_for_this_machine_passes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky()
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with listening(flaky) as address:
        assert model(Client, address, Security(token="s3cret"))  # noqa: S106 - made up


@pytest.mark.parametrize(
    "settings, says",
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
def test_bad_settings_are_named(
    kind: type[Any], tmp_path: Path, settings: Callable[[Path], dict[str, Any]], says: str
) -> None:
    (tmp_path / "text").write_text("two words")
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match=says) as caught:
        kind("127.0.0.1:1", security=Security(**settings(tmp_path)))
    assert "two words" not in str(caught.value)

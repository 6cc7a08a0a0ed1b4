"""Keys, hosts, TLS, and the size and type of bodies."""

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.certificates import AuthorityFiles
from tests.support.command_line import gpt2flow
from tests.support.gateway_process import PROMPT, RunningGateway, answered, gateway_process, refusal
from tests.support.project import SHIPPED_BUNDLE
from tests.support.protected_server import Protected, protected_server
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

BODY = json.dumps({"model": "shop", "prompt": PROMPT, "max_tokens": 1})
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """Server with TLS and a token."""
    with protected_server(tmp_path_factory.mktemp("protected")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(
    protected: Protected, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """Gateway in front of it."""
    authority = str(protected.folder / "ca.pem")
    folder = tmp_path_factory.mktemp("guarded")
    with gateway_process(protected.address, folder, "--tls-ca", authority) as gateway:
        yield gateway


def post(gateway: RunningGateway, body: str | bytes = BODY, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.client.post("/v1/completions", content=body, headers=JSON | named)


def test_the_key_is_the_token_of_the_server(guarded: RunningGateway, protected: Protected) -> None:
    bearer = {"authorization": f"Bearer {protected.token}"}
    assert answered(post(guarded, **bearer))
    assert answered(guarded.client.get("/v1/models", headers=bearer))
    stream = json.dumps(json.loads(BODY) | {"stream": True})
    assert "[DONE]" in post(guarded, stream, **bearer).text


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer", "Basic abc", "Bearer a b", "Bearer \x7f"]
)
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_a_wrong_key_is_refused(guarded: RunningGateway, header: str | None, kind: str) -> None:
    headers = {} if header is None else {"authorization": header}
    response = post(guarded, json.dumps(json.loads(BODY) | {"stream": kind == "stream"}), **headers)
    status, _, code, _ = refusal(response)
    assert (status, code) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_of_one_request_serves_no_other(
    guarded: RunningGateway, protected: Protected
) -> None:
    """Both use the same connection, to the gateway and to the server."""
    for _ in range(3):
        assert post(guarded, authorization=f"Bearer {protected.token}").status_code == 200
        assert post(guarded).status_code == 401


def test_a_gateway_is_ready_without_a_key(guarded: RunningGateway) -> None:
    for path in ("/readyz", "/health"):
        assert answered(guarded.client.get(path)) == {"status": "ready", "failing": []}


def test_a_key_has_its_own_limits(tmp_path: Path) -> None:
    _, out, _ = gpt2flow("token", "limited", "--json")
    token = json.loads(out)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'{token["entry"]}max_new_tokens = 5\nmodels = ["shop"]\n')
    tokens.chmod(0o600)
    server = server_process(SHIPPED_BUNDLE, tmp_path, f"--tokens={tokens}", name="shop")
    folder = tmp_path / "gateway"
    folder.mkdir()
    with server as running, gateway_process(running.address, folder) as gateway:
        gateway.client.headers["authorization"] = f"Bearer {token['token']}"
        assert answered(gateway.complete(max_tokens=5))
        status, _, code, text = refusal(gateway.complete(max_tokens=6))
        assert (status, code) == (403, "permission_denied")
        assert "5" in text


def test_the_trace_of_a_request_goes_on_in_the_server(gateway: RunningGateway) -> None:
    """A header that is no trace must not fail the call."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert answered(post(gateway, traceparent=trace))
    headers = JSON | {"traceparent": "a\x7fb"}
    assert answered(gateway.client.post("/v1/completions", content=BODY, headers=headers))


def test_the_id_of_a_request_is_that_of_its_call(
    gateway: RunningGateway, server: ServerProcess
) -> None:
    response = post(gateway, x_request_id="order-17")
    assert response.headers["x-request-id"] == "order-17"
    assert response.json()["id"] == "cmpl-order-17"
    eventually(lambda: any(e["request_id"] == "order-17" for e in server.events("rpc")))
    assert len(post(gateway, x_request_id="two parts").headers["x-request-id"]) == 32


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_name_that_resolves_to_this_machine_is_refused(
    gateway: RunningGateway, host: str
) -> None:
    status, param, _, _ = refusal(post(gateway, host=host))
    assert (status, param) == (421, "host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2:99", "[::1]:8000"])
def test_names_of_this_machine_are_accepted(gateway: RunningGateway, host: str) -> None:
    assert answered(post(gateway, host=host))


def test_a_proxy_may_pass_on_a_name(server: ServerProcess, tmp_path: Path) -> None:
    option = ("--allowed-host", "API.example")
    with gateway_process(server.address, tmp_path, *option) as gateway:
        assert answered(post(gateway, host="api.example:443"))
        assert refusal(post(gateway, host="other.example"))[0] == 421


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_a_page_in_a_browser_cannot_post(gateway: RunningGateway, kind: str) -> None:
    status, param, _, _ = refusal(post(gateway, content_type=kind))
    assert (status, param) == (415, "content-type")


def test_a_body_has_a_largest_size(server: ServerProcess, tmp_path: Path) -> None:
    with gateway_process(server.address, tmp_path, "--max-body-bytes", "100") as gateway:
        small = json.dumps({"model": "shop", "prompt": "x"})
        assert answered(post(gateway, small))
        status, param, _, text = refusal(post(gateway, " " * 101))
        assert (status, param) == (413, "body")
        assert "100" in text

        def chunks() -> Iterator[bytes]:
            for _ in range(20):
                yield b" " * 10

        response = gateway.client.post("/v1/completions", content=chunks(), headers=JSON)
        assert refusal(response)[0] == 413


def test_a_body_that_does_not_come_leaves_nothing(gateway: RunningGateway) -> None:
    port = gateway.client.base_url.port
    with socket.create_connection(("127.0.0.1", port or 0)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n"
            b"content-type: application/json\r\n\r\n{"
        )
    assert answered(post(gateway))


@pytest.mark.parametrize(
    "method, path, status",
    [("GET", "/v1/completions", 405), ("POST", "/v1/embeddings", 404), ("GET", "/", 404)],
)
def test_an_unknown_route_is_an_error_in_the_same_form(
    gateway: RunningGateway, method: str, path: str, status: int
) -> None:
    found, _, code, text = refusal(gateway.client.request(method, path))
    assert (found, code) == (status, "unknown_url")
    assert path in text


def test_https_serves_with_the_certificate(server: ServerProcess, tmp_path: Path) -> None:
    pair = AuthorityFiles(tmp_path, "ca").pair("server")
    options = ("--https-certificate", str(pair.certificate), "--https-key", str(pair.key))
    with gateway_process(server.address, tmp_path, *options) as gateway:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        url = f"https://127.0.0.1:{gateway.client.base_url.port}/v1/models"
        assert httpx.get(url, verify=context, trust_env=False).status_code == 200


def run(*options: str) -> tuple[int, str]:
    """Return exit code and error of the command."""
    code, out, error = gpt2flow("gateway", *options)
    assert out == ""
    assert error.count("\n") == 1
    return code, error


def test_plain_http_for_other_machines_needs_a_word() -> None:
    code, error = run("--address", "0.0.0.0:0")
    assert code == 2
    assert "--https-certificate" in error
    assert "--plain-http" in error


def test_plain_http_is_served_on_request(server: ServerProcess, tmp_path: Path) -> None:
    address = ("--address", "0.0.0.0:0", "--plain-http")
    with gateway_process(server.address, tmp_path, *address) as gateway:
        # A name that the outside knows is none that this machine has.
        assert answered(post(gateway, host="gateway.example"))


def test_keys_do_not_travel_in_plain_text() -> None:
    code, error = run("--address", "127.0.0.1:0", "--server", "gpt2flow.example:50051")
    assert code == 2
    assert "plain text" in error
    assert "--insecure" in error


def test_a_bad_option_ends_the_command_with_one_line() -> None:
    code, error = run("--address", "127.0.0.1:0", "--chat-template", "absent.jinja")
    assert code == 2
    assert "chat_template absent.jinja: No such file" in error


def test_an_address_in_use_is_a_failure(gateway: RunningGateway) -> None:
    code, error = run("--address", f"127.0.0.1:{gateway.client.base_url.port}")
    assert code == 1
    assert "cannot listen on" in error

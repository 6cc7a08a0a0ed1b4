"""Addresses to listen on and to connect to, and URLs of services."""

import asyncio
import socket

import pytest
from tests.support.waiting import SECONDS

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import ListenError, bind, parse_address, parse_url
from gpt2flow.web.addresses import is_loopback

REMEDY = "name the secrets"


@pytest.mark.parametrize(
    "text, address",
    [
        ("[::1]:80", ("::1", 80)),
        ("shop.example:8080", ("shop.example", 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "address") == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "here", ":80", "host:", "host:smtp", "host:65536", "host:-1", "host:８０"),
        *("::1:80", "[::1", "[::1]", "u@host:80", "host:80/x", "http://host:80", "host:80\n"),
    ],
)
def test_another_text_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="must be host:port with a port from 0 to 65535") as caught:
        parse_address(text, "--smtp")
    assert str(caught.value).startswith(f"--smtp is {text!r}, ")


def test_an_address_to_connect_to_has_a_port() -> None:
    assert parse_address("mail.example:1", "--smtp", lowest_port=1) == ("mail.example", 1)
    with pytest.raises(InputError, match="with a port from 1 to 65535"):
        parse_address("mail.example:0", "--smtp", lowest_port=1)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_a_loopback_address_is_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.1", "::", "localhost.example", ""])
def test_other_machines_reach_every_other_host(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/hook?x=1", "http://127.0.0.1:8090", "http://[::1]/", "http://localhost"],
)
def test_a_url_is_https_or_of_this_machine(url: str) -> None:
    assert str(parse_url(url, "--webhook")) == url


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://a.example", "must be https except on this machine"),
        ("ftp://127.0.0.1", "must be an https URL"),
        ("a.example", "must be an https URL"),
        ("https://", "must be an https URL"),
        ("https://a.example:99999", "which is no URL: Port out of range 0-65535"),
        ("http://127.0.0.1:-1", "which is no URL: Port"),
        ("http://[::1", "which is no URL"),
        ("https://xn--/", "which is no URL"),
        ("https://a.example:٣", "which is no URL"),
        ("https://a.example/\n", "which is no URL"),
        ("https://ann:geheim@a.example", "has a user or a password, which a URL must not show"),
    ],
)
def test_another_url_is_refused_in_one_line(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_url(url, "--webhook")
    assert str(caught.value).startswith("--webhook ")
    assert len(str(caught.value).splitlines()) == 1
    assert "geheim" not in str(caught.value)


@pytest.mark.process
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_reach_is_refused_with_its_remedy(address: str) -> None:
    with pytest.raises(InputError, match=f"other machines can reach: {REMEDY}, or listen on 127"):
        bind(address, "address", remedy=REMEDY)
    with bind(address, "address"):
        pass
    for local in ("127.0.0.1:0", "localhost:0"):
        with bind(local, "address", remedy=REMEDY):
            pass


@pytest.mark.process
def test_an_address_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"cannot listen on {address}: Address already in"):
            bind(address, "address")
    with pytest.raises(ListenError, match=r"cannot listen on no\.such\.host\.invalid:80: "):
        bind("no.such.host.invalid:80", "address")


async def test_a_connection_sends_small_answers_at_once() -> None:
    """A page in two writes waited 40 ms for the receiver's acknowledgement."""
    delays: list[int] = []
    done = asyncio.Event()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        done.set()

    with bind("127.0.0.1:0", "address") as bound:
        async with await asyncio.start_server(answer, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            await asyncio.wait_for(done.wait(), SECONDS)
            writer.close()
    assert delays == [1]

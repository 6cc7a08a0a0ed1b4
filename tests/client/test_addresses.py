"""Several addresses of one client: sessions, failures and turns."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.flaky_server import BOTH, Failure, FlakyService, ask, listening
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process

from gpt2flow.client import Client, Options, Retry, Sampling, SettingsError, UnavailableError
from gpt2flow.client import addresses as addresses_module
from gpt2flow.client.addresses import AddressBook, parse_addresses, rank_addresses

QUICK = Retry(attempts=4, first_delay=0.001, max_delay=0.002)
DOWN = Failure(grpc.StatusCode.UNAVAILABLE)
NO_ADDRESSES = [None, 1, b"a:1", "", ",", "a:1,,b:2", "a:1,\n", [], [""], ["a:1", 2], {"a:1"}]

ADDRESSES = st.lists(
    st.builds(
        "{}:{}".format, st.sampled_from(["10.0.0.1", "10.0.0.2", "shop"]), st.integers(1, 999)
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(ADDRESSES, st.text(min_size=1), st.randoms())
def test_the_order_of_a_session_depends_on_the_set_of_addresses(
    addresses: list[str], session: str, random: Any
) -> None:
    shuffled = random.sample(addresses, len(addresses))
    order = rank_addresses(session, addresses)
    assert sorted(order) == sorted(addresses)
    assert rank_addresses(session, shuffled) == order


@given(ADDRESSES, st.text(min_size=1))
def test_an_address_that_goes_leaves_the_order_of_the_others(
    addresses: list[str], session: str
) -> None:
    order = rank_addresses(session, addresses)
    for gone in addresses:
        rest = [address for address in addresses if address != gone]
        assert rank_addresses(session, rest) == [each for each in order if each != gone]


@given(ADDRESSES)
def test_a_further_address_takes_its_share_of_the_sessions(addresses: list[str]) -> None:
    sessions = [f"session {number}" for number in range(1000)]
    more = [*addresses, "10.0.0.9:1000"]
    before = {session: rank_addresses(session, addresses)[0] for session in sessions}
    after = {session: rank_addresses(session, more)[0] for session in sessions}
    moved = {session for session in sessions if before[session] != after[session]}
    assert {after[session] for session in moved} == {"10.0.0.9:1000"}
    # Six standard deviations of a binomial share.
    share = 1 / len(more)
    assert abs(len(moved) / 1000 - share) < 6 * (share * (1 - share) / 1000) ** 0.5


@contextmanager
def two(*services: FlakyService) -> Iterator[list[str]]:
    """Run services until the block ends and yield their addresses."""
    with ExitStack() as stack:
        yield [stack.enter_context(listening(service)) for service in services]


def session_of(address: str, addresses: list[str]) -> str:
    """Return a session that prefers an address."""
    return next(s for s in map(str, range(1000)) if rank_addresses(s, addresses)[0] == address)


def stream(client: Any, session: str | None) -> Any:
    return client.stream("hello", session=session)


@pytest.mark.parametrize("kind", BOTH)
def test_the_calls_of_a_session_go_to_one_address(kind: type[Any]) -> None:
    services = FlakyService(), FlakyService()
    with two(*services) as addresses:
        for service, address in zip(services, addresses, strict=True):
            session = session_of(address, addresses)
            for listed in (addresses, addresses[::-1], ",".join(addresses)):
                ask(kind, listed, partial(stream, session=session))
            assert len(service.calls) == 3
    assert [len(service.calls) for service in services] == [3, 3]


@pytest.mark.parametrize("session", ["7", None])
def test_calls_without_a_session_take_turns(session: str | None) -> None:
    services = FlakyService(), FlakyService()
    with two(*services) as addresses, Client(addresses) as client:
        for _ in range(6):
            list(client.stream("hello", session=session))
    assert sorted(len(service.calls) for service in services) == ([0, 6] if session else [3, 3])


@pytest.mark.parametrize("kind", BOTH)
def test_a_call_whose_address_fails_is_tried_at_the_next(kind: type[Any]) -> None:
    services = FlakyService([DOWN] * 9), FlakyService()
    with two(*services) as addresses:
        session = session_of(addresses[0], addresses)
        items = ask(kind, addresses, lambda c: stream(c, session), retry=QUICK)
    assert items
    assert [len(service.calls) for service in services] == [1, 1]
    ids = {call.metadata["x-request-id"] for service in services for call in service.calls}
    assert len(ids) == 1


def test_a_failed_address_is_set_aside_and_gets_its_sessions_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = FlakyService([DOWN]), FlakyService()
    with two(*services) as addresses, Client(addresses, retry=QUICK) as client:
        session = session_of(addresses[0], addresses)
        for _ in range(3):
            list(client.stream("hello", session=session))
        assert [len(service.calls) for service in services] == [1, 3]
        monkeypatch.setattr(addresses_module, "monotonic", lambda: monotonic() + 5.0)
        list(client.stream("hello", session=session))
        assert [len(service.calls) for service in services] == [2, 3]


def test_a_full_queue_sets_no_address_aside() -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.001)
    services = FlakyService([full]), FlakyService()
    with two(*services) as addresses, Client(addresses, retry=QUICK) as client:
        list(client.stream("hello", session=session_of(addresses[0], addresses)))
    assert [len(service.calls) for service in services] == [2, 0]


@pytest.mark.parametrize("kind", BOTH)
def test_a_call_fails_if_no_address_answers(kind: type[Any]) -> None:
    services = FlakyService([DOWN] * 9), FlakyService([DOWN] * 9)
    with two(*services) as addresses, pytest.raises(UnavailableError) as caught:
        ask(kind, addresses, lambda c: stream(c, "7"), retry=QUICK)
    assert any(address in str(caught.value) for address in addresses)
    assert [len(service.calls) for service in services] == [2, 2]


def test_with_none_healthy_the_first_that_failed_is_tried() -> None:
    book = AddressBook(["a:1", "b:2", "c:3"])
    for address in ("b:2", "a:1", "c:3"):
        book.set_aside(address)
        sleep(0.001)
    assert {book.choose(session) for session in ("1", "2", "3", None)} == {"b:2"}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("address", NO_ADDRESSES, ids=repr)
def test_an_address_that_is_none_is_refused(kind: type[Any], address: Any) -> None:
    with pytest.raises(SettingsError, match=r"^address.* is .*, must be "):
        ask(kind, address, lambda c: c.models())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("session", ["", 1, b"a", ["a"], "a\ud800"], ids=ascii)
def test_a_session_that_is_none_is_refused(kind: type[Any], session: Any) -> None:
    with pytest.raises(SettingsError, match=r"^session is .*, must be "):
        ask(kind, "127.0.0.1:1", lambda c: c.generate("hello", session=session))


def test_commas_in_paths_and_in_targets_of_grpc_separate_no_addresses() -> None:
    for whole in ("unix:/tmp/a,b", "ipv4:10.0.0.1:1,10.0.0.2:2"):
        assert parse_addresses(whole) == (whole,)
    assert parse_addresses(" a:1 , b:2,a:1") == ("a:1", "b:2")


def test_sessions_survive_a_server_that_is_gone(tmp_path: Path) -> None:
    options = Options(Sampling(temperature=0), max_new_tokens=4)
    with ExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(stack.enter_context(server_process(SHIPPED_BUNDLE, folder, limits=())))
        addresses = [server.address for server in servers]
        client = stack.enter_context(Client(addresses))
        sessions = [session_of(address, addresses) for address in addresses]
        prompts = {session: f"<|state|>guest<|user|>{session} umbrellas" for session in sessions}

        def turn() -> Counter[str]:
            """Continue the conversation of each session; count its cached tokens."""
            cached: Counter[str] = Counter()
            for session, prompt in prompts.items():
                answer = client.generate(prompt, options, session=session)
                prompts[session] = prompt + answer.text + " please"
                cached[session] = answer.usage.cached_tokens
            return cached

        turn()
        assert all(turn().values())
        servers[0].process.kill()
        turn()
        assert all(turn().values())

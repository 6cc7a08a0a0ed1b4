"""A call is tried again where that is safe, and nowhere else."""

import asyncio
import socket
import threading
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.flaky_server import BOTH, Failure, Flaky, ask, listening

from gpt2flow.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    Delta,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Retry,
    ServerError,
    SettingsError,
    UnauthenticatedError,
    UnavailableError,
)
from gpt2flow.client.retry import Attempts

DOWN = Failure(grpc.StatusCode.UNAVAILABLE)
QUICK = Retry(attempts=3, first_delay=0.001, max_delay=0.002)


def full(delay: float | None) -> Failure:
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, delay)


@pytest.mark.parametrize("kind", BOTH)
def test_what_may_pass_is_tried_again(kind: type[Any]) -> None:
    flaky = Flaky([DOWN, full(0.3)])
    with listening(flaky) as address:
        model = ask(kind, address, lambda c: c.model(), retry=QUICK, timeout=10.0)
    assert model.name == "first"
    _, second, third = flaky.seen
    assert third.at - second.at >= 0.3
    ids = {call.metadata["x-request-id"] for call in flaky.seen}
    assert len(ids) == 1
    # All attempts share one deadline.
    assert third.seconds < 9.75


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "retry, calls", [(None, 1), (Retry(attempts=1), 1), (QUICK, 3), (Retry(first_delay=0.001), 4)]
)
def test_attempts_are_counted(kind: type[Any], retry: Retry | None, calls: int) -> None:
    flaky = Flaky([DOWN] * 10)
    with listening(flaky) as address, pytest.raises(UnavailableError, match="told to"):
        ask(kind, address, lambda c: c.model(), retry=retry)
    assert len(flaky.seen) == calls


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "failure, error",
    [
        # The server did not say when.
        (full(None), OverloadedError),
        # Not within the deadline.
        (full(3600.0), OverloadedError),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT), InvalidRequestError),
        (Failure(grpc.StatusCode.NOT_FOUND), NotFoundError),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceededError),
        (Failure(grpc.StatusCode.UNAUTHENTICATED), UnauthenticatedError),
        (Failure(grpc.StatusCode.PERMISSION_DENIED), PermissionDeniedError),
        (Failure(grpc.StatusCode.INTERNAL), ServerError),
    ],
)
def test_what_does_not_pass_is_raised_at_once(
    kind: type[Any], failure: Failure, error: type[ClientError]
) -> None:
    flaky = Flaky([failure])
    with listening(flaky) as address, pytest.raises(ClientError) as caught:
        ask(kind, address, lambda c: c.model(request_id="r-1"), retry=QUICK)
    assert type(caught.value) is error
    assert caught.value.code == failure.code
    assert caught.value.request_id == "r-1"
    assert len(flaky.seen) == 1


@pytest.mark.parametrize("kind", BOTH)
def test_a_stream_is_tried_again_before_its_first_delta(kind: type[Any]) -> None:
    flaky = Flaky([DOWN, full(0.0)])
    with listening(flaky) as address:
        *deltas, end = ask(kind, address, lambda c: c.stream("x"), retry=QUICK)
    assert [delta.text for delta in deltas] == ["0 ", "1 "]
    assert end.text == "0 1 "
    assert len(flaky.seen) == 3


@pytest.mark.parametrize("kind", BOTH)
def test_a_stream_is_never_tried_again_after_its_first_delta(kind: type[Any]) -> None:
    flaky = Flaky([Failure(grpc.StatusCode.UNAVAILABLE, deltas=1)])
    got: list[Delta] = []

    def sync_question(client: Client) -> None:
        for item in client.stream("x"):
            assert isinstance(item, Delta)
            got.append(item)

    async def async_question(client: AsyncClient) -> None:
        async for item in client.stream("x"):
            assert isinstance(item, Delta)
            got.append(item)

    question = sync_question if kind is Client else async_question
    with listening(flaky) as address, pytest.raises(UnavailableError):
        ask(kind, address, question, retry=QUICK)
    assert len(flaky.seen) == 1
    assert [delta.text for delta in got] == ["0 "]


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_comes_late_is_found(kind: type[Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patient = Retry(attempts=100, max_delay=0.2)
    with ExitStack() as server:
        late = threading.Timer(0.3, lambda: server.enter_context(listening(Flaky(), port=port)))
        late.start()
        model = ask(kind, f"127.0.0.1:{port}", lambda c: c.model(), retry=patient)
        late.join()
    assert model.name == "first"


@pytest.mark.parametrize("kind", BOTH)
def test_the_deadline_ends_a_call_that_hangs(kind: type[Any]) -> None:
    flaky = Flaky()
    flaky.pause.clear()
    with listening(flaky) as address:
        with pytest.raises(DeadlineExceededError):
            ask(kind, address, lambda c: c.model(timeout=0.1), retry=QUICK)
        flaky.pause.set()
    [call] = flaky.seen
    assert call.seconds <= 0.1


def test_cancelling_ends_the_wait_for_the_next_attempt() -> None:
    flaky = Flaky([full(50.0)])

    async def impatient() -> None:
        async with AsyncClient(address) as client, asyncio.timeout(0.2):
            await client.model()

    with listening(flaky) as address, pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert len(flaky.seen) == 1


@given(
    attempts=st.integers(1, 20),
    first=st.floats(0.001, 10),
    longest=st.floats(10, 100),
    delay=st.none() | st.floats(0, 100),
)
def test_pauses_are_bounded(
    attempts: int, first: float, longest: float, delay: float | None
) -> None:
    retry = Retry(attempts=attempts, first_delay=first, max_delay=longest)
    tries = Attempts(retry, seconds=1e9)
    error: ClientError = UnavailableError("", grpc.StatusCode.UNAVAILABLE)
    if delay is not None:
        error = OverloadedError("", grpc.StatusCode.RESOURCE_EXHAUSTED, delay)
    pauses = [tries.pause_after(error) for _ in range(attempts)]
    assert pauses.pop() is None
    for i, pause in enumerate(pauses):
        assert pause is not None
        whole = min(longest, first * 2**i)
        least, most = (2 / 3 * whole, whole) if delay is None else (delay, delay + whole / 3)
        assert least <= pause <= most * 1.000001


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"attempts": 0}, "attempts is 0, must be at least 1"),
        ({"first_delay": 0.0}, "first_delay is 0.0"),
        ({"first_delay": 9.0}, "max_delay 5.0"),
        ({"max_delay": float("inf")}, "max_delay inf"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Retry(**settings)

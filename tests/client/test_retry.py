"""Tests that calls are retried exactly if a retry is safe."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.flaky_server import BOTH, Failure, FlakyService, ask, listening

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
def test_transient_failures_are_retried(kind: type[Any]) -> None:
    flaky = FlakyService([DOWN, full(0.3)])
    with listening(flaky) as address:
        model = ask(kind, address, lambda c: c.model(), retry=QUICK, timeout=10.0)
    assert model.name == "first"
    _, second, third = flaky.calls
    assert third.at - second.at >= 0.3
    ids = {call.metadata["x-request-id"] for call in flaky.calls}
    assert len(ids) == 1
    # All attempts share one deadline; gRPC sends a longer one rounded to seconds.
    assert third.seconds < 9.75


@pytest.mark.parametrize("kind", BOTH)
def test_each_attempt_has_the_metadata_of_its_time(kind: type[Any]) -> None:
    flaky, numbers = FlakyService([DOWN]), count()

    def metadata() -> tuple[tuple[str, str], ...]:
        return (("traceparent", str(next(numbers))),)

    with listening(flaky) as address:
        ask(kind, address, lambda c: c.model(), retry=QUICK, metadata=metadata)
    assert [call.metadata["traceparent"] for call in flaky.calls] == ["0", "1"]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "retry, calls", [(None, 1), (Retry(attempts=1), 1), (QUICK, 3), (Retry(first_delay=0.001), 4)]
)
def test_the_number_of_attempts_is_limited(
    kind: type[Any], retry: Retry | None, calls: int
) -> None:
    flaky = FlakyService([DOWN] * 10)
    with listening(flaky) as address, pytest.raises(UnavailableError, match="injected failure"):
        ask(kind, address, lambda c: c.model(), retry=retry)
    assert len(flaky.calls) == calls


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "failure, error",
    [
        # The server sent no retry delay.
        (full(None), OverloadedError),
        # The retry delay outlasts the deadline.
        (full(3600.0), OverloadedError),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT), InvalidRequestError),
        (Failure(grpc.StatusCode.NOT_FOUND), NotFoundError),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceededError),
        (Failure(grpc.StatusCode.UNAUTHENTICATED), UnauthenticatedError),
        (Failure(grpc.StatusCode.PERMISSION_DENIED), PermissionDeniedError),
        (Failure(grpc.StatusCode.INTERNAL), ServerError),
    ],
)
def test_permanent_failures_are_raised_at_once(
    kind: type[Any], failure: Failure, error: type[ClientError]
) -> None:
    flaky = FlakyService([failure])
    with listening(flaky) as address, pytest.raises(ClientError) as caught:
        ask(kind, address, lambda c: c.model(request_id="r-1"), retry=QUICK)
    assert type(caught.value) is error
    assert caught.value.code == failure.code
    assert caught.value.request_id == "r-1"
    assert len(flaky.calls) == 1


@pytest.mark.parametrize("kind", BOTH)
def test_a_stream_is_retried_before_its_first_delta(kind: type[Any]) -> None:
    flaky = FlakyService([DOWN, full(0.0)])
    with listening(flaky) as address:
        *deltas, end = ask(kind, address, lambda c: c.stream("x"), retry=QUICK)
    assert [delta.text for delta in deltas] == ["0 ", "1 "]
    assert end.text == "0 1 "
    assert len(flaky.calls) == 3


@pytest.mark.parametrize("kind", BOTH)
def test_a_stream_is_never_retried_after_its_first_delta(kind: type[Any]) -> None:
    flaky = FlakyService([Failure(grpc.StatusCode.UNAVAILABLE, deltas=1)])
    received: list[Delta] = []

    def sync_call(client: Client) -> None:
        for item in client.stream("x"):
            assert isinstance(item, Delta)
            received.append(item)

    async def async_call(client: AsyncClient) -> None:
        async for item in client.stream("x"):
            assert isinstance(item, Delta)
            received.append(item)

    call = sync_call if kind is Client else async_call
    with listening(flaky) as address, pytest.raises(UnavailableError):
        ask(kind, address, call, retry=QUICK)
    assert len(flaky.calls) == 1
    assert [delta.text for delta in received] == ["0 "]


@pytest.fixture
def on_failure(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Functions to call between a failed first attempt and its retry."""
    functions: list[Callable[[], object]] = []
    retry_delay = Attempts.retry_delay

    def calling(attempts: Attempts, error: ClientError) -> float | None:
        while functions:
            functions.pop()()
        return retry_delay(attempts, error)

    monkeypatch.setattr(Attempts, "retry_delay", calling)
    return functions


@pytest.mark.parametrize("kind", BOTH)
def test_retries_reach_a_server_that_starts_late(
    kind: type[Any], on_failure: list[Callable[[], object]]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patient = Retry(attempts=100, max_delay=0.2)
    with ExitStack() as stack:
        server = listening(FlakyService(), port=port)
        on_failure.append(lambda: stack.enter_context(server))
        model = ask(kind, f"127.0.0.1:{port}", lambda c: c.model(), retry=patient)
    assert model.name == "first"
    assert not on_failure


@pytest.mark.parametrize("kind", BOTH)
def test_the_deadline_ends_a_call_that_hangs(kind: type[Any]) -> None:
    flaky = FlakyService()
    flaky.may_respond.clear()
    with listening(flaky) as address:
        with pytest.raises(DeadlineExceededError):
            ask(kind, address, lambda c: c.model(timeout=2.0), retry=QUICK)
        flaky.may_respond.set()
    [call] = flaky.calls
    # On the wire, gRPC rounds the time that is left up.
    assert call.seconds < 2.1


def test_cancelling_ends_the_wait_for_the_next_attempt(
    on_failure: list[Callable[[], object]],
) -> None:
    flaky = FlakyService([full(50.0)])

    async def impatient() -> None:
        async with AsyncClient(address) as client:
            call = asyncio.create_task(client.model())
            failed = asyncio.Event()
            on_failure.append(failed.set)
            await failed.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with listening(flaky) as address:
        asyncio.run(impatient())
    assert len(flaky.calls) == 1


@given(
    attempts=st.integers(1, 20),
    first=st.floats(0.001, 10),
    longest=st.floats(10, 100),
    delay=st.none() | st.floats(0, 100),
)
def test_retry_delays_are_bounded(
    attempts: int, first: float, longest: float, delay: float | None
) -> None:
    retry = Retry(attempts=attempts, first_delay=first, max_delay=longest)
    attempts_made = Attempts(retry, seconds=1e9)
    error: ClientError = UnavailableError("", grpc.StatusCode.UNAVAILABLE)
    if delay is not None:
        error = OverloadedError("", grpc.StatusCode.RESOURCE_EXHAUSTED, delay)
    delays = [attempts_made.retry_delay(error) for _ in range(attempts)]
    assert delays.pop() is None
    for i, actual in enumerate(delays):
        assert actual is not None
        whole = min(longest, first * 2**i)
        least, most = (2 / 3 * whole, whole) if delay is None else (delay, delay + whole / 3)
        assert least <= actual <= most * 1.000001


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"attempts": 0}, "attempts is 0, must be at least 1"),
        ({"first_delay": 0.0}, "first_delay is 0.0"),
        ({"first_delay": 9.0}, "max_delay 5.0"),
        ({"max_delay": float("inf")}, "max_delay inf"),
    ],
)
def test_invalid_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Retry(**settings)

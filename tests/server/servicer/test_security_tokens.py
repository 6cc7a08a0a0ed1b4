"""Access tokens: authentication, and the permissions of each token."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from tests.support.run_gate import closed_gate
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    greedy,
    server_config,
    serving,
)
from tests.support.scraping import LOOPBACK, until_counted

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import SecurityConfig, TelemetryConfig
from gpt2flow.server.servicer import SERVICE_NAME

pytestmark = pytest.mark.process

LIST = pb.ListModelsRequest()
ENTRIES = """
[[token]]
name = "all"
sha256 = "{all}"

[[token]]
name = "some"
sha256 = ["{some}", "{other}"]
models = ["second", "absent"]
max_requests = 2
max_priority = -5
max_new_tokens = 7
max_candidates = 2
max_beams = 3

[[token]]
name = "former"
sha256 = "{former}"
expires = 2020-01-01T00:00:00Z
"""


def entries(text: str = ENTRIES) -> str:
    names = ("all", "some", "other", "former", "new")
    return text.format(**{name: hashlib.sha256(name.encode()).hexdigest() for name in names})


def bearing(token: str) -> Any:
    return (("authorization", f"Bearer {token}"),)


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return code and message of a call, unary or stream."""
    with suppress(grpc.aio.AioRpcError):
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
    return await call.code(), await call.details()


ALL, SOME = bearing("all"), bearing("some")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(entries())
    return path


@pytest.fixture
async def secured(bundle: Path, file: Path) -> AsyncIterator[RunningServer]:
    async with serving(server_config(bundle, security=SecurityConfig(tokens=file))) as running:
        yield running


NEEDED = "no token; send it in the metadata: 'authorization: Bearer TOKEN'"
MALFORMED = "the metadata must hold one 'authorization: Bearer TOKEN'"


@pytest.mark.parametrize(
    "metadata,message",
    [
        ((), NEEDED),
        (bearing("nonsense"), "the token is unknown"),
        (bearing("x" * 4000), "the token is unknown"),
        (bearing(""), MALFORMED),
        ((("authorization", "all"),), MALFORMED),
        ((("authorization", "Basic all"),), MALFORMED),
        ((*ALL, *ALL), MALFORMED),
        (bearing("former"), "the token of 'former' has expired"),
    ],
)
async def test_calls_without_a_valid_token_are_refused(
    secured: RunningServer, metadata: Any, message: str
) -> None:
    async def refused(call: Any) -> None:
        assert await status(call) == (grpc.StatusCode.UNAUTHENTICATED, message)

    stub = secured.stub
    await refused(stub.Generate(pb.GenerateRequest(), metadata=metadata))
    await refused(stub.GenerateStream(pb.GenerateStreamRequest(), metadata=metadata))
    await refused(stub.ListModels(LIST, metadata=metadata))
    await refused(secured.channel.unary_unary("/no.such/Method")(b"", metadata=metadata))
    # No request is sent: one that crosses the refusal makes grpc.aio report INTERNAL instead.
    await refused(ServerReflectionStub(secured.channel).ServerReflectionInfo(metadata=metadata))


@pytest.mark.parametrize("header", ["Bearer all", "bearer all", "BEARER  all "])
async def test_calls_with_a_valid_token_are_answered(secured: RunningServer, header: str) -> None:
    metadata = (("authorization", header),)
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(20))
    answer = await secured.stub.Generate(request, metadata=metadata)
    assert answer.results[0].usage.completion_tokens == 20
    reflection = ServerReflectionStub(secured.channel).ServerReflectionInfo
    queries = iter([ServerReflectionRequest(list_services="")])
    services = await reflection(queries, metadata=metadata).read()
    assert len(services.list_services_response.service) == 4


async def test_health_checks_need_no_token(secured: RunningServer) -> None:
    health = HealthStub(secured.channel)
    answer = await health.Check(HealthCheckRequest(service="second"))
    assert answer.status == HealthCheckResponse.SERVING
    watch = health.Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()


async def test_a_refused_stream_is_not_read(secured: RunningServer) -> None:
    """A client that never ends its stream cannot keep a call open."""

    async def forever() -> AsyncIterator[ServerReflectionRequest]:
        await asyncio.Event().wait()
        yield ServerReflectionRequest()

    call = ServerReflectionStub(secured.channel).ServerReflectionInfo(forever())
    assert await call.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_refusals_are_logged_without_the_token(secured: RunningServer) -> None:
    with structlog.testing.capture_logs() as logs:
        await status(secured.stub.ListModels(LIST, metadata=bearing("secret-token")))
        await status(secured.stub.ListModels(LIST, metadata=SOME))
    assert [line["code"] for line in logs] == ["UNAUTHENTICATED", "OK"]
    assert logs[0]["caller"].startswith(("127.0.0.1:", "[::1]:"))
    assert logs[1]["caller"] == "some"
    assert "secret-token" not in str(logs)


CALLS = [
    ("Generate", pb.GenerateRequest, {"prompts": [PROMPT], "options": greedy(1)}),
    ("GenerateStream", pb.GenerateStreamRequest, {"prompt": PROMPT, "options": greedy(1)}),
    ("Score", pb.ScoreRequest, {"prompt": PROMPT, "continuations": [PROMPT]}),
    ("Tokenize", pb.TokenizeRequest, {"text": "a"}),
    ("Detokenize", pb.DetokenizeRequest, {"tokens": pb.TokenIds(ids=[1])}),
    ("GetModel", pb.GetModelRequest, {}),
]


@pytest.mark.parametrize("name,kind,fields", CALLS, ids=[name for name, _, _ in CALLS])
async def test_a_token_gives_access_to_its_models_only(
    secured: RunningServer, name: str, kind: Any, fields: dict[str, Any]
) -> None:
    def call(model: str) -> Any:
        return getattr(secured.stub, name)(kind(model=model, **fields), metadata=SOME)

    assert (await status(call("second")))[0] == grpc.StatusCode.OK
    # The first model is the default. The answer must not reveal which other models exist.
    for model in ("first", "", "nowhere"):
        code, text = await status(call(model))
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert text == "'some' may not use this model; allowed: absent, second"
    assert await status(call("absent")) == (
        grpc.StatusCode.NOT_FOUND,
        "no model named 'absent'; loaded: second",
    )


async def test_only_accessible_models_are_listed(secured: RunningServer) -> None:
    for metadata, names in ((ALL, ["first", "second"]), (SOME, ["second"])):
        answer = await secured.stub.ListModels(LIST, metadata=metadata)
        assert [model.name for model in answer.models] == names


def options_of(n: int = 0, num_beams: int = 0) -> pb.GenerationOptions:
    stopping = pb.StoppingCriteria(max_new_tokens=1)
    if n:
        return pb.GenerationOptions(sampling=pb.SamplingParams(n=n), stopping=stopping)
    beams = pb.BeamSearchParams(num_beams=num_beams)
    return pb.GenerationOptions(beam_search=beams, stopping=stopping)


@pytest.mark.parametrize(
    "options,text",
    [
        (greedy(8), "options.stopping.max_new_tokens is 8, 'some' may have 7"),
        (greedy(1, priority=1), "options.priority is 1, 'some' may have -5"),
        (options_of(n=3), "options.sampling.n is 3, 'some' may have 2"),
        (options_of(num_beams=4), "options.beam_search.num_beams is 4, 'some' may have 3"),
    ],
)
async def test_options_beyond_the_limits_of_a_token_are_refused(
    secured: RunningServer, options: pb.GenerationOptions, text: str
) -> None:
    stream = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=options)
    unary = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    for call in (
        secured.stub.GenerateStream(stream, metadata=SOME),
        secured.stub.Generate(unary, metadata=SOME),
    ):
        assert await status(call) == (grpc.StatusCode.PERMISSION_DENIED, text)
    stream = pb.GenerateStreamRequest(prompt=PROMPT, options=options)
    answer = await secured.stub.GenerateStream(stream, metadata=ALL).read()
    assert answer.WhichOneof("event") in {"delta", "end"}


async def test_all_options_beyond_the_limits_are_named_together(secured: RunningServer) -> None:
    options = greedy(8, priority=2)
    options.sampling.n = 3
    request = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    code, text, detail = await failure(secured.stub.Generate(request, metadata=SOME))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert text == (
        "options.sampling.n is 3, 'some' may have 2; "
        "options.stopping.max_new_tokens is 8, 'some' may have 7; "
        "options.priority is 2, 'some' may have -5"
    )
    assert [(each.field, each.description) for each in detail.field_violations] == [
        ("options.sampling.n", "is 3, 'some' may have 2"),
        ("options.stopping.max_new_tokens", "is 8, 'some' may have 7"),
        ("options.priority", "is 2, 'some' may have -5"),
    ]


@pytest.mark.parametrize("options", [options_of(n=2), options_of(num_beams=3)])
async def test_options_within_the_limits_of_a_token_are_accepted(
    secured: RunningServer, options: pb.GenerationOptions
) -> None:
    request = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    answer = await secured.stub.Generate(request, metadata=SOME)
    assert answer.results[0].usage.completion_tokens


async def test_defaults_are_lowered_to_the_limits_of_a_token(secured: RunningServer) -> None:
    request = pb.GenerateRequest(
        model="second",
        prompts=[PROMPT],
        options=pb.GenerationOptions(stopping=pb.StoppingCriteria(ignore_eos=True)),
    )
    answer = await secured.stub.Generate(request, metadata=SOME)
    assert answer.results[0].usage.completion_tokens == 7
    request.options.stopping.max_new_tokens = 7
    answer = await secured.stub.Generate(request, metadata=bearing("other"))
    assert answer.results[0].usage.completion_tokens == 7


async def test_concurrent_requests_of_a_caller_are_limited(secured: RunningServer) -> None:
    def generate(count: int, metadata: Any) -> Any:
        request = pb.GenerateRequest(model="second", prompts=[PROMPT] * count, options=greedy(7))
        return secured.stub.Generate(request, metadata=metadata)

    stream = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=greedy(7))
    [_, second] = secured.server.registry.models
    with closed_gate(second.engine) as gate:
        running = secured.stub.GenerateStream(stream, metadata=SOME)
        await gate.until_unfinished(1)
        # Both tokens of an entry belong to one caller.
        code, text, detail = await failure(generate(2, bearing("other")))
        assert (code, text) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "'some' would have 3 requests unfinished, may have 2; retry in 1.0 s",
        )
        assert isinstance(detail, RetryInfo)
        assert detail.retry_delay.ToSeconds() == 1
        accepted = [generate(2, ALL), generate(1, SOME)]
        await gate.until_unfinished(4)
        running.cancel()
        await gate.until_unfinished(3)
    for call in accepted:
        await call
    await generate(2, SOME)
    code, text, _ = await failure(generate(3, SOME))
    assert (code, text) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "prompts are 3 requests, 'some' may have 2 unfinished",
    )


async def test_a_failed_request_does_not_count_as_unfinished(secured: RunningServer) -> None:
    bad = pb.ScoreRequest(model="second", continuations=[PROMPT])
    for _ in range(3):
        code, _, _ = await failure(secured.stub.Score(bad, metadata=SOME))
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_changed_token_file_is_reloaded_and_a_broken_one_ignored(
    secured: RunningServer, file: Path
) -> None:
    list_models, write, remove = secured.stub.ListModels, file.write_text, file.unlink
    await list_models(LIST, metadata=ALL)
    with structlog.testing.capture_logs() as logs:
        write(entries('[[token]]\nname = "new"\nsha256 = "{new}"\n'))
        await list_models(LIST, metadata=bearing("new"))
        code, _, _ = await failure(list_models(LIST, metadata=ALL))
        assert code == grpc.StatusCode.UNAUTHENTICATED
        write("[[token]]\nname = 'ne")
        await list_models(LIST, metadata=bearing("new"))
        await list_models(LIST, metadata=bearing("new"))
        remove()
        await list_models(LIST, metadata=bearing("new"))
        write(entries())
        await list_models(LIST, metadata=ALL)
    events = [line["event"] for line in logs if line["event"] != "rpc"]
    assert events == ["reloaded", "reload_failed", "reload_failed", "reloaded"]


async def test_callers_are_not_mixed_up(secured: RunningServer) -> None:
    """Each of many concurrent calls belongs to its own caller."""

    async def models(metadata: Any) -> int:
        return len((await secured.stub.ListModels(LIST, metadata=metadata)).models)

    counts = await asyncio.gather(*(models(each) for _ in range(50) for each in (ALL, SOME)))
    assert counts == [2, 1] * 50


async def test_clients_without_a_token_cannot_create_metric_series(
    bundle: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(entries())
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    security = SecurityConfig(tokens=tokens)
    config = server_config(bundle, security=security, telemetry=telemetry)
    async with serving(config) as running:
        for i in range(3):
            unknown = running.channel.unary_unary(f"/{SERVICE_NAME}/Made{i}Up")
            assert (await failure(unknown(b"")))[0] == grpc.StatusCode.UNAUTHENTICATED
        found = await until_counted(running, 3)
        assert found.labels("rpcs_total", "rpc") == {"other"}

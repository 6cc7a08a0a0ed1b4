"""Tokens: without a valid one, nothing but health answers; with one, what its entry allows."""

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
from tests.support.running_server import PROMPT, Running, failure, greedy, serving
from tests.support.scraping import LOOPBACK, until_counted

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import SecurityConfig, TelemetryConfig
from gpt2flow.server.servicer import SERVICE_NAME

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
    """Return how a call of any kind ended; a stream ends when it was read."""
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
async def closed(bundle: Path, file: Path) -> AsyncIterator[Running]:
    async with serving(bundle, security=SecurityConfig(tokens=file)) as running:
        yield running


NEEDED = "no token; send it in the metadata: 'authorization: Bearer TOKEN'"
MALFORMED = "the metadata must hold one 'authorization: Bearer TOKEN'"


@pytest.mark.parametrize(
    "metadata,says",
    [
        ((), NEEDED),
        (bearing("nonsense"), "the token is not known"),
        (bearing("x" * 4000), "the token is not known"),
        (bearing(""), MALFORMED),
        ((("authorization", "all"),), MALFORMED),
        ((("authorization", "Basic all"),), MALFORMED),
        ((*ALL, *ALL), MALFORMED),
        (bearing("former"), "the token of 'former' has expired"),
    ],
)
async def test_without_a_valid_token_nothing_answers(
    closed: Running, metadata: Any, says: str
) -> None:
    async def refused(call: Any) -> None:
        assert await status(call) == (grpc.StatusCode.UNAUTHENTICATED, says)

    stub = closed.stub
    await refused(stub.Generate(pb.GenerateRequest(), metadata=metadata))
    await refused(stub.GenerateStream(pb.GenerateStreamRequest(), metadata=metadata))
    await refused(stub.ListModels(LIST, metadata=metadata))
    await refused(closed.channel.unary_unary("/no.such/Method")(b"", metadata=metadata))
    # Nothing is sent: a request that crosses the refusal makes grpc.aio say INTERNAL instead.
    await refused(ServerReflectionStub(closed.channel).ServerReflectionInfo(metadata=metadata))


@pytest.mark.parametrize("header", ["Bearer all", "bearer all", "BEARER  all "])
async def test_with_a_token_all_answers(closed: Running, header: str) -> None:
    metadata = (("authorization", header),)
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(20))
    answer = await closed.stub.Generate(request, metadata=metadata)
    assert answer.results[0].usage.completion_tokens == 20
    reflection = ServerReflectionStub(closed.channel).ServerReflectionInfo
    asked = iter([ServerReflectionRequest(list_services="")])
    services = await reflection(asked, metadata=metadata).read()
    assert len(services.list_services_response.service) == 3


async def test_probes_need_no_token(closed: Running) -> None:
    health = HealthStub(closed.channel)
    answer = await health.Check(HealthCheckRequest(service="second"))
    assert answer.status == HealthCheckResponse.SERVING
    watch = health.Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()


async def test_a_refused_stream_is_not_read(closed: Running) -> None:
    """A client that never ends its stream cannot keep a call open."""

    async def forever() -> AsyncIterator[ServerReflectionRequest]:
        await asyncio.Event().wait()
        yield ServerReflectionRequest()

    call = ServerReflectionStub(closed.channel).ServerReflectionInfo(forever())
    async with asyncio.timeout(10):
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_refusals_are_logged_without_the_token(closed: Running) -> None:
    with structlog.testing.capture_logs() as logs:
        await status(closed.stub.ListModels(LIST, metadata=bearing("secret-guess")))
        await status(closed.stub.ListModels(LIST, metadata=SOME))
    assert [line["code"] for line in logs] == ["UNAUTHENTICATED", "OK"]
    assert logs[0]["caller"].startswith(("127.0.0.1:", "[::1]:"))
    assert logs[1]["caller"] == "some"
    assert "secret-guess" not in str(logs)


CALLS = [
    ("Generate", pb.GenerateRequest, {"prompts": [PROMPT], "options": greedy(1)}),
    ("GenerateStream", pb.GenerateStreamRequest, {"prompt": PROMPT, "options": greedy(1)}),
    ("Score", pb.ScoreRequest, {"prompt": PROMPT, "continuations": [PROMPT]}),
    ("Tokenize", pb.TokenizeRequest, {"text": "a"}),
    ("Detokenize", pb.DetokenizeRequest, {"tokens": pb.TokenIds(ids=[1])}),
    ("GetModel", pb.GetModelRequest, {}),
]


@pytest.mark.parametrize("name,kind,fields", CALLS, ids=[name for name, _, _ in CALLS])
async def test_a_token_opens_the_models_of_its_entry_only(
    closed: Running, name: str, kind: Any, fields: dict[str, Any]
) -> None:
    def call(model: str) -> Any:
        return getattr(closed.stub, name)(kind(model=model, **fields), metadata=SOME)

    assert (await status(call("second")))[0] == grpc.StatusCode.OK
    # The first model is the default; whether another one exists is not told.
    for model in ("first", "", "nowhere"):
        code, text = await status(call(model))
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert text == "'some' may not use this model; allowed: absent, second"
    assert await status(call("absent")) == (
        grpc.StatusCode.NOT_FOUND,
        "no model named 'absent'; loaded: second",
    )


async def test_models_are_listed_as_far_as_they_are_open(closed: Running) -> None:
    for metadata, names in ((ALL, ["first", "second"]), (SOME, ["second"])):
        answer = await closed.stub.ListModels(LIST, metadata=metadata)
        assert [model.name for model in answer.models] == names


def several(n: int = 0, num_beams: int = 0) -> pb.GenerationOptions:
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
        (several(n=3), "options.sampling.n is 3, 'some' may have 2"),
        (several(num_beams=4), "options.beam_search.num_beams is 4, 'some' may have 3"),
    ],
)
async def test_more_than_a_token_allows_is_refused(
    closed: Running, options: pb.GenerationOptions, text: str
) -> None:
    stream = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=options)
    unary = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    for call in (
        closed.stub.GenerateStream(stream, metadata=SOME),
        closed.stub.Generate(unary, metadata=SOME),
    ):
        assert await status(call) == (grpc.StatusCode.PERMISSION_DENIED, text)
    stream = pb.GenerateStreamRequest(prompt=PROMPT, options=options)
    answer = await closed.stub.GenerateStream(stream, metadata=ALL).read()
    assert answer.WhichOneof("event") in {"delta", "end"}


async def test_all_that_a_token_does_not_allow_is_named_at_once(closed: Running) -> None:
    options = greedy(8, priority=2)
    options.sampling.n = 3
    request = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    code, text, detail = await failure(closed.stub.Generate(request, metadata=SOME))
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


@pytest.mark.parametrize("options", [several(n=2), several(num_beams=3)])
async def test_what_a_token_allows_is_done(closed: Running, options: pb.GenerationOptions) -> None:
    request = pb.GenerateRequest(model="second", prompts=[PROMPT], options=options)
    answer = await closed.stub.Generate(request, metadata=SOME)
    assert answer.results[0].usage.completion_tokens


async def test_defaults_are_lowered_to_what_a_token_allows(closed: Running) -> None:
    request = pb.GenerateRequest(
        model="second",
        prompts=[PROMPT],
        options=pb.GenerationOptions(stopping=pb.StoppingCriteria(ignore_eos=True)),
    )
    answer = await closed.stub.Generate(request, metadata=SOME)
    assert answer.results[0].usage.completion_tokens == 7
    request.options.stopping.max_new_tokens = 7
    answer = await closed.stub.Generate(request, metadata=bearing("other"))
    assert answer.results[0].usage.completion_tokens == 7


@pytest.mark.usefixtures("slow")
async def test_requests_at_the_same_time(closed: Running) -> None:
    def generate(count: int, metadata: Any) -> Any:
        request = pb.GenerateRequest(model="second", prompts=[PROMPT] * count, options=greedy(7))
        return closed.stub.Generate(request, metadata=metadata)

    stream = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=greedy(7))
    running = closed.stub.GenerateStream(stream, metadata=SOME)
    assert (await running.read()).HasField("delta")
    # Both tokens of an entry are one caller.
    code, text, detail = await failure(generate(2, bearing("other")))
    assert (code, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "'some' would have 3 requests unfinished, may have 2",
    )
    assert isinstance(detail, RetryInfo)
    assert detail.retry_delay.ToSeconds() == 1
    await generate(2, ALL)
    await generate(1, SOME)
    running.cancel()
    await closed.all_free()
    await generate(2, SOME)
    code, text, _ = await failure(generate(3, SOME))
    assert (code, text) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "prompts are 3 requests, 'some' may have 2 unfinished",
    )


async def test_a_failed_request_counts_no_longer(closed: Running) -> None:
    bad = pb.ScoreRequest(model="second", continuations=[PROMPT])
    for _ in range(3):
        code, _, _ = await failure(closed.stub.Score(bad, metadata=SOME))
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_changed_file_counts_at_once_and_a_broken_one_not(
    closed: Running, file: Path
) -> None:
    list_models, write, remove = closed.stub.ListModels, file.write_text, file.unlink
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


async def test_callers_are_not_mixed_up(closed: Running) -> None:
    """Each of many calls at the same time is its own caller's."""

    async def models(metadata: Any) -> int:
        return len((await closed.stub.ListModels(LIST, metadata=metadata)).models)

    counts = await asyncio.gather(*(models(each) for _ in range(50) for each in (ALL, SOME)))
    assert counts == [2, 1] * 50


async def test_who_has_no_token_cannot_fill_the_metrics(bundle: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(entries())
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    security = SecurityConfig(tokens=tokens)
    async with serving(bundle, security=security, telemetry=telemetry) as running:
        for i in range(3):
            unknown = running.channel.unary_unary(f"/{SERVICE_NAME}/Made{i}Up")
            assert (await failure(unknown(b"")))[0] == grpc.StatusCode.UNAUTHENTICATED
        found = await until_counted(running, 3)
        assert found.labels("rpcs_total", "rpc") == {"other"}

"""Log privacy: no text of a request is logged, even in errors."""

import logging
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from tests.support.running_server import RunningServer, greedy, server_config, serving

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.config.settings import TelemetryConfig
from gpt2flow.server.errors import GrammarError
from gpt2flow.server.generation.sampling_task import SamplingTask
from gpt2flow.server.telemetry.log import logging_to_stderr
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

MARK = "Zauberwort"
PROMPT = pb.Prompt(text=f"I say {MARK}.")


def fail(*_args: Any) -> Any:
    """Raise an internal error whose cause quotes a request."""
    raise RuntimeError(f"no way with {MARK}") from GrammarError(f"cannot read {MARK}")


async def call_all(running: RunningServer, options: pb.GenerationOptions) -> list[grpc.StatusCode]:
    """Call every RPC and return the status code of each."""
    stub = running.stub
    codes = []
    for call in (
        stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options)),
        stub.GenerateStream(pb.GenerateStreamRequest(prompt=PROMPT, options=options)),
        stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=[PROMPT])),
        stub.Tokenize(pb.TokenizeRequest(text=MARK)),
    ):
        if hasattr(call, "read"):
            assert len([message async for message in call]) > 0
        codes.append(await call.code())
    return codes


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_the_log_holds_no_text_of_requests(
    bundle: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    log_format: Literal["json", "console"],
) -> None:
    with logging_to_stderr(TelemetryConfig(log_level="debug", log_format=log_format)):
        async with serving(server_config(bundle)) as running:
            await send_good_and_bad(running)
            with monkeypatch.context() as patch:
                patch.setattr(ModelRunner, "run", fail)
                await assert_internal_error(running)
            with monkeypatch.context() as patch:
                patch.setattr(SamplingTask, "accept", fail)
                await assert_internal_error(running)
            with monkeypatch.context() as patch:
                patch.setattr(Tokenizer, "encode", fail)
                await assert_internal_error(running)
            error = RuntimeError(MARK)
            logging.getLogger("asyncio").error("future %r", error, exc_info=error)
    log = capfd.readouterr().err
    assert MARK not in log
    # The kind and place of each error are logged.
    for text in ("internal_error", "GrammarError", "RuntimeError", "in fail", "INVALID_ARGUMENT"):
        assert text in log


async def send_good_and_bad(running: RunningServer) -> None:
    assert await call_all(running, greedy(2)) == [grpc.StatusCode.OK] * 4
    stopping = pb.StoppingCriteria(max_new_tokens=5, stop_strings=[MARK, MARK * 999])
    for bad in (
        pb.GenerationOptions(stopping=stopping),
        pb.GenerationOptions(constraint=pb.Constraint(lark=f"start: {MARK}")),
        pb.GenerationOptions(constraint=pb.Constraint(regex=f"({MARK}")),
        pb.GenerationOptions(constraint=pb.Constraint(json_schema=f'{{"type": "{MARK}"}}')),
    ):
        request = pb.GenerateRequest(prompts=[PROMPT], options=bad)
        code = await running.stub.Generate(request).code()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
    garbage = running.channel.unary_unary("/gpt2flow.inference.v1.InferenceService/Generate")
    assert await garbage(f"\xff{MARK}".encode("latin-1")).code() != grpc.StatusCode.OK


async def assert_internal_error(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(2))
    assert await running.stub.Generate(request).code() == grpc.StatusCode.INTERNAL

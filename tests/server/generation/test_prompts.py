"""Prompts become the tokens that their fields say."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.engine_bench import EOS
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import normalizers

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.errors import InvalidRequestError
from gpt2flow.server.generation.prompts import Prompt, PromptEncoder
from gpt2flow.server.limits import Limits
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

IDS = pb.TokenIds(ids=[5, 6])
pytestmark = pytest.mark.process


async def generate(running: RunningServer, prompt: pb.Prompt) -> pb.GenerationResult:
    options = greedy(8, output=pb.OutputOptions(token_ids=True))
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[prompt], options=options))
    return response.results[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("empty", [pb.Prompt(text=""), pb.Prompt(tokens=pb.TokenIds())])
async def test_an_empty_prompt_is_the_token_that_begins_a_text(
    running: RunningServer, empty: pb.Prompt
) -> None:
    begin = pb.Prompt(tokens=pb.TokenIds(ids=[EOS]))
    expected, result = await generate(running, begin), await generate(running, empty)
    assert result.usage.prompt_tokens == 1
    assert result.candidates[0].token_ids == expected.candidates[0].token_ids
    scores = [
        await running.stub.Score(pb.ScoreRequest(prompt=each, continuations=[PROMPT]))
        for each in (empty, begin)
    ]
    assert len({round(each.scores[0].total_logprob, 3) for each in scores}) == 1


async def test_an_empty_continuation_is_refused(running: RunningServer) -> None:
    request = pb.ScoreRequest(prompt=PROMPT, continuations=[PROMPT, pb.Prompt(text="")])
    code, _, detail = await failure(running.stub.Score(request))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["continuations[1]"])


def test_an_empty_prompt_is_refused_without_a_token_that_begins_a_text(
    tokenizer: Tokenizer, limits: Limits
) -> None:
    encoder = PromptEncoder(tokenizer, limits, None)
    for given in ("", (), None):
        with pytest.raises(InvalidRequestError, match="prompt: must have text or token ids"):
            encoder.encode(Prompt("prompt", given))


@pytest.mark.parametrize(
    "prompt,field",
    [
        (pb.Prompt(tokens=IDS, literal=True), "literal"),
        (pb.Prompt(tokens=IDS, add_special_tokens=True), "add_special_tokens"),
        (pb.Prompt(tokens=IDS, add_special_tokens=False), "add_special_tokens"),
    ],
)
async def test_token_ids_take_no_fields_of_text(
    running: RunningServer, prompt: pb.Prompt, field: str
) -> None:
    calls = {
        "prompts[1]": running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT, prompt])),
        "prompt": running.stub.Score(pb.ScoreRequest(prompt=prompt, continuations=[PROMPT])),
        "continuations[0]": running.stub.Score(
            pb.ScoreRequest(prompt=PROMPT, continuations=[prompt])
        ),
    }
    for name, call in calls.items():
        code, _, detail = await failure(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert bad_fields(detail) == [f"{name}.{field}"]


async def test_a_continuation_takes_no_special_tokens(running: RunningServer) -> None:
    prompt = pb.Prompt(text="x", add_special_tokens=True)
    call = running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=[prompt]))
    code, text, detail = await failure(call)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["continuations[0].add_special_tokens"]
    assert "must be false" in text


async def test_a_literal_prompt_has_no_special_tokens(running: RunningServer) -> None:
    text = "What is <|endoftext|>?<|user|>"
    recognized = await generate(running, pb.Prompt(text=text))
    literal = await generate(running, pb.Prompt(text=text, literal=True))
    assert literal.usage.prompt_tokens > recognized.usage.prompt_tokens
    response = await running.stub.Tokenize(pb.TokenizeRequest(text=text, literal=True))
    assert not {token.id for token in response.tokens} & {0, 1}
    assert b"".join(token.piece for token in response.tokens) == text.encode()


def changing(bundle: Path) -> Tokenizer:
    """Return a tokenizer that may drop bytes of a text."""
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    library.normalizer = normalizers.Strip()
    return Tokenizer(library.to_str().encode())


def test_a_text_whose_tokens_its_size_does_not_bound_has_a_largest_size(
    bundle: Path, limits: Limits
) -> None:
    fields: dict[str, Any] = {name: getattr(limits, name) for name in limits.__slots__}
    small = Limits(**fields | {"requests": RequestLimits(tokenize_bytes=10)})
    encoder = PromptEncoder(changing(bundle), small, None)
    assert encoder.encode(Prompt("prompt", "x" * 10))
    with pytest.raises(InvalidRequestError, match="prompt: has 11 bytes, must have at most 10"):
        encoder.encode(Prompt("prompt", "x" * 11))

"""Options of a request, through the whole server and the client."""

from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support.engine_bench import CONTEXT
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy

from gpt2flow.client import AsyncClient, BeamSearch, Delta, Generation, Options, Sampling, Text
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.config.settings import RequestLimits

pytestmark = pytest.mark.process

IDS = [1 + i * 7 % 300 for i in range(3 * CONTEXT)]
FIRST = Sampling(temperature=0)


@pytest.fixture
async def client(running: RunningServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{running.port}") as opened:
        yield opened


async def streamed(client: AsyncClient, prompt: Text | list[int], options: Options) -> Generation:
    """Return the whole of a stream, whose text its deltas must have."""
    *deltas, last = [item async for item in client.stream(prompt, options)]
    assert isinstance(last, Generation)
    assert "".join(each.text for each in deltas if isinstance(each, Delta)) == last.text
    return last


@pytest.mark.parametrize("stream", [False, True])
async def test_a_truncated_prompt_reports_what_went(client: AsyncClient, *, stream: bool) -> None:
    options = Options(
        FIRST, max_new_tokens=6, truncate_prompt=True, prompt_logprobs=True, echo=True
    )
    ask = streamed if stream else type(client).generate
    long = await ask(client, IDS, options)
    short = await ask(client, IDS[-CONTEXT + 6 :], options)
    assert long.usage.truncated_tokens == len(IDS) - CONTEXT + 6
    assert short.usage.truncated_tokens == 0
    assert long.usage.prompt_tokens == len(long.prompt_logprobs) == CONTEXT - 6
    assert long.text == short.text


async def test_beams_of_a_truncated_prompt_report_it_too(client: AsyncClient) -> None:
    options = Options(BeamSearch(2), max_new_tokens=6, truncate_prompt=True)
    generation = await client.generate(IDS, options)
    assert generation.usage.truncated_tokens == len(IDS) - CONTEXT + 6


async def test_a_text_of_the_largest_size_is_truncated(client: AsyncClient) -> None:
    limit = (await client.model()).limits.max_tokenize_bytes
    assert limit == RequestLimits().tokenize_bytes
    options = Options(FIRST, max_new_tokens=4, truncate_prompt=True)
    text = "Where is my order? " * (limit // 19)
    generation = await client.generate(text, options)
    ids = [token.id for token in await client.tokenize(text)]
    assert generation.usage.prompt_tokens == CONTEXT - 4
    assert generation.usage.truncated_tokens == len(ids) - CONTEXT + 4
    assert generation.text == (await client.generate(ids[-CONTEXT + 4 :], options)).text


async def test_a_larger_text_is_refused_by_its_size(running: RunningServer) -> None:
    size = RequestLimits().tokenize_bytes + 1
    request = pb.GenerateRequest(prompts=[PROMPT, pb.Prompt(text="x" * size)])
    request.options.truncate_prompt = True
    code, message, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["prompts[1]"]
    assert f"has {size} bytes, must have at most {size - 1} to be truncated" in message


@pytest.mark.parametrize("decoding", [FIRST, BeamSearch(3)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_fills_the_context_is_scored(
    client: AsyncClient, decoding: Sampling | BeamSearch, *, stream: bool
) -> None:
    options = Options(decoding, max_new_tokens=0, prompt_logprobs=True, top_logprobs=2)
    prompt = IDS[:CONTEXT]
    ask = streamed if stream else type(client).generate
    generation = await ask(client, prompt, options)
    assert [each.token_id for each in generation.prompt_logprobs] == prompt
    assert [each.logprob is None for each in generation.prompt_logprobs] == [True, *[False] * 95]
    [candidate] = generation.candidates
    assert (candidate.text, candidate.finish_reason) == ("", "length")
    assert generation.usage.completion_tokens == 0
    scores = await client.score(prompt[:1], [prompt[1:]])
    assert [each.logprob for each in generation.prompt_logprobs[1:]] == pytest.approx(
        [each.logprob for each in scores.scores[0].tokens], abs=1e-3
    )


async def test_no_new_tokens_without_log_probabilities_are_refused(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(0))
    code, message, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["options.stopping.max_new_tokens"]
    assert "must be at least 1; 0 needs options.output.prompt_logprobs" in message


async def test_a_stop_string_is_streamed_if_requested(client: AsyncClient) -> None:
    prompt = Text("Where is my order?")
    whole = (await client.generate(prompt, Options(FIRST, max_new_tokens=30))).text
    stop = whole[5:8]
    options = Options(FIRST, max_new_tokens=30, stop_strings=(stop,), include_stop_string=True)
    generation = await streamed(client, prompt, options)
    assert generation.text == whole[: whole.index(stop)] + stop
    assert generation.candidates[0].stop_string == stop


async def test_biases_and_bad_words_steer_beams(client: AsyncClient) -> None:
    [token] = await client.tokenize("e")
    options = [
        Options(BeamSearch(2, logit_bias=((token.id, 100.0),), bad_words=bad), max_new_tokens=3)
        for bad in ((), ("e",))
    ]
    texts = [(await client.generate("Where", each)).text for each in options]
    assert texts[0] == "eee"
    assert "e" not in texts[1]


async def test_bad_biases_of_beams_are_named(running: RunningServer) -> None:
    beams = pb.BeamSearchParams(num_beams=2, bad_words=[""])
    beams.logit_bias.add(token_id=10**6, bias=0.5)
    request = pb.GenerateRequest(prompts=[PROMPT], options=pb.GenerationOptions(beam_search=beams))
    _, _, detail = await failure(running.stub.Generate(request))
    assert bad_fields(detail) == [
        "options.beam_search.logit_bias[0].token_id",
        "options.beam_search.bad_words[0]",
    ]

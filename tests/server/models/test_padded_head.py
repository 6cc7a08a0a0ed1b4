"""Ids without a token are never produced, though the model prefers them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
import structlog
from tests.support.odd_models import OddModel, make_odd_model
from tests.support.running_server import RunningServer, bad_fields, failure, serving

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import EngineConfig, ServerConfig

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PROMPT = [80, 60, 50, 90]
NEW_TOKENS = 24
CASES: dict[str, dict[str, bool]] = {
    "padded": {},
    "with a gap, untied": {"gap": True, "padded": False, "tied": False},
}


@pytest.fixture(scope="module", params=[*CASES.values()], ids=[*CASES])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OddModel:
    """Model with ids that have no token."""
    return make_odd_model(tmp_path_factory.mktemp("odd"), **request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(made: OddModel) -> AsyncIterator[RunningServer]:
    """Server of the model."""
    engine = EngineConfig(threads=1, max_sequences=8)
    config = ServerConfig(models={"model": made.bundle}, port=0, engine=engine)
    async with serving(config) as running:
        yield running


async def generate(
    served: RunningServer, prompt: list[int] | None = None, **options: Any
) -> pb.GenerationResult:
    """Return the result of a prompt, with the ids of its tokens."""
    output = {"token_ids": True} | options.pop("output", {})
    stopping = {"max_new_tokens": NEW_TOKENS} | options.pop("stopping", {})
    request = pb.GenerateRequest(
        prompts=[pb.Prompt(tokens=pb.TokenIds(ids=prompt or PROMPT))],
        options=pb.GenerationOptions(
            output=pb.OutputOptions(**output), stopping=pb.StoppingCriteria(**stopping), **options
        ),
    )
    result: pb.GenerationResult = (await served.stub.Generate(request)).results[0]
    return result


async def test_the_model_prefers_ids_without_a_token(made: OddModel) -> None:
    """Otherwise the tests of this file would show nothing."""
    best = made.logprobs(PROMPT).argmax(-1)
    assert set(best.tolist()) & set(made.missing)


async def test_greedy_decoding_equals_transformers(made: OddModel, served: RunningServer) -> None:
    greedy = pb.SamplingParams(temperature=0)
    result = await generate(served, sampling=greedy, output={"logprobs": True, "top_logprobs": 5})
    [candidate] = result.candidates
    expected = made.greedy(PROMPT, NEW_TOKENS)
    assert list(candidate.token_ids) == expected
    rows = made.logprobs(PROMPT + expected)[len(PROMPT) - 1 :]
    for row, position in zip(rows, candidate.logprobs, strict=False):
        chosen = position.chosen
        # Normalized over all rows of the head, as in transformers.
        assert chosen.logprob == pytest.approx(float(row[chosen.token_id]), abs=1e-4)
        row[made.missing] = -float("inf")
        assert [each.token_id for each in position.top] == row.topk(5).indices.tolist()
        assert all(each.token for each in position.top)


async def test_beams_equal_transformers(made: OddModel, served: RunningServer) -> None:
    search = pb.BeamSearchParams(num_beams=4, num_return_sequences=4)
    result = await generate(served, beam_search=search)
    theirs = made.generate(
        PROMPT,
        num_beams=4,
        num_return_sequences=4,
        max_new_tokens=NEW_TOKENS,
        output_scores=True,
        return_dict_in_generate=True,
        do_sample=False,
    )
    scores = theirs.sequences_scores.tolist()
    assert [each.beam_score for each in result.candidates] == pytest.approx(scores, abs=1e-4)
    for candidate, row in zip(result.candidates, theirs.sequences.tolist(), strict=True):
        ids = list(candidate.token_ids)
        assert ids == row[len(PROMPT) :][: len(ids)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 50},
        {"top_p": 0.99},
        {"min_p": 1e-6},
        {"typical_p": 0.99},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5},
        {"no_repeat_ngram_size": 1},
    ],
    ids=str,
)
async def test_sampling_never_draws_one(
    made: OddModel, served: RunningServer, options: dict[str, Any]
) -> None:
    drawn = set[int]()
    for seed in range(4):
        sampling = pb.SamplingParams(temperature=20, n=4, seed=seed, **options)
        result = await generate(
            served, sampling=sampling, stopping={"max_new_tokens": 60, "ignore_eos": True}
        )
        drawn |= {token_id for each in result.candidates for token_id in each.token_ids}
    assert len(drawn) > 50
    assert not drawn & set(made.missing)
    assert max(drawn) < made.tokens


@pytest.mark.parametrize(
    "constraint",
    [
        pb.Constraint(regex=r"(.|\n)*"),
        pb.Constraint(regex=r"[a-z ]{8}"),
        pb.Constraint(choices=pb.Choices(values=["yes", "no", "perhaps"])),
        pb.Constraint(json_schema='{"type": "object", "properties": {"a": {"type": "integer"}}}'),
    ],
    ids=lambda constraint: constraint.WhichOneof("kind"),
)
@pytest.mark.parametrize("decoding", ["greedy", "sampled", "scored", "beams"])
async def test_a_constraint_never_admits_one(
    made: OddModel, served: RunningServer, constraint: pb.Constraint, decoding: str
) -> None:
    options: dict[str, Any] = {"constraint": constraint}
    if decoding == "beams":
        options["beam_search"] = pb.BeamSearchParams(num_beams=3, num_return_sequences=3)
    else:
        temperature = 0 if decoding == "greedy" else 20
        options["sampling"] = pb.SamplingParams(temperature=temperature, seed=1)
        options["output"] = {"logprobs": decoding == "scored"}
    result = await generate(served, **options)
    ids = {token_id for each in result.candidates for token_id in each.token_ids}
    assert ids
    assert not ids & set(made.missing)
    assert max(ids) < made.tokens


async def test_scores_are_those_of_transformers(made: OddModel, served: RunningServer) -> None:
    continuations = [[70, 71, 72], [70], [200, 0, 1]]
    response = await served.stub.Score(
        pb.ScoreRequest(
            prompt=pb.Prompt(tokens=pb.TokenIds(ids=PROMPT)),
            continuations=[pb.Prompt(tokens=pb.TokenIds(ids=ids)) for ids in continuations],
        )
    )
    for ids, score in zip(continuations, response.scores, strict=True):
        rows = made.logprobs(PROMPT + ids)[len(PROMPT) - 1 :]
        expected = [float(row[token_id]) for row, token_id in zip(rows, ids, strict=False)]
        assert [each.logprob for each in score.tokens] == pytest.approx(expected, abs=1e-4)


async def test_an_id_without_a_token_is_refused(made: OddModel, served: RunningServer) -> None:
    for token_id in (made.missing[0], made.missing[-1], 100_000):
        tokens = pb.TokenIds(ids=[5, token_id])
        biased = pb.SamplingParams(logit_bias=[pb.LogitBias(token_id=token_id, bias=1)])
        requests = {
            "prompts[0].tokens.ids": pb.GenerateRequest(prompts=[pb.Prompt(tokens=tokens)]),
            "options.sampling.logit_bias[0].token_id": pb.GenerateRequest(
                prompts=[pb.Prompt(text="a")], options=pb.GenerationOptions(sampling=biased)
            ),
            "options.stopping.stop_token_ids[0]": pb.GenerateRequest(
                prompts=[pb.Prompt(text="a")],
                options=pb.GenerationOptions(
                    stopping=pb.StoppingCriteria(stop_token_ids=[token_id])
                ),
            ),
        }
        for field, request in requests.items():
            code, _, detail = await failure(served.stub.Generate(request))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert bad_fields(detail) == [field]
            assert "must be below the vocabulary size of " in detail.field_violations[0].description
        detokenize = pb.DetokenizeRequest(tokens=tokens)
        code, _, detail = await failure(served.stub.Detokenize(detokenize))
        assert bad_fields(detail) == ["tokens.ids[1]"]


async def test_the_description_counts_ids_that_have_tokens(
    made: OddModel, served: RunningServer
) -> None:
    model = (await served.stub.GetModel(pb.GetModelRequest())).model
    assert model.vocabulary_size == made.tokens
    assert list(model.eos_token_ids) == [0]


async def test_the_log_warns_when_the_model_is_loaded(made: OddModel) -> None:
    config = ServerConfig(models={"odd": made.bundle}, port=0)
    with structlog.testing.capture_logs() as lines:
        async with serving(config):
            pass
    [line] = [each for each in lines if each["event"] == "bundle_warning"]
    assert line["model"] == "odd"
    assert line["warning"].endswith("those without a token are never produced")


async def test_streams_and_concurrent_requests_mix(made: OddModel, served: RunningServer) -> None:
    """Constrained and free requests share runs of the model."""
    free = generate(served, sampling=pb.SamplingParams(temperature=0))
    bound = generate(
        served,
        sampling=pb.SamplingParams(temperature=0),
        constraint=pb.Constraint(regex=r"[a-z]{12}"),
    )
    stream = served.stream(
        pb.GenerateStreamRequest(
            prompt=pb.Prompt(tokens=pb.TokenIds(ids=PROMPT)),
            options=pb.GenerationOptions(
                sampling=pb.SamplingParams(temperature=0),
                stopping=pb.StoppingCriteria(max_new_tokens=NEW_TOKENS),
                output=pb.OutputOptions(token_ids=True),
            ),
        )
    )
    alone, constrained, messages = await asyncio.gather(free, bound, stream)
    expected = made.greedy(PROMPT, NEW_TOKENS)
    assert list(alone.candidates[0].token_ids) == expected
    assert [each for message in messages for each in message.delta.token_ids] == expected
    assert len(constrained.candidates[0].text) == 12

"""Every kind of tokenizer, exported and served, equals transformers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from tests.support.running_server import RunningServer, bad_fields, failure, serving
from tests.support.vocabularies import KINDS, SENTENCES, SPACING, UNKNOWN
from tests.support.vocabulary_models import VocabularyModel, make_model

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import EngineConfig, ServerConfig

PROMPT = "私たちは学生 The parcel"
NEW_TOKENS = 16
GREEDY = pb.SamplingParams(temperature=0)
STOPPING = pb.StoppingCriteria(max_new_tokens=NEW_TOKENS)


pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module", params=KINDS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> VocabularyModel:
    """Model of each kind."""
    return make_model(request.param, tmp_path_factory.mktemp("kind"))


@pytest.fixture(scope="module")
def logs(made: VocabularyModel) -> Iterator[list[Any]]:
    """Log of the server of each model."""
    del made
    with capture_logs() as entries:
        yield entries


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(made: VocabularyModel, logs: list[Any]) -> AsyncIterator[RunningServer]:
    """Server of the model."""
    del logs
    engine = EngineConfig(threads=1, max_sequences=4)
    config = ServerConfig(models={"model": made.bundle}, port=0, engine=engine)
    async with serving(config) as running:
        yield running


async def generate(served: RunningServer, prompt: pb.Prompt, **options: Any) -> Any:
    """Return the only continuation of a prompt, which a stream also writes."""
    fields: dict[str, Any] = {"sampling": GREEDY, "stopping": STOPPING} | options
    if "beam_search" in fields:
        del fields["sampling"]
    request = pb.GenerateRequest(prompts=[prompt], options=pb.GenerationOptions(**fields))
    candidate = (await served.stub.Generate(request)).results[0].candidates[0]
    stream = pb.GenerateStreamRequest(prompt=prompt, options=request.options)
    messages = await served.stream(stream)
    streamed = "".join(message.delta.text for message in messages)
    if "beam_search" in fields:
        streamed = messages[-1].end.result.candidates[0].text
    assert streamed == candidate.text
    return candidate


async def tokenize(served: RunningServer, text: str, **options: Any) -> list[int]:
    response = await served.stub.Tokenize(pb.TokenizeRequest(text=text, **options))
    return [token.id for token in response.tokens]


async def test_texts_have_the_tokens_of_transformers(
    made: VocabularyModel, served: RunningServer
) -> None:
    special = " ".join(made.tokenizer.all_special_tokens)
    for text in (*SENTENCES, UNKNOWN, "", " ", special, f"a{special}b", "  two  spaces\n"):
        assert await tokenize(served, text) == made.ids(text)
        bare = await tokenize(served, text, add_special_tokens=False)
        assert bare == made.ids(text, add_special_tokens=False)


async def test_text_is_as_the_tokenizer_writes_it(
    made: VocabularyModel, served: RunningServer
) -> None:
    ids = [*range(len(made.tokenizer)), *made.ids(PROMPT), *made.ids(UNKNOWN)]
    for skip in (True, False):
        request = pb.DetokenizeRequest(tokens=pb.TokenIds(ids=ids), skip_special_tokens=skip)
        text = (await served.stub.Detokenize(request)).text
        assert text == made.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("prompt", [PROMPT, "우리는 학생", UNKNOWN])
async def test_generation_equals_that_of_transformers(
    made: VocabularyModel, served: RunningServer, prompt: str
) -> None:
    expected = made.generate(made.ids(prompt), max_new_tokens=NEW_TOKENS)
    ended = expected[-1] == made.model.config.eos_token_id
    shown = expected[:-1] if ended else expected
    for special in (False, True):
        output = pb.OutputOptions(token_ids=True, include_special_tokens=special)
        candidate = await generate(served, pb.Prompt(text=prompt), output=output)
        assert list(candidate.token_ids) == expected
        assert candidate.text == made.decode(shown, skip_special_tokens=not special)


async def test_beam_search_equals_that_of_transformers(
    made: VocabularyModel, served: RunningServer
) -> None:
    expected = made.generate(made.ids(PROMPT), max_new_tokens=NEW_TOKENS, num_beams=3)
    candidate = await generate(
        served,
        pb.Prompt(text=PROMPT),
        beam_search=pb.BeamSearchParams(num_beams=3),
        output=pb.OutputOptions(token_ids=True),
    )
    assert list(candidate.token_ids) == expected
    assert candidate.text == made.decode(expected)


async def test_continuations_have_the_log_probabilities_of_their_tokens(
    made: VocabularyModel, served: RunningServer
) -> None:
    texts = ["cel", " cel", "学生", " the student"]
    request = pb.ScoreRequest(
        prompt=pb.Prompt(text="The par"), continuations=[pb.Prompt(text=text) for text in texts]
    )
    response = await served.stub.Score(request)
    prompt = made.ids("The par")
    for text, score in zip(texts, response.scores, strict=True):
        ids = [token.token_id for token in score.tokens]
        logprobs = made.logprobs([*prompt, *ids])[-len(ids) :]
        assert score.total_logprob == pytest.approx(sum(logprobs), abs=1e-3)
        if made.kind in SPACING:
            assert ids == made.ids(text, add_special_tokens=False)
        elif made.tokenizer.unk_token_id not in ids:
            assert b"".join(token.token for token in score.tokens) == text.encode()


async def test_an_echoed_text_is_the_prompt_with_its_continuation(
    made: VocabularyModel, served: RunningServer
) -> None:
    prompt = made.ids("The parcel", add_special_tokens=False)
    expected = made.generate(prompt, max_new_tokens=NEW_TOKENS)
    candidate = await generate(
        served,
        pb.Prompt(tokens=pb.TokenIds(ids=prompt)),
        output=pb.OutputOptions(echo=True),
    )
    assert candidate.text == made.decode([*prompt, *expected])


async def test_special_tokens_in_literal_text_are_ordinary_text(
    made: VocabularyModel, served: RunningServer
) -> None:
    unknown = made.tokenizer.unk_token_id
    for special in made.tokenizer.all_special_tokens:
        text = f"The {special}parcel {special}"
        ids = await tokenize(served, text, literal=True, add_special_tokens=False)
        assert not set(ids) & set(made.tokenizer.all_special_ids) - {unknown}
        # Whatever is unknown is the characters, not the token that is written out.
        if unknown not in ids and made.kind not in SPACING | {"lower-casing byte-level BPE"}:
            assert made.decode(ids).strip() == text
        prompt = pb.Prompt(text=text, literal=True, add_special_tokens=False)
        request = pb.GenerateRequest(
            prompts=[prompt], options=pb.GenerationOptions(stopping=STOPPING)
        )
        usage = (await served.stub.Generate(request)).results[0].usage
        assert usage.prompt_tokens == len(ids)


async def test_constraints_hold_or_are_refused_by_name(
    made: VocabularyModel, served: RunningServer, logs: list[Any]
) -> None:
    model = (await served.stub.GetModel(pb.GetModelRequest())).model
    assert bool(model.constraint_error) == (made.kind in SPACING)
    reasons = [entry["reason"] for entry in logs if entry["event"] == "no_constraints"]
    assert reasons == [model.constraint_error] * bool(model.constraint_error)
    assert model.tokenizer == made.kind.removeprefix("prefixed ").removeprefix("lower-casing ")
    choices = ["学生 The", "学校", "The student"]
    for constraint in (
        pb.Constraint(choices=pb.Choices(values=choices)),
        pb.Constraint(regex="(学生|학생)( the){2,3}"),
        pb.Constraint(lark='start: "오늘은" " "? ("비" | "ar")'),
    ):
        if model.constraint_error:
            call = served.stub.Generate(
                pb.GenerateRequest(
                    prompts=[pb.Prompt(text=PROMPT)],
                    options=pb.GenerationOptions(constraint=constraint),
                )
            )
            code, message, detail = await failure(call)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert bad_fields(detail) == ["options.constraint"]
            assert model.constraint_error in message
            continue
        for decoding in (
            {"sampling": GREEDY},
            {"sampling": pb.SamplingParams(seed=1)},
            {"beam_search": pb.BeamSearchParams(num_beams=3)},
        ):
            candidate = await generate(
                served, pb.Prompt(text=PROMPT), constraint=constraint, **decoding
            )
            if constraint.HasField("choices"):
                assert candidate.text in choices
            elif constraint.HasField("regex"):
                assert candidate.text.split(" ")[0] in {"学生", "학생"}
                assert set(candidate.text.split(" ")[1:]) == {"the"}
            else:
                assert candidate.text.replace(" ", "") in {"오늘은비", "오늘은ar"}

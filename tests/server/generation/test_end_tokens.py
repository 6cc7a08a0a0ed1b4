"""Texts that end at one of several end tokens, or at none."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.odd_models import TOKENS, OddModel, byte_level_tokenizer, make_checkpoint
from tests.support.running_server import RunningServer, serving
from transformers import GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import EngineConfig, ServerConfig

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PROMPTS = [[first, 60, 50, 90] for first in range(80, 92)]
NEW_TOKENS = 24
# End tokens beside the usual one, and the most prompts whose continuations have one of them.
ENDS = 6
RARE = 3
# One of them has a text of several letters.
WORD = 300
GREEDY = pb.SamplingParams(temperature=0)


def make(directory: Path, *, ends: bool) -> OddModel:
    """Export a model whose end tokens are some that greedy decoding produces.

    Args:
        directory: Directory of its files.
        ends: Whether it has end tokens.
    """
    checkpoint = directory / "checkpoint"
    make_checkpoint(checkpoint, byte_level_tokenizer(), TOKENS)
    plain = OddModel(
        checkpoint, directory / "bundle", GPT2LMHeadModel.from_pretrained(checkpoint), TOKENS, []
    )
    plain.model.generation_config.eos_token_id = None
    generation: dict[str, Any] = {"bos_token_id": 0}
    if ends:
        texts = [plain.greedy(prompt, NEW_TOKENS) for prompt in PROMPTS]
        spread = Counter(token_id for ids in texts for token_id in set(ids))
        rare = [token_id for token_id, count in spread.items() if count <= RARE]
        generation["eos_token_id"] = [*rare[:ENDS], WORD, 0]
    (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    export_bundle(checkpoint, plain.bundle, profile=Profile.FP32)
    model = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    return OddModel(checkpoint, plain.bundle, model, TOKENS, [])


def serve(made: OddModel) -> Any:
    engine = EngineConfig(threads=1, max_sequences=8)
    return serving(ServerConfig(models={"model": made.bundle}, port=0, engine=engine))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> OddModel:
    """Model with several end tokens, most of them ordinary ones."""
    return make(tmp_path_factory.mktemp("several"), ends=True)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> OddModel:
    """Model without an end token."""
    return make(tmp_path_factory.mktemp("endless"), ends=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ending(several: OddModel) -> AsyncIterator[RunningServer]:
    """Server of the model with several end tokens."""
    async with serve(several) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_on(endless: OddModel) -> AsyncIterator[RunningServer]:
    """Server of the model without an end token."""
    async with serve(endless) as running:
        yield running


def ends_of(made: OddModel) -> list[int]:
    ids: list[int] = made.model.generation_config.eos_token_id
    return ids


def options(**fields: Any) -> pb.GenerationOptions:
    stopping = {"max_new_tokens": NEW_TOKENS} | fields.pop("stopping", {})
    if "beam_search" not in fields:
        fields.setdefault("sampling", GREEDY)
    return pb.GenerationOptions(
        stopping=pb.StoppingCriteria(**stopping), output=pb.OutputOptions(token_ids=True), **fields
    )


async def generate(served: RunningServer, prompt: list[int], **fields: Any) -> list[pb.Candidate]:
    """Return the candidates of a prompt."""
    given = pb.Prompt(tokens=pb.TokenIds(ids=prompt))
    request = pb.GenerateRequest(prompts=[given], options=options(**fields))
    return list((await served.stub.Generate(request)).results[0].candidates)


async def test_the_description_has_all_end_tokens(
    several: OddModel, ending: RunningServer, running_on: RunningServer
) -> None:
    model = (await ending.stub.GetModel(pb.GetModelRequest())).model
    assert list(model.eos_token_ids) == ends_of(several)
    assert not (await running_on.stub.GetModel(pb.GetModelRequest())).model.eos_token_ids


async def test_each_ends_a_greedy_text_as_in_transformers(
    several: OddModel, ending: RunningServer
) -> None:
    met = set()
    for prompt in PROMPTS:
        [candidate] = await generate(ending, prompt)
        ids = list(candidate.token_ids)
        assert ids == several.greedy(prompt, NEW_TOKENS)
        ended = ids[-1] in ends_of(several)
        assert candidate.finish_reason == (
            pb.FINISH_REASON_EOS if ended else pb.FINISH_REASON_LENGTH
        )
        met |= {ids[-1]} if ended else set()
        messages = await ending.stream(
            pb.GenerateStreamRequest(
                prompt=pb.Prompt(tokens=pb.TokenIds(ids=prompt)), options=options()
            )
        )
        assert [each for message in messages for each in message.delta.token_ids] == ids
        assert messages[-1].end.result.candidates[0].finish_reason == candidate.finish_reason
    assert len(met) > 1


@pytest.mark.parametrize("minimum", [4, NEW_TOKENS])
async def test_all_are_held_back_by_min_new_tokens(
    several: OddModel, ending: RunningServer, minimum: int
) -> None:
    for prompt in PROMPTS:
        [candidate] = await generate(ending, prompt, stopping={"min_new_tokens": minimum})
        rows = several.generate(
            prompt, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=minimum
        )
        assert list(candidate.token_ids) == rows[0, len(prompt) :].tolist()


async def test_all_are_ordinary_tokens_when_ignored(ending: RunningServer) -> None:
    for prompt in PROMPTS:
        [candidate] = await generate(ending, prompt, stopping={"ignore_eos": True})
        assert candidate.finish_reason == pb.FINISH_REASON_LENGTH
        assert len(candidate.token_ids) == NEW_TOKENS


@pytest.mark.parametrize("early", ["EARLY_STOPPING_HEURISTIC", "EARLY_STOPPING_FIRST"])
async def test_beams_equal_transformers(
    several: OddModel, ending: RunningServer, early: str
) -> None:
    # Without a penalty of length, short hypotheses rank first.
    search = pb.BeamSearchParams(
        num_beams=4, num_return_sequences=4, early_stopping=early, length_penalty=0
    )
    ended = 0
    for prompt in PROMPTS[:6]:
        candidates = await generate(ending, prompt, beam_search=search)
        theirs = several.generate(
            prompt,
            num_beams=4,
            num_return_sequences=4,
            early_stopping=early.endswith("FIRST"),
            length_penalty=0.0,
            max_new_tokens=NEW_TOKENS,
            output_scores=True,
            return_dict_in_generate=True,
            do_sample=False,
        )
        scores = theirs.sequences_scores.tolist()
        assert [each.beam_score for each in candidates] == pytest.approx(scores, abs=1e-4)
        for candidate, row in zip(candidates, theirs.sequences.tolist(), strict=True):
            ids = list(candidate.token_ids)
            assert row[len(prompt) :][: len(ids)] == ids
            ended += ids[-1] in ends_of(several)
    assert ended > 1


async def test_each_ends_a_sampled_text(several: OddModel, ending: RunningServer) -> None:
    met = set()
    for seed in range(12):
        sampling = pb.SamplingParams(temperature=3, n=4, seed=seed)
        for candidate in await generate(ending, PROMPTS[0], sampling=sampling):
            *ids, last = candidate.token_ids
            assert not set(ids) & set(ends_of(several))
            if last in ends_of(several):
                assert candidate.finish_reason == pb.FINISH_REASON_EOS
                met.add(last)
            else:
                assert candidate.finish_reason == pb.FINISH_REASON_LENGTH
    assert len(met) > 2


async def test_each_is_admitted_where_a_constraint_is_satisfied(
    several: OddModel, ending: RunningServer
) -> None:
    met = set()
    for seed in range(40):
        [candidate] = await generate(
            ending,
            PROMPTS[0],
            sampling=pb.SamplingParams(temperature=50, seed=seed),
            constraint=pb.Constraint(regex="(ab){0,8}"),
            stopping={"ignore_eos": seed % 2 == 0},
        )
        *ids, last = candidate.token_ids
        assert not set(ids) & set(ends_of(several))
        assert re.fullmatch("(ab){0,8}", candidate.text)
        if candidate.finish_reason == pb.FINISH_REASON_EOS:
            met.add(last)
    assert len(met) > 2


async def test_text_that_needs_an_end_token_is_written_with_others(
    several: OddModel, ending: RunningServer
) -> None:
    """End tokens may be ordinary ones, whose text a grammar demands."""
    word = byte_level_tokenizer().decode([WORD])
    assert word.isascii()
    assert len(word) > 1
    choices = pb.Choices(values=[f"x{word}y"])
    [candidate] = await generate(ending, PROMPTS[0], constraint=pb.Constraint(choices=choices))
    assert candidate.text == f"x{word}y"
    assert not set(candidate.token_ids) & set(ends_of(several))


async def test_without_one_a_text_ends_by_its_length(
    endless: OddModel, running_on: RunningServer
) -> None:
    for prompt in PROMPTS:
        [candidate] = await generate(running_on, prompt)
        assert list(candidate.token_ids) == endless.greedy(prompt, NEW_TOKENS)
        assert candidate.finish_reason == pb.FINISH_REASON_LENGTH
        [candidate] = await generate(running_on, prompt, stopping={"min_new_tokens": 5})
        assert len(candidate.token_ids) == NEW_TOKENS
    [candidate] = await generate(running_on, PROMPTS[0], stopping={"stop_token_ids": [0]})
    assert candidate.finish_reason in {pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP}


async def test_without_one_stop_strings_end_a_text(running_on: RunningServer) -> None:
    [whole] = await generate(running_on, PROMPTS[0])
    stop = whole.text[5:7]
    [candidate] = await generate(running_on, PROMPTS[0], stopping={"stop_strings": [stop]})
    assert candidate.finish_reason == pb.FINISH_REASON_STOP
    assert candidate.text == whole.text[: whole.text.index(stop)]


async def test_without_one_beams_equal_transformers(
    endless: OddModel, running_on: RunningServer
) -> None:
    search = pb.BeamSearchParams(num_beams=3)
    [candidate] = await generate(running_on, PROMPTS[0], beam_search=search)
    rows = endless.generate(PROMPTS[0], num_beams=3, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert list(candidate.token_ids) == rows[0, len(PROMPTS[0]) :].tolist()


@pytest.mark.parametrize("beams", [0, 3], ids=["greedy", "beams"])
@pytest.mark.parametrize(
    "constraint, pattern",
    [
        (pb.Constraint(choices=pb.Choices(values=["yes", "no"])), "yes|no"),
        (pb.Constraint(regex="[a-c]{3}"), "[a-c]{3}"),
        (pb.Constraint(regex="a?"), "a?"),
        (pb.Constraint(regex=""), ""),
        (pb.Constraint(json_schema='{"type": "boolean"}'), "true|false"),
        (pb.Constraint(lark='start: "a" | "bc"'), "a|bc"),
    ],
    ids=["choices", "regex", "optional", "empty", "schema", "lark"],
)
async def test_without_one_a_complete_constraint_ends_a_text(
    running_on: RunningServer, constraint: pb.Constraint, pattern: str, beams: int
) -> None:
    fields: dict[str, Any] = {"constraint": constraint}
    if beams:
        fields["beam_search"] = pb.BeamSearchParams(num_beams=beams)
    for candidate in await generate(running_on, PROMPTS[0], **fields):
        assert candidate.finish_reason == pb.FINISH_REASON_CONSTRAINT
        assert re.fullmatch(pattern, candidate.text)


async def test_without_one_an_endless_constraint_ends_by_the_length(
    running_on: RunningServer,
) -> None:
    [candidate] = await generate(
        running_on, PROMPTS[0], constraint=pb.Constraint(regex="(ab)*"), stopping={}
    )
    assert candidate.finish_reason == pb.FINISH_REASON_LENGTH
    assert len(candidate.token_ids) == NEW_TOKENS

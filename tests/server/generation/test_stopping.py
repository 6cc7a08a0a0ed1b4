"""Stopping criteria: each ends generation and stays out of the text."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.engine_bench import EOS, EngineBench
from tests.support.generation_params import (
    GREEDY,
    PROMPT,
    eos_params,
    greedy,
    greedy_tokens,
    run_single,
)

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.params import (
    BeamSearchParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
)
from gpt2flow.server.sampling.processors import process


def test_the_token_limit_ends_generation(bench: EngineBench) -> None:
    reason, tokens, text = run_single(bench, greedy(12))
    assert (reason, tokens) == (FinishReason.LENGTH, greedy_tokens(bench))
    assert text == bench.tokenizer.decode(tokens)


@pytest.mark.parametrize("beams, length", [(0, 1), (0, 2), (0, 5), (3, 1)])
def test_a_stop_string_is_text_if_requested(bench: EngineBench, beams: int, length: int) -> None:
    output = OutputParams(token_ids=True, logprobs=True)
    params = replace(greedy(12, ignore_eos=True), output=output)
    if beams:
        params = replace(params, decoding=BeamSearchParams(num_beams=beams))
    _, _, whole = run_single(bench, params)
    stop = whole[4 : 4 + length]
    texts = []
    for include in (False, True):
        stopping = replace(params.stopping, stop_strings=(stop,), include_stop_string=include)
        task = bench.add(bench.task(PROMPT, replace(params, stopping=stopping), stream=not beams))
        bench.finish()
        [candidate] = bench.result(task).candidates
        assert candidate.finish_reason is FinishReason.STOP
        assert candidate.stop_string == stop
        if not beams:
            bench.assert_deltas_match_result(task)
        texts.append(candidate.text)
    without, included = texts
    assert stop not in without
    assert included == without + stop


def test_a_stop_id_ends_generation_and_is_not_text(bench: EngineBench) -> None:
    tokens = greedy_tokens(bench)
    stop = tokens[5]
    first = tokens.index(stop)
    reason, produced, text = run_single(bench, greedy(12, stop_token_ids=(stop,)))
    assert (reason, produced) == (FinishReason.STOP, tokens[: first + 1])
    assert text == bench.tokenizer.decode(tokens[:first])


def test_min_new_tokens_delays_stop_ids(bench: EngineBench) -> None:
    stop = greedy_tokens(bench)[0]
    _, produced, _ = run_single(bench, greedy(12, stop_token_ids=(stop,), min_new_tokens=6))
    assert stop not in produced[:6]
    assert len(produced) >= 6


def test_end_of_text_ends_generation_and_is_not_text(bench: EngineBench) -> None:
    assert run_single(bench, eos_params()) == (FinishReason.EOS, [EOS], "")


def test_end_of_text_can_be_ignored(bench: EngineBench) -> None:
    params = eos_params(ignore_eos=True)
    shown = replace(params, output=replace(params.output, include_special_tokens=True))
    for each, text in ((params, ""), (shown, "<|endoftext|>" * 4)):
        assert run_single(bench, each) == (FinishReason.LENGTH, [EOS] * 4, text)


def test_min_new_tokens_delays_end_of_text(bench: EngineBench) -> None:
    reason, tokens, _ = run_single(bench, eos_params(min_new_tokens=3))
    assert reason is FinishReason.EOS
    assert tokens.index(EOS) == 3


@pytest.mark.parametrize("decoding", [GREEDY, BeamSearchParams(num_beams=1)])
def test_a_stop_string_ends_generation_and_is_not_text(
    bench: EngineBench, decoding: SamplingParams | BeamSearchParams
) -> None:
    whole = bench.tokenizer.decode(greedy_tokens(bench))
    stop = whole[3:6]
    params = replace(greedy(12, stop_strings=("never", stop), ignore_eos=True), decoding=decoding)
    [candidate] = bench.run(PROMPT, params).candidates
    assert candidate.finish_reason is FinishReason.STOP
    assert candidate.stop_string == stop
    assert candidate.text == whole.partition(stop)[0]


def test_min_new_tokens_delays_stop_strings(bench: EngineBench) -> None:
    tokens = greedy_tokens(bench)
    stop = bench.tokenizer.decode(tokens)[1:3]
    stopping = {"stop_strings": (stop,), "ignore_eos": True}
    _, early, _ = run_single(bench, greedy(12, **stopping))
    _, late, text = run_single(bench, greedy(12, **stopping, min_new_tokens=len(early) + 3))
    assert late[: len(early)] == early
    assert len(late) >= len(early) + 3
    assert stop in text


def test_a_bad_word_is_excluded_with_and_without_a_leading_space(bench: EngineBench) -> None:
    encode = bench.tokenizer.encode
    word = next(word for word in ("it", "my", "or", "new") if len(encode(f" {word}")) == 1)
    params = GenerationParams(decoding=SamplingParams(bad_words=(word,)))
    processors = bench.task(PROMPT, params)._generation.processors  # type: ignore[attr-defined]
    for text in (word, f" {word}"):
        *start, last = encode(text)
        scores = np.zeros(bench.limits.vocabulary_size, np.float32)
        assert process(processors, scores, [*PROMPT, *start], len(PROMPT))[last] == -np.inf


def test_echo_puts_the_prompt_before_the_text(bench: EngineBench) -> None:
    params = replace(greedy(3), output=OutputParams(echo=True))
    [candidate] = bench.run("Where is", params).candidates
    plain = bench.run("Where is", greedy(3)).candidates[0]
    assert candidate.text == "Where is" + plain.text
    assert candidate.token_ids == plain.token_ids
    by_ids = bench.run(bench.tokenizer.encode("Where is"), params)
    assert by_ids.candidates[0].text == candidate.text

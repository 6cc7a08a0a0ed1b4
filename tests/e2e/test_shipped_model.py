"""Shipped bundle: small, verified, and as accurate as documented."""

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.project import PROJECT

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import first_prompt, normalize
from gpt2flow.agent.scenarios import load_scenarios
from gpt2flow.agent.scenarios.understanding import judge, load_examples, summary
from gpt2flow.agent.turns.model import ServedModel
from gpt2flow.server.bundle.manifest import load_bundle

HELD_OUT = PROJECT / "tests" / "heldout" / "messages.jsonl"
UNSEEN = HELD_OUT.with_name("unseen.jsonl")


def test_the_bundle_is_small_and_passed_its_quality_gate(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert sum(path.stat().st_size for path in bundle.iterdir()) <= 15e6
    assert manifest.recipe.profile == "int8"
    assert manifest.quality is not None
    assert not manifest.quality.forced
    assert manifest.quality.perplexity_ratio <= 1.01
    assert manifest.training["config"]["seed"] == 6
    assert manifest.training["missing_data_sets"] == []


@pytest.mark.parametrize("messages", [UNSEEN, HELD_OUT], ids=["unseen", "messages"])
def test_understanding_matches_the_documentation(address: str, messages: Path) -> None:
    """Allow two points, since other processors round differently."""
    examples = load_examples(messages)
    text = (PROJECT / "docs" / "model.md").read_text(encoding="utf-8")
    row = rf"^\| all \| {len(examples)} \| ([\d.]+)% \| ([\d.]+)% \|$"
    documented = re.search(row, text, re.MULTILINE)
    assert documented
    model = ServedModel(address, "", 60.0)
    figures = summary(list(judge(load_flows(), model, examples)))
    model.close()
    assert abs(figures["first_action"] * 100 - float(documented[1])) <= 2
    assert abs(figures["whole_sequence"] * 100 - float(documented[2])) <= 2


def test_answers_do_not_depend_on_load_order_or_cache(address: str) -> None:
    """Compare 2,005 answers: in order alone, then shuffled among others."""
    book, examples = load_flows(), load_examples(HELD_OUT)
    requests = [
        (
            first_prompt(book.shared, e.prompt_state, message),
            action_grammar(book, book.wishes, message, may_end=False),
        )
        for e in examples
        for message in (normalize(e.message),)
    ]
    model = ServedModel(address, "", 60.0)
    alone = [model.choose(*request).text for request in requests]
    differing = 0
    with ThreadPoolExecutor(8) as threads:
        for seed in range(4):
            order = random.Random(seed).sample(range(len(requests)), len(requests))
            texts = threads.map(lambda i: model.choose(*requests[i]).text, order)
            differing += sum(text != alone[i] for i, text in zip(order, texts, strict=True))
    model.close()
    assert len(requests) * 5 >= 2000
    assert differing == 0


def test_no_held_out_message_appears_in_the_corpus_sources() -> None:
    lines = [line for path in (HELD_OUT, UNSEEN) for line in path.read_text().splitlines()]
    messages = [json.loads(line)["message"] for line in lines]
    scenarios = load_scenarios(HELD_OUT.parent / "conversations")
    messages += [turn.text for scenario in scenarios for turn in scenario.turns]
    patterns = ("agent/**/flows/*/*.??.yaml", "training/**/lexicon/*.yaml")
    sources = [
        path.read_text(encoding="utf-8") for pattern in patterns for path in PROJECT.glob(pattern)
    ]
    assert len(sources) > 20
    # Shorter ones are what everybody says.
    long = [message for message in messages if len(message) >= 24]
    assert not [message for message in long if any(message in source for source in sources)]


def test_demo_ends_as_expected(bundle: Path) -> None:
    code, out, err = gpt2flow("demo", "--model", str(bundle))
    assert code == 0, out[-3000:] + err
    assert out.count("as expected") == 4


def test_demo_fails_when_a_workflow_ends_unexpectedly(bundle: Path, tmp_path: Path) -> None:
    scenario = tmp_path / "scenarios.yaml"
    scenario.write_text(
        "- id: never\n  turns: [{text: hello}]\n  expect: {rows: {orders: [{number: SO-1001}]}}\n"
    )
    code, _, err = gpt2flow("demo", "--model", str(bundle), "--scenarios", str(scenario))
    assert code == 1
    assert "not as expected: never" in err

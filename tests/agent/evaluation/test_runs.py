"""Repeats of all scenarios, by seed."""

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from tests.support.scripted_model import Script, ScriptedModel

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.evaluation.play import Playthrough
from gpt2flow.agent.evaluation.runs import run
from gpt2flow.agent.evaluation.summary import transcript
from gpt2flow.agent.evaluation.variation import vary
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.scenarios import Scenario
from gpt2flow.agent.shop.catalogue import Catalogue

TEXT = "please deliver the coffee grinder to Mary Whitfield at 12 Harbour Street before Sunday."
WISH = {"action": "check_out", "address": "12 Harbour Street"}
KNOWN = {"name": "Mary Whitfield", "product": "coffee grinder"}
VALUES = ["12 Harbour Street", "Mary Whitfield", "coffee grinder"]
SEEDS = range(300)


def scenario(name: str, *texts: str) -> Scenario:
    """Return a scenario in which Eva logs in, and then sends messages."""
    messages = [{"text": text, "wants": WISH, "knows": KNOWN} for text in texts]
    turns = [{"text": "eva@example.com"}, {"text": "{code}"}, *messages]
    shop = {"customers": [{"contact": "eva@example.com", "name": "Eva"}]}
    return Scenario.model_validate({"id": name, "shop": shop, "turns": turns})


@pytest.fixture
def model() -> ScriptedModel:
    """Model that logs Eva in, and otherwise shows the cart."""
    script: Script = defaultdict(lambda: ["view_cart"])
    script["eva@example.com"] = [Choice("log_in", {"contact": "eva@example.com"})]
    return ScriptedModel(script)


def conversations(results: list[Playthrough]) -> list[tuple[str, int, list[str]]]:
    return [(each.scenario.id, each.repeat, transcript(each)) for each in results]


def last_messages(results: list[Playthrough]) -> list[str]:
    return [result.reports[-1].message for result in results]


def variants(text: str, *protected: str) -> set[str]:
    return {vary(text, protected, random.Random(seed)) for seed in SEEDS}


def test_a_seed_decides_the_repeats(book: FlowBook, model: ScriptedModel) -> None:
    scenarios = [scenario("a", TEXT), scenario("b", TEXT)]

    def play(seed: int) -> list[tuple[str, int, list[str]]]:
        return conversations(run(book, model, scenarios, repeats=3, seed=seed))

    first = play(5)
    assert play(5) == first
    assert play(6) != first


def test_codes_differ_between_scenarios_and_repeats(book: FlowBook, model: ScriptedModel) -> None:
    results = run(book, model, [scenario("a"), scenario("b")], repeats=2)
    assert len(set(last_messages(results))) == 4


def test_repeats_after_the_first_vary_texts_but_no_values(
    book: FlowBook, model: ScriptedModel
) -> None:
    texts = last_messages(run(book, model, [scenario("a", TEXT)], repeats=12))
    assert texts[0] == TEXT
    assert len(set(texts[1:]) - {TEXT}) > 3
    assert all(value in text for text in texts for value in VALUES)


def test_results_are_ordered_by_scenario_and_repeat(book: FlowBook, model: ScriptedModel) -> None:
    scenarios = [scenario(name) for name in "dacbe"]
    played: list[tuple[str, int]] = []

    def note(result: Playthrough) -> None:
        played.append((result.scenario.id, result.repeat))

    results = run(book, model, scenarios, repeats=3, on_played=note)
    expected = [(name, repeat) for name in "dacbe" for repeat in range(3)]
    assert [(result.scenario.id, result.repeat) for result in results] == expected
    assert sorted(played) == sorted(expected)
    orders = [[name for name, repeat in played if repeat == number] for number in range(3)]
    assert orders != [list("dacbe")] * 3


def test_unknown_customer_is_named_before_anything_is_played(
    book: FlowBook, model: ScriptedModel
) -> None:
    order = {"number": "SO-1042", "contact": "bob@example.com", "status": "submitted"}
    shop: dict[str, Any] = {"orders": [order | {"lines": {"umbrella": 1}}]}
    bad = Scenario.model_validate({"id": "bad", "shop": shop, "turns": [{"text": "hi"}]})
    with pytest.raises(InputError, match=r"^scenario bad: unknown customer 'bob@example.com'$"):
        run(book, model, [scenario("good"), bad])
    assert not model.prompts


def test_unknown_product_is_named(book: FlowBook, model: ScriptedModel) -> None:
    shop = {"stock": {"unicorn": 1}}
    bad = Scenario.model_validate({"id": "bad", "shop": shop, "turns": [{"text": "hi"}]})
    with pytest.raises(InputError, match="unknown product 'unicorn'"):
        run(book, model, [bad])


def test_goods_are_those_of_the_catalogue(book: FlowBook, model: ScriptedModel) -> None:
    goods = {"sku": "jeans", "en": "jeans", "zh": "牛仔裤", "price": "59.00", "stock": 3}
    courier = {"code": "fast", "en": "Fast", "zh": "快"}
    shop = Catalogue.model_validate({"products": [goods], "couriers": [courier]})
    add = Choice("add_to_cart", {"product": "jeans"})
    model.script = {"jeans": [add], "kettle": [Choice("add_to_cart", {"product": "kettle"})]}
    turns = {"id": "x", "turns": [{"text": "jeans"}, {"text": "kettle"}]}
    (result,) = run(book, model, [Scenario.model_validate(turns)], catalogue=shop)
    outcomes = [report.actions[0].outcome for report in result.reports]
    assert outcomes == ["added", "unknown_product"]


def test_a_text_varies_by_seed_only() -> None:
    for seed in SEEDS:
        assert vary(TEXT, [], random.Random(seed)) == vary(TEXT, [], random.Random(seed))
    assert TEXT in variants(TEXT)
    assert len(variants(TEXT)) > 20


def test_a_variant_has_one_typo_of_swapped_letters_at_most() -> None:
    for text in variants(TEXT):
        kept = TEXT.removesuffix("." if not text.endswith(".") else "")
        assert Counter(text) == Counter(kept)
        assert sum(a != b for a, b in zip(text, kept, strict=True)) in {0, 2}


def test_final_mark_may_go_but_a_question_stays_one() -> None:
    assert variants("Yes!") == {"Yes!", "Yes"}
    assert variants("好的。") == {"好的。", "好的"}
    assert variants("Yes?") == {"Yes?"}


def test_chinese_comma_may_become_a_space() -> None:
    assert variants("你好，退款") == {"你好，退款", "你好 退款"}
    assert variants("寄到文三路5号，杭州", "文三路5号，杭州") == {"寄到文三路5号，杭州"}


@pytest.mark.parametrize(
    "text", ["mary.whitfield@example.com", "{code}", "yes it is OK", "SO-1042", "换货"]
)
def test_address_placeholder_and_short_words_stay_as_they_are(text: str) -> None:
    assert variants(text) == {text}


def test_protected_words_stay_as_they_are_in_any_case() -> None:
    assert variants("whitfield coffee", "Whitfield Coffee") == {"whitfield coffee"}
    texts = variants("coffee for whitfield please", "Whitfield")
    assert all("whitfield" in text for text in texts)
    assert any("coffee" not in text for text in texts)
    assert any("please" not in text for text in texts)

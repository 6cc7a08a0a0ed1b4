"""Messages are labelled with what counts in the end, combinations included."""

import random
from collections.abc import Callable

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.mentions import MentionGenerator
from gpt2flow.training.corpus.messages import Intent, MessageGenerator
from gpt2flow.training.corpus.sources.lexicon import load_lexicon
from gpt2flow.training.corpus.sources.templates import Template, TemplateParser
from gpt2flow.training.corpus.sources.utterances import (
    LANGUAGES,
    Combination,
    Language,
    Utterances,
)
from gpt2flow.training.corpus.turns import TurnGenerator


def _template(source: str) -> Template:
    return TemplateParser("test", {}).parse(source)


def _first_candidate(kind: SlotKind) -> Callable[[str], str]:
    return lambda text: candidates(kind, text)[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_retracted_request_gives_no_label_and_no_value(
    turn_generator: TurnGenerator, language: Language
) -> None:
    generator = turn_generator._messages[language]
    request = ("verify", _template("{code}"))
    for seed in range(100):
        rng = random.Random(seed)
        text, intents = generator.generate([request], rng, retracted=request)
        _, right = candidates(SlotKind.CODE, text)
        assert intents == [Intent("verify", {"code": right})], text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "action, slot",
    [
        ("correct_name", "name"),
        ("find_product", "product"),
        ("track_order", "order"),
        ("log_in", "contact"),
    ],
)
def test_a_corrected_value_takes_the_place_of_the_first(
    book: FlowBook, language: Language, action: str, slot: str
) -> None:
    corrections = Utterances(corrections=[_template(" 000 ")])
    mentions = MentionGenerator(language, load_lexicon(language), {}, {})
    generator = MessageGenerator(book, language, corrections, mentions)
    corrected = 0
    for seed in range(400):
        request = (action, _template(f"{{{slot}}}"))
        text, intents = generator.generate([request], random.Random(seed))
        wrong, _, right = text.partition(" 000 ")
        if not right:
            continue
        corrected += 1
        kind = book.slots[slot].kind
        read = normalize if kind is SlotKind.SPAN else _first_candidate(kind)
        assert intents == [Intent(action, {slot: read(right)})], text
        assert wrong
    assert 10 < corrected < 60


def _combined(
    turn_generator: TurnGenerator, source: str, actions: list[str], shared: list[str], seed: int
) -> tuple[str, list[Intent]]:
    """Return a message with one wording of several wishes, and its intents."""
    combination = Combination(tuple(actions), frozenset(shared), _template(source))
    return turn_generator._messages["en"].generate([combination], random.Random(seed))


def test_a_combination_gives_each_wish_its_own_values(turn_generator: TurnGenerator) -> None:
    for seed in range(50):
        text, (first, second) = _combined(
            turn_generator,
            "{2.code} and {1.code} but {not.code} => 1.reason=late",
            ["verify", "verify"],
            [],
            seed,
        )
        told = candidates(SlotKind.CODE, text)
        assert [first.arguments["code"], second.arguments["code"]] == [told[1], told[0]], text


def test_a_value_is_written_again_where_its_placeholder_is_repeated(
    turn_generator: TurnGenerator,
) -> None:
    text, (intent,) = _combined(turn_generator, "{1.code} or {1.code}", ["verify"], [], 1)
    assert candidates(SlotKind.CODE, text) == [intent.arguments["code"]]


def test_an_unwanted_value_differs_from_the_wanted_one(turn_generator: TurnGenerator) -> None:
    source = _template("not {not.quantity} but {1.quantity} {1.product}")
    combination = Combination(("add_to_cart",), frozenset(), source)
    generator = turn_generator._messages["en"]
    for seed in range(200):
        segments = generator._writer.write(combination, [], random.Random(seed))
        unwanted, _, wanted = "".join(each.text for each in segments).partition(" but ")
        numbers = [candidates(SlotKind.INTEGER, text)[0] for text in (unwanted, wanted)]
        assert numbers[0] != numbers[1], segments


def test_a_wish_shares_the_value_of_the_first(turn_generator: TurnGenerator) -> None:
    actions = ["find_product", "add_to_cart"]
    _, intents = _combined(turn_generator, "{1.product}? {2.quantity}", actions, ["product"], 1)
    assert [intent.action for intent in intents] == actions
    assert intents[0].arguments["product"] == intents[1].arguments["product"]
    assert set(intents[1].arguments) == {"product", "quantity"}


@pytest.mark.parametrize(
    "actions, expected",
    [
        # A question waits for nothing, so that it is answered where it stands.
        (["find_product", "add_to_cart"], ["add_to_cart", "find_product"]),
        (["remove_from_cart", "add_to_cart"], ["remove_from_cart", "add_to_cart"]),
    ],
)
def test_wishes_are_in_the_order_of_execution(
    turn_generator: TurnGenerator, actions: list[str], expected: list[str]
) -> None:
    _, intents = _combined(turn_generator, "{2.product}, {1.product}", actions, [], 1)
    assert [intent.action for intent in intents] == expected

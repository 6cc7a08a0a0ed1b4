"""Labels of turns are the customer's wishes, whatever the state."""

import random
import re
from collections import Counter
from itertools import islice

import llguidance
import pytest
from tests.support.turn_documents import Turn, parse_turn

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, PromptState
from gpt2flow.training.corpus.corpus import load_turn_generator
from gpt2flow.training.corpus.messages import Intent
from gpt2flow.training.corpus.sources.utterances import (
    LANGUAGES,
    Language,
)
from gpt2flow.training.corpus.turns import TurnGenerator

# Flows whose utterances are numbers, which no typo changes.
_NUMBERED = {
    "shared.yaml": """
facts: {guest: Not known., unsure: The agent asked., seen: The goods were shown.}
slots: {}
""",
    "conversation/flow.yaml": """
flow: conversation
title: {en: Talk, zh: 对话}
actions:
  clarify: {operation: clarify, outcomes: {asked: {result: ok}}}
  affirm:
    operation: affirm
    when: [unsure]
    otherwise: [{when: [not unsure], action: clarify}]
    outcomes: {done: {result: ok}}
  deny:
    operation: deny
    when: [unsure]
    otherwise: [{when: [not unsure], action: clarify}]
    outcomes: {done: {result: ok}}
""",
    "shop/flow.yaml": """
flow: shop
title: {en: Shop, zh: 商店}
actions:
  look:
    operation: look
    effects: {add: [seen]}
    outcomes: {shown: {result: ok}, closed: {result: refused}}
  buy:
    operation: buy
    question: {en: Buy it?, zh: 买吗?}
    when: [seen]
    otherwise: [{when: [not seen], action: look}]
    outcomes: {done: {result: ok}}
  count: {operation: count, outcomes: {done: {result: ok}}}
  leave: {operation: leave, outcomes: {done: {result: ok}}}
  praise: {operation: praise, outcomes: {done: {result: ok}}}
""",
}
_NUMBERED_UTTERANCES = """
actions:
  {clarify: ["10"], affirm: ["11"], deny: ["12"], look: ["20"], buy: ["21"], count: ["22"],
   leave: ["23"], praise: ["24"]}
joiners: [" + "]
retractions: [" 99 "]
follow_ups:
  - {action: buy, after: [look ok], say: ["71"]}
  - {action: count, after: [look refused], say: ["72"]}
"""
_RETRACTION = "99"
_ACTIONS = {
    "10": "clarify",
    "11": "affirm",
    "12": "deny",
    "20": "look",
    "21": "buy",
    "22": "count",
    "23": "leave",
    "24": "praise",
    "71": "buy",
    "72": "count",
}


class _FixedDraw(random.Random):
    """Random generator with which policy refuses all refusable actions, or none."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(1)
        self._value = 0.0 if refuses else 0.99

    def random(self) -> float:
        return self._value


def _parse_intents(intents: tuple[str, ...]) -> list[Intent]:
    """Parse intents: each is `action`, or `action slot=value …`."""
    parsed = []
    for intent in intents:
        action, *given = intent.split()
        arguments: Arguments = {}
        for pair in given:
            slot, value = pair.split("=")
            arguments[slot] = value
        parsed.append(Intent(action, arguments))
    return parsed


def _label(
    turn_generator: TurnGenerator, state: str, *intents: str, refuses: bool = False
) -> list[str]:
    """Return labels with arguments and results."""
    rng = _FixedDraw(refuses=refuses)
    start = PromptState(frozenset(state.split()))
    turn = parse_turn(turn_generator._finish_turn(start, "x", _parse_intents(intents), rng))
    return [
        " ".join([*map(str, choice.values()), result])
        for choice, result in zip(turn.choices, turn.results, strict=True)
    ]


def _markers(turn: Turn) -> list[str]:
    """Return the numbers of a message from the numbered flows."""
    return re.findall(r"\d\d", turn.message)


@pytest.fixture(scope="module")
def numbered_turns(tmp_path_factory: pytest.TempPathFactory) -> list[Turn]:
    """Turns of the numbered flows."""
    folder = tmp_path_factory.mktemp("flows")
    utterances = {
        f"shop/utterances.{language}.yaml": _NUMBERED_UTTERANCES for language in LANGUAGES
    }
    for name, text in (_NUMBERED | utterances).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    documents = load_turn_generator(folder).documents(random.Random(1))
    return [parse_turn(document) for document in islice(documents, 1500)]


@pytest.mark.parametrize(
    "state, intents, expected",
    [
        ("member", ["track_order order=last"], ["track_order last ok"]),
        ("member", ["track_order"], ["track_order asked"]),
        ("verifying", ["verify code=123456", "check_out address=b"],
         ["verify 123456 ok", "check_out b blocked"]),
        ("member", ["add_to_cart product=a", "check_out address=b"],
         ["add_to_cart a ok", "check_out b ok"]),
        ("member cart", ["check_out address=b", "confirm_order"],
         ["check_out b ok", "confirm_order ok"]),
        # A wish that is not legal is labelled as itself; the agent resolves it.
        ("guest", ["track_order order=last"], ["track_order last blocked"]),
        ("guest", ["track_order"], ["track_order blocked"]),
        ("guest", ["track_order", "cancel_order"], ["track_order blocked", "cancel_order blocked"]),
        ("guest", ["track_order", "log_in contact=a@b.c"],
         ["track_order blocked", "log_in a@b.c ok"]),
        ("member", ["check_out address=b"], ["check_out b blocked"]),
        ("member", ["confirm_order"], ["confirm_order blocked"]),
        ("member", ["verify code=123456"], ["verify 123456 blocked"]),
        ("member", ["affirm"], ["affirm blocked"]),
        ("member unsure", ["affirm"], ["affirm ok"]),
        # So is a wish that depends on a failed one, and one beside another.
        ("member", ["add_to_cart", "check_out address=b"],
         ["add_to_cart asked", "check_out b blocked"]),
        ("member cart", ["check_out", "confirm_order"],
         ["check_out asked", "confirm_order blocked"]),
        ("member", ["register", "track_order order=last"],
         ["register blocked", "track_order last ok"]),
        ("member", ["register", "log_in"], ["register blocked", "log_in blocked"]),
    ],
)  # fmt: skip
def test_wishes_are_labelled_as_themselves_with_results(
    turn_generator: TurnGenerator, state: str, intents: list[str], expected: list[str]
) -> None:
    assert _label(turn_generator, state, *intents) == expected


def test_a_refusal_does_not_stop_the_other_wishes(turn_generator: TurnGenerator) -> None:
    intents = ["add_to_cart product=a", "check_out address=b", "track_order order=last"]
    assert _label(turn_generator, "member", *intents, refuses=True) == [
        "add_to_cart a refused",
        "check_out b blocked",
        "track_order last refused",
    ]


def test_one_message_has_the_same_labels_with_other_results_in_another_state(
    turn_generator: TurnGenerator,
) -> None:
    intents = ["verify code=123456", "track_order order=last"]
    states = [" ".join(facts) for facts in turn_generator._contexts.states]
    labels = [[label.split() for label in _label(turn_generator, s, *intents)] for s in states]
    assert {tuple(tuple(words[:-1]) for words in turn) for turn in labels} == {
        (("verify", "123456"), ("track_order", "last"))
    }
    assert {tuple(words[-1] for words in turn) for turn in labels} == {
        ("blocked", "blocked"),
        ("blocked", "ok"),
        ("ok", "ok"),
    }


@pytest.mark.process
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_grammar_of_all_wishes_admits_every_label(
    book: FlowBook, turn_generator: TurnGenerator, language: Language
) -> None:
    """The grammar is the one that the agent passes to the server."""
    only = TurnGenerator(book, {language: turn_generator._messages[language]})
    tokenizer = llguidance.LLTokenizer("byte")
    turns = map(parse_turn, only.documents(random.Random(language)))
    for turn in islice((turn for turn in turns if not turn.event), 300):
        grammar = action_grammar(book, book.wishes, turn.message)
        for text, _ in turn.steps:
            matcher = llguidance.LLMatcher(tokenizer, grammar)
            assert matcher.consume_tokens(tokenizer.tokenize_str(text)), (turn, text)
            assert matcher.is_accepting(), (turn, text)


@pytest.mark.process
def test_the_grammar_admits_the_label_of_a_bare_order_number(
    book: FlowBook, turn_generator: TurnGenerator
) -> None:
    tokenizer = llguidance.LLTokenizer("byte")
    for seed in range(3000):
        generator = turn_generator._messages["en"]
        document = turn_generator._sample_ambiguous_turn(generator, random.Random(seed))
        assert document is not None
        turn = parse_turn(document)
        if re.fullmatch(r"[\d ]{6,7}.?", turn.message):
            legal = book.legal(turn.facts)
            grammar = action_grammar(book, book.wishes, turn.message, legal=legal)
            matcher = llguidance.LLMatcher(tokenizer, grammar)
            assert matcher.consume_tokens(tokenizer.tokenize_str(turn.steps[0][0])), turn


def test_only_requests_that_stand_are_labelled(numbered_turns: list[Turn]) -> None:
    retracted = [turn for turn in numbered_turns if _RETRACTION in _markers(turn)]
    assert len(retracted) > 20
    for turn in numbered_turns:
        markers = _markers(turn)
        if _RETRACTION in markers:
            assert markers.index(_RETRACTION) == 1
            markers = markers[2:]
        assert sorted(turn.actions) == sorted(_ACTIONS[marker] for marker in markers), turn


@pytest.mark.parametrize(
    "marker, earlier", [("71", ("look", "ok")), ("72", ("look", "refused"))], ids=["ok", "refused"]
)
def test_a_follow_up_follows_the_action_that_it_needs(
    numbered_turns: list[Turn], marker: str, earlier: tuple[str, str]
) -> None:
    turns = [turn for turn in numbered_turns if marker in _markers(turn)]
    assert len(turns) > 30
    assert all(turn.past[-1] == earlier for turn in turns)
    assert all(turn.actions[0] == _ACTIONS[marker] for turn in turns)


def test_a_follow_up_has_the_facts_that_the_earlier_action_left(numbered_turns: list[Turn]) -> None:
    shown = [turn for turn in numbered_turns if "71" in _markers(turn)]
    assert all("seen" in turn.facts for turn in shown)
    refused = [turn for turn in numbered_turns if "72" in _markers(turn)]
    assert any("seen" not in turn.facts for turn in refused)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_shipped_follow_up_follows_one_of_its_actions(
    turn_generator: TurnGenerator, language: Language
) -> None:
    generator = turn_generator._messages[language]
    allowed = {
        (action, follow_up.after)
        for action, follow_ups in generator.utterances.follow_ups.items()
        for follow_up in follow_ups
    }
    rng = random.Random(1)
    for _ in range(200):
        document = turn_generator._sample_follow_up_turn(generator, rng)
        assert document is not None
        turn = parse_turn(document)
        assert (turn.actions[0], turn.past[-1]) in allowed, turn


def test_a_follow_up_of_a_question_has_it_open(turn_generator: TurnGenerator) -> None:
    rng = random.Random(1)
    for _ in range(500):
        document = turn_generator._sample_follow_up_turn(turn_generator._messages["en"], rng)
        assert document is not None
        turn = parse_turn(document)
        if turn.past[-1][1] == "asked":
            assert turn.awaiting, turn
            assert turn.awaiting[0] == turn.past[-1][0]


def test_a_turn_after_a_question_for_confirmation_has_the_fact_unsure(
    numbered_turns: list[Turn],
) -> None:
    unsure = [turn for turn in numbered_turns if turn.awaiting]
    assert len(unsure) > 50
    assert {turn.awaiting for turn in unsure} == {("buy", CONFIRMATION)}
    assert all({"unsure", "seen"} <= turn.facts for turn in unsure)
    assert all("unsure" not in turn.facts for turn in numbered_turns if turn not in unsure)
    assert all(turn.past[-1] == ("buy", "asked") for turn in unsure)
    assert {"affirm", "deny", "buy", "look"} <= {turn.actions[0] for turn in unsure}


def test_a_bare_yes_or_no_answers_a_question(numbered_turns: list[Turn]) -> None:
    for turn in numbered_turns:
        assert "unsure" in turn.facts or not {"affirm", "deny"} & set(turn.actions), turn


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_shipped_combination_names_all_its_wishes(
    turn_generator: TurnGenerator, language: Language
) -> None:
    generator = turn_generator._messages[language]
    known = {each.actions for each in generator.utterances.combinations}
    rng = random.Random(1)
    for _ in range(200):
        document = turn_generator._sample_combined_turn(generator, rng)
        assert document is not None
        actions = Counter(parse_turn(document).actions)
        assert any(not Counter(combined) - actions for combined in known), document


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_no_may_be_followed_by_the_whole_message(
    turn_generator: TurnGenerator, language: Language
) -> None:
    rng = random.Random(1)
    generator = turn_generator._messages[language]
    documents = (turn_generator._sample_confirmation_turn(generator, rng) for _ in range(400))
    turns = [parse_turn(document) for document in documents if document]
    assert any(
        turn.message.lower().startswith(("no", "不"))
        and len(turn.actions) > 1
        and "deny" not in turn.actions
        for turn in turns
    )


@pytest.mark.parametrize(
    "actions, state, expected",
    [
        (["add_to_cart", "check_out"], "member", True),
        (["check_out", "add_to_cart"], "member", False),
        (["check_out", "add_to_cart"], "member cart", True),
        (["confirm_order", "decline_order"], "member cart confirming", False),
        (["log_out", "track_order"], "member", False),
        (["track_order", "log_out"], "member", True),
        (["log_in", "log_in"], "guest", False),
        (["add_to_cart", "add_to_cart"], "guest", True),
        (["greet", "track_order"], "member", False),
    ],
)
def test_only_coherent_actions_share_a_message(
    turn_generator: TurnGenerator, actions: list[str], state: str, *, expected: bool
) -> None:
    assert turn_generator._requests.is_coherent(actions, frozenset(state.split())) is expected

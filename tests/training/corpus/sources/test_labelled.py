"""Labelled messages of data sets in the corpus."""

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest
from tests.support.turn_documents import parse_turn

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import admits
from gpt2flow.training.corpus.corpus import make_flow_corpus
from gpt2flow.training.corpus.messages import Intent
from gpt2flow.training.corpus.sources.labelled import (
    DATA_SETS,
    LabelledMessage,
    LabelledMessages,
    load_labelled,
)
from gpt2flow.training.corpus.sources.utterances import LANGUAGES, Language
from gpt2flow.training.corpus.turns import TurnGenerator
from gpt2flow.training.errors import CorpusError

_HEADER = "lang\taction\targuments\ttext\tlabel\tsplit"
# Text that no typo changes and no utterance has.
_MARK = "70718082"


def _row(language: str, action: str, text: str, **arguments: str | int) -> str:
    return "\t".join([language, action, json.dumps(arguments), text, "a label", "train"])


def _write(directory: Path, name: str, *lines: str) -> Path:
    """Write a data set and return its file."""
    path = directory / name / "mapped.tsv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def _labelled(*messages: LabelledMessage) -> LabelledMessages:
    """Return English messages that need no file."""
    by_action: dict[str, list[LabelledMessage]] = {}
    for message in messages:
        by_action.setdefault(message.action, []).append(message)
    return LabelledMessages(messages={"en": by_action})


def test_messages_are_read_by_language_and_action(book: FlowBook, tmp_path: Path) -> None:
    chinese = _row("zh", "greet", "你好")
    english = _row("en", "add_to_cart", "2 {product}", product="{product}", quantity=2)
    _write(tmp_path, "first", _HEADER, chinese, english)
    _write(tmp_path, "second", _HEADER, _row("en", "greet", "hello"), _row("en", "greet", "hi"))
    assert load_labelled(tmp_path, book).messages == {
        "zh": {"greet": [LabelledMessage("greet", {}, "你好")]},
        "en": {
            "add_to_cart": [
                LabelledMessage(
                    "add_to_cart", {"product": "{product}", "quantity": 2}, "2 {product}"
                )
            ],
            "greet": [LabelledMessage("greet", {}, "hello"), LabelledMessage("greet", {}, "hi")],
        },
    }


def test_a_file_without_a_header_is_read_from_its_first_line(
    book: FlowBook, tmp_path: Path
) -> None:
    _write(tmp_path, "plain", _row("en", "greet", "hello"))
    messages = load_labelled(tmp_path, book).messages
    assert messages == {"en": {"greet": [LabelledMessage("greet", {}, "hello")]}}


def test_a_line_with_another_number_of_columns_is_named(book: FlowBook, tmp_path: Path) -> None:
    path = _write(tmp_path, "short", _HEADER, _row("en", "greet", "hello"), "en\tgreet\t{}\thello")
    with pytest.raises(CorpusError) as caught:
        load_labelled(tmp_path, book)
    assert str(caught.value) == f"{path}: line 3 has 4 columns, not 6"


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_directory_without_data_sets_is_named(book: FlowBook, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(CorpusError) as caught:
        load_labelled(tmp_path / name, book)
    assert str(caught.value) == f"{tmp_path / name}: no data set found, expected */mapped.tsv.gz"


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"en\tgreet", "Not a gzipped file"),
        (gzip.compress(b"en\tgreet")[:-9], "ended before the end-of-stream marker"),
        (gzip.compress(b"\xff\xfe"), "can't decode byte 0xff"),
        (gzip.compress(b"en\tgreet")[:10] + b"\xff" * 20, "Error -3"),
    ],
    ids=["not compressed", "cut short", "not UTF-8", "damaged"],
)
def test_a_file_that_cannot_be_read_is_named(
    book: FlowBook, tmp_path: Path, content: bytes, problem: str
) -> None:
    path = _write(tmp_path, "broken")
    path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        load_labelled(tmp_path, book)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize("arguments", ["{", "[]", "5", "null"])
def test_arguments_that_are_no_object_are_named(
    book: FlowBook, tmp_path: Path, arguments: str
) -> None:
    path = _write(tmp_path, "broken", f"en\tgreet\t{arguments}\thello\ta label\ttrain")
    with pytest.raises(CorpusError) as caught:
        load_labelled(tmp_path, book)
    assert str(caught.value).startswith(f"{path}: line 1")


@pytest.mark.parametrize(
    "row",
    [
        _row("en", "fly", "up and away"),
        _row("en", "assign_courier", "SO-1042"),
        _row("en", "greet", "hello", product="hello"),
        _row("en", "find_product", "a {gadget}"),
        _row("de", "greet", "hallo"),
        _row("en", "greet", "o" * 301),
    ],
    ids=["action", "action of an event", "slot", "placeholder", "language", "length"],
)
def test_a_message_that_the_flows_do_not_know_is_left_out(
    book: FlowBook, tmp_path: Path, row: str
) -> None:
    assert book.actions["assign_courier"].event is not None
    longest = "o" * 300
    _write(tmp_path, "mixed", _HEADER, row, _row("en", "greet", longest))
    messages = load_labelled(tmp_path, book).messages
    assert messages == {"en": {"greet": [LabelledMessage("greet", {}, longest)]}}


def test_sources_are_hashed_and_missing_ones_are_named(book: FlowBook, tmp_path: Path) -> None:
    path = _write(tmp_path, "banking77", _HEADER, _row("en", "greet", "hello"))
    own = _write(tmp_path, "own", _HEADER)
    found = load_labelled(tmp_path, book)
    assert found.sources == {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in (("banking77", path), ("own", own))
    }
    assert found.missing == [name for name in DATA_SETS if name != "banking77"]


def test_wishes_to_buy_that_are_labelled_as_questions_are_left_out(
    book: FlowBook, tmp_path: Path
) -> None:
    _write(tmp_path, "product-requests-en", _HEADER, _row("en", "greet", "hello"))
    with pytest.raises(CorpusError, match="no data set found"):
        load_labelled(tmp_path, book)
    _write(tmp_path, "other", _HEADER, _row("en", "greet", "hi"))
    found = load_labelled(tmp_path, book)
    assert list(found.sources) == ["other"]
    assert found.messages == {"en": {"greet": [LabelledMessage("greet", {}, "hi")]}}


def _shares(labelled: LabelledMessages) -> Mapping[str, float]:
    """Return the share of each action among sampled messages."""
    rng = random.Random(1)
    sampled = [labelled.sample("en", rng) for _ in range(3000)]
    counts = Counter(message.action for message in sampled if message)
    return {action: count / len(sampled) for action, count in counts.items()}


def test_a_frequent_action_is_sampled_less_often_than_it_occurs() -> None:
    messages = [LabelledMessage("greet", {}, str(i)) for i in range(100)]
    shares = _shares(_labelled(*messages, LabelledMessage("view_cart", {}, "cart")))
    assert 0.8 < shares["greet"] < 0.97
    assert shares["greet"] + shares["view_cart"] == pytest.approx(1)


def test_at_most_three_in_twenty_messages_are_no_wish_of_a_customer() -> None:
    messages = [LabelledMessage("clarify", {}, str(i)) for i in range(1000)]
    shares = _shares(_labelled(*messages, LabelledMessage("greet", {}, "hello")))
    assert 0.12 < shares["clarify"] < 0.18
    assert _shares(_labelled(*messages)) == {"clarify": 1}


def test_a_language_without_messages_gives_none() -> None:
    labelled = _labelled(LabelledMessage("greet", {}, "hello"))
    assert labelled.sample("zh", random.Random(1)) is None
    assert LabelledMessages().sample("en", random.Random(1)) is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "action, slots",
    [
        ("add_to_cart", ["product", "quantity"]),
        ("track_order", ["order"]),
        ("register", ["name", "contact"]),
        ("verify", ["code"]),
        ("schedule_follow_up", ["time"]),
        ("request_refund", ["order", "reason"]),
    ],
)
def test_placeholders_are_filled_with_values_that_the_agent_derives(
    book: FlowBook, turn_generator: TurnGenerator, language: Language, action: str, slots: list[str]
) -> None:
    generator = turn_generator._messages[language]
    text = "@ " + " @ ".join(f"{{{slot}}}" for slot in reversed(slots)) + " @"
    message = LabelledMessage(action, {slot: f"{{{slot}}}" for slot in slots}, text)
    values = set()
    for seed in range(100):
        filled = generator.fill(message, random.Random(seed))
        assert filled is not None
        text, (intent,) = filled
        assert text.count("@ ") >= len(slots)
        assert "{" not in text
        assert intent.action == action
        assert list(intent.arguments) == slots
        assert admits(book, intent.choice, text), text
        values.add(str(intent.arguments))
    assert len(values) > 5


def test_a_filled_value_is_normalized_like_its_message(
    book: FlowBook, turn_generator: TurnGenerator
) -> None:
    """Some Chinese addresses have full-width commas."""
    message = LabelledMessage("check_out", {"address": "{address}"}, "{address}")
    for seed in range(100):
        filled = turn_generator._messages["zh"].fill(message, random.Random(seed))
        assert filled is not None
        assert admits(book, filled[1][0].choice, filled[0]), filled


def test_values_in_the_text_are_kept_as_they_are(turn_generator: TurnGenerator) -> None:
    message = LabelledMessage(
        "add_to_cart", {"quantity": 2, "product": "Green Tea"}, "2 Green Tea!"
    )
    for seed in range(50):
        filled = turn_generator._messages["en"].fill(message, random.Random(seed))
        expected = Intent("add_to_cart", {"product": "Green Tea", "quantity": 2})
        assert filled == ("2 Green Tea!", [expected])
        assert list(filled[1][0].arguments) == ["product", "quantity"]


def test_a_message_without_values_gets_typos(turn_generator: TurnGenerator) -> None:
    message = LabelledMessage("greet", {}, "hello, how are you today?")
    rng = random.Random(1)
    filled = [turn_generator._messages["en"].fill(message, rng) for _ in range(50)]
    assert len({each[0] for each in filled if each}) > 10
    assert all(each and each[1] == [Intent("greet", {})] for each in filled)


def test_labelled_messages_join_the_turns(book: FlowBook, turn_generator: TurnGenerator) -> None:
    message = LabelledMessage("track_order", {"order": "{order}"}, f"{_MARK} {{order}}")
    generator = TurnGenerator(book, turn_generator._messages, _labelled(message))
    turns = list(map(parse_turn, islice(generator.documents(random.Random(1)), 1000)))
    joined = [turn for turn in turns if _MARK in turn.message]
    assert 30 < len(joined) < 150
    assert all(turn.actions == ["track_order"] for turn in joined)
    assert {turn.results for turn in joined} == {("ok",), ("refused",), ("blocked",)}
    assert any(turn.past for turn in joined)


def test_a_message_without_its_value_joins_no_turn(
    book: FlowBook, turn_generator: TurnGenerator
) -> None:
    message = LabelledMessage("find_product", {"product": "sofa"}, f"a lamp {_MARK}")
    generator = TurnGenerator(book, turn_generator._messages, _labelled(message))
    assert not any(_MARK in text for text in islice(generator.documents(random.Random(1)), 500))


def test_a_value_inside_a_word_joins_no_turn(book: FlowBook, turn_generator: TurnGenerator) -> None:
    message = LabelledMessage("add_to_cart", {"product": "latte"}, f"two lattes {_MARK}")
    generator = TurnGenerator(book, turn_generator._messages, _labelled(message))
    assert not any(_MARK in text for text in islice(generator.documents(random.Random(1)), 500))


def test_a_bare_yes_joins_the_turns(book: FlowBook, turn_generator: TurnGenerator) -> None:
    message = LabelledMessage("affirm", {}, f"yes {_MARK}")
    generator = TurnGenerator(book, turn_generator._messages, _labelled(message))
    assert any(_MARK in text for text in islice(generator.documents(random.Random(1)), 500))


def test_the_same_seed_and_data_give_the_same_corpus(tmp_path: Path) -> None:
    path = _write(tmp_path, "clinc150", _HEADER, _row("en", "greet", f"hello {_MARK}"))
    facts = []
    for name, data in (("a", tmp_path), ("b", tmp_path), ("without", None)):
        out = tmp_path / "out" / name
        facts.append(make_flow_corpus(out, 200, 1, valid_documents=50, data=data))
    with_data, again, without = (
        (tmp_path / "out" / name / "train.txt").read_bytes() for name in ("a", "b", "without")
    )
    assert with_data == again
    assert with_data.count(_MARK.encode()) > 3
    assert _MARK.encode() not in without
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    missing = [name for name in DATA_SETS if name != "clinc150"]
    assert facts[0] == facts[1]
    assert facts[0] == {"data_sets": {"clinc150": sha256}, "missing_data_sets": missing}
    assert facts[2] == {"data_sets": {}, "missing_data_sets": list(DATA_SETS)}

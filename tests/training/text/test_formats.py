"""Each format becomes documents, and a bad line is named."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.formats import Document, split_documents
from gpt2flow.training.text.reader import read_documents

Write = Callable[[str, str], Path]

_TURNS = """\
conversationId\tturnNumber\tutteranceId\tutterance\tauthorRole
b\t10\tb-10\tbye\tcustomer
a\t0\ta-0\t"two
lines,\twith ""quotes\"""\tcustomer
b\t9\tb-9\thello\tagent
a\t1\ta-1\t\tagent
"""
_MESSAGES = [{"role": "user", "content": "Hi,\nagain"}, {"role": "assistant", "content": "Yes?"}]
_FRAGMENTS = st.sampled_from(["<|endoftext|>", "<|end", "of", "text|>", "a", "\n", " "])


def texts(path: Path) -> list[str]:
    return [each.text for each in read_documents(path)]


def test_a_text_is_split_after_each_end_token() -> None:
    assert list(split_documents(["one\ntwo<|endoftext|>\nthree<|endoftext|>\n \n"])) == [
        "one\ntwo",
        "three",
    ]


@settings(max_examples=examples(200))
@given(
    st.lists(_FRAGMENTS).map("".join),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_pieces_of_a_text_give_the_documents_of_the_whole(text: str, sizes: list[int]) -> None:
    pieces: list[str] = []
    position = 0
    while position < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[position : position + size])
        position += size
    whole = [part.strip("\n") for part in text.split("<|endoftext|>") if part.strip()]
    assert list(split_documents(pieces)) == whole


def test_a_text_longer_than_a_piece_is_read_whole(write: Write) -> None:
    documents = ["ab" * 50_000, "cd" * 50_000]
    assert texts(write("long.txt", "<|endoftext|>".join(documents))) == documents


def test_an_unknown_extension_is_plain_text(write: Write) -> None:
    assert texts(write("notes.md", "# a,b\n")) == ["# a,b"]


def test_json_lines_hold_texts_and_dialogues(write: Write) -> None:
    lines = [
        {"text": "one\ntwo", "source": "x"},
        {"text": "", "conversation": 7},
        {"messages": _MESSAGES, "conversation": "c"},
    ]
    path = write("corpus.jsonl", "\n\n".join(map(json.dumps, lines)) + "\n")
    assert list(read_documents(path)) == [
        Document("one\ntwo"),
        Document("", "7"),
        Document("user: Hi, again\nassistant: Yes?", "c", is_dialogue=True),
    ]


def test_an_end_token_ends_a_document_in_every_format(write: Write) -> None:
    path = write("corpus.jsonl", json.dumps({"text": "a<|endoftext|>b", "conversation": "c"}))
    assert list(read_documents(path)) == [Document("a", "c"), Document("b", "c")]


def test_half_a_surrogate_pair_is_dropped(write: Write) -> None:
    assert texts(write("corpus.jsonl", '{"text": "<|state|>a\\ud800b"}')) == ["<|state|>ab"]


def test_a_table_has_a_text_a_row(write: Write) -> None:
    path = write("corpus.csv", '\ufeffid,Text,conversation\n1,"a, ""b""\nc",x\n\n2,d,\n')
    assert list(read_documents(path)) == [Document('a, "b"\nc', "x"), Document("d")]


def test_a_table_has_a_pair_a_row(write: Write) -> None:
    path = write("corpus.csv", "flags,instruction,category,response\nB,May I?,X,Yes.\n")
    assert list(read_documents(path)) == [
        Document("user: May I?\nassistant: Yes.", is_dialogue=True)
    ]


def test_two_columns_without_a_header_are_pairs(write: Write) -> None:
    answer = "You can cancel it:\\n\\n1. Open the order.\\n2. Choose cancel."
    path = write("responses.tsv", f'how?\t{answer}\nwhen?\t"Now" is best.\n')
    assert texts(path) == [
        "user: how?\nassistant: You can cancel it: 1. Open the order. 2. Choose cancel.",
        'user: when?\nassistant: "Now" is best.',
    ]


def test_turns_are_grouped_by_conversation_and_ordered_by_number(write: Write) -> None:
    assert list(read_documents(write("turns.tsv", _TURNS))) == [
        Document("agent: hello\ncustomer: bye", "b", is_dialogue=True),
        Document('customer: two lines, with "quotes"', "a", is_dialogue=True),
    ]


def test_sentences_of_a_turn_stay_in_order(write: Write) -> None:
    header = "conversationId,turnNumber,sentenceNumber,utterance"
    path = write("turns.csv", f"{header}\na,0,1,second\na,0,0,first\na,2,0,third\n")
    assert texts(path) == ["first\nsecond\nthird"]


def test_quotes_of_a_tab_separated_table_can_be_literal(write: Write) -> None:
    path = write("corpus.tsv", 'label\ttext\ntimer\t"set a timer\nlook\t"Look," she said\n')
    assert texts(path) == ['"set a timer', '"Look," she said']


@settings(max_examples=examples(100))
@given(st.lists(st.text(st.sampled_from('ab",\t\n '), max_size=6), min_size=1, max_size=6))
def test_a_table_that_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, fields: list[str]
) -> None:
    for name, delimiter in (("table.csv", ","), ("table.tsv", "\t")):
        path = tmp_path_factory.mktemp("table") / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([["id", "text"], *([i, field] for i, field in enumerate(fields))])
        assert texts(path) == [field.strip("\n") if field.strip() else "" for field in fields]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.TSV"])
def test_a_compressed_file_has_the_same_documents(write: Write, name: str) -> None:
    contents = {"a.txt": "é<|endoftext|>b", "a.jsonl": '{"text": "é"}', "a.csv": "text\né\n"}
    path = write(name, contents.get(name, "id\ttext\n1\té\n"))
    compressed = path.with_name(f"{name}.gz")
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_documents(compressed)) == list(read_documents(path))
    assert texts(path)[0] == "é"


@pytest.mark.parametrize(
    "name, text, problem",
    [
        ("a.jsonl", '{"text": "a"}\n{"text": ', 'line 2: not JSON, expected {"text": …} or'),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", "[]", 'line 1: expected {"text": …} or {"messages"'),
        ("a.jsonl", '{"text": "a", "messages": []}', "line 1: expected"),
        ("a.jsonl", '{"text": 5}', "line 1: text 5, expected a string"),
        ("a.jsonl", '{"messages": "a"}', "line 1: messages: expected a list of objects"),
        ("a.jsonl", '{"messages": [{"role": "a"}]}', "line 1: content null, expected a string"),
        ("a.jsonl", '{"text": "a", "conversation": []}', r"line 1: conversation \[\], expected"),
        ("a.csv", "a,b\n1,2\n", "line 1: columns a, b; expected text, or instruction and"),
        ("a.csv", 'id,text\n1,"a\nb"\n2\n', "line 4: 1 fields, expected 2 as in the first line"),
        ("a.csv", 'id,text\n1,"a" b\n', "line 2: .*expected a field with quotes"),
        ("a.csv", 'text\na\n"b\n', "line 3: unexpected end of data"),
        ("a.tsv", "id\ttext\n1\n", "line 2: 1 fields, expected 2 as in the first line"),
        ("a.tsv", _TURNS.replace("\t9\t", "\tx\t"), "line 5: turnNumber 'x', expected a number"),
        ("a.tsv", _TURNS.replace("b\t9\t", "\t9\t"), "line 5: conversationId is empty"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(
    write: Write, name: str, text: str, problem: str
) -> None:
    path = write(name, text)
    with pytest.raises(CorpusError, match=problem) as caught:
        texts(path)
    assert str(caught.value).startswith(f"{path}: line ")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
def test_a_byte_that_is_not_utf8_is_named_far_into_a_file(tmp_path: Path, name: str) -> None:
    line = b'{"text": "aaaa"}\n' if name == "a.jsonl" else b"text\n"
    content = line * 20_000
    for path, data in (
        (tmp_path / name, content + b"\xff"),
        (tmp_path / f"{name}.gz", gzip.compress(content + b"\xff")),
    ):
        path.write_bytes(data)
        with pytest.raises(CorpusError, match=f"not UTF-8 text, at byte {len(content)}"):
            texts(path)


@pytest.mark.parametrize("data", [b"text", gzip.compress(b"some text" * 99, mtime=0)[:-9]])
def test_a_file_that_is_not_complete_gzip_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"a\.txt\.gz: not a complete gzip file"):
        texts(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: No such file"):
        texts(tmp_path / "nowhere.jsonl")
    with pytest.raises(CorpusError, match="Is a directory"):
        texts(tmp_path)

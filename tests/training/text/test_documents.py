"""Documents are read, cleaned and split without dividing a conversation."""

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.support.examples import examples

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import CorpusError
from gpt2flow.training.pipeline import train
from gpt2flow.training.text.documents import read_texts
from gpt2flow.training.text.reader import read_documents

Write = Callable[[str, str], Path]


def write_conversations(path: Path, conversations: list[int | None]) -> Path:
    """Write a short document for each conversation id, in order."""
    lines = [
        json.dumps({"text": f"{number} of {conversation}", "conversation": conversation})
        for number, conversation in enumerate(conversations)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def conversations_of(documents: list[str]) -> set[str]:
    return {document.split(" of ")[1] for document in documents}


@settings(max_examples=examples(50))
@given(
    conversations=st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=8, max_size=40),
    share=st.sampled_from([0.02, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_conversation_is_never_divided(
    tmp_path_factory: pytest.TempPathFactory,
    conversations: list[int | None],
    share: float,
    seed: int,
) -> None:
    if len(set(conversations)) == 1 and None not in conversations:
        return
    path = tmp_path_factory.mktemp("split") / "corpus.jsonl"
    result = read_texts([write_conversations(path, conversations)], [], share, seed)
    train, valid = (
        {text.split(" of ")[1] for text in side} for side in (result.train, result.valid)
    )
    assert train & valid <= {"None"}
    assert result.train
    assert result.valid
    assert sorted([*result.train, *result.valid]) == sorted(
        f"{number} of {each}" for number, each in enumerate(conversations)
    )


def test_a_conversation_of_two_files_is_on_one_side(tmp_path: Path) -> None:
    one = write_conversations(tmp_path / "one.jsonl", list(range(40)))
    two = write_conversations(tmp_path / "two.jsonl", [None, *range(40)])
    result = read_texts([one, two], [], 0.5, 1)
    train, valid = (
        {text.split(" of ")[1] for text in side} for side in (result.train, result.valid)
    )
    assert train & valid == set()


def test_a_corpus_of_one_conversation_is_not_divided(tmp_path: Path) -> None:
    path = write_conversations(tmp_path / "corpus.jsonl", [1, 1, 1])
    with pytest.raises(CorpusError, match="its only conversation cannot be divided"):
        read_texts([path], [], 0.5, 1)
    assert len(read_texts([path], [path], 0.5, 1).train) == 3


def test_plain_text_keeps_its_split_and_its_hash(write: Write) -> None:
    """Runs that resume compare the hash, perhaps of an earlier version."""
    words = "".join(f"document {i}\nof www.a.example<|endoftext|>\n" for i in range(100))
    result = read_texts([write("corpus.txt", words)], [], 0.05, 3)
    assert result.valid == [f"document {i}\nof <url>" for i in (16, 30, 47, 69, 75)]
    assert result.sha256 == ("57c2484bcd92270990bc5d0ab31ee40c83bc1b7f21c8535e632099f179c5217c")


def test_counts_cover_both_sets(write: Write) -> None:
    corpus = write("corpus.csv", "text\nsee www.a.example\nsame\nsame\n \nx@y.example\n")
    valid = write("valid.jsonl", '{"text": "see www.b.example"}')
    counts = read_texts([corpus], [valid], 0.1, 1).cleaning
    assert {step: count for step, count in counts.items() if count} == {
        "documents_read": 6,
        "urls_replaced": 2,
        "email_addresses_replaced": 1,
        "repeated_documents_dropped": 1,
        "empty_documents_dropped": 1,
    }


@pytest.mark.parametrize("name", ["big.txt", "big.jsonl", "big.csv", "big.tsv"])
def test_a_file_is_never_held_as_a_whole(write: Write, name: str) -> None:
    text = "word " * 100
    line = {"big.txt": f"{text}<|endoftext|>\n", "big.jsonl": f'{{"text": "{text}"}}\n'}
    path = write(name, "text\n" * (name not in line) + line.get(name, f"{text}\n") * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in read_documents(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 9_000_000
    assert peak < 2_000_000


@pytest.mark.process
def test_the_counts_are_printed_and_are_facts_of_the_run(
    write: Write, tmp_path: Path, tiny: TrainingConfig
) -> None:
    rows = "".join(f"{i} little fish at www.a.example swam and swam\n" for i in range(200))
    shown = io.StringIO()
    corpus = write("corpus.csv", f"text\n{rows}0 a@b.example\n")
    facts = train(
        [corpus], tmp_path / "out", tiny.changed(vocabulary_size=270), console=Console(file=shown)
    )
    assert facts["cleaning"]["urls_replaced"] == 200
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == facts
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert lines[:3] == [
        ["documents", "read", "201"],
        ["documents", "with", "URLs", "replaced", "200"],
        ["documents", "with", "e-mail", "addresses", "replaced", "1"],
    ]
    assert "dropped" not in shown.getvalue()

"""Lists of choices in files: entries, and lines that are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.engine_bench import CONTEXT, EOS
from tests.support.vocabularies import KINDS, SENTENCES, SPACING, UNKNOWN

from gpt2flow.server.errors import ConfigError
from gpt2flow.server.grammar.stored_choices import (
    MAX_ENTRIES,
    MAX_ENTRY_BYTES,
    build_trie,
    files_digest,
    read_entries,
)
from gpt2flow.server.grammar.trie import TokenTrie, TrieConstraint
from gpt2flow.server.grammar.vocabulary import GrammarVocabulary
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

Write = Callable[[bytes | str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Function that writes a list, and returns its path."""

    def write_list(content: bytes | str) -> Path:
        path = tmp_path / "list.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_list


def build(
    path: Path, tokenizer: Tokenizer, eos: list[int] | None = None, most_tokens: int = CONTEXT - 1
) -> TokenTrie:
    ids = [EOS] if eos is None else eos
    vocabulary = GrammarVocabulary(tokenizer, ids)
    return build_trie("a", path, vocabulary, has_end=bool(ids), most_tokens=most_tokens)


@pytest.mark.parametrize(
    "content, entries",
    [
        ("cup\nhat\n", ["cup", "hat"]),
        ("cup\nhat", ["cup", "hat"]),
        ("cup\r\nhat\r\n", ["cup", "hat"]),
        (b"\xef\xbb\xbfcup\nhat\n", ["cup", "hat"]),
        (" cup \n\tcup\n", [" cup ", "\tcup"]),
        ("Cup\ncup\ncafé\ncafe\u0301\n", ["Cup", "cup", "café", "cafe\u0301"]),
        ("a\u2028b\x0bc\n", ["a\u2028b\x0bc"]),
        ("x" * MAX_ENTRY_BYTES + "\r\n", ["x" * MAX_ENTRY_BYTES]),
    ],
)
def test_a_line_is_an_entry_as_it_stands(
    write: Write, content: bytes | str, entries: list[str]
) -> None:
    assert read_entries("a", write(content)) == entries


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "has no entry, must have at least one line"),
        ("cup\n\nhat\n", "line 2 is empty, must be an entry"),
        ("cup\nhat\n\r\n", "line 3 is empty, must be an entry"),
        ("cup\nhat\ncap\nhat\n", "line 4 repeats line 2: 'hat'"),
        ("cup\nhat\ncup", "line 3 repeats line 1: 'cup'"),
        (b"cup\nh\xffat\n", "line 2 is not UTF-8: byte 2"),
        ("cup\n" + "x" * (MAX_ENTRY_BYTES + 1), f"line 2 is longer than {MAX_ENTRY_BYTES} bytes"),
        ("x" * 10**6, f"line 1 is longer than {MAX_ENTRY_BYTES} bytes"),
        (
            "\n".join(map(str, range(200_000))),
            f"has more than {MAX_ENTRIES} lines, the most entries of a list",
        ),
    ],
)
def test_a_bad_line_is_named(write: Write, content: bytes | str, message: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        read_entries("articles", path)
    assert str(caught.value).startswith(f"choices 'articles': {path}")
    assert message in str(caught.value)


def test_the_most_entries_are_read(write: Write) -> None:
    assert len(read_entries("a", write("\n".join(map(str, range(MAX_ENTRIES)))))) == MAX_ENTRIES


@pytest.mark.parametrize("name", ["nowhere.txt", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    for read in (read_entries, lambda name, path: files_digest({name: path})):
        with pytest.raises(ConfigError, match=r"choices 'a': .* cannot be read: .*directory"):
            read("a", tmp_path / name)


def test_the_digest_follows_names_and_contents(write: Write, tmp_path: Path) -> None:
    path, other = write("cup\n"), tmp_path / "other.txt"
    other.write_text("cup\n")
    before = files_digest({"a": path})
    assert files_digest({"a": other}) == before
    assert files_digest({"b": path}) != before
    assert files_digest({"a": path, "b": other}) != before
    path.write_text("cap\n")
    assert files_digest({"a": path}) != before


@given(
    st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1)).filter(
        bool
    )
)
def test_every_entry_is_one_sequence_that_writes_it(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, entries: set[str]
) -> None:
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_bytes("\n".join(sorted(entries)).encode().removeprefix(b"\xef\xbb\xbf"))
    listed = read_entries("a", path)
    trie = build(path, tokenizer, most_tokens=1000)
    assert trie.entries == len(listed)
    for entry in listed:
        ids = tokenizer.encode(entry, literal=True, continuing=True)
        constraint = TrieConstraint(trie)
        assert constraint.valid_start([*ids, EOS]) == [*ids, EOS]
        assert tokenizer.decode(ids) == entry


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - SPACING))
def test_entries_of_every_kind_of_tokenizer_write_themselves(write: Write, kind: str) -> None:
    tokenizer = Tokenizer(KINDS[kind].make().to_str().encode())
    vocabulary = GrammarVocabulary(tokenizer, [EOS])
    path = write("\n".join(SENTENCES))
    trie = build_trie("a", path, vocabulary, has_end=True, most_tokens=1000)
    texts = set()
    for entry in SENTENCES:
        ids = list(vocabulary(entry))
        assert TrieConstraint(trie).valid_start([*ids, EOS]) == [*ids, EOS]
        stream = tokenizer.stream(before=())
        texts.add("".join(map(stream.push, ids)) + stream.finish())
    assert texts == set(SENTENCES)


def test_an_entry_that_no_tokens_write_is_named(write: Write) -> None:
    tokenizer = Tokenizer(KINDS["Unigram"].make().to_str().encode())
    path = write(f"{SENTENCES[0]}\n{UNKNOWN}\n")
    with pytest.raises(
        ConfigError, match=f"line 2: the model has no tokens that write '{UNKNOWN}'"
    ):
        build(path, tokenizer, most_tokens=1000)


def test_a_special_token_in_an_entry_is_text(write: Write, tokenizer: Tokenizer) -> None:
    trie = build(write("a<|endoftext|>b\n"), tokenizer)
    *ids, last = TrieConstraint(trie).forced()
    assert last == EOS
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_an_entry_that_the_context_cannot_hold_is_named(write: Write, tokenizer: Tokenizer) -> None:
    entry = "0123456789" * 9
    count = len(tokenizer.encode(entry))
    path = write(f"cup\n{entry}\n")
    assert build(path, tokenizer, most_tokens=count + 1).longest == count + 1
    rule = f"line 2 has {count} tokens, must have at most {count - 1}"
    with pytest.raises(ConfigError, match=rule):
        build(path, tokenizer, most_tokens=count)


def test_without_an_end_token_no_entry_may_start_another(
    write: Write, tokenizer: Tokenizer
) -> None:
    path = write("cup\nhat\ncups\n")
    assert build(path, tokenizer).entries == 3
    with pytest.raises(ConfigError, match="line 1: 'cup' starts the entry of line 3, and the mod"):
        build(path, tokenizer, eos=[])
    trie = build(write("cup\nhat\n"), tokenizer, eos=[])
    assert trie.entries == 2
    constraint = TrieConstraint(trie)
    for token_id in tokenizer.encode("cup"):
        assert not constraint.complete
        constraint.advance(token_id)
    assert constraint.complete


def test_only_the_first_end_token_ends_an_entry(write: Write, tokenizer: Tokenizer) -> None:
    trie = build(write("cup\n"), tokenizer, eos=[EOS, 1])
    assert TrieConstraint(trie).forced() == [*tokenizer.encode("cup"), EOS]

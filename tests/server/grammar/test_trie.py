"""Trie of token sequences, compared with nested dictionaries."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.trie import TokenTrie, TrieConstraint

END = 0

# Few tokens, so that sequences share their starts; ids of several bytes, so that order matters.
tokens = st.sampled_from([1, 2, 3, 255, 256, 65_536, 100_000])
entries = st.sets(st.lists(tokens, min_size=1, max_size=6).map(tuple), min_size=1, max_size=40)


def nested(sequences: set[tuple[int, ...]]) -> dict[int, Any]:
    """Return sequences as dictionaries of their next tokens, each ended by END."""
    root: dict[int, Any] = {}
    for sequence in sequences:
        node = root
        for token_id in (*sequence, END):
            node = node.setdefault(token_id, {})
    return root


def build(sequences: set[tuple[int, ...]]) -> TokenTrie:
    return TokenTrie.build((*sequence, END) for sequence in sequences)


def check(constraint: TrieConstraint, node: dict[int, Any]) -> int:
    """Compare a constraint with a dictionary; return the number of nodes."""
    assert constraint.allowed().tolist() == sorted(node)
    assert constraint.complete == (not node)
    forced, below = [], node
    while len(below) == 1:
        [(token_id, below)] = below.items()
        forced.append(token_id)
    assert constraint.forced() == forced
    nodes = 1
    for token_id, child in node.items():
        fork = constraint.fork()
        fork.advance(token_id)
        nodes += check(fork, child)
    return nodes


@given(entries)
def test_a_trie_admits_exactly_its_sequences(sequences: set[tuple[int, ...]]) -> None:
    trie = build(sequences)
    assert check(TrieConstraint(trie), nested(sequences)) == trie.nodes
    assert trie.entries == len(sequences)
    assert trie.longest == 1 + max(map(len, sequences))


@given(entries)
def test_an_end_that_is_the_only_choice_may_be_left_out(sequences: set[tuple[int, ...]]) -> None:
    trie = build(sequences)
    for sequence in sequences:
        constraint = TrieConstraint(trie, end=END)
        for place, token_id in enumerate(sequence):
            assert not constraint.complete
            forced = constraint.forced()
            assert END not in forced
            assert forced == list(sequence[place : place + len(forced)])
            constraint.advance(token_id)
            constraint = constraint.fork()
        starts_another = any(
            other[: len(sequence)] == sequence for other in sequences if other != sequence
        )
        assert constraint.complete == (not starts_another)
        assert constraint.forced() == []
        assert END in constraint.allowed()


@given(entries, st.lists(tokens | st.just(END), max_size=8))
def test_valid_start_ends_where_the_dictionary_does(
    sequences: set[tuple[int, ...]], given_tokens: list[int]
) -> None:
    constraint, node, valid = TrieConstraint(build(sequences)), nested(sequences), list[int]()
    for token_id in given_tokens:
        if token_id not in node:
            break
        node = node[token_id]
        valid.append(token_id)
    assert constraint.valid_start(given_tokens) == valid
    assert constraint.allowed().tolist() == sorted(nested(sequences)), "the state has changed"


@given(entries, st.integers(0, 100_001))
def test_a_token_that_is_not_admitted_is_refused(
    sequences: set[tuple[int, ...]], token_id: int
) -> None:
    constraint = TrieConstraint(build(sequences))
    if token_id in nested(sequences):
        constraint.advance(token_id)
    else:
        with pytest.raises(GrammarError, match=f"token {token_id} continues no choice"):
            constraint.advance(token_id)


def test_a_fork_advances_alone() -> None:
    constraint = TrieConstraint(build({(1, 2), (3,)}))
    fork = constraint.fork()
    fork.advance(1)
    assert fork.allowed().tolist() == [2]
    assert constraint.allowed().tolist() == [1, 3]


def test_the_order_of_the_sequences_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    sequences = [(*row, END) for row in np.unique(rng.integers(1, 9, (500, 4)), axis=0).tolist()]
    one, other = TokenTrie.build(sequences), TokenTrie.build(sequences[::-1])
    assert (one.tokens == other.tokens).all()
    assert (one.children == other.children).all()


def test_a_trie_takes_twelve_bytes_a_node() -> None:
    trie = build({(1, 2), (1, 3), (2, 3, 1)})
    assert trie.memory == 12 * trie.nodes + 4

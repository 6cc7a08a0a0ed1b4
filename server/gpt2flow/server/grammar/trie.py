"""Trie of token sequences, and the constraint to one of them."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from gpt2flow.server.errors import GrammarError

Ids = npt.NDArray[np.intp]

ROOT = 0


@dataclass(frozen=True, slots=True, eq=False)
class TokenTrie:
    """Trie of token sequences, as three arrays.

    Nodes are numbered by depth, then in the order of their sequences. So the children of a node
    are consecutive, with ascending tokens, and need no list.

    Attributes:
        tokens: Token of each node; -1 for the root.
        children: First child of each node, and the number of nodes; the next entry is the end.
        entries: Number of leaves.
        longest: Tokens of the longest sequence.
    """

    tokens: Ids
    children: npt.NDArray[np.int32]
    entries: int
    longest: int

    @classmethod
    def build(cls, sequences: Iterable[Sequence[int]]) -> Self:
        """Return the trie of sequences.

        It takes one pass of NumPy a depth. A sequence that starts another one is no entry.

        Args:
            sequences: Token ids, at least one sequence, none empty.
        """
        # Big-endian bytes sort as the ids do, and comparing them is one call.
        keys = sorted(struct.pack(f">{len(ids)}I", *ids) for ids in sequences)
        lengths = np.fromiter((len(key) // 4 for key in keys), np.intp, len(keys))
        flat = np.frombuffer(b"".join(keys), ">u4").astype(np.intp)
        del keys
        return cls._from_sorted(flat, lengths)

    @classmethod
    def _from_sorted(cls, flat: Ids, lengths: Ids) -> Self:
        """Return the trie of sorted sequences, given as one array.

        Args:
            flat: Token ids of all sequences, one after the other.
            lengths: Number of tokens of each.
        """
        active = np.arange(len(lengths))
        starts = np.cumsum(lengths) - lengths
        nodes = np.zeros(len(lengths), np.intp)  # Node of each active sequence.
        tokens, parents = [np.array([-1])], [np.empty(0, np.intp)]
        count, depth = 1, 0
        while len(active):
            following = flat[starts[active] + depth]
            # Sequences that share a node are neighbours, also among the longer ones.
            new = np.ones(len(active), bool)
            new[1:] = (following[1:] != following[:-1]) | (nodes[1:] != nodes[:-1])
            tokens.append(following[new])
            parents.append(nodes[new])
            numbers = count - 1 + np.cumsum(new)
            count += int(new.sum())
            depth += 1
            longer = lengths[active] > depth
            active, nodes = active[longer], numbers[longer]
        family = np.bincount(np.concatenate(parents), minlength=count)
        children = np.ones(count + 1, np.int32)
        np.cumsum(family, out=children[1:])
        children[1:] += 1
        joined = np.concatenate(tokens)
        joined.flags.writeable = False
        return cls(joined, children, entries=int((family == 0).sum()), longest=depth)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.tokens)

    @property
    def memory(self) -> int:
        """Bytes of its arrays."""
        return self.tokens.nbytes + self.children.nbytes

    def following(self, node: int) -> Ids:
        """Return the tokens that may follow a node, ascending; a view."""
        return self.tokens[self.children[node] : self.children[node + 1]]

    def child(self, node: int, token_id: int) -> int | None:
        """Return the child of a node by its token; None without one."""
        following = self.following(node)
        place = int(following.searchsorted(token_id))
        if place == len(following) or following[place] != token_id:
            return None
        return int(self.children[node]) + place


class TrieConstraint:
    """State of one sequence in a trie."""

    __slots__ = ("_end", "_node", "_trie")

    def __init__(self, trie: TokenTrie, node: int = ROOT, *, end: int | None = None) -> None:
        """Start at a node.

        Args:
            trie: The trie.
            node: The node.
            end: Last token of all sequences, which an output lacks where it is the only choice;
                None if every output has its last token.
        """
        self._trie = trie
        self._node = node
        self._end = end

    @property
    def complete(self) -> bool:
        """True if the output is whole, and admits no further token."""
        return self._ends(self.allowed())

    def allowed(self) -> Ids:
        """Return the ids of the admitted tokens, ascending."""
        return self._trie.following(self._node)

    def advance(self, token_id: int) -> None:
        """Advance the state by a token.

        Raises:
            GrammarError: The trie does not admit it.
        """
        child = self._trie.child(self._node, token_id)
        if child is None:
            raise GrammarError(f"token {token_id} continues no choice")
        self._node = child

    def forced(self) -> list[int]:
        """Return the tokens that the trie leaves no choice about; often none."""
        tokens, node = [], self._node
        while len(following := self._trie.following(node)) == 1 and not self._ends(following):
            tokens.append(int(following[0]))
            node = int(self._trie.children[node])
        return tokens

    def valid_start(self, tokens: list[int]) -> list[int]:
        """Return the leading tokens that are admitted one after the other."""
        node = self._node
        for place, token_id in enumerate(tokens):
            child = self._trie.child(node, token_id)
            if child is None:
                return tokens[:place]
            node = child
        return tokens

    def fork(self) -> "TrieConstraint":
        """Return an independent constraint in the same state."""
        return TrieConstraint(self._trie, self._node, end=self._end)

    def _ends(self, following: Ids) -> bool:
        """Return whether an output ends where only these tokens follow."""
        return not len(following) or (len(following) == 1 and following[0] == self._end)

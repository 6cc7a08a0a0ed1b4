"""Texts that a constraint admits, checked and written at random."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.support.engine_bench import EOS
from tests.support.grammars import constraint_of

from gpt2flow.server.grammar.constraint import Constraint, GrammarCompiler
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

# Texts that end something in JSON, the outermost first.
_ENDINGS = ('"', "@", ":", "}", "]", "e", "l", "0")


@dataclass(frozen=True)
class Language:
    """Language of one constraint."""

    constraint: Constraint
    tokenizer: Tokenizer

    def admits(self, text: str) -> bool:
        """Return whether a text is one of the language."""
        ids = self.tokenizer.encode(text)
        constraint = self.constraint.fork()
        if constraint.valid_start(ids) != ids:
            return False
        for token_id in ids:
            constraint.advance(token_id)
        return constraint.complete or EOS in constraint.allowed()

    def write(self, seed: int, most: int = 400) -> str:
        """Write a random text of the language, which ends soon."""
        rng, ids, constraint = np.random.default_rng(seed), list[int](), self.constraint.fork()
        endings = [each for ending in _ENDINGS for each in self.tokenizer.encode(ending)]
        while not constraint.complete:
            allowed = constraint.allowed()
            if EOS in allowed and (len(ids) > 10 or len(allowed) == 1):
                break
            choices = allowed[allowed != EOS]
            ends = [each for each in endings if each in choices]
            ending = ends and len(ids) > 10 and rng.random() < 0.8
            chosen = ends[0] if ending else int(rng.choice(choices))
            constraint.advance(chosen)
            ids.append(chosen)
            assert len(ids) < most, self.tokenizer.decode(ids)
        return self.tokenizer.decode(ids)


@dataclass(frozen=True)
class Languages:
    """Maker of languages, with the tiny model's tokenizer."""

    grammars: GrammarCompiler
    tokenizer: Tokenizer

    def of(self, kind: str, source: str) -> Language:
        """Return the language of a constraint of a kind, such as `regex`."""
        return Language(self.grammars.compile(constraint_of(kind, source)), self.tokenizer)

    def of_schema(self, schema: dict[str, Any] | str) -> Language:
        """Return the language of a JSON schema."""
        source = schema if isinstance(schema, str) else json.dumps(schema)
        return self.of("json_schema", source)

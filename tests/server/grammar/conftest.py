"""Fixtures of the tests of constraints."""

import pytest
from tests.support.constrained import Languages

from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def languages(grammars: GrammarCompiler, tokenizer: Tokenizer) -> Languages:
    return Languages(grammars, tokenizer)

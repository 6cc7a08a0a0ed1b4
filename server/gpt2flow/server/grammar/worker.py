"""Tries grammars, in a process that may hang, run out of memory or die of them.

A program, not a module of the server: it imports llguidance alone, so that it starts fast and
stays small. It reads lines of JSON: first what `GrammarTrials` knows of the model, then one
grammar a line; it answers each with a line that holds the error, or null.
"""

import json
import resource
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, TextIO

from llguidance import LLMatcher, LLParserLimits, LLTokenizer


def main(lines: TextIO, answers: TextIO) -> None:
    """Answer until the input ends."""
    setup: dict[str, Any] = json.loads(lines.readline())
    tokenizer = LLTokenizer(
        b64decode(setup["tokenizer"]).decode(),
        n_vocab=setup["vocabulary_size"],
        eos_token=setup["eos_token_id"],
    )
    limits = LLParserLimits(**setup["limits"])
    _limit_memory(setup["memory"])
    print("null", file=answers, flush=True)
    for line in lines:
        error = _try(LLMatcher(tokenizer, json.loads(line), log_level=0, limits=limits))
        print(json.dumps(error), file=answers, flush=True)


def _try(matcher: LLMatcher) -> str | None:
    """Take the first step as well: some grammars compile and cannot be used."""
    matcher.compute_ff_tokens()
    if not matcher.is_stopped():
        matcher.compute_bitmask()
    return matcher.get_error() if matcher.is_error() else None


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has, where the system can say that."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        # Whoever dies of a grammar need not leave a file about it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)

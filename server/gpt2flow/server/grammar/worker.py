"""Sandbox worker, a process that compiles grammars.

It may hang, run out of memory or crash without harm to the server.

A program, not a module of the server: it imports llguidance alone, so that it starts fast and
stays small. It reads lines of JSON: first the setup of `SandboxWorker`, then one grammar a line.
It answers each with a line that holds the error, or null.
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
        error = _compile_error(LLMatcher(tokenizer, json.loads(line), log_level=0, limits=limits))
        print(json.dumps(error), file=answers, flush=True)


def _compile_error(matcher: LLMatcher) -> str | None:
    """Return the error of a compiled grammar, if any.

    Some grammars fail only in their first step.
    """
    matcher.compute_ff_tokens()
    if not matcher.is_stopped():
        matcher.compute_bitmask()
    return matcher.get_error() if matcher.is_error() else None


def _limit_memory(more: int) -> None:
    """Limit this process to `more` bytes of further memory, on Linux."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        # A crash by a grammar leaves no core file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)

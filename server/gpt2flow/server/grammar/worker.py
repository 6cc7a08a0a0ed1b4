"""Sandbox worker, a process that compiles grammars.

It may hang, run out of memory or crash without harm to the server.

A program, not a module of the server: it imports llguidance alone, so that it starts fast and
stays small. It reads lines of JSON: first the setup of `SandboxWorker`, then one grammar a line.
It answers each with a line that holds the error, or null. A grammar that takes more processor
time than the limit ends it with the signal SIGPROF, which what else runs cannot cause.
"""

import json
import resource
import signal
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, TextIO

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

# Longest text that a grammar may force before its first choice: no context holds more.
_MAX_FORCED = 10_000


class _Vocabulary:
    """Vocabulary of a model: each token as the bytes that it writes."""

    bos_token_id = None

    def __init__(self, setup: dict[str, Any]) -> None:
        joined, start = b64decode(setup["tokens"]), 0
        self.tokens = []
        for length in setup["lengths"]:
            self.tokens.append(joined[start : start + length])
            start += length
        self.eos_token_id = setup["eos_token_ids"][0]
        self.special_token_ids = setup["special_token_ids"]
        special = set(self.special_token_ids)
        self._ids = {
            token: token_id
            for token_id, token in enumerate(self.tokens)
            if token and token_id not in special
        }
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """Return the longest token at each place of a text.

        They end where none matches. Which tokens write a forced text is no matter for errors, but
        that they do is.
        """
        encoded, start, ids = text.encode(), 0, []
        while start < len(encoded):
            ends = range(min(start + self._longest, len(encoded)), start, -1)
            token = next(
                (encoded[start:end] for end in ends if encoded[start:end] in self._ids), b""
            )
            if not token:
                break
            ids.append(self._ids[token])
            start += len(token)
        return ids


def main(lines: TextIO, answers: TextIO) -> None:
    """Answer until the input ends."""
    setup: dict[str, Any] = json.loads(lines.readline())
    tokenizer = LLTokenizer(TokenizerWrapper(_Vocabulary(setup)), eos_token=setup["eos_token_ids"])
    limits = LLParserLimits(**setup["limits"])
    _limit_memory(setup["memory"])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print("null", file=answers, flush=True)
    for line in lines:
        signal.setitimer(signal.ITIMER_PROF, setup["seconds"])
        error = _compile_error(LLMatcher(tokenizer, json.loads(line), log_level=0, limits=limits))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(error), file=answers, flush=True)


def _compile_error(matcher: LLMatcher) -> str | None:
    """Return the error of a compiled grammar, if any.

    Some grammars fail only in their first step that has a choice, and some have none.
    """
    forced = 0
    while not matcher.is_stopped() and (tokens := matcher.compute_ff_tokens()):
        forced += len(tokens)
        if forced > _MAX_FORCED:
            return f"admits no text that ends, or forces more than {_MAX_FORCED} tokens"
        matcher.consume_tokens(tokens)
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

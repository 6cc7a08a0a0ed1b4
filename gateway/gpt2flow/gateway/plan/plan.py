"""Planned call: prompts, options of the client, names of fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpt2flow.client import Options, Prompt

# Fields of the protocol whose names differ from those of a request, whatever it asks for.
_NAMES: Final = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "stop_strings": "stop",
    "values": "choices",
}
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Plan:
    """Call of the server that answers a request.

    Attributes:
        model: Name of the model.
        prompts: Prompts, at least one.
        options: Options of the generation.
        names: Names of the request's fields, by those of the protocol.
        is_whole: Whether a stream comes in one piece, because its text is complete only then.
        shows_prompt: Whether choices have the log-probabilities of their prompt.
    """

    model: str
    prompts: Sequence[Prompt]
    options: Options
    names: Mapping[str, str]
    is_whole: bool = False
    shows_prompt: bool = False

    def param(self, path: str) -> str | None:
        """Return the request's field of a path; None for the whole message."""
        names = [_INDEX.sub("", part) for part in path.split(".")]
        if names[0] in {"prompt", "prompts"}:
            return self.names.get("prompt", "prompt")
        # A bad entry of a list is a message of its own.
        name = names[-2] if names[-1] in {"token_id", "bias"} else names[-1]
        return self.names.get(name, _NAMES.get(name, name)) or None

    def explain(self, description: str) -> str:
        """Return the description of a rule in the names of the request."""
        for given, name in {**_NAMES, **self.names}.items():
            if name != "prompt":
                description = re.sub(rf"\b{given}\b", name, description)
        return description

"""Request to generate, checked and resolved against a model."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.sampling.processors import Processor
from gpt2flow.server.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Validated request to generate from one prompt.

    Attributes:
        params: Options as requested.
        prompt: Token ids, at least one.
        echo: Text that each output starts with.
        max_new_tokens: Most tokens of an output; prompt and output fit the context.
        seed: Seed of the random numbers.
        endings: Tokens that end an output by themselves, with the reason.
        processors: Changes of the logits before a token is chosen.
        constraint: Constraint at its start.
        tokenizer: Tokenizer of the model.
        stream: Whether text is sent as it grows.
        draft_tokens: Usual number of tokens of a draft; 0 disables speculative decoding.
    """

    params: GenerationParams
    prompt: list[int]
    echo: str
    max_new_tokens: int
    seed: int
    endings: Mapping[int, FinishReason]
    processors: Items[Processor]
    constraint: Constraint | None
    tokenizer: Tokenizer
    stream: bool
    draft_tokens: int = 0

    @property
    def scored(self) -> bool:
        """True if tokens get log-probabilities.

        Under a constraint only on request: they take the logits of all tokens, and those of
        forced positions; choosing a token takes neither.
        """
        output = self.params.output
        return self.constraint is None or output.logprobs or output.prompt_logprobs

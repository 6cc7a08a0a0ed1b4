"""A request to generate, checked and resolved against a model; what its tasks share."""

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
    """A validated request to generate.

    Attributes:
        params: The options as they were asked for.
        prompt: Token ids, at least one.
        echo: What each text starts with.
        max_new_tokens: The most tokens of a candidate; prompt and these fit the context.
        seed: Of the random numbers.
        endings: Tokens that end a candidate by themselves, and why.
        processors: What changes the logits before a token is chosen.
        constraint: The grammar at its start.
        tokenizer: Of the model.
        stream: Whether text is wanted as it comes.
        draft_tokens: Tokens of a guess of what comes next, as a rule; 0 is not to guess.
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
        """Whether tokens get log-probabilities.

        Under a grammar only if asked for: they need the logits of all tokens, and those of
        tokens that are forced; the choice itself needs neither.
        """
        output = self.params.output
        return self.constraint is None or output.logprobs or output.prompt_logprobs

"""A request to generate, checked and resolved against a model; what its tasks share."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

from gpt2flow.server.constraint import Constraint
from gpt2flow.server.generation.task import position_logprobs
from gpt2flow.server.logits import LogitsRows
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.results import PositionLogprobs, TokenLogprob
from gpt2flow.server.sampler import Processor
from gpt2flow.server.sequence import FinishReason
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


class PromptLogprobs:
    """Collects the log-probabilities of a prompt's tokens, where they are wanted."""

    def __init__(self, generation: Generation) -> None:
        first = PositionLogprobs(TokenLogprob(generation.prompt[0], None))
        self._prompt = generation.prompt
        self._top = generation.params.output.top_logprobs
        self.positions = [first] if generation.params.output.prompt_logprobs else []

    def add(self, position: int, logits: LogitsRows, row: int) -> None:
        """Notes the logits that precede a position of the prompt."""
        token_id = self._prompt[position]
        self.positions.append(position_logprobs(logits, row, token_id, self._top))

"""Request to generate, checked and resolved against a model."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.sampling.processors import Processor
from gpt2flow.server.tokenizer.text_stream import TextStream
from gpt2flow.server.tokenizer.tokenizer import Tokenizer


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
        truncated_tokens: Number of tokens that were left out of the prompt.
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
    truncated_tokens: int = 0

    @property
    def scored(self) -> bool:
        """True if tokens get log-probabilities.

        Under a constraint only on request: they take the logits of all tokens, and those of
        forced positions; choosing a token takes neither.
        """
        output = self.params.output
        return self.constraint is None or output.logprobs or output.prompt_logprobs

    def text_stream(self) -> TextStream:
        """Return the text of an output, at its start.

        With an echo it continues the prompt. Under a constraint it has the bytes of its tokens, and
        so starts as if it continued a text.
        """
        continued = self.prompt if self.echo else ()
        return self.tokenizer.stream(
            self.params.stopping.stop_strings,
            skip_special_tokens=not self.params.output.include_special_tokens,
            before=continued if self.echo or self.constraint is not None else None,
        )

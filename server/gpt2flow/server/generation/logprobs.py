"""Log-probabilities of the tokens of a prompt or an output."""

from gpt2flow.server.engine.results import PositionLogprobs, TokenLogprob
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.sampling.logits import LogitsRows


def position_logprobs(logits: LogitsRows, row: int, token_id: int, top: int) -> PositionLogprobs:
    """Return the log-probability of a token and of the likeliest ones at its position."""
    chosen = TokenLogprob(token_id, logits.logprob(row, token_id))
    best = logits.top(row, top) if top else ()
    return PositionLogprobs(chosen, tuple(TokenLogprob(*entry) for entry in best))


class PromptLogprobs:
    """Collects the log-probabilities of a prompt's tokens, where they are wanted."""

    def __init__(self, generation: Generation) -> None:
        first = PositionLogprobs(TokenLogprob(generation.prompt[0], None))
        self._prompt = generation.prompt
        self._top = generation.params.output.top_logprobs
        self.positions = [first] if generation.params.output.prompt_logprobs else []

    def add(self, position: int, logits: LogitsRows, row: int) -> None:
        """Note the logits that precede a position of the prompt."""
        token_id = self._prompt[position]
        self.positions.append(position_logprobs(logits, row, token_id, self._top))

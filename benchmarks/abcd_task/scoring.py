"""Log-likelihood of every button after a prompt."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from abcd_task.dialogues import BUTTONS
from tokenizers import Tokenizer
from transformers import DynamicCache, GPT2LMHeadModel

from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.training.model.model import sizes_of


def load_scorer(checkpoint: Path) -> "ButtonScorer":
    """Return the scorer of a checkpoint.

    Raises:
        ConfigError: The directory has no GPT-2 checkpoint with a `tokenizer.json`.
    """
    sizes_of(checkpoint)
    model = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return ButtonScorer(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), model)


class ButtonScorer:
    """Model that scores the buttons after a prompt.

    The prompt runs once. Its keys and values are then repeated for the texts of all buttons, which
    run as one batch.

    Args:
        tokenizer: Tokenizer of the model.
        model: Model in evaluation mode, with an attention that takes a cache.
    """

    def __init__(self, tokenizer: Tokenizer, model: GPT2LMHeadModel) -> None:
        self._tokenizer, self._model = tokenizer, model
        rows = [self._tokenizer.encode(Choice(button).text).ids for button in BUTTONS]
        # How all texts begin runs with the prompt; what is left is a token or two of each.
        alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False))
        self._shared = [ids[0] for ids in alike]
        rows = [row[len(self._shared) :] for row in rows]
        longest = max(map(len, rows))
        self._ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        self._mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
        self._room = int(self._model.config.n_positions) - len(self._shared) - longest

    def log_likelihoods(self, prompt: str) -> npt.NDArray[np.float64]:
        """Return the log-likelihood of each button, float64 [buttons].

        A prompt that is too long for the context loses its beginning.
        """
        shared = self._shared
        ids = self._tokenizer.encode(prompt).ids[-self._room :] + shared
        with torch.inference_mode():
            head = self._model(
                torch.tensor([ids]),
                past_key_values=DynamicCache(),
                use_cache=True,
                logits_to_keep=len(shared) + 1,
            )
            begun = head.logits[0].log_softmax(-1)
            common = begun[range(len(shared)), shared].sum()
            cache = head.past_key_values
            cache.batch_repeat_interleave(len(BUTTONS))
            # The last token of a text predicts what comes after it.
            tail = self._model(self._ids[:, :-1], past_key_values=cache, use_cache=True)
            first = begun[-1].expand(len(BUTTONS), 1, -1)
            predicted = torch.cat([first, tail.logits.log_softmax(-1)], 1)
            chosen = predicted.gather(-1, self._ids[..., None])[..., 0]
            total: npt.NDArray[np.float64] = (common + (chosen * self._mask).sum(-1)).numpy()
        return total.astype(np.float64)


def choose(scorers: Sequence[ButtonScorer], prompts: Sequence[str]) -> str:
    """Return the button with the greatest sum of log-likelihoods.

    Args:
        scorers: Models that vote.
        prompts: Views of one decision.
    """
    votes = [scorer.log_likelihoods(prompt) for scorer in scorers for prompt in prompts]
    return BUTTONS[int(np.sum(votes, axis=0).argmax())]

"""First actions of the validation turns: right ones, wrong ones, and examples."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.batches import Batch, evaluation_batches
from gpt2flow.training.model.evaluation import first_action_span
from gpt2flow.training.model.model import predict, use_bf16
from gpt2flow.training.text.encoding import EncodedCorpus

_EXAMPLES = 20
# The name, and the quote that closes it if it is complete.
_NAME = re.compile(r'\{"action":"(\w*)("?)')
# Stands for the rest of a prediction after its first wrong token.
_REST = "…"


@dataclass(frozen=True)
class Prediction:
    """Prediction of the first action of a turn.

    Attributes:
        prompt: Text before the action.
        expected: Action of the reference, as JSON.
        predicted: Predicted JSON up to its first wrong token, which is followed by `…`. Equal to
            `expected` if there is none.
    """

    prompt: str
    expected: str
    predicted: str

    @property
    def is_right(self) -> bool:
        """Whether action and slots are predicted exactly."""
        return self.expected == self.predicted


@dataclass
class ActionFigures:
    """Predictions of the turns with one first action.

    Attributes:
        right: Turns whose action and slots are exact.
        wrong_slots: Turns whose action is right and whose slots are not.
        taken_for: Turns predicted as another action, by its name.
    """

    right: int = 0
    wrong_slots: int = 0
    taken_for: Counter[str] = field(default_factory=Counter)

    @property
    def turns(self) -> int:
        """Number of turns."""
        return self.right + self.wrong

    @property
    def wrong(self) -> int:
        """Number of turns that are not exact."""
        return self.wrong_slots + self.taken_for.total()

    @property
    def most_often(self) -> tuple[str, int] | None:
        """Most frequent other action with its number of turns, None without one."""
        return next(iter(self.taken_for.most_common(1)), None)


@dataclass(frozen=True)
class TurnReview:
    """Review of a validation set.

    Attributes:
        actions: Figures by the name of the first action, the most frequent first.
        misses: Examples of wrong predictions, spread over all of them.
    """

    actions: dict[str, ActionFigures]
    misses: list[Prediction]


def review_turns(
    model: GPT2LMHeadModel, corpus: EncodedCorpus, tokenizer: Tokenizer, config: TrainingConfig
) -> TurnReview | None:
    """Compare the first action of each turn with its teacher-forced prediction.

    Args:
        model: Model, whose training mode is restored.
        corpus: Validation set.
        tokenizer: Tokenizer of the corpus.
        config: Settings of the run.

    Returns:
        The review, None without turns of the agent's flows.
    """
    was_training = model.training
    model.eval()
    predictions: list[Prediction] = []
    for batch in evaluation_batches(corpus, config):
        with torch.inference_mode():
            logits, _ = predict(model, batch, bf16=use_bf16(config, model.device))
        predicted = batch.ids.copy()
        predicted[batch.loss_mask] = logits.argmax(-1).cpu().numpy()
        predictions += _first_actions(batch, predicted, tokenizer)
    model.train(was_training)
    return summarize(predictions) if predictions else None


def summarize(predictions: Iterable[Prediction]) -> TurnReview:
    """Count predictions by action, and choose examples of misses."""
    predictions = list(predictions)
    names = Counter(_name(each.expected)[0] for each in predictions)
    figures = {name: ActionFigures() for name, _ in names.most_common()}
    for each in predictions:
        name, _ = _name(each.expected)
        found = _resolve(each.predicted, names)
        if each.is_right:
            figures[name].right += 1
        elif found == name:
            figures[name].wrong_slots += 1
        else:
            figures[name].taken_for[found] += 1
    misses = [each for each in predictions if not each.is_right]
    return TurnReview(figures, misses[:: -(-len(misses) // _EXAMPLES) or 1])


def _first_actions(
    batch: Batch, predicted: np.ndarray, tokenizer: Tokenizer
) -> Iterator[Prediction]:
    """Yield the predictions of a batch; `predicted` is int64 [rows, tokens]."""
    for mask, row, other in zip(batch.loss_mask, batch.ids, predicted, strict=True):
        span = first_action_span(mask)
        if span is None:
            continue
        first, end = span
        expected = tokenizer.decode(row[first:end].tolist())
        # A part of a document longer than the context may start anywhere.
        if not _NAME.match(expected):
            continue
        is_wrong = row[first:end] != other[first:end]
        text = expected
        if is_wrong.any():
            # What follows a wrong token was predicted from the reference, not from it.
            ids = other[first : first + int(is_wrong.argmax()) + 1].tolist()
            text = tokenizer.decode(ids, skip_special_tokens=False) + _REST
        prompt = tokenizer.decode(row[:first].tolist(), skip_special_tokens=False)
        yield Prediction(prompt, expected, text)


def _name(text: str) -> tuple[str, bool]:
    """Return the name in unfinished JSON, and whether it is complete."""
    found = _NAME.match(text)
    return (found[1], bool(found[2])) if found else ("", False)


def _resolve(text: str, names: Counter[str]) -> str:
    """Return the most frequent action that a name cut off may become."""
    name, is_complete = _name(text)
    if is_complete:
        return name
    matches = [other for other in names if name and other.startswith(name)]
    return max(matches, key=names.__getitem__, default=name + _REST)

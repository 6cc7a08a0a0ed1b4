"""Evaluation of a model on the validation set."""

import math

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional
from transformers import GPT2LMHeadModel

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.batches import Batch, evaluation_batches
from gpt2flow.training.model.model import predict, use_bf16
from gpt2flow.training.text.encoding import EncodedCorpus


class Evaluation(BaseModel):
    """Figures of a model on the validation set.

    Predictions are teacher-forced: each token is predicted from the reference text before it.

    Attributes:
        loss: Mean negative log-likelihood per target token, in nats.
        perplexity: Exponential of the loss.
        first_actions: Share of the agent's turns whose first action is predicted exactly. None
            without such turns.
        turns: Share of the agent's turns whose actions are all predicted exactly. None without
            such turns.
    """

    model_config = ConfigDict(frozen=True)

    loss: float
    perplexity: float
    first_actions: float | None = None
    turns: float | None = None


def evaluate(model: GPT2LMHeadModel, corpus: EncodedCorpus, config: TrainingConfig) -> Evaluation:
    """Evaluate a model on a corpus; its training mode is restored."""
    was_training = model.training
    model.eval()
    bf16 = use_bf16(config, model.device)
    loss, tokens = 0.0, 0
    turns: list[tuple[bool, bool]] = []
    for batch in evaluation_batches(corpus, config):
        with torch.inference_mode():
            logits, targets = predict(model, batch, bf16=bf16)
            loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
        tokens += len(targets)
        turns += _score_turns(batch, (logits.argmax(-1) == targets).cpu().numpy())
    model.train(was_training)
    mean = loss / max(1, tokens)
    figures = Evaluation(loss=mean, perplexity=math.exp(min(mean, 700.0)))
    if not turns:
        return figures
    first, whole = np.mean(turns, axis=0)
    return figures.model_copy(update={"first_actions": float(first), "turns": float(whole)})


def _score_turns(batch: Batch, is_correct: npt.NDArray[np.bool_]) -> list[tuple[bool, bool]]:
    """Return the correctness of first action and whole turn, per agent's turn.

    Args:
        batch: Batch of one document per row, with the loss on target tokens alone.
        is_correct: Correct predictions of the masked tokens in row order, bool [targets].
    """
    correct = np.ones(batch.loss_mask.shape, dtype=np.bool_)
    correct[batch.loss_mask] = is_correct
    scores = []
    for mask, row in zip(batch.loss_mask, correct, strict=True):
        if span := first_action_span(mask):
            scores.append((bool(row[slice(*span)].all()), bool(row.all())))
    return scores


def first_action_span(mask: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """Return start and end of the first action in a row.

    Args:
        mask: Target tokens of the row, bool [tokens].

    Returns:
        Indices in the row, the end exclusive; None for ordinary text.
    """
    # In ordinary text the second token is a target; a turn starts with its context.
    if mask[1]:
        return None
    first = int(mask.argmax())
    after = int((~mask[first:]).argmax())
    return first, first + after if after else len(mask)

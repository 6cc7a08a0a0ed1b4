"""How well a model predicts held-back documents."""

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
    """Figures on held-back documents.

    Attributes:
        loss: mean negative log-likelihood of a token that matters, in nats.
        perplexity: its exponential.
        first_actions: share of the agent's turns whose first action is
            predicted to the letter, given the right text before each token; None
            if there are no such turns.
        turns: share whose actions all are.
    """

    model_config = ConfigDict(frozen=True)

    loss: float
    perplexity: float
    first_actions: float | None = None
    turns: float | None = None


def evaluate(model: GPT2LMHeadModel, corpus: EncodedCorpus, config: TrainingConfig) -> Evaluation:
    """Evaluate a model; its mode (training or not) is kept."""
    was_training = model.training
    model.eval()
    bf16 = use_bf16(config)
    loss, tokens = 0.0, 0
    turns: list[tuple[bool, bool]] = []
    for batch in evaluation_batches(corpus, config):
        with torch.inference_mode():
            logits, right = predict(model, batch, bf16=bf16)
            loss += float(functional.cross_entropy(logits, right, reduction="sum"))
        tokens += len(right)
        turns += _turns(batch, (logits.argmax(-1) == right).numpy())
    model.train(was_training)
    mean = loss / max(1, tokens)
    figures = Evaluation(loss=mean, perplexity=math.exp(min(mean, 700.0)))
    if not turns:
        return figures
    first, whole = np.mean(turns, axis=0)
    return figures.model_copy(update={"first_actions": float(first), "turns": float(whole)})


def _turns(batch: Batch, is_right: npt.NDArray[np.bool_]) -> list[tuple[bool, bool]]:
    """For each agent's turn, whether its first action and all its actions are right."""
    right = np.ones(batch.trained.shape, dtype=np.bool_)
    right[batch.trained] = is_right
    found = []
    for trained, row in zip(batch.trained, right, strict=True):
        # Ordinary text matters from its first predicted token on.
        if trained[1]:
            continue
        first = int(trained.argmax())
        after = int((~trained[first:]).argmax())
        end = first + after if after else len(row)
        found.append((bool(row[first:end].all()), bool(row.all())))
    return found

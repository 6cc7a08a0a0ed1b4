"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GPT2LMHeadModel

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import TrainingError
from gpt2flow.training.model.batches import Batch, BatchPlan
from gpt2flow.training.model.checkpoints import (
    TrainerState,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from gpt2flow.training.model.evaluation import Evaluation, evaluate
from gpt2flow.training.model.model import new_model, predict, use_bf16
from gpt2flow.training.text.encoding import EncodedCorpus

_BETAS = (0.9, 0.98)
# The learning rate ends at this share of its peak.
_FINAL_SHARE = 0.05


@dataclass(frozen=True)
class Progress:
    """What a step came to, for whoever watches.

    `evaluation` is the latest one, None before the first.
    """

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    evaluation: Evaluation | None


Watch = Callable[[Progress], None]


def fit(
    train: EncodedCorpus,
    valid: EncodedCorpus,
    config: TrainingConfig,
    *,
    steps: int | None = None,
    saves: tuple[Path, Tokenizer] | None = None,
    watch: Watch = lambda _: None,
) -> tuple[GPT2LMHeadModel, TrainerState]:
    """Train a model.

    Seeds torch's global generator.

    Args:
        train: read `config.epochs` times.
        valid: held back; evaluated every `config.save_every` steps and at the end.
        config: all settings.
        steps: stop after so many; the learning rate falls as if no more had been
            planned.
        saves: a folder for checkpoints, and the vocabulary that goes into them.
            Training resumes from the newest checkpoint there.
        watch: called after each step.

    Returns:
        The model, and how the run went.

    Raises:
        TrainingError: the loss is no longer a number.
        OutputError: a checkpoint cannot be read.
    """
    torch.manual_seed(config.seed)
    model = new_model(config, train.end_id)
    model.train()
    optimizer = _optimizer(model, config)
    plan = BatchPlan(train, config)
    total = min(len(plan), steps or len(plan))
    state = TrainerState()
    if saves and (path := latest_checkpoint(saves[0])):
        state = load_checkpoint(path, model, optimizer)
    while state.step < total:
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, total)
        batch = plan.batch(state.step)
        loss = _update(model, optimizer, batch, config)
        state.step += 1
        state.tokens += batch.ids.size
        seconds = time.perf_counter() - began
        state.seconds += seconds
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {state.step}: the loss is {loss}; try a learning_rate below "
                f"{config.learning_rate}"
            )
        if state.step == total or state.step % config.save_every == 0:
            figures = evaluate(model, valid, config)
            state.history.append({"step": state.step, **figures.model_dump()})
            if saves:
                save_checkpoint(*saves, model, optimizer, state)
        watch(Progress(state.step, total, loss, batch.ids.size / seconds, state.evaluation))
    return model, state


def planned_steps(train: EncodedCorpus, config: TrainingConfig) -> int:
    """Return how many steps a whole run takes."""
    return len(BatchPlan(train, config))


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the rate of a step: a straight rise, then half a cosine down."""
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def _update(
    model: GPT2LMHeadModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainingConfig,
) -> float:
    """Take one step; returns the loss before it."""
    logits, right = predict(model, batch, bf16=use_bf16(config))
    # A batch of nothing but context may have no token that is trained.
    loss = functional.cross_entropy(logits, right, reduction="sum") / max(1, len(right))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _optimizer(model: GPT2LMHeadModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW that lets matrices decay, and not biases, norms and positions."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim > 1 and "wpe" not in name else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, fused=True)

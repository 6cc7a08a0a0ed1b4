"""Training loop."""

import math
import time
from collections.abc import Callable, Sequence
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
    load_best_weights,
    load_checkpoint,
    save_checkpoint,
)
from gpt2flow.training.model.evaluation import Evaluation, evaluate
from gpt2flow.training.model.model import load_model, new_model, predict, use_bf16
from gpt2flow.training.model.optimizer import Optimizer, make_optimizer
from gpt2flow.training.text.encoding import EncodedCorpus

# Final learning rate as a share of its peak.
_FINAL_SHARE = 0.05


@dataclass(frozen=True)
class StepReport:
    """Report of one step to the progress callback.

    Attributes:
        step: Number of finished steps.
        steps: Total number of steps of the run.
        loss: Mean loss of the step's batches before the update, in nats per token.
        learning_rate: Learning rate of the step.
        tokens_per_second: Throughput of the step, padding included.
        evaluation: Latest evaluation, None before the first.
        is_evaluated: Whether the evaluation is one of this step.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    evaluation: Evaluation | None
    is_evaluated: bool


ProgressCallback = Callable[[StepReport], None]


def fit(
    train: EncodedCorpus,
    valid: EncodedCorpus,
    config: TrainingConfig,
    *,
    steps: int | None = None,
    start: Path | None = None,
    save_to: tuple[Path, Tokenizer] | None = None,
    device: torch.device | None = None,
    on_progress: ProgressCallback = lambda _: None,
) -> tuple[GPT2LMHeadModel, TrainerState]:
    """Train a model.

    Seeds torch's global generator.

    Args:
        train: Training set, read `config.epochs` times.
        valid: Validation set, evaluated every `config.save_every` steps and at the end.
        config: Settings of the run.
        steps: Maximum number of steps; the learning-rate schedule is compressed to it. None
            trains for all epochs.
        start: Checkpoint whose weights training starts from; None draws new ones.
        save_to: Directory of the checkpoints, and the tokenizer to store in each. Training
            resumes from the newest checkpoint there. None saves nothing.
        device: Device to train on; None is the CPU.
        on_progress: Callback after each step.

    Returns:
        The model, and the progress of the run. With `config.patience`, the weights are those of
        the lowest validation loss.

    Raises:
        TrainingError: The loss is no longer finite.
        OutputError: A checkpoint cannot be read.
    """
    torch.manual_seed(config.seed)
    # Weights are drawn on the CPU, so that they are the same on every device.
    model = load_model(start, config) if start else new_model(config, train.end_id)
    model.to(device or torch.device("cpu"))
    model.train()
    optimizer = make_optimizer(model, config)
    plan = BatchPlan(train, config)
    total = min(len(plan), steps or len(plan))
    state = TrainerState()
    best = None
    if save_to and (path := latest_checkpoint(save_to[0])):
        state = load_checkpoint(path, model, optimizer)
        best = load_best_weights(save_to[0], state, model) if config.patience else None
    while state.step < total and not state.is_stalled(config.patience):
        began = time.perf_counter()
        rate = learning_rate(config, state.step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches = plan.step(state.step)
        loss = _update(model, optimizer, batches, config)
        tokens = sum(batch.ids.size for batch in batches)
        state.step += 1
        state.tokens += tokens
        seconds = time.perf_counter() - began
        state.seconds += seconds
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {state.step}: the loss is {loss}; try a learning_rate below "
                f"{config.learning_rate}"
            )
        is_evaluated = state.step == total or state.step % config.save_every == 0
        if is_evaluated:
            figures = evaluate(model, valid, config)
            state.history.append({"step": state.step, **figures.model_dump()})
            if save_to:
                save_checkpoint(*save_to, model, optimizer, state, keep_best=config.patience > 0)
            if config.patience and state.best_step == state.step:
                best = {name: weight.clone() for name, weight in model.state_dict().items()}
        on_progress(
            StepReport(
                state.step, total, loss, rate, tokens / seconds, state.evaluation, is_evaluated
            )
        )
    if best is not None:
        model.load_state_dict(best)
    return model, state


def planned_steps(train: EncodedCorpus, config: TrainingConfig) -> int:
    """Return the number of steps of a full run."""
    return len(BatchPlan(train, config))


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay.

    The rate decays from `config.learning_rate` to 5% of it.
    """
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def _update(
    model: GPT2LMHeadModel,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    config: TrainingConfig,
) -> float:
    """Take one optimizer step and return the loss before it.

    The loss is the mean over the tokens in the loss masks of all batches, so that the split into
    batches does not change the gradient.
    """
    bf16 = use_bf16(config, model.device)
    # The loss masks of batches of context alone may be empty.
    count = max(1, sum(int(batch.loss_mask.sum()) for batch in batches))
    total = 0.0
    for batch in batches:
        logits, targets = predict(model, batch, bf16=bf16)
        loss = functional.cross_entropy(logits, targets, reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    optimizer.step()
    optimizer.zero_grad()
    return total

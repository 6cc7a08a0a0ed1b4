"""Optimizers: AdamW for everything, or Muon for the matrices within the blocks."""

from typing import Any, TypeAlias

import torch
from transformers import GPT2LMHeadModel

from gpt2flow.training.config import TrainingConfig

_BETAS = (0.9, 0.98)


class MuonWithAdamW:
    """Muon for the matrices of the blocks, AdamW for the rest.

    Muon orthogonalizes the momentum of a matrix, and learns the same from about half the tokens.
    Its updates are scaled to the size of AdamW's, so that both take one learning rate.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._parts = {"muon": muon, "adamw": adamw}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of both, whose learning rate may be set."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Update the parameters from their gradients."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of both."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


Optimizer: TypeAlias = torch.optim.Optimizer | MuonWithAdamW


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Restore the state of an optimizer.

    Raises:
        ValueError: The state is that of another optimizer.
    """
    if state.keys() != optimizer.state_dict().keys():
        raise ValueError("the checkpoint has the state of another optimizer")
    optimizer.load_state_dict(state)


def make_optimizer(model: GPT2LMHeadModel, config: TrainingConfig) -> Optimizer:
    """Return the optimizer of a run.

    Biases, layer norms and position embeddings have no weight decay.
    """
    blocks: list[torch.nn.Parameter] = []
    embeddings: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "wpe" in name:
            others.append(parameter)
        else:
            (embeddings if "wte" in name or "lm_head" in name else blocks).append(parameter)
    decayed = embeddings if config.optimizer == "muon" else [*embeddings, *blocks]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, fused=True)
    if config.optimizer == "adamw":
        return adamw
    muon = torch.optim.Muon(
        blocks,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return MuonWithAdamW(muon, adamw)

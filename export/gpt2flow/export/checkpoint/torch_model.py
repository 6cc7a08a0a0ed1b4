"""Checkpoint as a PyTorch model.

Imports torch and transformers, which takes seconds.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.checkpoint.special_ids import GENERATION_CONFIG_NAME
from gpt2flow.export.errors import CheckpointError, first_line

_LOGGERS: Final = ("optimum", "torch", "transformers")


def load_torch_model(source: Checkpoint) -> GPT2LMHeadModel:
    """Return a transformers model with the weights of a checkpoint.

    The weights are passed as tensors, since `Checkpoint` reads more file layouts than
    transformers does.
    """
    config = GPT2Config.from_json_file(source.directory / CONFIG_NAME)
    config.dtype = torch.float32
    state: dict[str, Any] = {
        name if name.startswith("lm_head.") else f"transformer.{name}": torch.from_numpy(
            source.weights[name]
        )
        for name in source.architecture.weight_shapes()
    }
    # Only the eager attention of transformers implements all of GPT-2's variants. Releases before
    # 5.3 would load code that a configuration names instead (CVE-2026-4372).
    model = GPT2LMHeadModel.from_pretrained(
        None, config=config, state_dict=state, attn_implementation="eager", dtype=torch.float32
    )
    # Optimum copies further files from this path; without one it queries the hub.
    model.config._name_or_path = str(source.directory)  # noqa: SLF001 - Optimum reads it
    return model.eval()


def set_generation_config(model: GPT2LMHeadModel, source: Checkpoint) -> None:
    """Give a model the generation config of its checkpoint.

    Raises:
        CheckpointError: transformers refuses it.
    """
    try:
        model.generation_config = GenerationConfig.from_dict(source.generation_config)
    except Exception as error:  # It raises errors of any kind.
        raise CheckpointError(f"{GENERATION_CONFIG_NAME}: {first_line(error)}") from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the warnings and progress bars of torch, transformers and Optimum.

    Tracing a model warns about every Python branch it takes. These warnings are of no use to a
    user, since the exported graph is verified. Errors are logged. Previous settings are restored
    on exit.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    shows_bars = transformers_logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        if shows_bars:
            transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            if shows_bars:
                transformers_logging.enable_progress_bar()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

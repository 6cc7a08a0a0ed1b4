"""A checkpoint as a model of PyTorch.

Imports torch and transformers, which takes seconds.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME
from gpt2flow.export.checkpoint.checkpoint import Checkpoint

_LOGGERS: Final = ("optimum", "torch", "transformers")


def load_torch_model(source: Checkpoint) -> GPT2LMHeadModel:
    """Return a model of the weights that were read: transformers knows fewer layouts of files."""
    config = GPT2Config.from_json_file(source.directory / CONFIG_NAME)
    config.dtype = torch.float32
    state: dict[str, Any] = {
        name if name.startswith("lm_head.") else f"transformer.{name}": torch.from_numpy(
            source.weights[name]
        )
        for name in source.architecture.weight_shapes()
    }
    # Only the eager attention of transformers knows GPT-2's variants of scaling.
    model = GPT2LMHeadModel.from_pretrained(
        None, config=config, state_dict=state, attn_implementation="eager", dtype=torch.float32
    )
    # Where Optimum looks for files to go with the graph; without a name it asks the network.
    model.config._name_or_path = str(source.directory)  # noqa: SLF001 - Optimum reads it
    model.generation_config = GenerationConfig.from_dict(source.generation_config)
    return model.eval()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings, and all but errors of the loggers of torch, transformers and Optimum.

    Tracing a model warns about every Python branch it passes, which says nothing to a user: the
    outcome is verified. What was set before is restored.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

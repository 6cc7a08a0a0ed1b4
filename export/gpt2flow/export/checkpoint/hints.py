"""Hints about directories and weights that are no checkpoint.

They cover what trainers, adapters and other frameworks write.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from gpt2flow.server.bundle.manifest import MANIFEST_NAME, MODEL_NAME

ADAPTER_CONFIG_NAME: Final = "adapter_config.json"

_SAVE: Final = "load it there, and save the model with save_pretrained"
# Patterns of files that stand for another format, and what to do with each.
_FORMATS: Final = {
    "adapter_model.*": "{0} is an adapter, which is exported with its " + ADAPTER_CONFIG_NAME,
    "hparams.json": "{0} is in OpenAI's own format; convert it first",
    "zero_to_fp32.py": "its weights are shards of DeepSpeed; run {0} first",
    "pytorch_model_fsdp_0": "its weights are shards of FSDP; run accelerate merge-weights first",
    "tf_model.h5": "convert {0} first",
    "flax_model.msgpack": "convert {0} first",
    "model.ckpt.index": "convert {0} first",
    "*.gguf": "{0} is a model of llama.cpp; give the checkpoint that it was made from",
    "optimizer.pt": "{0} is a trainer's state, without the weights of the model",
    "*.ckpt": "{0} is a training state, as of Lightning; " + _SAVE,
    "*.pt": "{0} is a file of PyTorch; " + _SAVE,
    "*.pth": "{0} is a file of PyTorch; " + _SAVE,
}
_STEP: Final = re.compile(r"checkpoint-(\d+)")
# Parts of names that an adapter adds to those of a model.
_ADAPTER: Final = re.compile(r"\blora_|\.base_layer\.|\.modules_to_save\.|\.original_module\.")


def directory_hint(directory: Path) -> str:
    """Return what to do with a directory that is no checkpoint."""
    return next((f"; {hint}" for hint in _directory_hints(directory)), "")


def _directory_hints(directory: Path) -> Iterator[str]:
    if (directory / ADAPTER_CONFIG_NAME).is_file():
        yield f"{ADAPTER_CONFIG_NAME} is of an adapter, which is not the base model of another"
    if (directory / MANIFEST_NAME).is_file() and (directory / MODEL_NAME).is_file():
        yield "it is a bundle, of which gpt2flow restore writes a checkpoint"
    for parent, pattern in ((directory, "checkpoint-*"), (directory / "snapshots", "*")):
        if found := [each for each in parent.glob(f"{pattern}/config.json") if each.is_file()]:
            last = max((each.parent for each in found), key=_step)
            yield f"it has {len(found)} inside; give {last}"
    for pattern, hint in _FORMATS.items():
        if files := sorted(directory.glob(pattern)):
            yield hint.format(files[0].name)


def file_hint(path: Path) -> str:
    """Return what to give instead of a path that is no directory."""
    if not path.is_file():
        return ""
    for pattern, hint in _FORMATS.items():
        if path.match(pattern):
            return f"; {hint.format(path.name)}"
    return f"; give the directory that {path.name} is in"


def names_hint(missing: str, names: Collection[str]) -> str:
    """Return what to do with weights that lack a name.

    Args:
        missing: The name.
        names: Names that the weights have.
    """
    if any(_ADAPTER.search(name) for name in names):
        return (
            "; they are those of an adapter; save it with PEFT's save_pretrained, and export the "
            f"directory with its {ADAPTER_CONFIG_NAME}"
        )
    for name in names:
        if name.endswith(f".{missing}"):
            prefix = name.removesuffix(missing)
            return f"; they hold {name}: remove {prefix!r} from the names"
    return ""


def _step(directory: Path) -> tuple[int, str]:
    """Return the step of a trainer's checkpoint, and its name."""
    match = _STEP.fullmatch(directory.name)
    return int(match[1]) if match else -1, directory.name

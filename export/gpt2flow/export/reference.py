"""The reference: Optimum's standard fp32 graph, the oracle of every check.

Imports torch, transformers and Optimum, which takes seconds.
"""

from pathlib import Path
from typing import Final

import torch
from optimum.exporters.onnx import onnx_export_from_model
from transformers import GPT2LMHeadModel

from gpt2flow.export.errors import ExportError, one_line
from gpt2flow.export.quiet import quiet_libraries

_TASK: Final = "text-generation-with-past"


def export_reference(checkpoint: Path, directory: Path) -> None:
    """Writes Optimum's export of a checkpoint: the graph and the files that go with it.

    Raises:
        ExportError: transformers cannot load the checkpoint, or Optimum cannot export it.
    """
    with quiet_libraries():
        try:
            # Only the eager attention of transformers knows GPT-2's variants of scaling.
            model = GPT2LMHeadModel.from_pretrained(
                checkpoint,
                attn_implementation="eager",
                dtype=torch.float32,
                local_files_only=True,
            )
            onnx_export_from_model(model.eval(), directory, task=_TASK, do_validation=False)
        except Exception as error:
            raise ExportError(f"Optimum cannot export {checkpoint}: {one_line(error)}") from error

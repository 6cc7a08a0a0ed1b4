"""The reference: Optimum's standard fp32 graph, the oracle of every check.

Imports torch, transformers and Optimum, which takes seconds.
"""

import errno
from pathlib import Path
from typing import Final

from optimum.exporters.onnx import onnx_export_from_model

from gpt2flow.export.checkpoint import Checkpoint
from gpt2flow.export.errors import ExportError, one_line
from gpt2flow.export.quiet import quiet_libraries
from gpt2flow.export.torch_model import load_torch_model

_TASK: Final = "text-generation-with-past"
# The checkpoint is good; there is only no room for what is made of it.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def export_reference(source: Checkpoint, directory: Path) -> None:
    """Writes Optimum's export of a checkpoint: the graph and the files that go with it.

    Raises:
        ExportError: transformers cannot load the checkpoint, or Optimum cannot export it.
        OSError: There is no room for it.
    """
    with quiet_libraries():
        try:
            onnx_export_from_model(
                load_torch_model(source), directory, task=_TASK, do_validation=False
            )
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            raise ExportError(
                f"Optimum cannot export {source.directory}: {one_line(error)}"
            ) from error

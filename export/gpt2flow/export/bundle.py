"""From a checkpoint to a verified bundle."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gpt2flow.export.architecture import CONFIG_NAME
from gpt2flow.export.atomic_directory import atomic_directory
from gpt2flow.export.checkpoint import GENERATION_CONFIG_NAME, Checkpoint, read_checkpoint
from gpt2flow.export.errors import EvaluationTextError, ExportError, one_line
from gpt2flow.export.evaluation_text import EvaluationText, read_evaluation_text
from gpt2flow.export.head_padding import padded_head_size
from gpt2flow.export.matrix_writer import ACCURACY_LEVEL
from gpt2flow.export.quality import hold_to_gate, measure
from gpt2flow.export.recipe import RECIPES, Profile, Storage
from gpt2flow.export.reference_model import ReferenceModel
from gpt2flow.export.serving_graph import write_serving_graph
from gpt2flow.server.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    TOKENIZER_NAME,
    Manifest,
    ModelShape,
    OperatorRecipe,
    Quality,
    Recipe,
    Source,
    file_sha256,
)

Progress = Callable[[str, int, int], None]
"""Told the stage of the export, how much of it is done, and how much there is."""

_EVALUATION_NAME: Final = "eval.txt"
_TOOLS: Final = (
    "gpt2flow",
    "onnx",
    "onnxruntime",
    "optimum-onnx",
    "tokenizers",
    "torch",
    "transformers",
)


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    profile: Profile,
    eval_text: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Exports a checkpoint to a bundle, which appears whole or not at all.

    Args:
        checkpoint: Directory of a GPT-2 in Hugging Face's format.
        out: Where the bundle shall lie; there must be nothing.
        profile: What kind of bundle to write.
        eval_text: Text to measure its quality on; without it, the `eval.txt` of the checkpoint.
            Only the reference profile does without one.
        force: Write the bundle even if it misses its quality gate; its manifest says so.
        progress: Told what is being done.

    Returns:
        The manifest of the bundle.

    Raises:
        InputError: The checkpoint, the text or the output directory cannot be used.
        QualityGateError: The bundle is worse than its profile allows.
        ExportError: It cannot be written, or a library failed; base of the two above.
    """
    report = progress or _report_nothing
    try:
        with atomic_directory(out) as directory:
            report("read", 0, 1)
            source = read_checkpoint(checkpoint)
            text = _find_text(source, eval_text, profile)
            report("read", 1, 1)
            return _write(directory, source, text, profile, force=force, report=report)
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error.strerror or one_line(error)}"
        ) from error


def _write(
    directory: Path,
    source: Checkpoint,
    text: EvaluationText | None,
    profile: Profile,
    *,
    force: bool,
    report: Progress,
) -> Manifest:
    # Torch, transformers and Optimum take seconds to import; bad input is told before.
    from gpt2flow.export.reference import export_reference  # noqa: PLC0415 - as the line above says

    # Beside the directory of the bundle, so that it goes when the bundle is done.
    reference = directory if profile is Profile.REFERENCE else directory.with_name("reference")
    report("reference", 0, 1)
    export_reference(source.directory, reference)
    report("reference", 1, 1)
    storage: dict[str, Storage] = {}
    if profile is not Profile.REFERENCE:
        storage = write_serving_graph(
            directory / MODEL_NAME,
            source.architecture,
            source.weights,
            RECIPES[profile],
            lambda done, total: report("graph", done, total),
        )
        shutil.copyfile(source.directory / CONFIG_NAME, directory / CONFIG_NAME)
        generation_config = json.dumps(source.generation_config, indent=2, sort_keys=True)
        (directory / GENERATION_CONFIG_NAME).write_text(f"{generation_config}\n")
    shutil.copyfile(source.directory / TOKENIZER_NAME, directory / TOKENIZER_NAME)
    quality = None
    if text is not None:
        comparison = measure(
            text,
            ReferenceModel(reference, source.architecture),
            None if profile is Profile.REFERENCE else directory / MODEL_NAME,
            source.architecture,
            lambda done, total: report("verify", done, total),
        )
        quality = hold_to_gate(comparison, text, profile, force=force)
    report("write", 0, 1)
    manifest = _manifest(directory, source, profile, storage, quality)
    (directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    report("write", 1, 1)
    return manifest


def _find_text(
    source: Checkpoint, eval_text: Path | None, profile: Profile
) -> EvaluationText | None:
    path = eval_text or source.directory / _EVALUATION_NAME
    if eval_text is None and not path.is_file():
        if profile is Profile.REFERENCE:
            return None
        raise EvaluationTextError(
            f"{source.directory} has no {_EVALUATION_NAME} to measure quality on; "
            "give a text with --eval"
        )
    return read_evaluation_text(path, source.tokenizer, source.architecture.context_length)


def _manifest(
    directory: Path,
    source: Checkpoint,
    profile: Profile,
    storage: dict[str, Storage],
    quality: Quality | None,
) -> Manifest:
    architecture = source.architecture
    default = RECIPES[profile].default
    quantized = default.block_size is not None
    return Manifest(
        created_by={tool: version(tool) for tool in _TOOLS},
        source=Source(checkpoint_sha256=source.sha256, parameters=source.parameters),
        recipe=Recipe(
            profile=profile,
            kv_cache="fp32",
            default_bits=default.bits,
            block_size=default.block_size,
            accuracy_level=ACCURACY_LEVEL if quantized else None,
            operators={
                name: OperatorRecipe(bits=stored.bits, block_size=stored.block_size)
                for name, stored in storage.items()
            },
        ),
        shape=ModelShape(
            layers=architecture.layers,
            heads=architecture.heads,
            head_size=padded_head_size(architecture),
            hidden_size=architecture.hidden_size,
            context_length=architecture.context_length,
            vocabulary_size=architecture.vocabulary_size,
            eos_token_id=architecture.eos_token_id,
            bos_token_id=architecture.bos_token_id,
        ),
        quality=quality,
        training=source.training,
        files={path.name: file_sha256(path) for path in sorted(directory.iterdir())},
    )


def _report_nothing(_stage: str, _done: int, _total: int) -> None:
    """Stands in where nobody wants to know."""

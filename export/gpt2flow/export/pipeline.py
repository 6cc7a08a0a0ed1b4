"""Export pipeline: from a checkpoint to a verified bundle."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME
from gpt2flow.export.checkpoint.checkpoint import Checkpoint, read_checkpoint
from gpt2flow.export.checkpoint.special_ids import GENERATION_CONFIG_NAME
from gpt2flow.export.errors import ExportError, OutputError, first_line
from gpt2flow.export.facts import describe_bundle, describe_recipe, describe_reference
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.quantization.calibration import Texts, find_texts
from gpt2flow.export.quantization.plan import ProgressCallback, make_plan
from gpt2flow.export.recipe import RECIPES, KvCache, Method, Profile, ProfileRecipe
from gpt2flow.export.sources.hub import Hub, without_hub
from gpt2flow.export.sources.prepare import Origin, named_as
from gpt2flow.export.verification.evaluation_text import EvaluationText
from gpt2flow.export.verification.optimum_graph import (
    OptimumGraph,
    export_optimum_graph,
    require_optimum,
)
from gpt2flow.export.verification.quality import enforce_quality_gate, measure, measure_graph
from gpt2flow.export.verification.reference import ReferenceModel
from gpt2flow.files.atomic import TargetError, atomic_directory
from gpt2flow.server.bundle.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    TOKENIZER_NAME,
    HubModel,
    Manifest,
    Quality,
    Recipe,
)


def export_bundle(
    checkpoint: Path | str,
    out: Path,
    *,
    profile: Profile,
    revision: str | None = None,
    base: Path | str | None = None,
    hub: Hub | None = None,
    kv_cache: KvCache | None = None,
    method: Method | None = None,
    block_size: int | None = None,
    mixed_precision_budget: float | None = None,
    calibration_text: Path | None = None,
    eval_text: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Manifest:
    """Export a checkpoint to a bundle, which is created atomically.

    Args:
        checkpoint: Directory of a GPT-2 in Hugging Face's format, or the id of one on a hub. A
            LoRA adapter is merged into its base model first.
        out: Directory of the bundle; it must not exist.
        profile: Kind of bundle to write.
        revision: Branch, tag or commit of the model on the hub.
        base: Base model of an adapter, a directory or an id. The default is the one that the
            adapter names.
        hub: Access to the hub. The default is that of `huggingface_hub`.
        kv_cache: Data type of the KV cache; None for the profile's default.
        method: Method of rounding weights to 4 bits; None for the profile's default.
        block_size: Number of weights that share a scale; None for the profile's default.
        mixed_precision_budget: Bytes to spend on keeping sensitive matrices in 8 bits, as a share
            of the 4-bit bytes of the layers; None for the profile's default.
        calibration_text: Text to calibrate with. The default is `calibration.txt` of the
            checkpoint, or else a part of the evaluation text.
        eval_text: Text to measure quality on. The default is `eval.txt` of the checkpoint, or else
            a text of the exporter's own.
        force: Whether to write a bundle that misses its quality gate; its manifest records the
            miss.
        progress: Callback for the progress of each stage.
        on_warning: Callback for what was left out of the checkpoint, a line each, which the
            manifest records too, and for what was chosen on a hub.

    Returns:
        The manifest of the bundle.

    Raises:
        InputError: The checkpoint, its hub or base model, a text, an option or the output directory
            is unusable, or the profile needs a package that is not installed.
        QualityGateError: The bundle is worse than its profile allows.
        ExportError: The bundle cannot be written, or a library failed. Base class of the other
            two.
    """
    recipe = RECIPES[profile].with_overrides(
        kv_cache=kv_cache,
        method=method,
        block_size=block_size,
        mixed_precision_budget=mixed_precision_budget,
    )
    origin = Origin(checkpoint, revision, base, hub)
    report_progress, warn = progress or _ignore_progress, on_warning or _ignore_warning
    if profile is Profile.REFERENCE:
        require_optimum()
    try:
        with atomic_directory(out) as directory:
            # Beside the staging directory, so that it is removed together with it.
            merged = directory.with_name("merged")
            prepared = origin.prepare(merged, report_progress, warn)
            with without_hub(), named_as(merged, checkpoint):
                report_progress("read", 0, 1)
                source = read_checkpoint(prepared.directory)
                texts = find_texts(
                    source,
                    eval_text,
                    calibration_text,
                    measured=profile is not Profile.REFERENCE,
                    calibrated=recipe.needs_calibration,
                )
                report_progress("read", 1, 1)
                for warning in source.warnings:
                    warn(warning)
                export = _Export(
                    *(directory, source, prepared.models, texts, profile, recipe),
                    report_progress,
                    force=force,
                )
                manifest = export.run()
    except TargetError as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error.strerror or first_line(error)}"
        ) from error
    report_progress("write", 1, 1)
    return manifest


@dataclass(frozen=True)
class _Export:
    """One export, with all of its input read and validated."""

    directory: Path
    source: Checkpoint
    models: tuple[HubModel, ...]
    texts: Texts
    profile: Profile
    recipe: ProfileRecipe
    report_progress: ProgressCallback
    force: bool

    def run(self) -> Manifest:
        """Write all files of the bundle, the manifest last."""
        text = self.texts.evaluation
        if self.profile is Profile.REFERENCE:
            recipe = self._write_optimum_graph()
            reference = self._load_reference() if text else None
        else:
            reference = self._load_reference()
            recipe = self._write_graph(reference)
        quality = self._measure_quality(text, reference) if text and reference else None
        (self.directory / TOKENIZER_NAME).write_bytes(self.source.tokenizer_json)
        self.report_progress("write", 0, 1)
        manifest = describe_bundle(self.directory, self.source, self.models, recipe, quality)
        (self.directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        return manifest

    def _load_reference(self) -> ReferenceModel:
        self.report_progress("reference", 0, 1)
        reference = ReferenceModel(self.source)
        self.report_progress("reference", 1, 1)
        return reference

    def _write_optimum_graph(self) -> Recipe:
        self.report_progress("graph", 0, 1)
        export_optimum_graph(self.source, self.directory)
        # Optimum does not write one that has options without effect.
        if not (self.directory / GENERATION_CONFIG_NAME).exists():
            self._write_generation_config()
        self.report_progress("graph", 1, 1)
        return describe_reference(self.recipe)

    def _write_graph(self, reference: ReferenceModel) -> Recipe:
        source, calibration = self.source, self.texts.calibration
        plan = make_plan(
            source,
            self.recipe,
            reference,
            calibration.windows if calibration else (),
            self.report_progress,
        )
        storage = write_serving_graph(
            self.directory / MODEL_NAME,
            source.architecture,
            source.weights,
            self.recipe,
            kept=plan.kept,
            quantizer=plan.quantizer,
            cache_scales=plan.cache_scales,
            on_layer=lambda done, total: self.report_progress("graph", done, total),
        )
        (self.directory / CONFIG_NAME).write_bytes(source.config_json)
        self._write_generation_config()
        text = calibration.name if calibration else None
        return describe_recipe(self.profile, self.recipe, storage, plan.kept, text)

    def _write_generation_config(self) -> None:
        fields = json.dumps(self.source.generation_config, indent=2, sort_keys=True)
        (self.directory / GENERATION_CONFIG_NAME).write_text(f"{fields}\n")

    def _measure_quality(self, text: EvaluationText, reference: ReferenceModel) -> Quality:
        def report_verification(done: int, total: int) -> None:
            self.report_progress("verify", done, total)

        if self.profile is Profile.REFERENCE:
            graph = OptimumGraph(self.directory, self.source.architecture)
            comparison = measure_graph(text, reference, graph, report_verification)
        else:
            served = self.directory / MODEL_NAME
            comparison = measure(text, reference, served, on_tokens=report_verification)
        return enforce_quality_gate(comparison, text, self.profile, force=self.force)


def _ignore_progress(_stage: str, _done: int, _total: int) -> None:
    """Discard progress when the caller passes no callback."""


def _ignore_warning(_warning: str) -> None:
    """Discard a warning when the caller passes no callback."""

"""From a checkpoint to a verified bundle."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME
from gpt2flow.export.checkpoint.checkpoint import (
    GENERATION_CONFIG_NAME,
    Checkpoint,
    read_checkpoint,
)
from gpt2flow.export.errors import ExportError, OutputError, one_line
from gpt2flow.export.facts import describe_bundle, describe_recipe, describe_reference
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.quantization.calibration import Texts, find_texts
from gpt2flow.export.quantization.plan import Report, make_plan
from gpt2flow.export.recipe import RECIPES, KvCache, Method, Profile, ProfileRecipe
from gpt2flow.export.verification.quality import hold_to_gate, measure, measure_alone
from gpt2flow.export.verification.reference import ReferenceModel, export_reference
from gpt2flow.files.directories import TargetError, atomic_directory
from gpt2flow.server.bundle.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    TOKENIZER_NAME,
    Manifest,
    Quality,
    Recipe,
)


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    profile: Profile,
    kv_cache: KvCache | None = None,
    method: Method | None = None,
    block_size: int | None = None,
    kept_share: float | None = None,
    second_copy: bool = True,
    calibration_text: Path | None = None,
    eval_text: Path | None = None,
    force: bool = False,
    progress: Report | None = None,
) -> Manifest:
    """Export a checkpoint to a bundle, which appears whole or not at all.

    Args:
        checkpoint: Directory of a GPT-2 in Hugging Face's format.
        out: Where the bundle shall lie; there must be nothing.
        profile: What kind of bundle to write.
        kv_cache: The numbers of the KV cache; None: what the profile prefers.
        method: How weights are rounded to 4 bits; None: what the profile prefers.
        block_size: How many weights share a scale; None: what the profile prefers.
        kept_share: Share of bytes to spend on keeping sensitive matrices in 8 bits; None: what
            the profile prefers.
        second_copy: Have matrices for many rows beside those for few; without, the bundle and
            the memory of a server are smaller, and one of the two kinds of runs is slower.
        calibration_text: Text to calibrate with; without it, the `calibration.txt` of the
            checkpoint, or else a part of the text that quality is measured on.
        eval_text: Text to measure quality on; without it, the `eval.txt` of the checkpoint.
            Only the reference profile does without one.
        force: Write the bundle even if it misses its quality gate; its manifest says so.
        progress: Told what is being done.

    Returns:
        The manifest of the bundle.

    Raises:
        InputError: The checkpoint, a text, a choice or the output directory cannot be used.
        QualityGateError: The bundle is worse than its profile allows.
        ExportError: It cannot be written, or a library failed; base of the two above.
    """
    recipe = RECIPES[profile].changed(
        kv_cache=kv_cache,
        method=method,
        block_size=block_size,
        kept_share=kept_share,
        second_copy=second_copy,
    )
    report = progress or _report_nothing
    try:
        with atomic_directory(out) as directory:
            report("read", 0, 1)
            source = read_checkpoint(checkpoint)
            texts = find_texts(
                source,
                eval_text,
                calibration_text,
                measured=profile is not Profile.REFERENCE,
                calibrated=recipe.calibrated,
            )
            report("read", 1, 1)
            export = _Export(directory, source, texts, profile, recipe, report, force=force)
            return export.run()
    except TargetError as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error.strerror or one_line(error)}"
        ) from error


@dataclass(frozen=True)
class _Export:
    """One export, all of whose input is there and good."""

    directory: Path
    source: Checkpoint
    texts: Texts
    profile: Profile
    recipe: ProfileRecipe
    report: Report
    force: bool

    def run(self) -> Manifest:
        """Write all files of the bundle; the manifest comes last."""
        if self.profile is Profile.REFERENCE:
            self._export_reference(self.directory)
            recipe = describe_reference(self.recipe)
            quality = self._quality(self.directory, served=None)
        else:
            # Beside the directory of the bundle, so that it goes when the bundle is done.
            reference = self.directory.with_name("reference")
            self._export_reference(reference)
            recipe = self._write_graph(reference)
            quality = self._quality(reference, served=self.directory / MODEL_NAME)
        (self.directory / TOKENIZER_NAME).write_bytes(self.source.tokenizer_json)
        self.report("write", 0, 1)
        manifest = describe_bundle(self.directory, self.source, recipe, quality)
        (self.directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        self.report("write", 1, 1)
        return manifest

    def _export_reference(self, directory: Path) -> None:
        # Whatever a library would like to look up, an export needs no network.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        self.report("reference", 0, 1)
        export_reference(self.source, directory)
        self.report("reference", 1, 1)

    def _write_graph(self, reference: Path) -> Recipe:
        source, calibration = self.source, self.texts.calibration
        plan = make_plan(
            source,
            self.recipe,
            ReferenceModel(reference, source.architecture),
            calibration.windows if calibration else (),
            self.report,
        )
        facts = write_serving_graph(
            self.directory / MODEL_NAME,
            source.architecture,
            source.weights,
            self.recipe,
            kept=plan.kept,
            quantizer=plan.quantizer,
            cache_scales=plan.cache_scales,
            on_layer=lambda done, total: self.report("graph", done, total),
        )
        shutil.copyfile(source.directory / CONFIG_NAME, self.directory / CONFIG_NAME)
        generation_config = json.dumps(source.generation_config, indent=2, sort_keys=True)
        (self.directory / GENERATION_CONFIG_NAME).write_text(f"{generation_config}\n")
        text = calibration.name if calibration else None
        return describe_recipe(self.profile, self.recipe, facts, plan.kept, text)

    def _quality(self, reference: Path, served: Path | None) -> Quality | None:
        """Return the figures of the bundle, none if there is no text to measure on."""
        text = self.texts.evaluation
        if text is None:
            return None
        architecture = self.source.architecture
        oracle = ReferenceModel(reference, architecture)

        def tell(done: int, total: int) -> None:
            self.report("verify", done, total)

        if served is None:
            comparison = measure_alone(text, oracle, tell)
        else:
            comparison = measure(
                text, oracle, served, architecture, self.recipe.narrow_rows, on_tokens=tell
            )
        return hold_to_gate(comparison, text, self.profile, force=self.force)


def _report_nothing(_stage: str, _done: int, _total: int) -> None:
    """Stand in where nobody wants to know."""

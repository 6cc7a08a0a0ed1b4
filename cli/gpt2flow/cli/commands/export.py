"""`gpt2flow export`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gpt2flow.cli.outcome import needs_extra, reported

_STAGES = {
    "read": "Reading the checkpoint",
    "reference": "Exporting the reference graph",
    "calibrate": "Calibrating the KV cache",
    "quantize": "Quantizing the layers",
    "sensitivity": "Measuring sensitivity",
    "graph": "Building the serving graph",
    "verify": "Verifying against the reference",
    "write": "Writing the manifest",
}


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Directory in Hugging Face's format.")],
    out: Annotated[Path, typer.Argument(help="Where the bundle shall be; must not exist.")],
    profile: Annotated[str, typer.Option(help="fp32, int8, int4 or reference.")] = "int8",
    kv_cache: Annotated[
        str | None, typer.Option(help="fp32 or int8; default: int8 where weights are quantized.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Of rounding to 4 bits: rtn, hqq or gptq (the default).")
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Weights that share a scale; default 128.")
    ] = None,
    kept_share: Annotated[
        float | None,
        typer.Option(help="Of the bytes of 4-bit layers, added to keep sensitive ones in 8 bits."),
    ] = None,
    second_copy: Annotated[
        bool,
        typer.Option(
            help="Have weights for many rows beside those for few: faster, and more memory."
        ),
    ] = True,
    calibration_text: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Text to calibrate with; default: the checkpoint's calibration.txt, "
            "or a part of the evaluation text.",
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option("--eval", help="Text to verify on; default: the checkpoint's eval.txt."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a bundle that misses its quality gate.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Export CHECKPOINT to a verified bundle at OUT."""
    with needs_extra("export"):
        from gpt2flow.export import (
            ExportError,
            InputError,
            KvCache,
            Method,
            Profile,
            export_bundle,
        )
    with (
        reported(bad_input=InputError, failure=ExportError),
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as bars,
    ):
        tasks = {stage: bars.add_task(text, visible=False) for stage, text in _STAGES.items()}
        manifest = export_bundle(
            checkpoint,
            out,
            profile=Profile.parse(profile),
            kv_cache=None if kv_cache is None else KvCache.parse(kv_cache),
            method=None if method is None else Method.parse(method),
            block_size=block_size,
            kept_share=kept_share,
            second_copy=second_copy,
            calibration_text=calibration_text,
            eval_text=eval_text,
            force=force,
            progress=lambda stage, done, total: bars.update(
                tasks[stage], completed=done, total=total, visible=True
            ),
        )
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        typer.echo(f"{out}: profile {profile}, {_quality(manifest.quality)}")


def _quality(quality: object) -> str:
    ratio = getattr(quality, "perplexity_ratio", None)
    return "not measured" if ratio is None else f"perplexity {ratio:.4f} × that of fp32"


def add_commands(app: typer.Typer) -> None:
    """Add `export`."""
    app.command()(export)

"""`gpt2flow export` and `gpt2flow inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gpt2flow.cli.outcome import needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.export import Inspection

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


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Verify the hashes of BUNDLE and show what it is."""
    with needs_extra("server"):
        from gpt2flow.export import inspect_bundle
        from gpt2flow.server.errors import BundleError
    with reported(bad_input=BundleError):
        inspection = inspect_bundle(bundle)
    if as_json:
        typer.echo(json.dumps(inspection.as_json(), indent=2, ensure_ascii=False))
    else:
        Console().print(_table(inspection))


def _quality(quality: object) -> str:
    ratio = getattr(quality, "perplexity_ratio", None)
    return "not measured" if ratio is None else f"perplexity {ratio:.4f} × that of fp32"


def _table(inspection: "Inspection") -> Table:
    manifest = inspection.manifest
    table = Table("what", "value", title=str(inspection.directory), title_justify="left")
    table.add_row("fingerprint", inspection.fingerprint)
    table.add_row("parameters", f"{manifest.source.parameters:,}")
    for name, value in manifest.recipe.model_dump(exclude={"operators"}).items():
        table.add_row(_words(name), _shown(value))
    for name, value in manifest.shape.model_dump().items():
        table.add_row(_words(name), str(value))
    for name, count in inspection.storage.items():
        table.add_row("matrices", f"{count} × {name}")
    if manifest.quality:
        for name, value in manifest.quality.model_dump(exclude={"parts"}).items():
            table.add_row(_words(name), _shown(value))
        for name, part in manifest.quality.parts.items():
            table.add_row(
                name,
                f"perplexity ratio {part.perplexity_ratio:.6g}, argmax agreement "
                f"{part.argmax_agreement:.6g}, mean KL {part.mean_kl:.6g} ({part.tokens} tokens)",
            )
    for name, size in inspection.sizes.items():
        table.add_row(name, f"{size:,} bytes, hash verified")
    for name, count in (inspection.operators or {}).items():
        table.add_row("operator", f"{count} × {name}")
    for tool, version in manifest.created_by.items():
        table.add_row(f"made with {tool}", version)
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def add_commands(app: typer.Typer) -> None:
    """Adds `export` and `inspect`."""
    app.command()(export)
    app.command()(inspect)

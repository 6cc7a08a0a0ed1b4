"""Command `gpt2flow inspect`, which describes a bundle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gpt2flow.cli.outcome import needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.export import Inspection


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Verify the hashes of a bundle and print its recipe and quality."""
    with needs_extra("server"):
        from gpt2flow.export import inspect_bundle
        from gpt2flow.server.errors import BundleError
    with reported(bad_input=BundleError):
        inspection = inspect_bundle(bundle)
    if as_json:
        typer.echo(json.dumps(inspection.as_json(), indent=2, ensure_ascii=False))
    else:
        Console().print(_table(inspection))


def _table(inspection: "Inspection") -> Table:
    manifest = inspection.manifest
    table = Table("property", "value", title=str(inspection.directory), title_justify="left")
    table.add_row("fingerprint", inspection.fingerprint)
    table.add_row("parameters", f"{manifest.source.parameters:,}")
    for model in manifest.source.models:
        table.add_row("made from", f"{model.id} at commit {model.commit}")
    for name, value in manifest.recipe.model_dump(exclude={"operators"}).items():
        table.add_row(_label(name), _format_value(value))
    for name, value in manifest.shape.model_dump().items():
        table.add_row(_label(name), str(value))
    for name, count in inspection.storage.items():
        table.add_row("matrices", f"{count} × {name}")
    if manifest.quality:
        for name, value in manifest.quality.model_dump(exclude={"parts"}).items():
            table.add_row(_label(name), _format_value(value))
        for name, part in manifest.quality.parts.items():
            table.add_row(
                name,
                f"perplexity ratio {part.perplexity_ratio:.6g}, argmax agreement "
                f"{part.argmax_agreement:.6g}, mean KL {part.mean_kl:.6g} ({part.tokens} tokens)",
            )
    rows = [("warning", warning) for warning in manifest.warnings]
    rows += [(name, f"{size:,} bytes, hash verified") for name, size in inspection.sizes.items()]
    rows += [("operator", f"{n} × {name}") for name, n in (inspection.operators or {}).items()]
    for row in rows:
        table.add_row(*row)
    table.add_row("kernels of this machine", inspection.kernels)
    for tool, version in manifest.created_by.items():
        table.add_row(f"made with {tool}", version)
    return table


def _label(name: str) -> str:
    return name.replace("_", " ")


def _format_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(inspect)

"""Command `gpt2flow restore`, which converts a bundle back to a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import needs_extra, reported


def restore(
    bundle: Annotated[Path, typer.Argument(help="Directory of a bundle.")],
    out: Annotated[
        Path, typer.Argument(help="Directory of the checkpoint to write. Must not exist.")
    ],
) -> None:
    """Write the checkpoint of a bundle, to train on from it.

    The weights are those that the server computes with: what quantization lost
    stays lost.
    """
    with needs_extra("export"):
        from gpt2flow.export import ExportError, InputError, restore_checkpoint
        from gpt2flow.server.errors import BundleError
    with reported(bad_input=(InputError, BundleError), failure=ExportError):
        parameters = restore_checkpoint(bundle, out)
    typer.echo(f"{out}: {parameters:,} parameters")


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(restore)

"""Command `gpt2flow average`, which averages the weights of checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import needs_extra, reported


def average(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Directories of at least two checkpoints, the last one trained last."),
    ],
    out: Annotated[
        Path, typer.Option(help="Directory of the checkpoint to write. Must not exist.")
    ],
) -> None:
    """Write a checkpoint with the mean weights of others.

    The mean of checkpoints that were trained on from each other often understands
    unseen messages better than the last of them.
    """
    with needs_extra("training"):
        from gpt2flow.training.errors import ConfigError, OutputError
        from gpt2flow.training.model.averaging import average_checkpoints
    with reported(bad_input=(ConfigError, OutputError)):
        parameters = average_checkpoints(checkpoints, out)
    typer.echo(f"{out}: mean of {len(checkpoints)} checkpoints, {parameters:,} parameters")


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(average)

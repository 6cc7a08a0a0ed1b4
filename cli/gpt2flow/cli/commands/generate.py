"""`gpt2flow generate`: streams text to the terminal."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    Protection,
    takes_protection,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


@takes_protection
def generate(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[str, typer.Option(help="The model; default: the server's first.")] = "",
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_k: Annotated[int, typer.Option(min=0)] = 0,
    top_p: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    beams: Annotated[int, typer.Option(min=1, help="Above 1: beam search.")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the text.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="File with the JSON schema of the output.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until the deadline.", min=0.001)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, not streamed.")] = False,
    *,
    protection: Protection,
) -> None:
    """Continue TEXT on a running server and stream the result."""
    with needs_extra("client"):
        from gpt2flow.client import (
            BeamSearch,
            Client,
            ClientError,
            Delta,
            InvalidRequestError,
            JsonSchema,
            NotFoundError,
            Options,
            Sampling,
            SettingsError,
        )

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    options = Options(
        decoding=BeamSearch(beams) if beams > 1 else sampling,
        max_new_tokens=max_new_tokens,
        stop_strings=tuple(stop or ()),
        constraint=JsonSchema(_read(json_schema)) if json_schema else None,
    )
    with (
        reported(
            bad_input=(InvalidRequestError, NotFoundError, SettingsError), failure=ClientError
        ),
        Client(address, timeout=timeout, security=protection.security()) as client,
    ):
        if as_json:
            generation = client.generate(text, options, model=model)
            typer.echo(json.dumps(dataclasses.asdict(generation), ensure_ascii=False))
            return
        for item in client.stream(text, options, model=model):
            # Beam search settles its text at the end only.
            if isinstance(item, Delta) or beams > 1:
                typer.echo(item.text, nl=False)
        typer.echo()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--json-schema {path}: {error}", Exit.BAD_INPUT) from error


def add_commands(app: typer.Typer) -> None:
    """Add `generate`."""
    app.command()(generate)

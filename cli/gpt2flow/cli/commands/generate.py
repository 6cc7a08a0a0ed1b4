"""Command `gpt2flow generate`, which streams text to the terminal."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.arguments import MAX_TIMEOUT, MAX_UINT32, MAX_UINT64
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    ModelName,
    SecurityOptions,
    with_security_options,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


@with_security_options
def generate(
    text: Annotated[str, typer.Argument(help="Prompt to continue.")],
    address: Address = DEFAULT_ADDRESS,
    model: ModelName = "",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of tokens to generate.",
            min=1,
            max=MAX_UINT32,
            show_default="set by the server",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Sampling temperature; 0 is greedy decoding.",
            min=0,
            max=100,
            show_default="1, set by the server",
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(
            help="Sample from this many likeliest tokens; 0 for all.", min=0, max=MAX_UINT32
        ),
    ] = 0,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Sample from the likeliest tokens that reach this probability, above 0.",
            min=0,
            max=1,
            show_default="1, set by the server",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the random numbers.",
            min=0,
            max=MAX_UINT64,
            show_default="drawn by the server",
        ),
    ] = None,
    beams: Annotated[
        int,
        typer.Option(help="Number of beams; above 1 selects beam search.", min=1, max=MAX_UINT32),
    ] = 1,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="String that ends the text. May be given several times."),
    ] = None,
    include_stop: Annotated[
        bool, typer.Option("--include-stop", help="Print the stop string that ends the text too.")
    ] = False,
    json_schema: Annotated[
        Path | None, typer.Option(help="File of a JSON schema that the output must match.")
    ] = None,
    literal: Annotated[
        bool,
        typer.Option(
            "--literal", help="Treat special tokens in the prompt, such as <|endoftext|>, as text."
        ),
    ] = False,
    special_tokens: Annotated[
        bool,
        typer.Option("--special-tokens", help="Print the special tokens that are generated, too."),
    ] = False,
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate", help="Leave out the first tokens of a prompt that does not fit."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Deadline of the call, in seconds.", min=0.001, max=MAX_TIMEOUT)
    ] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of streaming text.")
    ] = False,
    *,
    security_options: SecurityOptions,
) -> None:
    """Continue a prompt on a running server and stream the generated text."""
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
            Text,
        )

    errors = (InvalidRequestError, NotFoundError, SettingsError)
    with reported(bad_input=errors, failure=ClientError):
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        options = Options(
            decoding=BeamSearch(beams) if beams > 1 else sampling,
            max_new_tokens=max_new_tokens,
            stop_strings=tuple(stop or ()),
            include_stop_string=include_stop,
            include_special_tokens=special_tokens,
            constraint=JsonSchema(_read(json_schema)) if json_schema else None,
            truncate_prompt=truncate,
        )
        prompt = Text(text, literal=literal)
        client = Client(address, timeout=timeout, security=security_options.security())
    with reported(bad_input=errors, failure=ClientError), client:
        if as_json:
            generation = client.generate(prompt, options, model=model)
            typer.echo(json.dumps(dataclasses.asdict(generation), ensure_ascii=False))
            return
        for item in client.stream(prompt, options, model=model):
            # Beam search has no text before its last item.
            if isinstance(item, Delta) or beams > 1:
                typer.echo(item.text, nl=False)
        typer.echo()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--json-schema {path}: {error}", Exit.BAD_INPUT) from error


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(generate)

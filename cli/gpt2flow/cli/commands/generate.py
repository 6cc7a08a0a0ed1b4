"""Command `gpt2flow generate`, which streams text to the terminal."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.arguments import MAX_TIMEOUT, MAX_UINT32, MAX_UINT64
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    ModelName,
    SecurityOptions,
    Servers,
    with_security_options,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


@with_security_options
def generate(
    text: Annotated[str, typer.Argument(help="Prompt to continue.")],
    address: Servers = DEFAULT_ADDRESS,
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
    stored_choices: Annotated[
        str | None,
        typer.Option(
            help="List of the server's --choices; the output is one of its entries.",
            metavar="NAME",
        ),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(
            help="Print this many outputs of a beam search, best first, with their scores.",
            min=1,
            max=MAX_UINT32,
            show_default="the best one, without its score",
        ),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(
            help="Exponent of the length that ranks beams; 0 ranks by their probabilities.",
            show_default="1, set by the server",
        ),
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
            StoredChoices,
            Text,
        )

    errors = (InvalidRequestError, NotFoundError, SettingsError)
    _check_together(beams, {"--best": best, "--length-penalty": length_penalty})
    if json_schema is not None and stored_choices is not None:
        raise CommandError("give one of --json-schema and --stored-choices", Exit.BAD_INPUT)
    with reported(bad_input=errors, failure=ClientError):
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        search = BeamSearch(beams, length_penalty=length_penalty, num_return_sequences=best)
        choices = None if stored_choices is None else StoredChoices(stored_choices)
        options = Options(
            decoding=search if beams > 1 else sampling,
            max_new_tokens=max_new_tokens,
            stop_strings=tuple(stop or ()),
            include_stop_string=include_stop,
            include_special_tokens=special_tokens,
            constraint=JsonSchema(_read(json_schema)) if json_schema else choices,
            truncate_prompt=truncate,
        )
        prompt = Text(text, literal=literal)
        client = Client(address, timeout=timeout, security=security_options.security())
    with reported(bad_input=errors, failure=ClientError), client:
        if as_json:
            generation = client.generate(prompt, options, model=model)
            typer.echo(json.dumps(dataclasses.asdict(generation), ensure_ascii=False))
            return
        if best is not None:
            for each in client.generate(prompt, options, model=model).candidates:
                typer.echo(f"{each.beam_score:.4f}\t{each.text}")
            return
        for item in client.stream(prompt, options, model=model):
            # Beam search has no text before its last item.
            if isinstance(item, Delta) or beams > 1:
                typer.echo(item.text, nl=False)
        typer.echo()


def _check_together(beams: int, given: Mapping[str, object]) -> None:
    """Refuse options of beam search without beams."""
    for option, value in given.items():
        if beams == 1 and value is not None:
            raise CommandError(f"{option} needs --beams above 1", Exit.BAD_INPUT)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--json-schema {path}: {error}", Exit.BAD_INPUT) from error


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(generate)

"""`gpt2flow train`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


def train(
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint.")],
    corpus: Annotated[
        list[Path] | None,
        typer.Argument(help="Text files; none: turns are made up from the agent's flows."),
    ] = None,
    valid: Annotated[
        list[Path] | None,
        typer.Option(help="Text file to hold back; default: some documents of the corpus."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="`shop`, the shipped model's settings, or a YAML file.")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of one setting; may repeat.")
    ] = None,
    tune: Annotated[int, typer.Option(min=0, help="Search settings in so many runs first.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run stood.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print training.json.")] = False,
) -> None:
    """Clean CORPUS, learn its vocabulary and train a GPT-2 on it."""
    with needs_extra("training"):
        from gpt2flow.agent.errors import FlowError
        from gpt2flow.training.config import (
            SHOP_RECIPE,
            TrainingConfig,
            load_recipe,
        )
        from gpt2flow.training.errors import (
            ConfigError,
            CorpusError,
            OutputError,
            TrainingError,
        )
    bad_input = (FlowError, ConfigError, CorpusError, OutputError)
    with reported(bad_input=bad_input, failure=TrainingError):
        path = SHOP_RECIPE if recipe == "shop" or not (recipe or corpus) else Path(recipe)
        config = load_recipe(path) if recipe or not corpus else TrainingConfig()
        config = config.changed(**dict(map(_setting, settings or [])))
        with needs_extra("training"):
            from gpt2flow.training.pipeline import train as run
        facts = run(
            corpus or None,
            out,
            config,
            valid=valid or (),
            tune_trials=tune,
            resume=resume,
            console=Console(stderr=True),
        )
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(
            f"{out}: {facts['parameters']:,} parameters, {facts['trained_tokens']:,} tokens "
            f"in {facts['seconds']:.0f} s"
        )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CommandError(f"--set {text!r} is not of the form name=value", Exit.BAD_INPUT)
    return name, value


def add_commands(app: typer.Typer) -> None:
    """Add `train`."""
    app.command()(train)

"""Command `gpt2flow train`, which trains a checkpoint."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.training.config import TrainingConfig


def train(
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the checkpoint to write.", show_default="required"),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files of the corpus: .jsonl, .csv, .tsv, or any other as text; .gz is unpacked.",
            show_default="turns generated from the agent's flows",
        ),
    ] = None,
    valid: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of the validation set. May be given several times.",
            show_default="a random part of the corpus",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Settings of the run: shop or shop_wishes, the two phases of the shipped model, "
            "or a YAML file.",
            show_default="shop without a corpus, else built-in settings",
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Setting that overrides the recipe, as name=value. May be given several times.",
        ),
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            min=0, help="Number of short runs that search for better settings first; 0 for none."
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted run in --out from its last save."),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            help="Device to train on: cpu, cuda, or cuda:1 and so on. auto is the first CUDA "
            "device, or else the CPU."
        ),
    ] = "auto",
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Checkpoint to start from; its vocabulary and sizes are kept.",
            show_default="new weights",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Directory of data sets with labelled messages, which join the turns of the flows."
        ),
    ] = None,
    flows: Annotated[
        Path | None,
        typer.Option(
            help="Directory of flow definitions with utterances, to generate turns from.",
            show_default="the built-in flows",
        ),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            help="Other tool that receives the curve, beside curve.csv: tensorboard or mlflow. "
            "May be given several times.",
            show_default="curve.csv alone",
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the settings of the run as YAML, and exit."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the contents of training.json.")
    ] = False,
) -> None:
    """Clean a corpus, train a tokenizer, and train a GPT-2 on it."""
    with needs_extra("training"):
        from gpt2flow.agent.errors import FlowError
        from gpt2flow.training.config import (
            TrainingConfig,
            find_recipe,
            load_recipe,
            parse_settings,
        )
        from gpt2flow.training.errors import (
            ConfigError,
            CorpusError,
            OutputError,
            TrainingError,
        )
    bad_input = (FlowError, ConfigError, CorpusError, OutputError)
    with reported(bad_input=bad_input, failure=TrainingError):
        path = find_recipe(recipe or "shop")
        config = load_recipe(path) if recipe or not corpus else TrainingConfig()
        config = config.changed(**parse_settings(settings or []))
        if print_config:
            _print_config(config)
            return
        if out is None:
            raise CommandError("--out is missing: the directory of the checkpoint", Exit.BAD_INPUT)
        with needs_extra("training"):
            from gpt2flow.training.pipeline import train as run
        facts = run(
            corpus or None,
            out,
            config,
            valid=valid or (),
            tune_trials=tune,
            resume=resume,
            device=device,
            data=data,
            flows=flows,
            start=start,
            log_to=log_to or (),
            console=Console(stderr=True),
        )
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(
            f"{out}: {facts['parameters']:,} parameters, {facts['trained_tokens']:,} tokens "
            f"in {facts['seconds']:.0f} s"
        )


def _print_config(config: "TrainingConfig") -> None:
    """Print settings as a recipe: each with its description."""
    for name, field in type(config).model_fields.items():
        typer.echo(f"# {field.description}\n{name}: {json.dumps(getattr(config, name))}")


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)

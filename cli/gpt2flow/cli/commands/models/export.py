"""Command `gpt2flow export`, which converts a checkpoint to a bundle."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gpt2flow.cli.outcome import needs_extra, reported

_STAGES = {
    "download": "Fetching the model",
    "merge": "Merging the adapter",
    "read": "Reading the checkpoint",
    "reference": "Loading the reference model",
    "calibrate": "Calibrating the KV cache",
    "quantize": "Quantizing the layers",
    "sensitivity": "Measuring sensitivity",
    "graph": "Writing the graph",
    "verify": "Verifying against the reference",
    "write": "Writing the manifest",
}


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Directory of a GPT-2 checkpoint or of a LoRA adapter in Hugging Face format, or "
            "id of one on the Hugging Face hub."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Directory of the bundle to write. Must not exist.")],
    profile: Annotated[
        str,
        typer.Option(
            help="Precision of the weights: fp32, int8 or int4; or reference, for the unmodified "
            "fp32 graph of Optimum."
        ),
    ] = "int8",
    kv_cache: Annotated[
        str | None,
        typer.Option(
            help="Data type of the KV cache: fp32 or int8.",
            show_default="int8 with profiles int8 and int4, else fp32",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Quantization method of profile int4: rtn, hqq or gptq.", show_default="gptq"
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            help="Number of weights that share a scale: 16, 32, 64 or 128.", show_default="128"
        ),
    ] = None,
    kept_share: Annotated[
        float | None,
        typer.Option(
            help="Mixed-precision budget of profile int4: bytes added to keep sensitive layers "
            "in 8 bits, as a fraction of the layers' bytes, from 0 to 1.",
            show_default="0.1",
        ),
    ] = None,
    calibration_text: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Text file for calibration.",
            show_default="calibration.txt of the checkpoint, else a part of the text that quality "
            "is measured on",
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            help="Text file to measure quality on.",
            show_default="eval.txt of the checkpoint, else a text of the exporter's own",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of the model on the hub.", show_default="main branch"
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model of an adapter: directory or id on the hub.",
            show_default="the one that the adapter names",
        ),
    ] = None,
    hub_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with an access token of the hub.", show_default="HF_TOKEN, else a login"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the bundle even if it misses the quality gate.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Export a GPT-2 to a bundle and verify its quality.

    The GPT-2 is a checkpoint here or a model on the Hugging Face hub, such as
    gpt2. A LoRA adapter is merged into its base model first.

    Fails if the perplexity misses the quality gate of the profile, and writes
    no bundle unless --force is given.
    """
    with needs_extra("export"):
        from gpt2flow.export import (
            ExportError,
            Hub,
            InputError,
            KvCache,
            Method,
            Profile,
            export_bundle,
            read_token,
        )
    console = Console(stderr=True)
    with (
        reported(bad_input=InputError, failure=ExportError),
        _reported_stages(console) as report_progress,
    ):
        manifest = export_bundle(
            checkpoint,
            out,
            profile=Profile.parse(profile),
            revision=revision,
            base=base,
            hub=None if hub_token_file is None else Hub(token=read_token(hub_token_file)),
            kv_cache=None if kv_cache is None else KvCache.parse(kv_cache),
            method=None if method is None else Method.parse(method),
            block_size=block_size,
            mixed_precision_budget=kept_share,
            calibration_text=calibration_text,
            eval_text=eval_text,
            force=force,
            progress=report_progress,
            on_warning=lambda warning: console.print(
                f"gpt2flow: warning: {warning}", markup=False, highlight=False, soft_wrap=True
            ),
        )
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        typer.echo(f"{out}: profile {profile}, {_format_quality(manifest.quality)}")


@contextmanager
def _reported_stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Report the stages of an export: bars on a terminal, else lines.

    Yields:
        Function of a stage, its steps done, and its steps in total.
    """
    if not console.is_terminal:
        started, reported_before = time.monotonic(), set[str]()

        def print_start(stage: str, _done: int, _total: int) -> None:
            if stage not in reported_before:
                reported_before.add(stage)
                seconds = time.monotonic() - started
                console.print(f"{seconds:5.0f} s  {_STAGES[stage]}", highlight=False)

        yield print_start
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {
            stage: bars.add_task(text, total=None, visible=False) for stage, text in _STAGES.items()
        }

        def update_bar(stage: str, done: int, total: int) -> None:
            # The bar of a stage with one step pulses, since its share is unknown.
            known = None if done < total == 1 else total
            bars.update(tasks[stage], completed=done, total=known, visible=True)

        yield update_bar


def _format_quality(quality: object) -> str:
    ratio = getattr(quality, "perplexity_ratio", None)
    return "not measured" if ratio is None else f"perplexity {ratio:.4f} × that of fp32"


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)

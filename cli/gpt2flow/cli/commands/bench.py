"""Command `gpt2flow bench`, which measures a running server under load."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gpt2flow.cli.arguments import MAX_TIMEOUT, MAX_UINT64
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    ModelName,
    SecurityOptions,
    Servers,
    with_security_options,
)
from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.measurements import parse_limits
from gpt2flow.cli.load.prompts import LENGTH_FORMS, parse_lengths, read_prompts
from gpt2flow.cli.load.settings import (
    Budget,
    Decoding,
    Level,
    Settings,
    parse_concurrency,
    parse_rates,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.cli.load.report import Report
    from gpt2flow.cli.load.runner import RunResult

_T = TypeVar("_T")

# Options that exclude each other.
_EXCLUSIVE_OPTIONS = (
    ("concurrency", "rate"),
    ("concurrency", "max_in_flight"),
    ("requests", "duration"),
    ("prompts", "prompt_tokens"),
    ("prompts", "shared_prefix"),
    ("beams", "temperature"),
)
# Drawing the bars takes CPU time from the generator.
_REFRESHES_PER_SECOND = 2
_MAX_REQUESTS = 10**9


@with_security_options
def bench(
    context: typer.Context,
    address: Servers = DEFAULT_ADDRESS,
    model: ModelName = "",
    concurrency: Annotated[
        str,
        typer.Option(
            help="Closed loop: numbers of requests in flight, one level each, separated by commas."
        ),
    ] = "1,4,8,16",
    rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: mean arrivals per second of a Poisson process, one level each, "
            "separated by commas. Replaces --concurrency."
        ),
    ] = None,
    max_in_flight: Annotated[
        int,
        typer.Option(
            help="Open loop: maximum number of requests in flight; arrivals beyond it start late.",
            min=1,
            max=100_000,
        ),
    ] = 256,
    requests: Annotated[
        int, typer.Option(help="Number of requests per level.", min=1, max=_MAX_REQUESTS)
    ] = 100,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Duration of each level, in seconds. Replaces --requests.", min=0.1, max=1e6
        ),
    ] = None,
    warmup: Annotated[
        int,
        typer.Option(
            help="Number of unmeasured requests before each level.", min=0, max=_MAX_REQUESTS
        ),
    ] = 8,
    prompt_tokens: Annotated[
        str,
        typer.Option(help=f"Length of random prompts, in tokens: {LENGTH_FORMS}."),
    ] = "128",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="File of prompts, one per line: text, or a JSON object with prompt and, "
            "optionally, max_new_tokens. Replaces random prompts."
        ),
    ] = None,
    shared_prefix: Annotated[
        int,
        typer.Option(
            help="Number of tokens that all random prompts start with, in addition to "
            "--prompt-tokens.",
            min=0,
            max=1_000_000,
        ),
    ] = 0,
    output_tokens: Annotated[
        str,
        typer.Option(help="Length of outputs, in tokens, in the forms of --prompt-tokens."),
    ] = "64",
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 is greedy decoding.", min=0, max=100)
    ] = 0.0,
    beams: Annotated[
        int, typer.Option(help="Number of beams; above 1 selects beam search.", min=1, max=10_000)
    ] = 1,
    json_schema: Annotated[
        Path | None,
        typer.Option(
            help="File of a JSON schema that outputs must match. Outputs may end before "
            "--output-tokens."
        ),
    ] = None,
    goodput: Annotated[
        str | None,
        typer.Option(
            help="Latency limits of goodput, in milliseconds: one or more of ttft, itl and e2e, "
            "such as ttft:200,itl:30,e2e:5000."
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            help="Timeout of a request from its scheduled start, in seconds.",
            min=0.001,
            max=MAX_TIMEOUT,
        ),
    ] = 60.0,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of lengths, prompts, sampling and arrivals.", min=0, max=MAX_UINT64
        ),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Also write the JSON report to this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the report with plots to this HTML file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of a table.")
    ] = False,
    *,
    security_options: SecurityOptions,
) -> None:
    """Measure latency, throughput, goodput and errors of a server under load.

    Exits with 1 if the server cannot be reached or every request failed.
    docs/benchmarking.md explains the figures.
    """
    requested = _requested_options(context)
    settings = Settings(
        levels=_parse("concurrency", concurrency, parse_concurrency)
        if rate is None
        else _parse("rate", rate, lambda text: parse_rates(text, max_in_flight)),
        budget=Budget(requests=None if duration else requests, seconds=duration),
        warmup=warmup,
        prompts=None if prompts is None else _parse("prompts", prompts, read_prompts),
        prompt_lengths=_parse("prompt_tokens", prompt_tokens, parse_lengths),
        shared_prefix=shared_prefix,
        output_lengths=_parse("output_tokens", output_tokens, parse_lengths),
        decoding=Decoding(
            temperature,
            beams,
            None if json_schema is None else _parse("json_schema", json_schema, _read_json),
        ),
        seconds=timeout,
        seed=seed,
        model=model,
        limits=None if goodput is None else _parse("goodput", goodput, parse_limits),
    )
    _check_files(out, html)
    from gpt2flow.cli.load import report as reporting

    result = _run(address, settings, security_options)
    if result.model is None or not result.levels:
        raise _no_figures_error(result)
    served = {key: getattr(result.model, key) for key in ("name", "fingerprint", "profile")}
    report = reporting.Report(address, served, requested, result.interrupted, result.levels)
    _write_files(report, out, html)
    _finish(report, as_json=as_json)


def _run(address: str, settings: Settings, security_options: SecurityOptions) -> "RunResult":
    with needs_extra("client"):
        from gpt2flow.cli.load.runner import run
        from gpt2flow.client import ClientError, NotFoundError, SettingsError
    with (
        reported(bad_input=(NotFoundError, SettingsError), failure=(ClientError, LoadError)),
        _progress(settings) as progress,
    ):
        return run(address, security_options.security(), settings, progress)


def _check_files(out: Path | None, html: Path | None) -> None:
    """Check the files to write, before the measurement.

    Raises:
        CommandError: One cannot be written, or its library is missing.
    """
    for option, path in (("--out", out), ("--html", html)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise CommandError(
                f"{option} '{path}': must be a file in an existing directory", Exit.BAD_INPUT
            )
    if html is not None:
        with needs_extra("reports"):
            import gpt2flow.reports.pages  # noqa: F401 - loaded when the report is written


def _write_files(report: "Report", out: Path | None, html: Path | None) -> None:
    """Write the report to the files that were asked for.

    Raises:
        CommandError: A file cannot be written.
    """
    path = out
    try:
        if out is not None:
            text = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
            out.write_text(f"{text}\n", encoding="utf-8")
        path = html
        if html is not None:
            from gpt2flow.cli.load.report import write_html

            write_html(report, html)
    except OSError as error:
        option = "--out" if path is out else "--html"
        raise CommandError(f"{option} {path}: {error}", Exit.FAILURE) from error


def _finish(report: "Report", *, as_json: bool) -> None:
    """Print the report.

    Raises:
        CommandError: The run was interrupted or had no success.
    """
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        from gpt2flow.cli.load.report import print_report

        print_report(report)
    if report.interrupted:
        raise CommandError(
            "interrupted; the figures cover the requests that had ended", Exit.INTERRUPTED
        )
    if not report.succeeded:
        level = report.levels[0]
        status, detail = next(iter(level.details.items()))
        raise CommandError(f"every request failed; the first with {status}: {detail}", Exit.FAILURE)


def _no_figures_error(result: "RunResult") -> CommandError:
    if result.interrupted:
        return CommandError("interrupted before any request had ended", Exit.INTERRUPTED)
    return CommandError(
        "no request arrived within --duration; use a longer duration or a higher --rate",
        Exit.FAILURE,
    )


def _requested_options(context: typer.Context) -> dict[str, Any]:
    """Return the options as JSON values, without defaults that other options replace.

    Raises:
        CommandError: Two options exclude each other, or an option needs another one.
    """
    options = {key: str(v) if isinstance(v, Path) else v for key, v in context.params.items()}
    given = {key for key in options if _is_given(context, key)}
    if "max_in_flight" in given and "rate" not in given:
        raise CommandError("--max-in-flight is for an open loop; add --rate", Exit.BAD_INPUT)
    for exclusive in _EXCLUSIVE_OPTIONS:
        conflicting = [f"--{name.replace('_', '-')}" for name in exclusive if name in given]
        if len(conflicting) > 1:
            raise CommandError(f"{' and '.join(conflicting)} exclude each other", Exit.BAD_INPUT)
        if conflicting:
            options = {k: v for k, v in options.items() if k in given or k not in exclusive}
    return options


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parse(name: str, value: Any, parser: Callable[[Any], _T]) -> _T:
    """Parse the value of an option.

    Raises:
        CommandError: The value is invalid; the message names the option and valid values.
    """
    try:
        return parser(value)
    except LoadError as error:
        option = f"--{name.replace('_', '-')}"
        raise CommandError(f"{option} '{value}': {error}", Exit.BAD_INPUT) from error


def _read_json(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"must be a file of valid JSON ({error})") from error
    return text


@contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[Level], None]]:
    """Show one progress bar per level, if stderr is a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=_REFRESHES_PER_SECOND,
        disable=not console.is_terminal,
        transient=True,
    ) as bars:
        tasks = {
            id(level): bars.add_task(level.label, total=settings.budget.requests, start=False)
            for level in settings.levels
        }

        def advance(level: Level) -> None:
            bars.start_task(tasks[id(level)])
            bars.advance(tasks[id(level)])

        yield advance


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)

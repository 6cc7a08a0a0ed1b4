"""`gpt2flow bench`: puts load on a running server and measures it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    Protection,
    takes_protection,
)
from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.measurements import parse_limits
from gpt2flow.cli.load.prompts import FORMS, parse_lengths, read_prompts
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
    from gpt2flow.cli.load.runner import Outcome

_T = TypeVar("_T")

# Of each group, one may be given.
_RIVALS = (
    ("concurrency", "rate"),
    ("concurrency", "max_in_flight"),
    ("requests", "duration"),
    ("prompts", "prompt_tokens"),
    ("prompts", "shared_prefix"),
    ("beams", "temperature"),
)
# Drawing the bar takes time from the generator.
_REFRESHES_PER_SECOND = 2


@takes_protection
def bench(
    context: typer.Context,
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[str, typer.Option(help="The model; default: the server's first.")] = "",
    concurrency: Annotated[
        str, typer.Option(help="Closed loop: requests in flight, a level each.")
    ] = "1,4,8,16",
    rate: Annotated[
        str | None, typer.Option(help="Open loop: Poisson arrivals a second, a level each.")
    ] = None,
    max_in_flight: Annotated[
        int, typer.Option(help="Open loop: arrivals beyond it start late.", min=1, max=100_000)
    ] = 256,
    requests: Annotated[int, typer.Option(help="Of each level.", min=1)] = 100,
    duration: Annotated[
        float | None,
        typer.Option(help="Seconds of each level, instead of requests.", min=0.1, max=1e6),
    ] = None,
    warmup: Annotated[
        int, typer.Option(help="Requests before each level that do not count.", min=0)
    ] = 8,
    prompt_tokens: Annotated[str, typer.Option(help=f"Lengths of prompts: {FORMS}.")] = "128",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='File of prompts instead: one a line, or JSON lines {"prompt", "max_new_tokens"?}.'
        ),
    ] = None,
    shared_prefix: Annotated[
        int,
        typer.Option(help="Tokens in front of every prompt, the same ones.", min=0, max=1_000_000),
    ] = 0,
    output_tokens: Annotated[str, typer.Option(help="Lengths of outputs, as of prompts.")] = "64",
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0, max=100)] = 0.0,
    beams: Annotated[int, typer.Option(help="Above 1: beam search.", min=1, max=10_000)] = 1,
    json_schema: Annotated[
        Path | None,
        typer.Option(help="File with the JSON schema of outputs, which may end them early."),
    ] = None,
    goodput: Annotated[
        str | None,
        typer.Option(help="Limits in milliseconds that count, as ttft:200,itl:30,e2e:5000."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds of one request, from when it is due.", min=0.001, max=1e6)
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Of lengths, prompts and arrivals.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    *,
    protection: Protection,
) -> None:
    """Put load on a running server; measure latency, throughput, goodput and errors.

    docs/benchmarking.md says what each figure means.
    """
    asked = _asked(context)
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
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"--out '{out}': must be a file in a folder that exists", Exit.BAD_INPUT)
    outcome = _run(address, settings, protection)
    if outcome.model is None or not outcome.levels:
        raise _nothing(outcome)
    _finish(outcome, address, asked, out, as_json)


def _run(address: str, settings: Settings, protection: Protection) -> "Outcome":
    with needs_extra("client"):
        from gpt2flow.cli.load.runner import run
        from gpt2flow.client import ClientError, NotFoundError, SettingsError
    with (
        reported(bad_input=(NotFoundError, SettingsError), failure=(ClientError, LoadError)),
        _progress(settings) as progress,
    ):
        return run(address, protection.security(), settings, progress)


def _finish(
    outcome: "Outcome", address: str, asked: dict[str, Any], out: Path | None, as_json: bool
) -> None:
    """Print and writes the report; then says how the command ends."""
    from gpt2flow.cli.load.report import Report, show

    names = {key: getattr(outcome.model, key) for key in ("name", "fingerprint", "profile")}
    report = Report(address, names, asked, outcome.interrupted, outcome.levels)
    text = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
    if as_json:
        typer.echo(text)
    else:
        show(report)
    if out is not None:
        try:
            out.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--out {out}: {error}", Exit.FAILURE) from error
    if report.interrupted:
        raise CommandError(
            "interrupted; the figures are those of requests that had ended", Exit.INTERRUPTED
        )
    if not report.succeeded:
        level = report.levels[0]
        status, detail = next(iter(level.details.items()))
        raise CommandError(f"every request failed; the first with {status}: {detail}", Exit.FAILURE)


def _nothing(outcome: "Outcome") -> CommandError:
    if outcome.interrupted:
        return CommandError("interrupted before a request had ended", Exit.INTERRUPTED)
    return CommandError("no request was due in the time of --duration", Exit.FAILURE)


def _asked(context: typer.Context) -> dict[str, Any]:
    """Return the options as JSON values, without those that others replace.

    Raises:
        CommandError: Two were given that exclude each other.
    """
    asked = {key: str(v) if isinstance(v, Path) else v for key, v in context.params.items()}
    given = {key for key in asked if _is_given(context, key)}
    if "max_in_flight" in given and "rate" not in given:
        raise CommandError(
            "--max-in-flight is for an open loop, which --rate asks for", Exit.BAD_INPUT
        )
    for rivals in _RIVALS:
        both = [f"--{name.replace('_', '-')}" for name in rivals if name in given]
        if len(both) > 1:
            raise CommandError(f"{' and '.join(both)} exclude each other", Exit.BAD_INPUT)
        if both:
            asked = {key: v for key, v in asked.items() if key in given or key not in rivals}
    return asked


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parse(name: str, value: Any, read: Callable[[Any], _T]) -> _T:
    """Read the value of an option; a wrong one is named with what is allowed."""
    try:
        return read(value)
    except LoadError as error:
        option = f"--{name.replace('_', '-')}"
        raise CommandError(f"{option} '{value}': {error}", Exit.BAD_INPUT) from error


def _read_json(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"must be a file of JSON ({error})") from error
    return text


@contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[Level], None]]:
    """A bar for each level on stderr, if that is a terminal."""
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

        def ended(level: Level) -> None:
            bars.start_task(tasks[id(level)])
            bars.advance(tasks[id(level)])

        yield ended


def add_commands(app: typer.Typer) -> None:
    """Add `bench`."""
    app.command()(bench)

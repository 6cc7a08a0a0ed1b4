"""Command `gpt2flow agent evaluate`."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gpt2flow.cli.agent_options import DEFAULT_CONFIRM_BELOW, ConfirmBelow
from gpt2flow.cli.connection import SecurityOptions, with_security_options
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.turns.model import ServedModel
    from gpt2flow.client import Security

_BUNDLE = "models/shop"


@with_security_options
def evaluate(
    scenarios: Annotated[
        list[Path],
        typer.Option(help="YAML file of scenarios, or a directory of them; may be repeated."),
    ],
    repeats: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Number of times to play each scenario.")
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of typos, order and concurrency of the repeats.")
    ] = 0,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the server, as host:port or unix:PATH; several with commas.",
            show_default="a server of its own",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Model on the server; without --address, directory of the bundle to serve.",
            show_default=f"the server's first; without --address, {_BUNDLE}",
        ),
    ] = "",
    flows: Annotated[
        Path | None,
        typer.Option(help="Directory of flow definitions.", show_default="the built-in flows"),
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of the products and couriers.", show_default="the demo shop's"
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Deadline of each call to the model, in seconds.")
    ] = 30.0,
    confirm_below: ConfirmBelow = DEFAULT_CONFIRM_BELOW,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    junit: Annotated[Path | None, typer.Option(help="File to write JUnit XML to.")] = None,
    html: Annotated[Path | None, typer.Option(help="File to write an HTML page to.")] = None,
    misses: Annotated[
        bool, typer.Option(help="Include the transcript of each miss in the output.")
    ] = True,
    *,
    security_options: SecurityOptions,
) -> None:
    """Play scenarios with scripted customers, and report how many end as expected.

    Each conversation has a database of its own. Exits with 0, however many passed.
    """
    with needs_extra("agent"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.evaluation.report_files import write_html, write_junit
        from gpt2flow.agent.evaluation.runs import run
        from gpt2flow.agent.evaluation.summary import summary
        from gpt2flow.agent.flows import load_flows
        from gpt2flow.agent.scenarios import load_scenarios
        from gpt2flow.agent.shop.catalogue import load_catalogue
    with reported(bad_input=InputError, failure=AgentError):
        book = load_flows(flows)
        loaded = [scenario for path in scenarios for scenario in load_scenarios(path)]
        ids = [scenario.id for scenario in loaded]
        if repeated := [name for name in ids if ids.count(name) > 1]:
            raise InputError(f"scenario id {repeated[0]!r} is used more than once")
        for path in filter(None, (junit, html)):
            if not path.absolute().parent.is_dir():
                raise InputError(f"{path}: the directory does not exist")
        security = security_options.security()
        with (
            _served_model(address, model, timeout, security) as served,
            Progress(console=Console(stderr=True), transient=True) as progress,
        ):
            bar = progress.add_task("Playing", total=len(loaded) * repeats)
            results = run(
                book,
                served,
                loaded,
                catalogue=load_catalogue(catalogue),
                repeats=repeats,
                seed=seed,
                confirm_below=confirm_below,
                on_played=lambda _: progress.advance(bar),
            )
        figures = summary(book, results, repeats, with_misses=misses)
        if junit is not None:
            write_junit(junit, results)
        if html is not None:
            write_html(html, figures, results)
    if as_json:
        typer.echo(json.dumps(figures, ensure_ascii=False, indent=2))
    else:
        _print_figures(figures)


@contextmanager
def _served_model(
    address: str | None, model: str, timeout: float, security: "Security"
) -> Iterator["ServedModel"]:
    """Connect to a server, or run one until the block ends."""
    from gpt2flow.agent.turns.model import ServedModel
    from gpt2flow.cli.processes import server

    with ExitStack() as resources:
        if address is None:
            bundle, model = Path(model or _BUNDLE), ""
            if not (bundle / "manifest.json").is_file():
                raise CommandError(
                    f"{bundle} is no bundle; pass --model DIR to serve one, or --address",
                    Exit.BAD_INPUT,
                )
            directory = resources.enter_context(
                tempfile.TemporaryDirectory(prefix="gpt2flow-evaluate-")
            )
            address = resources.enter_context(server(bundle, Path(directory)))
        served = ServedModel(address, model, timeout, security)
        resources.callback(served.close)
        # A server that does not answer is no matter of the scenarios.
        served.choose("hello", 'start: "x"')
        yield served


def _print_figures(figures: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for miss in [*figures.get("misses", []), *figures.get("harms", [])]:
        heading = f"{miss['id']} repeat {miss['repeat']}: {miss['title']}"
        console.print(heading, markup=False, style="bold")
        for line in miss["transcript"]:
            console.print(f"  {line}", markup=False)
        for line in [*miss["differences"], *(f"harm: {line}" for line in miss["harm"])]:
            console.print(f"  ✗ {line}", markup=False, style="red")
    last = f"pass^{figures['repeats']}"
    table = Table("conversations", "scenarios", "pass^1", "95 % interval", last)
    table.add_row("all", str(figures["scenarios"]), *_cells(figures, last))
    for group in (name for name in figures if name.startswith("by_")):
        for value, found in figures[group].items():
            name = f"{group.removeprefix('by_')}: {value}"
            table.add_row(name, str(found["scenarios"]), *_cells(found, last))
    console.print(table)
    harm, turn = figures["harm"], figures["milliseconds"]["turn"]
    console.print(f"harm: {harm['conversations']} conversations, {harm['rate']:.1%}")
    console.print(
        f"questions: {figures['questions']:.2f} per conversation; "
        f"needless: {figures['needless_questions']:.1%} of turns"
    )
    console.print(f"handed over: {figures['escalation_rate']['rate']:.1%}")
    if turn:
        console.print(f"model time per turn: {turn['p50']:.0f} ms median, {turn['p95']:.0f} ms p95")
    coverage = figures["coverage"]
    console.print(
        f"coverage: {coverage['actions']:.0%} of actions, {coverage['outcomes']:.0%} of outcomes"
    )


def _cells(found: dict[str, Any], last: str) -> list[str]:
    first = found["pass^1"]
    span = f"{first['low']:.1%} – {first['high']:.1%}"
    return [f"{first['rate']:.1%}", span, f"{found[last]['rate']:.1%}"]


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(evaluate)

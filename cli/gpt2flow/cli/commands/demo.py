"""Command `gpt2flow demo`, which runs the agent's workflows end to end."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gpt2flow.cli.agent_options import BrowserPath, HandsKind, HandsOption
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.scenarios import Scenario
    from gpt2flow.cli.demo.play import ScenarioResult
    from gpt2flow.cli.demo.screens import Screens

FOLDER = Path(__file__).parents[1] / "demo"
# On screens, each workflow is played in both languages.
BUILT_IN = {
    HandsKind.DATABASE: ["scenarios.yaml"],
    HandsKind.BROWSER: ["scenarios.yaml", "counterparts.yaml"],
}


def demo(
    model: Annotated[Path, typer.Option(help="Directory of the bundle to serve.")],
    scenarios: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of customer messages and expected results.",
            show_default="the built-in scenarios",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="New directory that keeps the shops and logs of the demo.",
            show_default="a temporary one",
        ),
    ] = None,
    hands: HandsOption = HandsKind.DATABASE,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="New directory for a picture of every step on the screens, and a report on them.",
            show_default="none",
        ),
    ] = None,
    browser: BrowserPath = None,
) -> None:
    """Serve a bundle and run the agent through the four shop workflows.

    Exits with 0 if every workflow ends in the expected state, else with 1.
    """
    on_screens = hands is HandsKind.BROWSER
    with needs_extra("server,service"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.scenarios import load_scenarios
        from gpt2flow.cli.demo import show
        from gpt2flow.cli.demo.report import write_report
        from gpt2flow.cli.demo.screens import Screens
    if pictures is not None and not on_screens:
        raise CommandError("--pictures needs --hands browser", Exit.BAD_INPUT)
    console = show.make_console()
    with reported(bad_input=InputError, failure=AgentError):
        chromium = _find_chromium(browser) if on_screens else ""
        files = [scenarios] if scenarios else [FOLDER / name for name in BUILT_IN[hands]]
        loaded = [scenario for file in files for scenario in load_scenarios(file)]
        with _directory("--keep", keep) as directory, _directory("--pictures", pictures) as album:
            screens = Screens(album, chromium) if on_screens else None
            results = _play(console, model, loaded, directory, screens)
            console.print()
            show.print_summary(console, results)
            if on_screens:
                show.print_screens(console, results)
            if pictures is not None:
                show.print_report(console, write_report(pictures, model, results))
    if failed := [result.scenario.id for result in results if result.differences]:
        raise CommandError(f"not as expected: {', '.join(failed)}", Exit.FAILURE)


def _find_chromium(browser: str | None) -> str:
    """Return the path of Chromium.

    Raises:
        CommandError: A package of the browser is missing.
        InputError: There is no Chromium.
    """
    with needs_extra("server,service,storefront,browser"):
        from gpt2flow.agent.hands.browser import find_chromium
    return find_chromium(browser)


def _play(
    console: Console,
    model: Path,
    scenarios: Sequence["Scenario"],
    directory: Path,
    screens: "Screens | None",
) -> list["ScenarioResult"]:
    """Serve a bundle, and play scenarios in new shops below a directory."""
    from gpt2flow.cli.demo import show
    from gpt2flow.cli.demo.play import play
    from gpt2flow.cli.processes import payment_service, server

    console.print(f"Starting the server on {model}")
    with server(model, directory) as address:
        console.print(f"It listens on {address}; an agent process answers the customers")
        results = []
        for scenario in scenarios:
            # Each shop numbers its orders from the same one, so each has its own ledger.
            folder = directory / scenario.id
            folder.mkdir()
            console.print()
            console.rule(f"[bold]{scenario.title}")
            with payment_service(folder) as payments:
                turn = partial(show.print_turn, console)
                results.append(play(scenario, address, folder, turn, payments, screens))
        return results


@contextmanager
def _directory(option: str, path: Path | None) -> Iterator[Path]:
    """Yield a new directory; remove one that is temporary."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="gpt2flow-demo-") as name:
            yield Path(name)
        return
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise CommandError(f"{option} {path}: is there already", Exit.BAD_INPUT) from error
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}", Exit.BAD_INPUT) from error
    yield path


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)

"""Command `gpt2flow demo`, which runs the agent's workflows end to end."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

_SCENARIOS = Path(__file__).parents[1] / "demo" / "scenarios.yaml"


def demo(
    model: Annotated[Path, typer.Option(help="Directory of the bundle to serve.")],
    scenarios: Annotated[
        Path,
        typer.Option(
            help="YAML file of customer messages and expected results.",
            show_default="the built-in scenarios",
        ),
    ] = _SCENARIOS,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="New directory that keeps the shops and logs of the demo.",
            show_default="a temporary one",
        ),
    ] = None,
) -> None:
    """Serve a bundle and run the agent through the four shop workflows.

    Exits with 0 if every workflow ends in the expected state, else with 1.
    """
    with needs_extra("server,service"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.scenarios import load_scenarios
        from gpt2flow.cli.demo import show
        from gpt2flow.cli.demo.play import play
        from gpt2flow.cli.processes import payment_service, server
    console = show.make_console()
    with (
        reported(bad_input=InputError, failure=AgentError),
        _directory(keep) as directory,
    ):
        console.print(f"Starting the server on {model}")
        with server(model, directory) as address:
            console.print(f"It listens on {address}; an agent process answers the customers")
            results = []
            for scenario in load_scenarios(scenarios):
                # Each shop numbers its orders from the same one, so each has its own ledger.
                folder = directory / scenario.id
                folder.mkdir()
                console.print()
                console.rule(f"[bold]{scenario.title}")
                with payment_service(folder) as payments:
                    turn = partial(show.print_turn, console)
                    results.append(play(scenario, address, folder, turn, payments))
        console.print()
        show.print_summary(console, results)
    if failed := [result.scenario.id for result in results if result.differences]:
        raise CommandError(f"not as expected: {', '.join(failed)}", Exit.FAILURE)


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """Yield the directory of the shops; remove one that is temporary."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="gpt2flow-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError as error:
        raise CommandError(f"--keep {keep}: is there already", Exit.BAD_INPUT) from error
    except OSError as error:
        raise CommandError(f"--keep {keep}: {error.strerror}", Exit.BAD_INPUT) from error
    yield keep


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)

"""`gpt2flow demo`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

_SCENARIOS = Path(__file__).parents[1] / "demo" / "scenarios.yaml"


def demo(
    model: Annotated[Path, typer.Option(help="The bundle to serve.")],
    scenarios: Annotated[
        Path, typer.Option(help="What customers write; default: the built-in ones.")
    ] = _SCENARIOS,
) -> None:
    """Serve MODEL and let an agent carry out the four workflows.

    Exits with 0 only if every workflow ended in the expected state.
    """
    with needs_extra("server,agent"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.scenarios import load_scenarios
        from gpt2flow.cli.demo import show
        from gpt2flow.cli.demo.play import play
        from gpt2flow.cli.demo.processes import server
    out = show.console()
    with (
        reported(bad_input=InputError, failure=AgentError),
        tempfile.TemporaryDirectory(prefix="gpt2flow-demo-") as name,
    ):
        folder = Path(name)
        out.print(f"Starting the server on {model}")
        with server(model, folder) as address:
            out.print(f"It listens on {address}; an agent process answers the customers\n")
            played = []
            for scenario in load_scenarios(scenarios):
                out.rule(f"[bold]{scenario.title}")
                played.append(play(scenario, address, folder, lambda r: show.turn(out, r)))
        out.print()
        show.summary(out, played)
    if failed := [one.scenario.id for one in played if one.differences]:
        raise CommandError(f"not as expected: {', '.join(failed)}", Exit.FAILURE)


def add_commands(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command()(demo)

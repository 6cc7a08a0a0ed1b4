"""Command `gpt2flow agent record`, which records an action on the shop's screens."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.agent_options import Flows
from gpt2flow.cli.outcome import needs_extra, reported


class ScreenLanguage(StrEnum):
    """Language of the shop's pages."""

    EN = "en"
    ZH = "zh"


def record(
    action: Annotated[
        str, typer.Argument(help="Action of the flows, or sign-in for the way into the shop.")
    ],
    url: Annotated[str, typer.Option(help="Address of the page where the action starts.")],
    out: Annotated[
        Path, typer.Option(help="File of recordings; an action that it has is replaced.")
    ],
    language: Annotated[
        ScreenLanguage, typer.Option(help="Language that the pages are asked for in.")
    ] = ScreenLanguage.EN,
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>=<value>",
            help="Value that you will type or see, which becomes a field; may repeat.",
            show_default="none",
        ),
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Outcome that the page will show.", show_default="the only successful one"
        ),
    ] = None,
    flows: Flows = None,
    browser: Annotated[
        str | None,
        typer.Option(help="Path of Chromium.", envvar="CHROMIUM", show_default="chromium in PATH"),
    ] = None,
    remote_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="DevTools port on 127.0.0.1 to work through, without a window; 0 picks a free "
            "one.",
            show_default="a window",
        ),
    ] = None,
) -> None:
    """Record an action that you do in a browser.

    Elements are written by role and name, the values of arguments and secrets as fields.
    The last press must be the one that carries the action out. Then close the browser, or press
    Ctrl-C. docs/screens.md has an example.
    """
    with needs_extra("browser"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.hands.recorder.session import RecorderConfig
        from gpt2flow.agent.hands.recorder.session import record as run
    with reported(bad_input=InputError, failure=AgentError):
        run(
            RecorderConfig(
                action=action,
                url=url,
                out=out,
                language=language.value,
                arguments=tuple(argument or ()),
                outcome=outcome,
                flows=flows,
                browser=browser,
                remote_port=remote_port,
            ),
            report=typer.echo,
        )


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(record)

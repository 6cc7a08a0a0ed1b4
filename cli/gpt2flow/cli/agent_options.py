"""Options of the commands that run an agent."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt2flow.cli.connection import DEFAULT_ADDRESS, ModelName, Servers, with_options
from gpt2flow.cli.outcome import CommandError, Exit

Database = Annotated[
    str,
    typer.Option(
        help="Database of the shop: an SQLite file, or the URL of a PostgreSQL database.",
        envvar="GPT2FLOW_DATABASE",
    ),
]
Flows = Annotated[
    Path | None,
    typer.Option(help="Directory of flow definitions.", show_default="the built-in flows"),
]
Catalogue = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of products and couriers; those that the database lacks are added.",
        show_default="the demo shop's, in a new database",
    ),
]
Timeout = Annotated[float, typer.Option(help="Deadline of each call to the model, in seconds.")]
ConfirmBelow = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Confidence below which the agent asks whether a risky action is meant; 0 never asks.",
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        help="Seconds for which a turn waits for a model that does not answer, before a person "
        "takes over; 0 ends with the error at once."
    ),
]
Payments = Annotated[
    str,
    typer.Option(
        help="URL of the payment service.",
        envvar="GPT2FLOW_PAYMENTS",
        show_default="payment on account",
    ),
]
PaymentsTokenFile = Annotated[
    Path | None,
    typer.Option(help="File of the bearer token for the payment service.", show_default="none"),
]
OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        help="OpenTelemetry collector of traces: an http:// or https:// URL with a port.",
        envvar="GPT2FLOW_OTLP_ENDPOINT",
        show_default="none",
    ),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(
        help="host:port of the Prometheus endpoint: plain HTTP without access control.",
        show_default="none",
    ),
]
ShopUrl = Annotated[
    str | None,
    typer.Option(
        help="Address of the shop's screens, for --hands browser.",
        envvar="GPT2FLOW_SHOP",
        show_default="none",
    ),
]
ShopTokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File of the token with which the agent signs in to the shop's back office.",
        show_default="none",
    ),
]
BrowserPath = Annotated[
    str | None,
    typer.Option(
        help="Path of Chromium.", envvar="CHROMIUM", show_default="chromium, where PATH has it"
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(help="Folder for a picture of every step on the screens.", show_default="none"),
]
DEFAULT_CONFIRM_BELOW = 0.95


class HandsKind(StrEnum):
    """Where the agent carries actions out."""

    DATABASE = "database"
    BROWSER = "browser"


HandsOption = Annotated[
    HandsKind,
    typer.Option(help="Where actions are carried out: in the database, or on the shop's screens."),
]


class LogFormat(StrEnum):
    """Format of the lines of a log."""

    JSON = "json"
    CONSOLE = "console"


LogFormatOption = Annotated[
    LogFormat, typer.Option(help="json (one object a line) or console (for people).")
]


@dataclass(frozen=True)
class AgentOptions:
    """Options of every command that runs an agent."""

    address: Servers = DEFAULT_ADDRESS
    model: ModelName = ""
    database: Database = "gpt2flow.sqlite"
    flows: Flows = None
    catalogue: Catalogue = None
    timeout: Timeout = 30.0
    confirm_below: ConfirmBelow = DEFAULT_CONFIRM_BELOW
    patience: Patience = 0.0
    payments: Payments = ""
    payments_token_file: PaymentsTokenFile = None
    otlp_endpoint: OtlpEndpoint = None
    hands: HandsOption = HandsKind.DATABASE
    shop: ShopUrl = None
    shop_token_file: ShopTokenFile = None
    browser: BrowserPath = None
    pictures: Pictures = None


with_agent_options = with_options(AgentOptions, "agent_options")


def agent_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the agent for its options.

    Raises:
        CommandError: The hands lack an option that they need.
        InputError: The address of the shop is invalid.
    """
    from gpt2flow.agent.config import BrowserConfig

    hands, shop = options.pop("hands"), options.pop("shop")
    token_file, browser = options.pop("shop_token_file"), options.pop("browser")
    pictures = options.pop("pictures")
    if hands is HandsKind.DATABASE:
        return options
    for name, value in (("shop", shop), ("shop-token-file", token_file)):
        if value is None:
            raise CommandError(f"--hands browser needs --{name}", Exit.BAD_INPUT)
    return options | {"browser": BrowserConfig(shop, token_file, browser, pictures)}

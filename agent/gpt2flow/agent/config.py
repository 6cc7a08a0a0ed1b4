"""Settings of the agent."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import parse_url
from gpt2flow.client import Security

# Returns a time-zone-aware datetime; tests and replays pass their own.
Clock = Callable[[], datetime]

_ENDPOINT = re.compile(r"https?://[^\s/]+:[0-9]{1,5}/?")
_SHOP_URL = re.compile(r"https?://[^\s/?#]+/?")
# Chosen on generated conversations; see docs/model.md.
CONFIRM_BELOW = 0.95


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def check_otlp_endpoint(endpoint: str | None) -> None:
    """Validate the address of a collector of traces.

    Raises:
        InputError: It has another form.
    """
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise InputError(
            f"otlp_endpoint is {endpoint!r}, must be http://host:port or https://host:port"
        )


@dataclass(frozen=True)
class BrowserConfig:
    """Settings of hands that work on the shop's screens.

    Attributes:
        url: Address of the shop, as `https://host`, or `http://host:port` on this machine.
        token_file: File of the token with which the agent signs in as an operator.
        executable: Path of Chromium; None looks in `CHROMIUM` and `PATH`.
        pictures: Folder for a picture of every step; None takes none.
        page_seconds: Longest wait for a page.
        element_seconds: Longest wait for an element of a page that is there.
        settle_seconds: Time after a press in which the shop may still carry it out.
    """

    url: str
    token_file: Path
    executable: str | None = None
    pictures: Path | None = None
    page_seconds: float = 10.0
    element_seconds: float = 3.0
    settle_seconds: float = 20.0

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: A setting is invalid.
        """
        if not _SHOP_URL.fullmatch(self.url):
            raise InputError(f"shop is {self.url!r}, must be http://host:port or https://host")
        parse_url(self.url, "shop")


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent.

    Attributes:
        address: Address of the model server, as `host:port` or `unix:PATH`, or several with commas.
        model: Name of the model; empty selects the server's first.
        database: URL of the shop database, or path of an SQLite file.
        flows: Folder of the flows; None selects the built-in ones.
        catalogue: File of the products and couriers that the database has to have; None gives a
            new database those of the demo shop.
        timeout: Deadline of one model call, in seconds.
        confirm_below: Confidence below which the agent asks whether a risky action is meant, from
            0, which never asks, to 1.
        patience: Seconds for which a turn waits for a model that does not answer, before a person
            takes over; 0 raises the error at once.
        security: TLS and token of the connection to the server.
        payments: URL of the payment service; empty is payment on account.
        payments_token_file: File of the bearer token for the payment service; None sends none.
        otlp_endpoint: OpenTelemetry collector of traces, as `http://host:port` or
            `https://host:port`; None exports none.
        trace_messages: Whether traces hold the texts of customers and replies.
        browser: Shop on whose screens actions are carried out; None works in the database.
    """

    address: str = "127.0.0.1:50051"
    model: str = ""
    database: str = "gpt2flow.sqlite"
    flows: Path | None = None
    catalogue: Path | None = None
    timeout: float = 30.0
    confirm_below: float = CONFIRM_BELOW
    patience: float = 0.0
    security: Security = field(default_factory=Security)
    payments: str = ""
    payments_token_file: Path | None = None
    otlp_endpoint: str | None = None
    trace_messages: bool = False
    browser: BrowserConfig | None = None

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: A setting is invalid.
        """
        if not self.address.strip():
            raise InputError("the server address is empty; expected host:port or unix:PATH")
        if not 0 < self.timeout < float("inf"):
            raise InputError(f"timeout is {self.timeout} s, must be finite and above 0")
        if not 0 <= self.patience < float("inf"):
            raise InputError(f"patience is {self.patience} s, must be finite and at least 0")
        check_otlp_endpoint(self.otlp_endpoint)
        if not 0 <= self.confirm_below <= 1:
            raise InputError(f"confirm_below is {self.confirm_below}, must be from 0 to 1")

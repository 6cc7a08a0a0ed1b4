"""Settings of the storefront."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import parse_url
from gpt2flow.web.website.config import WebsiteConfig

DISTURBANCES: Final = (
    *("renamed-label", "moved-fields", "extra-question", "slow-page", "ended-session"),
)
"""Ways in which pages change on purpose, for rehearsals and tests."""


class StorefrontConfigError(InputError):
    """Setting that is invalid; the message names it."""


@dataclass(frozen=True, kw_only=True)
class StorefrontConfig(WebsiteConfig):
    """Settings of one storefront, beside those of every website.

    Attributes:
        tokens: TOML file of tokens, which names the operators of the back office.
        database: URL of the shop database, or path of an SQLite file.
        flows: Folder of the flows; None selects the built-in ones.
        payments: URL of the payment service; empty is payment on account.
        payments_token_file: File of the bearer token for the payment service; None sends none.
        agent: URL of the agent's HTTP endpoint; empty has no chat box.
        agent_secret_file: File of the secret that signs requests to the agent; None signs none.
        chat_seconds: Longest time for the agent to answer a message.
        console: URL of the console, for links to cases; empty has none.
        disturb: Ways in which pages change on purpose.
        disturb_seconds: Delay of a slow page.
    """

    error: ClassVar[type[Exception]] = StorefrontConfigError
    tokens: Path
    database: str = "gpt2flow.sqlite"
    flows: Path | None = None
    address: str = "127.0.0.1:8091"
    payments: str = ""
    payments_token_file: Path | None = None
    agent: str = ""
    agent_secret_file: Path | None = None
    chat_seconds: float = 30.0
    console: str = ""
    disturb: tuple[str, ...] = ()
    disturb_seconds: float = 20.0

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: A setting is invalid.
        """
        super().__post_init__()
        for name in ("chat_seconds", "disturb_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise StorefrontConfigError(
                    f"{name} is {getattr(self, name)}, must be finite and above 0"
                )
        for name in ("agent", "console"):
            if getattr(self, name):
                parse_url(getattr(self, name), name)
        if self.agent_secret_file is not None and not self.agent:
            raise StorefrontConfigError("agent_secret_file needs agent, the URL to sign for")
        for each in self.disturb:
            if each not in DISTURBANCES:
                raise StorefrontConfigError(
                    f"disturb is {each!r}, must be one of {', '.join(DISTURBANCES)}"
                )

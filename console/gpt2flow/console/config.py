"""Settings of the console."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from gpt2flow.client import Security
from gpt2flow.console.errors import ConsoleConfigError
from gpt2flow.console.reading.server_metrics import check_metrics_url
from gpt2flow.web.website.config import WebsiteConfig


@dataclass(frozen=True, kw_only=True)
class ConsoleConfig(WebsiteConfig):
    """Settings of one console, beside those of every website.

    Attributes:
        tokens: TOML file of tokens, which names the people and what each may do.
        database: URL of the shop database, or path of an SQLite file.
        flows: Folder of the flows; None selects the built-in ones.
        server: Address of the model server, as `host:port`, for live figures and the playground.
        security: TLS and token of the connection to the server.
        reports: Folder of evaluation reports; None shows none.
        metrics: URL of the server's Prometheus endpoint; empty shows no live figures.
    """

    error: ClassVar[type[Exception]] = ConsoleConfigError
    tokens: Path
    database: str = "gpt2flow.sqlite"
    flows: Path | None = None
    server: str = "127.0.0.1:50051"
    security: Security = field(default_factory=Security)
    address: str = "127.0.0.1:8090"
    reports: Path | None = None
    metrics: str = ""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            ConsoleConfigError: A setting is invalid.
        """
        super().__post_init__()
        if self.reports is not None and not self.reports.is_dir():
            raise ConsoleConfigError(f"reports {self.reports}: there is no such folder")
        if self.metrics:
            check_metrics_url(self.metrics)

"""Connection options of every command that calls a server."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gpt2flow.cli.outcome import CommandError, Exit

if TYPE_CHECKING:
    from gpt2flow.client import Security

DEFAULT_ADDRESS = "127.0.0.1:50051"

Address = Annotated[
    str,
    typer.Option(
        help="Address of the server, as host:port or unix:PATH.", envvar="GPT2FLOW_ADDRESS"
    ),
]
# The client of these commands chooses among servers.
Servers = Annotated[
    str,
    typer.Option(
        help="Address of the server, as host:port or unix:PATH; several with commas.",
        envvar="GPT2FLOW_ADDRESS",
    ),
]
ModelName = Annotated[
    str, typer.Option(help="Name of the model.", show_default="the server's first model")
]


@dataclass(frozen=True)
class SecurityOptions:
    """Security options of a command, one per field."""

    tls: Annotated[
        bool,
        typer.Option("--tls", help="Use TLS. Implied by --tls-ca and --tls-certificate."),
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the CA certificates that may sign the server's certificate.",
            envvar="GPT2FLOW_TLS_CA",
            show_default="the public CAs that come with gRPC",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the client's certificate, for mutual TLS. Requires --tls-key."
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the client's private key, for mutual TLS. Requires --tls-certificate."
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the bearer token to send with each call. Reread when it changes.",
            envvar="GPT2FLOW_TOKEN_FILE",
        ),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow sending the token to other hosts without TLS."),
    ] = False

    def security(self) -> "Security":
        """Return the security settings of the client.

        Raises:
            CommandError: Only one of certificate and key is given.
        """
        from gpt2flow.client import Security, Tls

        if (self.tls_certificate is None) != (self.tls_key is None):
            raise CommandError("--tls-certificate and --tls-key need each other", Exit.BAD_INPUT)
        encrypted = self.tls or self.tls_ca is not None or self.tls_certificate is not None
        tls = Tls(ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key)
        return Security(
            tls=tls if encrypted else None,
            token=self.token_file,
            token_in_plain_text=self.insecure,
        )


def with_options(
    options: type[Any], keyword: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a dataclass to a command.

    Args:
        options: Dataclass with one annotated field an option; one without a default is required.
        keyword: Keyword argument by which the command receives an instance.
    """
    hints = get_type_hints(options, include_extras=True)
    added = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command_hints = get_type_hints(command, include_extras=True)
        command_hints.pop(keyword, None)
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.name != keyword]

        @wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> None:
            values = {option.name: kwargs.pop(option.name) for option in added}
            command(*args, **kwargs, **{keyword: options(**values)})

        wrapper.__annotations__ = command_hints | {o.name: o.annotation for o in added}
        # `inspect` prefers __signature__ to the annotations. A plain attribute assignment fails in
        # mypy, which gives functions no such attribute.
        vars(wrapper)["__signature__"] = signature.replace(parameters=[*own, *added])
        return wrapper

    return decorate


with_security_options = with_options(SecurityOptions, "security_options")
"""Add the options of `SecurityOptions` to a command, as `security_options`."""

"""Connection options of every command that calls a server."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gpt2flow.cli.outcome import CommandError, Exit

if TYPE_CHECKING:
    from gpt2flow.client import Security

DEFAULT_ADDRESS = "127.0.0.1:50051"

Address = Annotated[
    str, typer.Option(help="Address of the server, as host:port.", envvar="GPT2FLOW_ADDRESS")
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


def with_security_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `SecurityOptions` to a command.

    The command receives them as the keyword argument `security_options`.
    """
    hints = get_type_hints(SecurityOptions, include_extras=True)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(SecurityOptions)
    ]
    command_hints = get_type_hints(command, include_extras=True)
    del command_hints["security_options"]
    signature = inspect.signature(command)
    parameters = [p for p in signature.parameters.values() if p.name != "security_options"]

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        values = {option.name: kwargs.pop(option.name) for option in options}
        command(*args, **kwargs, security_options=SecurityOptions(**values))

    wrapper.__annotations__ = command_hints | {option.name: option.annotation for option in options}
    # `inspect` prefers __signature__ to the annotations. A plain attribute assignment fails in
    # mypy, which gives functions no such attribute.
    signature = signature.replace(parameters=[*parameters, *options])
    vars(wrapper)["__signature__"] = signature
    return wrapper

"""The options of every command that talks to a server."""

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

Address = Annotated[str, typer.Option(help="host:port of the server.", envvar="GPT2FLOW_ADDRESS")]


@dataclass(frozen=True)
class Protection:
    """How the connection is protected; each field is an option of the command."""

    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt; the options of TLS below say so too.")
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM of who must have signed the server's certificate; default: public ones.",
            envvar="GPT2FLOW_TLS_CA",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM of the own certificate, for mutual TLS.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(help="PEM of its private key.")] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token; read again when it changes.",
            envvar="GPT2FLOW_TOKEN_FILE",
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let the token leave this machine without TLS.")
    ] = False

    def security(self) -> "Security":
        """Return what the client takes.

        Raises:
            CommandError: The options do not go together.
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


def takes_protection(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Protection`, which it gets as `protection`."""
    hints = get_type_hints(Protection, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name])
        for f in fields(Protection)
    ]
    own = get_type_hints(command, include_extras=True)
    del own["protection"]
    signature = inspect.signature(command)
    parameters = [p for p in signature.parameters.values() if p.name != "protection"]

    @wraps(command)
    def taking(*arguments: Any, **given: Any) -> None:
        chosen = {option.name: given.pop(option.name) for option in options}
        command(*arguments, **given, protection=Protection(**chosen))

    taking.__annotations__ = own | {option.name: option.annotation for option in options}
    # Of more weight than the annotations to `inspect`; mypy does not know that a function has it.
    signature = signature.replace(parameters=[*parameters, *options])
    vars(taking)["__signature__"] = signature
    return taking

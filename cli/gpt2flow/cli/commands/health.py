"""`gpt2flow health`: what a container's health check runs; imports as little as it can."""

from typing import Annotated

import typer

from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    Protection,
    takes_protection,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


@takes_protection
def health(
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[str, typer.Option(help="Ask for one model; default: the server.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.001)] = 3.0,
    *,
    protection: Protection,
) -> None:
    """Ask a running server for its health: exit code 0 if it is SERVING, else 1."""
    with needs_extra("server"):
        import grpc
        from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
        from grpc_health.v1.health_pb2_grpc import HealthStub

        from gpt2flow.client import SettingsError
        from gpt2flow.client.call import bearer
        from gpt2flow.client.channel import open_channel
    with reported(bad_input=SettingsError):
        security = protection.security()
        channel, metadata = open_channel(address, security), bearer(security)
    with channel:
        try:
            answer = HealthStub(channel).Check(
                HealthCheckRequest(service=model), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise CommandError(_reason(error, address, model), Exit.FAILURE) from error
    status = HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != HealthCheckResponse.SERVING:
        raise CommandError(f"{model or address} is {status}", Exit.FAILURE)
    typer.echo(status)


def _reason(error: object, address: str, model: str) -> str:
    import grpc

    if not isinstance(error, grpc.Call):
        return str(error)
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return f"the server at {address} has no model {model!r}"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"no server answers at {address} ({error.details()})"
    return f"{error.code().name}: {error.details()}"


def add_commands(app: typer.Typer) -> None:
    """Add `health`."""
    app.command()(health)

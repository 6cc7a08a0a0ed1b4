"""Command `gpt2flow health`, for health checks of containers.

Its imports are minimal, because such a check runs every few seconds.
"""

from typing import Annotated

import typer

from gpt2flow.cli.arguments import MAX_TIMEOUT
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    SecurityOptions,
    with_security_options,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


@with_security_options
def health(
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[
        str, typer.Option(help="Name of a model to check.", show_default="the server as a whole")
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(
            help="Maximum time to wait for the response, in seconds.", min=0.001, max=MAX_TIMEOUT
        ),
    ] = 3.0,
    *,
    security_options: SecurityOptions,
) -> None:
    """Check the health of a running server or of one model.

    Exits with 0 if the status is SERVING, else with 1.
    """
    with needs_extra("server"):
        import grpc
        from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
        from grpc_health.v1.health_pb2_grpc import HealthStub

        from gpt2flow.client import SettingsError
        from gpt2flow.client.call import bearer_metadata
        from gpt2flow.client.channel import open_channel
    with reported(bad_input=SettingsError):
        security = security_options.security()
        channel, metadata = open_channel(address, security), bearer_metadata(security)
    with channel:
        try:
            response = HealthStub(channel).Check(
                HealthCheckRequest(service=model), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise CommandError(_reason(error, address, model), Exit.FAILURE) from error
    status = HealthCheckResponse.ServingStatus.Name(response.status)
    if response.status != HealthCheckResponse.SERVING:
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
    """Add the command."""
    app.command()(health)

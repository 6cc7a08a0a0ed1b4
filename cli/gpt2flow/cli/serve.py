"""`gpt2flow serve`."""

from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


def serve(
    model: Annotated[
        list[str],
        typer.Option(help="[NAME=]DIR of a bundle; may repeat, the first is the default."),
    ],
    address: Annotated[
        str, typer.Option(help="host:port; port 0: a free one.")
    ] = "127.0.0.1:50051",
    threads: Annotated[int | None, typer.Option(help="Threads of one run of a model.")] = None,
    max_sequences: Annotated[int, typer.Option(help="Sequences that run at once.")] = 16,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(help="Memory of each model's KV cache, such as 512MB; fewer sequences fit."),
    ] = None,
    max_queued: Annotated[int, typer.Option(help="Requests that may wait.")] = 256,
    speculation: Annotated[
        bool, typer.Option(help="Guess the next tokens of a single stream, and check them.")
    ] = True,
    max_new_tokens: Annotated[int, typer.Option(help="For requests that do not say.")] = 256,
    drain_seconds: Annotated[float, typer.Option(help="For running requests, at SIGTERM.")] = 30.0,
    log_level: Annotated[
        str, typer.Option(help="Least that is logged: debug, info, warning or error.")
    ] = "info",
    log_format: Annotated[str, typer.Option(help="json, or console for people.")] = "json",
    metrics_address: Annotated[
        str | None,
        typer.Option(
            help="host:port for Prometheus, unencrypted, open to all; port 0: a free one."
        ),
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Collector of OpenTelemetry traces: http[s]://host:port.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file: the server's certificate and those up to its CA.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file: clients must have a certificate of this CA.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="TOML file: clients must send a token that is in it.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain text on addresses that others can reach.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when ready: the bound port, one line.")
    ] = None,
) -> None:
    """Serve bundles over gRPC until SIGTERM or Ctrl-C."""
    with needs_extra("server"):
        from gpt2flow.server import (
            BundleError,
            ConfigError,
            EngineConfig,
            SecurityConfig,
            ServerConfig,
            ServerError,
            TelemetryConfig,
            parse_address,
            parse_bytes,
        )
        from gpt2flow.server import serve as run
    with reported(bad_input=(BundleError, ConfigError), failure=ServerError):
        host, port = parse_address(address)
        threads_given = {} if threads is None else {"threads": threads}
        memory = None
        if kv_cache_memory is not None:
            memory = parse_bytes("kv_cache_memory", kv_cache_memory)
        engine = EngineConfig(
            max_sequences=max_sequences,
            kv_cache_memory=memory,
            max_queued=max_queued,
            speculation=speculation,
            default_max_new_tokens=max_new_tokens,
            **threads_given,
        )
        metrics = None
        if metrics_address is not None:
            metrics = parse_address(metrics_address, "metrics address")
        telemetry = TelemetryConfig(
            log_level=log_level,
            log_format=log_format,
            metrics_address=metrics,
            otlp_endpoint=otlp_endpoint,
        )
        config = ServerConfig(
            models=_models(model),
            host=host,
            port=port,
            engine=engine,
            drain_seconds=drain_seconds,
            telemetry=telemetry,
            security=SecurityConfig(
                tls_certificate=tls_certificate,
                tls_key=tls_key,
                tls_client_ca=tls_client_ca,
                tokens=tokens,
                insecure=insecure,
            ),
        )
        run(config, on_ready=None if ready_file is None else lambda p: _announce(ready_file, p))


def _models(given: list[str]) -> dict[str, Path]:
    """Reads [NAME=]DIR; without a name, the directory's is taken."""
    models: dict[str, Path] = {}
    for text in given:
        name, equals, directory = text.rpartition("=")
        path = Path(directory)
        name = name if equals else path.resolve().name
        if not (name and directory):
            raise CommandError(f"--model {text!r} is not of the form [NAME=]DIR", Exit.BAD_INPUT)
        if name in models:
            raise CommandError(f"--model: two models are named {name!r}", Exit.BAD_INPUT)
        models[name] = path
    return models


def _announce(path: Path, port: int) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(f"{port}\n", encoding="ascii")
    draft.replace(path)


def add_commands(app: typer.Typer) -> None:
    """Adds `serve`."""
    app.command()(serve)

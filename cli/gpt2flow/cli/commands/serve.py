"""`gpt2flow serve`."""

from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


def serve(
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings; read again when it changes and at SIGHUP."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]DIR of a bundle; may repeat, the first is the default."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="host:port; port 0: a free one.", show_default="127.0.0.1:50051"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one run of a model.", show_default="all cores")
    ] = None,
    max_sequences: Annotated[
        int | None, typer.Option(help="Sequences that run at once.", show_default="16")
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(help="Memory of each model's KV cache, such as 512MB; fewer sequences fit."),
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(help="Requests that may wait.", show_default="256")
    ] = None,
    speculation: Annotated[
        bool | None,
        typer.Option(
            "--speculation/--no-speculation",
            help="Guess the next tokens of a single stream, and check them.",
            show_default="speculation",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="For requests that do not say.", show_default="256")
    ] = None,
    max_message_size: Annotated[
        str | None, typer.Option(help="Of a request, such as 4MiB.", show_default="4MiB")
    ] = None,
    max_prompts: Annotated[
        int | None, typer.Option(help="Of one unary call.", show_default="256")
    ] = None,
    max_candidates: Annotated[
        int | None, typer.Option(help="Of one request (n).", show_default="all sequences")
    ] = None,
    max_beams: Annotated[
        int | None, typer.Option(help="Of one request.", show_default="all sequences")
    ] = None,
    max_constraint_size: Annotated[
        str | None,
        typer.Option(
            help="Of a schema, expression or grammar, such as 256KiB.", show_default="256KiB"
        ),
    ] = None,
    grammar_seconds: Annotated[
        float | None,
        typer.Option(help="How long a constraint may take to compile.", show_default="2"),
    ] = None,
    drain_seconds: Annotated[
        float | None,
        typer.Option(help="For running requests, at SIGTERM.", show_default="30"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            help="Least that is logged: debug, info, warning or error.", show_default="info"
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="json, or console for people.", show_default="json")
    ] = None,
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
        bool | None,
        typer.Option(
            "--insecure/--no-insecure",
            help="Plain text on addresses that others can reach.",
            show_default="no-insecure",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when ready: the bound port, one line.")
    ] = None,
) -> None:
    """Serve bundles over gRPC until SIGTERM or Ctrl-C.

    An option that is given goes before the same setting of the file.
    """
    with needs_extra("server"):
        from gpt2flow.server import (
            BundleError,
            ConfigError,
            ConfigSource,
            ServerError,
            parse_address,
            parse_bytes,
        )
        from gpt2flow.server import serve as run
    if config is None and not model:
        raise CommandError("nothing to serve: give --model or --config", Exit.BAD_INPUT)
    with reported(bad_input=(BundleError, ConfigError), failure=ServerError):
        host, port = (None, None) if address is None else parse_address(address)
        memory = None
        if kv_cache_memory is not None:
            memory = parse_bytes("kv_cache_memory", kv_cache_memory)
        message_bytes = constraint_bytes = None
        if max_message_size is not None:
            message_bytes = parse_bytes("max_message_size", max_message_size)
        if max_constraint_size is not None:
            constraint_bytes = parse_bytes("max_constraint_size", max_constraint_size)
        metrics = None
        if metrics_address is not None:
            metrics = parse_address(metrics_address, "metrics address")
        # What stays None is for the file or its default to say.
        given = {
            "models": _models(model) if model else None,
            "host": host,
            "port": port,
            "drain_seconds": drain_seconds,
            "engine.threads": threads,
            "engine.max_sequences": max_sequences,
            "engine.kv_cache_memory": memory,
            "engine.max_queued": max_queued,
            "engine.speculation": speculation,
            "engine.default_max_new_tokens": max_new_tokens,
            "engine.requests.message_bytes": message_bytes,
            "engine.requests.prompts": max_prompts,
            "engine.requests.candidates": max_candidates,
            "engine.requests.beams": max_beams,
            "engine.requests.constraint_bytes": constraint_bytes,
            "engine.requests.grammar_seconds": grammar_seconds,
            "telemetry.log_level": log_level,
            "telemetry.log_format": log_format,
            "telemetry.metrics_address": metrics,
            "telemetry.otlp_endpoint": otlp_endpoint,
            "security.tls_certificate": tls_certificate,
            "security.tls_key": tls_key,
            "security.tls_client_ca": tls_client_ca,
            "security.tokens": tokens,
            "security.insecure": insecure,
        }
        source = ConfigSource(file=config, given=given)
        on_ready = None if ready_file is None else lambda p: _announce(ready_file, p)
        run(source.read(), on_ready, source)


def _models(given: list[str]) -> dict[str, Path]:
    """Read [NAME=]DIR; without a name, the directory's is taken."""
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
    try:
        draft.write_text(f"{port}\n", encoding="ascii")
        draft.replace(path)
    except OSError as error:
        raise CommandError(f"--ready-file {path}: {error.strerror}", Exit.BAD_INPUT) from error


def add_commands(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)

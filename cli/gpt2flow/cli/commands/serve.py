"""`gpt2flow serve`: its options are the settings of the server."""

import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2flow.cli.arguments import check_arguments
from gpt2flow.cli.connection import DEFAULT_ADDRESS
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported
from gpt2flow.cli.processes import announce

if TYPE_CHECKING:
    from gpt2flow.server.config.reference import Setting


def serve(context: typer.Context) -> None:
    """Serve bundles over gRPC until SIGTERM or Ctrl-C.

    Each option has an environment variable: GPT2FLOW_SERVER_THREADS for --threads.

    Options override variables, which override the file given by --config.
    """
    with needs_extra("server"):
        from gpt2flow.server.config.reference import settings
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(
        _with_options(list(settings()))
    )
    check_arguments(app)
    command = typer.main.get_command(app)
    command.main(context.args, prog_name=context.command_path, standalone_mode=False)


def _with_options(settings: "list[Setting]") -> Any:
    """Return the command as a function with a parameter for each setting."""

    def run(
        context: typer.Context,
        config: Path | None,
        model: list[str] | None,
        ready_file: Path | None,
        **given: Any,
    ) -> None:
        keys = {_parameter_name(each.option): each.key for each in settings}
        values = {keys.get(name, name): value for name, value in given.items()}
        names = {keys.get(name, name): _typed_name(context, name) for name in given}
        _serve(config, model, ready_file, values, names)

    parameters = list(_parameters(settings))
    # Typer reads the options from the signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = serve.__doc__
    return run


def _parameters(settings: "list[Setting]") -> Iterator[inspect.Parameter]:
    from gpt2flow.server.config.reference import ADDRESS

    yield inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    yield _option(
        "--config",
        Path | None,
        "TOML file of settings; read again when it changes and at SIGHUP.",
    )
    yield _option(
        "--model",
        list[str] | None,
        "[NAME=]DIR of a bundle; may repeat, the first is the default model.",
    )
    yield _option(
        "--address",
        str | None,
        "host:port or unix:PATH to listen on; port 0 picks a free one.",
        DEFAULT_ADDRESS,
    )
    for each in settings:
        if each.key not in ADDRESS:
            option = each.option
            if each.kind is bool:
                option = f"{option}/--no-{option.removeprefix('--')}"
            yield _option(option, each.kind | None, each.meaning, each.default, each.group)
    yield _option(
        "--ready-file",
        Path | None,
        "File that is written when ready: the bound port, one line; 0 for a Unix socket.",
    )


def _option(
    option: str, kind: Any, meaning: str, default: str = "", group: str = ""
) -> inspect.Parameter:
    from gpt2flow.server.config.reference import variable

    name = option.partition("/")[0]
    info = typer.Option(
        option,
        # Typer would put parentheses around a default that it does not fill in itself.
        help=f"{meaning} Default: {default}." if default else meaning,
        envvar=variable(name),
        # Errors then name a variable that is set; the help of 40 options need not.
        show_envvar=variable(name) in os.environ,
        show_default=False,
        rich_help_panel=f"Settings: {group}" if group else None,
    )
    return inspect.Parameter(
        _parameter_name(name),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, info],
    )


def _parameter_name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _typed_name(context: typer.Context, name: str) -> str:
    """Return the option or variable that set a parameter."""
    from gpt2flow.server.config.reference import variable

    option = f"--{name.replace('_', '-')}"
    source = context.get_parameter_source(name)
    return variable(option) if source is not None and source.name == "ENVIRONMENT" else option


def _serve(
    config: Path | None,
    models: list[str] | None,
    ready_file: Path | None,
    given: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:
    """Serve with settings from a file, overridden by the given ones."""
    from gpt2flow.server import BundleError, ConfigError, ConfigSource, ServerError, parse_endpoint
    from gpt2flow.server import serve as run

    if config is None and not models:
        raise CommandError("nothing to serve: give --model or --config", Exit.BAD_INPUT)
    with reported(bad_input=(BundleError, ConfigError), failure=ServerError):
        values = dict(given)
        address = values.pop("address")
        if address is not None:
            values["host"], values["port"] = parse_endpoint(address, names["address"])
        if models:
            values["models"] = _models(models)
        names = {**names, "port": f"port of {names['address']}"}
        source = ConfigSource(file=config, given=values, names=names)
        run(source.read(), lambda port: announce(ready_file, port), source)


def _models(given: list[str]) -> dict[str, Path]:
    """Read [NAME=]DIR; the default name is that of the directory."""
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


def add_commands(app: typer.Typer) -> None:
    """Add `serve`; its options are read from the settings when it runs."""
    app.command(
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(serve)

"""Entry point of the command line; turns errors into exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer

from gpt2flow.cli.arguments import check_arguments
from gpt2flow.cli.outcome import CommandError, Exit

# Modules of the commands below `commands`, in the order of the help.
_MODULES: Final = {
    "train": "models.train",
    "average": "models.average",
    "export": "models.export",
    "restore": "models.restore",
    "inspect": "models.inspect",
    "serve": "serve",
    "token": "token",
    "health": "health",
    "generate": "generate",
    "bench": "bench",
    "gateway": "gateway",
    "console": "console",
    "storefront": "storefront",
    "agent": "agent",
    "demo": "demo",
}
COMMANDS: Final = tuple(_MODULES)
"""Names of the commands."""


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command line.

    Args:
        arguments: Arguments that it will get. If they begin with the name of a command, the app
            has that command alone: importing all of them takes 0.1 s.
    """
    app = typer.Typer(
        name="gpt2flow",
        help="Train a GPT-2, export it, serve it over gRPC, and run an agent on it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_options,
    )
    names = arguments[:1] if arguments and arguments[0] in _MODULES else COMMANDS
    for name in names:
        import_module(f"gpt2flow.cli.commands.{_MODULES[name]}").add_commands(app)
    check_arguments(app)
    return app


# Releases of Typer define this class in different modules.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"gpt2flow {version('gpt2flow')}")
        raise typer.Exit


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if debug:
        os.environ["GPT2FLOW_DEBUG"] = "1"


def main() -> None:
    """Run the command line and exit.

    Every error is one line on stderr.
    """
    # By default gRPC logs to stderr too, for example each failed handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        sys.exit(typer.main.get_command(build_app(sys.argv[1:])).main(standalone_mode=False))
    except CommandError as error:
        _exit_with_error(str(error), error.exit_code)
    except _UsageError as error:
        _exit_with_usage_error(error)
    except (typer.Abort, KeyboardInterrupt):
        _exit_with_error("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has exited. Python would fail again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILURE)
    except Exception as error:  # noqa: BLE001 - the last place to replace a traceback by a message
        text = " ".join(str(error).split())
        _exit_with_error(
            f"unexpected {type(error).__name__}: {text} (--debug shows the traceback)", Exit.FAILURE
        )


def _exit_with_usage_error(error: Any) -> NoReturn:
    """Exit after a usage error.

    An error without a message means that the help was printed already.
    """
    if not error.format_message():
        sys.exit(Exit.BAD_INPUT)
    command = error.ctx.command_path if error.ctx else "gpt2flow"
    _exit_with_error(f"{error.format_message()} (see {command} --help)", Exit.BAD_INPUT)


def _exit_with_error(message: str, code: Exit) -> NoReturn:
    if os.environ.get("GPT2FLOW_DEBUG"):
        traceback.print_exc()
    typer.echo(f"gpt2flow: error: {message}", err=True)
    sys.exit(code)

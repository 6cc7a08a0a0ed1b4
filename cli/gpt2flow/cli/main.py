"""The entry point: the commands, and the one place where errors become text."""

import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from gpt2flow.cli.commands import (
    agent,
    bench,
    demo,
    export,
    generate,
    health,
    inspect,
    serve,
    token,
    train,
)
from gpt2flow.cli.outcome import CommandError, Exit

app = typer.Typer(
    name="gpt2flow",
    help="Train a GPT-2, export it, serve it over gRPC, and let an agent work with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for register in (train, export, inspect, serve, token, health, generate, bench, agent, demo):
    register.add_commands(app)


# The class lies in another module from one release of Typer to the next.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"gpt2flow {version('gpt2flow')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if debug:
        os.environ["GPT2FLOW_DEBUG"] = "1"


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    # Else gRPC writes lines of its own there, such as one for each handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        sys.exit(typer.main.get_command(app).main(standalone_mode=False))
    except CommandError as error:
        _end(str(error), error.exit_code)
    except _UsageError as error:
        _end_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        _end("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has gone; nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILURE)
    except Exception as error:  # noqa: BLE001 - the last place that can keep a traceback from a user
        text = " ".join(str(error).split())
        _end(f"unexpected {type(error).__name__}: {text} (--debug shows where)", Exit.FAILURE)


def _end_usage(error: Any) -> NoReturn:
    """End after wrong arguments; after none, the help has been shown already."""
    if not error.format_message():
        sys.exit(Exit.BAD_INPUT)
    command = error.ctx.command_path if error.ctx else "gpt2flow"
    _end(f"{error.format_message()} ({command} --help tells more)", Exit.BAD_INPUT)


def _end(message: str, code: Exit) -> NoReturn:
    if os.environ.get("GPT2FLOW_DEBUG"):
        traceback.print_exc()
    typer.echo(f"gpt2flow: error: {message}", err=True)
    sys.exit(code)

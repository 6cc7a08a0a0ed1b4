"""Checks of the arguments of every command, beyond those of Typer."""

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from gpt2flow.cli.outcome import CommandError, Exit

# Largest numbers of the protocol's fields.
MAX_UINT32: Final = 2**32 - 1
MAX_UINT64: Final = 2**64 - 1
# Longest timeout, in seconds: eleven days.
MAX_TIMEOUT: Final = 1e6


def check_arguments(app: typer.Typer) -> None:
    """Let every command of an app and its groups check its arguments."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = checked(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            check_arguments(group.typer_instance)


def checked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that first checks its arguments.

    Numbers must be finite, and text must be UTF-8: CommandError names the first that is not.
    """

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, value in inspect.signature(command).bind(*args, **kwargs).arguments.items():
            for each in value if isinstance(value, list | tuple) else [value]:
                if rule := _violated_rule(each):
                    label = _label(command, name)
                    raise CommandError(f"{label} is {each!r}, {rule}", Exit.BAD_INPUT)
        return command(*args, **kwargs)

    return wrapper


def _violated_rule(value: object) -> str:
    """Return the rule that a value violates, or an empty text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # Python has put lone surrogates in the place of other bytes.
            return "must be valid UTF-8"
    return ""


def _label(command: Callable[..., Any], name: str) -> str:
    """Return the name of a parameter as users write it."""
    for info in get_args(get_type_hints(command, include_extras=True)[name])[1:]:
        if isinstance(info, ArgumentInfo):
            return str(info.metavar or name.upper())
        if isinstance(info, OptionInfo) and info.param_decls:
            return info.param_decls[0].partition("/")[0]
    return f"--{name.replace('_', '-')}"

"""Tests that every command refuses values that it cannot use."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from tests.support.command_line import UNREACHABLE, gpt2flow
from typer.models import ArgumentInfo, OptionInfo

from gpt2flow.cli.main import build_app, main

Run = Callable[..., tuple[int, str]]

NOT_UTF8 = os.fsdecode(b"h\xffi")
TOO_LARGE = str(10**30)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Function that runs a command in this process: exit code and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT2FLOW_ADDRESS", UNREACHABLE)
    # The command line sets it, and other tests may expect it unset.
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["gpt2flow", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "command, option, values",
    [
        (["generate", "hi"], "--max-new-tokens", ["0", "-1", str(2**32), TOO_LARGE, "1.5", "x"]),
        (["generate", "hi"], "--temperature", ["-1", "101", "nan", "inf", "1e400", "x"]),
        (["generate", "hi"], "--top-k", ["-1", str(2**32), TOO_LARGE, "1.5", "x"]),
        (["generate", "hi"], "--top-p", ["-1", "1.1", "nan", "inf", "x"]),
        (["generate", "hi"], "--seed", ["-1", str(2**64), TOO_LARGE, "1.5", "x"]),
        (["generate", "hi"], "--beams", ["0", "-1", str(2**32), TOO_LARGE, "1.5", "x"]),
        (["generate", "hi"], "--timeout", ["0", "-1", "nan", "inf", "1e300", "x"]),
        (["health"], "--timeout", ["0", "-1", "nan", "inf", "1e300", "x"]),
        (["bench"], "--requests", ["0", "-1", TOO_LARGE, "1.5"]),
        (["bench"], "--warmup", ["-1", TOO_LARGE, "1.5"]),
        (["bench"], "--duration", ["0", "-1", "nan", "inf", "1e400"]),
        (["bench"], "--seed", ["-1", str(2**64), TOO_LARGE]),
        (["bench"], "--beams", ["0", TOO_LARGE]),
        (["bench"], "--temperature", ["-1", "nan", "inf"]),
        (["bench"], "--timeout", ["0", "nan", "inf"]),
        (["bench"], "--concurrency", ["0", "-1", TOO_LARGE, "nan", "1,,2"]),
        (["bench"], "--rate", ["0", "-1", "nan", "inf", "1e400", "1,,2"]),
        (["bench"], "--prompt-tokens", ["0", "-1", TOO_LARGE, "nan", "normal:nan,1"]),
        (["bench"], "--goodput", ["ttft:nan", "ttft:-1", "ttft:inf", "x:1"]),
        (["bench"], "--shared-prefix", ["-1", TOO_LARGE]),
        (["agent", "inbox"], "--limit", ["0", "-1", TOO_LARGE]),
        (["agent", "forget"], "--older-than", ["0", "-1", TOO_LARGE]),
        (["agent", "evaluate", "--scenarios", "x"], "--repeats", ["0", TOO_LARGE]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_a_number_out_of_range_is_refused_by_name(
    run: Run, command: list[str], option: str, values: list[str]
) -> None:
    for value in values:
        code, err = run(*command, f"{option}={value}")
        assert (code, err.count("\n")) == (2, 1), (value, err)
        assert err.startswith("gpt2flow: error: ")
        assert option in err


def leaves(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command of an app with its function."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.strip("_").replace("_", "-")
        yield (*path, name), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from leaves(
            inner.typer_instance, (*path, str(inner.name or inner.typer_instance.info.name))
        )


def cases() -> Iterator[Any]:
    """Yield commands with one bad text or number each."""
    for path, function in leaves(build_app()):
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
        infos = {name: get_args(hints[name]) for name in parameters if get_args(hints[name])}
        required = {name for name in infos if parameters[name].default is inspect.Parameter.empty}
        for name, (kind, *_) in infos.items():
            kinds = {kind, *get_args(kind)}
            for value in ["nan"] if float in kinds else [NOT_UTF8] if str in kinds else []:
                own = [
                    written(other, infos[other][1], value if other == name else "1")
                    for other in infos
                    if other == name or other in required
                ]
                label = written(name, infos[name][1], "")[:-1] or name
                yield pytest.param([*path, *own], label, id=f"{'-'.join(path)}-{name}-{value[0]}")


def written(name: str, info: Any, value: str) -> str:
    """Return a parameter as it is written on the command line."""
    return value if isinstance(info, ArgumentInfo) else f"{option(name, info)}={value}"


def option(name: str, info: OptionInfo) -> str:
    """Return the option of a parameter."""
    written = info.param_decls[0] if info.param_decls else f"--{name.replace('_', '-')}"
    return str(written).partition("/")[0]


CASES = list(cases())


def test_the_cases_cover_the_commands() -> None:
    assert len(CASES) > 60
    commands = {case.values[0][0] for case in CASES}
    assert {"generate", "bench", "health", "agent", "token", "train"} <= commands


@pytest.mark.parametrize("arguments, label", CASES)
def test_text_that_is_not_utf8_and_numbers_that_are_not_finite_are_refused(
    run: Run, arguments: list[str], label: str
) -> None:
    code, err = run(*arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("gpt2flow: error: ")
    assert label.lower() in err.lower()


@pytest.mark.parametrize(
    "given, message",
    [
        (("--drain-seconds", "nan"), "--drain-seconds is nan, must be a finite number"),
        (("--address", NOT_UTF8), "--address is 'h\\udcffi', must be valid UTF-8"),
        (("--address", "unix:"), "the address 'unix:' has no path, must be unix:PATH"),
        (("--threads", TOO_LARGE), "--threads is "),
    ],
)
def test_serve_refuses_them_too(run: Run, given: tuple[str, ...], message: str) -> None:
    code, err = run("serve", "--model", "x", *given)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err


def test_files_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b'{"prompt": "\xff"}\n')
    unreachable = ("--address", UNREACHABLE)
    for command in (
        ("bench", "--prompts", "bad", *unreachable),
        ("bench", "--json-schema", "bad", *unreachable),
        ("generate", "hi", "--json-schema", "bad", *unreachable),
    ):
        code, _, err = gpt2flow(*command, cwd=tmp_path)
        assert (code, err.count("\n")) == (2, 1), err
        assert "bad" in err
        assert "utf-8" in err

"""Options that the pages mention exist."""

import re

import pytest
import typer
from tests.support.command_line import commands
from tests.support.doc_pages import pages
from tests.support.project import PROJECT

from gpt2flow.cli.commands import serve
from gpt2flow.cli.main import build_app
from gpt2flow.server.config.reference import settings

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Options of other programs.
FOREIGN = {
    "curl": {"--silent"},
    "docker": {
        *("--cap-drop", "--cpus", "--detach", "--env", "--file", "--publish", "--read-only"),
        *("--rm", "--security-opt", "--stop-timeout", "--tag", "--target", "--volume", "--wait"),
    },
    "helm": {"--namespace", "--values"},
    "lm_eval": {"--tasks"},
    "pytest": {"--hypothesis-profile"},
    "systemctl": {"--now"},
    "vllm bench": {"--max-concurrency", "--request-rate"},
}


def options() -> set[str]:
    """Return the options of all commands, benchmarks and programs among the tests."""
    parsed = typer.Typer()
    # `serve` reads its options from the settings when it runs.
    parsed.command()(serve._with_options(list(settings())))
    found = {"--help"}
    for group in (build_app(), parsed):
        for _, command in commands(typer.main.get_command(group)):
            for parameter in command.params:
                found.update(parameter.opts, parameter.secondary_opts)
    programs = [*(PROJECT / "benchmarks").rglob("*.py"), *(PROJECT / "tests").glob("*/__main__.py")]
    for path in programs:
        text = path.read_text(encoding="utf-8")
        found.update(re.findall(r'"(--[a-z-]+)', text))
        # Typer names an option after its parameter.
        names = re.findall(r"^    (\w+): Annotated\[", text, re.MULTILINE)
        found.update(f"--{name.replace('_', '-')}" for name in names)
    return found


KNOWN = options().union(*FOREIGN.values())


@pytest.mark.parametrize("page", pages())
def test_every_option_of_a_page_exists(page: str) -> None:
    mentioned = set(OPTION.findall((PROJECT / page).read_text(encoding="utf-8")))
    assert not mentioned - KNOWN


def test_the_page_of_limits_has_every_limit_of_a_request() -> None:
    page = (PROJECT / "docs/limits.md").read_text(encoding="utf-8")
    limits = [each.option for each in settings() if each.key.startswith("engine.requests.")]
    assert not [option for option in limits if f"`{option}`" not in page]


def test_every_foreign_option_is_mentioned() -> None:
    text = "".join((PROJECT / page).read_text(encoding="utf-8") for page in pages())
    assert set().union(*FOREIGN.values()) <= set(OPTION.findall(text))

"""Folders of the programs: size and names of modules and classes."""

import ast
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.support.project import PROJECT

PROGRAMS = [
    *("agent", "cli", "client", "console", "export", "files", "gateway", "native", "server"),
    *("reports", "storefront", "training", "web"),
]
# Programs that share a process.
PROCESSES = [
    ["server", "files", "native"],
    ["export", "server", "files", "native"],
    ["training", "agent", "files", "reports", "web"],
    ["agent", "client", "files", "reports", "web"],
    ["gateway", "client", "files", "web"],
    ["console", "agent", "client", "files", "web"],
    ["storefront", "agent", "client", "files", "web"],
]
MAX_MODULES = 10
MIN_LINES = 50
# Folders with more modules, and why.
LARGE = {
    "client/gpt2flow/client": "one library, whose modules are its documentation",
}
# Shorter modules, and why each is one.
SHORT = {
    "agent/gpt2flow/agent/shop/migrations/env.py": "entry point of Alembic",
    "agent/gpt2flow/agent/shop/migrations/versions/v0003_traces_and_attended_messages.py": (
        "one revision of the schema a module"
    ),
    "agent/gpt2flow/agent/shop/migrations/versions/v0004_confidence_of_model_calls.py": (
        "one revision of the schema a module"
    ),
    "agent/gpt2flow/agent/shop/migrations/versions/v0005_work_on_screens.py": (
        "one revision of the schema a module"
    ),
    "agent/gpt2flow/agent/shop/tables/products.py": "one subject of the schema a module",
    "agent/gpt2flow/agent/hands/errors.py": "errors of a room",
    "agent/gpt2flow/agent/metrics/registry.py": "names and errors of the agent around `web`",
    "agent/gpt2flow/agent/telemetry/log.py": "loggers of the agent's libraries around `web`",
    "cli/gpt2flow/cli/__main__.py": "entry point of `python -m`",
    "cli/gpt2flow/cli/commands/models/average.py": "one subcommand a module",
    "cli/gpt2flow/cli/commands/models/restore.py": "one subcommand a module",
    "console/gpt2flow/console/config.py": "settings beside those of every website",
    "console/gpt2flow/console/errors.py": "errors of a program",
    "console/gpt2flow/console/pages/rendering.py": "filters that need the agent's words",
    "export/gpt2flow/export/arrays.py": "types that every room of the export needs",
    "native/gpt2flow/native/rows.py": "needs NumPy, which the package does not import",
    "server/gpt2flow/server/models/memory.py": "calls to the C library",
    "web/gpt2flow/web/certificates.py": "checks of two programs",
    "training/gpt2flow/training/corpus/phrasing.py": "shared by two modules of the corpus",
    "training/gpt2flow/training/corpus/sources/lexicon.py": "schema of one data file",
    "training/gpt2flow/training/errors.py": "errors of a program",
}
_ENDING = re.compile(r"(s|ers?|ors?|ings?|ed|ions?|izers?)$")


def folders() -> list[Path]:
    """Return the folders of all programs."""
    modules = [path for name in PROGRAMS for path in (PROJECT / name).rglob("*.py")]
    return sorted({path.parent for path in modules})


def modules(folder: Path) -> list[Path]:
    """Return the modules of a folder, without `__init__`."""
    return sorted(path for path in folder.glob("*.py") if path.stem != "__init__")


def name(path: Path) -> str:
    """Return a path relative to the project."""
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("folder", folders(), ids=name)
def test_a_folder_holds_at_most_ten_modules(folder: Path) -> None:
    assert len(modules(folder)) <= MAX_MODULES or name(folder) in LARGE


def test_a_short_module_has_a_reason() -> None:
    short = {
        name(path)
        for folder in folders()
        for path in modules(folder)
        if len(path.read_text(encoding="utf-8").splitlines()) < MIN_LINES
        and name(folder) not in LARGE
    }
    assert short == set(SHORT)


@pytest.mark.parametrize("folder", folders(), ids=name)
def test_names_of_a_folder_differ_by_more_than_an_ending(folder: Path) -> None:
    stems = [_ENDING.sub("", path.stem) for path in modules(folder)]
    assert not [pair for pair in itertools.combinations(stems, 2) if pair[0] == pair[1]]


@pytest.mark.parametrize("programs", PROCESSES, ids="-".join)
def test_a_process_has_no_two_classes_of_one_name(programs: list[str]) -> None:
    classes = Counter(
        node.name
        for program in programs
        for path in (PROJECT / program).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert not [each for each, count in classes.items() if count > 1]

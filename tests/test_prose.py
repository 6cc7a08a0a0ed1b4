"""Prose of the project: docstrings, help texts, and pages.

Sentences are counted without code, and a cell of a table counts as one line.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from tests.support.command_line import commands
from tests.support.dashboards import dashboard, dashboards
from tests.support.doc_pages import pages
from tests.support.project import PROJECT

from gpt2flow.cli.main import build_app
from gpt2flow.server.config.reference import settings

SOURCES = [
    *("agent", "benchmarks", "cli", "client", "console", "export", "files", "gateway", "native"),
    *("reports", "server", "storefront", "tests", "training", "web"),
]
# A description names its noun first.
BAD_STARTS = {"of", "for", "by", "as", "to", "whose", "who", "what", "which"}
# Words that the glossary has replaced.
RETIRED = re.compile(r"\b(guess\w*|remember\w*|roughen\w*|gives? way|told)\b", re.IGNORECASE)
ISE = re.compile(
    r"\w*(normal|summar|token|penal|serial|initial|recogn|priorit)is(e|ing|ation)\w*", re.IGNORECASE
)
# Names in data that users have.
NAMES = {"summarised"}
MAX_FIRST_LINE = 12
MAX_SENTENCE = 25


def first_word(text: str) -> str:
    return re.split(r"[\s,.:;]", text.strip(), maxsplit=1)[0].lower()


def paths(root: str) -> list[Path]:
    return [path for path in (PROJECT / root).rglob("*.py") if "_pb2" not in path.name]


def first_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the first line of each docstring."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text.splitlines()[0]


@pytest.mark.parametrize("root", SOURCES)
def test_a_docstring_names_its_noun_or_verb_in_a_short_line(root: str) -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line}: {text}"
        for path in paths(root)
        for line, text in first_lines(path)
        if first_word(text) in BAD_STARTS
        or len(text.split()) > MAX_FIRST_LINE
        or RETIRED.search(text)
    ]
    assert not found


def help_texts() -> Iterator[tuple[str, str]]:
    """Yield each help text of the command line, with what it describes."""
    for name, command in commands(typer.main.get_command(build_app())):
        yield name, command.help or ""
        for parameter in command.params:
            yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for setting in settings():
        yield setting.key, setting.meaning
    for path in paths("benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "help":
                yield f"{path.name}:{node.lineno}", ast.unparse(node.value).strip("fr'\"")


def test_every_help_text_stands_alone() -> None:
    texts = list(help_texts())
    assert len(texts) > 200
    assert not [(what, text) for what, text in texts if first_word(text) in BAD_STARTS | {""}]
    assert not [(what, text) for what, text in texts if RETIRED.search(text)]


def dashboard_texts(name: str) -> Iterator[str]:
    """Yield the titles, descriptions and legends of a dashboard."""
    for panel in dashboard(name)["panels"]:
        yield panel["title"]
        yield from filter(None, [panel.get("description")])
        for target in panel.get("targets", []):
            yield target["legendFormat"]


@pytest.mark.parametrize("name", dashboards())
def test_every_text_of_a_dashboard_stands_alone(name: str) -> None:
    texts = list(dashboard_texts(name))
    assert len(texts) > 40
    assert not [text for text in texts if first_word(text) in BAD_STARTS or RETIRED.search(text)]
    long = [each for text in texts for each in sentences(text) if len(each.split()) > MAX_SENTENCE]
    assert not long


def page(path: str) -> list[tuple[int, str]]:
    """Return a page's numbered lines of prose, without code and headings."""
    lines, fenced = [], False
    for number, line in enumerate((PROJECT / path).read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        if not (fence or fenced or line.startswith("#")):
            for cell in line.split("|") if line.startswith("|") else [line]:
                text = re.sub(r"`[^`]*`", "code", cell)
                text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
                lines.append((number, re.sub(r"^\s*([-*>]|\d+\.)\s+", "", text).strip()))
    return lines


def sentences(text: str) -> list[str]:
    return [each for each in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if each]


@pytest.mark.parametrize("path", pages())
def test_a_page_has_one_short_sentence_a_line(path: str) -> None:
    prose = page(path)
    table = {number for number, _ in prose if [line for line, _ in prose].count(number) > 1}
    crowded = [
        (line, text) for line, text in prose if line not in table and len(sentences(text)) > 1
    ]
    long = [
        (line, each)
        for line, text in prose
        for each in sentences(text)
        if len(each.split()) > MAX_SENTENCE
    ]
    assert not crowded
    assert not long
    assert not [(line, text) for line, text in prose if RETIRED.search(text)]


def test_verbs_are_spelled_with_ize() -> None:
    protos = [path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("protos/**/*.proto")]
    modules = [path.relative_to(PROJECT).as_posix() for each in SOURCES for path in paths(each)]
    found = {
        f"{path}: {match[0]}"
        for path in [*pages(), *protos, *modules]
        for match in ISE.finditer((PROJECT / path).read_text(encoding="utf-8"))
        if match[0] not in NAMES
    }
    assert not found

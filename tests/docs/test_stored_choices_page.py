"""Example of docs/stored-choices.md, run verbatim."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.doc_pages import ADDRESS, DOCS, blocks
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process

from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.server.config.settings import ServerConfig
from gpt2flow.server.grammar.stored_choices import MAX_ENTRIES, MAX_ENTRY_BYTES

PAGE = "stored-choices.md"
WRITE, SEARCH = blocks(PAGE, "python")


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that runs as the page says."""
    folder = tmp_path_factory.mktemp("page")
    run(WRITE, folder)
    [command] = {
        line
        for block in blocks(PAGE)
        for line in block.splitlines()
        if line.startswith("gpt2flow serve ")
    }
    options = shlex.split(command.replace("products.txt", str(folder / "products.txt")))
    at = options.index("--choices")
    with server_process(SHIPPED_BUNDLE, folder, *options[at:], name="shop", limits=()) as server:
        yield server.address


def test_the_example_finds_the_misspelt_product(served: str, tmp_path: Path) -> None:
    assert ADDRESS in SEARCH
    lines = run(SEARCH.replace(ADDRESS, served), tmp_path).splitlines()
    assert len(lines) == 10
    scores, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert names[0] == "umbrella"
    assert set(names) <= {item.en for item in load_catalogue().products}
    assert len(set(names)) == 10
    ranked = [float(score) for score in scores]
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] - ranked[1] > 2


def test_the_settings_of_the_page_are_valid() -> None:
    [text] = blocks(PAGE, "toml")
    table = tomllib.loads(text)
    [model] = table["models"]
    engines = [table["engine"], {"choices": model["choices"]}]
    for engine in engines:
        config = ServerConfig(models={"m": Path("p")}, engine=engine)
        assert config.engine.choices.keys() == engine["choices"].keys()


def test_the_limits_of_the_page_are_those_of_the_server() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    found = re.search(r"has 1 to ([\d,]+) entries, each of 1 to ([\d,]+) bytes", page)
    assert found is not None
    assert [int(each.replace(",", "")) for each in found.groups()] == [MAX_ENTRIES, MAX_ENTRY_BYTES]

"""Pages of the project and their code blocks."""

import re

from tests.support.project import PROJECT

DOCS = PROJECT / "docs"
# Address of the server on the pages.
ADDRESS = "127.0.0.1:50051"


def pages() -> list[str]:
    """Return the paths of all pages, relative to the project."""
    found = [*PROJECT.glob("*.md"), *DOCS.rglob("*.md")]
    return sorted(path.relative_to(PROJECT).as_posix() for path in found)


def blocks(page: str, language: str = "") -> list[str]:
    """Return a page's fenced blocks of one language, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]

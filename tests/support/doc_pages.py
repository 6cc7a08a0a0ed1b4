"""Code blocks of the pages of docs/."""

import re

from tests.support.project import PROJECT

DOCS = PROJECT / "docs"
# Address of the server on the pages.
ADDRESS = "127.0.0.1:50051"


def blocks(page: str, language: str = "") -> list[str]:
    """Return a page's fenced blocks of one language, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]

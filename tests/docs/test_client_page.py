"""Examples of docs/client.md, run verbatim."""

import subprocess
import sys

import pytest
from tests.support.command_line import gpt2flow
from tests.support.doc_pages import ADDRESS, DOCS, blocks
from tests.support.protected_server import Protected

from gpt2flow import client as library

SYNC, ASYNC = blocks("client.md", "python")


@pytest.mark.parametrize(
    "code, expected",
    [
        (
            SYNC,
            [
                " tokens\n",
                "\nyes\n",
                '\n{"action":"add_to_cart"\n',
                "\nDEADLINE_EXCEEDED of request ",
                "\noptions.sampling.temperature must be ",
            ],
        ),
        (ASYNC, ['{"late"', "\nDEADLINE_EXCEEDED\n"]),
    ],
    ids=["sync", "async"],
)
def test_an_example_prints_what_the_page_promises(
    protected: Protected, code: str, expected: list[str]
) -> None:
    assert ADDRESS in code
    completed = subprocess.run(
        [sys.executable, "-c", code.replace(ADDRESS, protected.address)],
        capture_output=True,
        text=True,
        cwd=protected.folder,
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    for text in expected:
        assert text in completed.stdout.replace("\nno\n", "\nyes\n")


@pytest.mark.parametrize(
    "code, expected",
    [*zip(blocks("client.md", "py"), ['{"action":"add_to_cart"', "late="], strict=True)],
    ids=["first", "schema"],
)
def test_a_short_example_prints_what_the_page_promises(
    address: str, code: str, expected: str
) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", code.replace(ADDRESS, address)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    assert expected in completed.stdout


def test_the_command_line_needs_its_token_file(protected: Protected) -> None:
    command = ["generate", "hi", "--max-new-tokens", "2", "--address", protected.address]
    tls = ["--tls-ca", str(protected.folder / "ca.pem")]
    assert gpt2flow(*command, *tls, "--token-file", str(protected.folder / "token"))[0] == 0
    code, _, err = gpt2flow(*command, *tls)
    assert code == 1
    assert f"{protected.address} does not accept the credentials" in err


def test_every_error_is_on_the_page() -> None:
    page = (DOCS / "client.md").read_text(encoding="utf-8")
    errors = [name for name in library.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in page] == []

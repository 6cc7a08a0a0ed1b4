"""Examples of docs/http.md, run verbatim, and its lists."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.doc_pages import DOCS, blocks
from tests.support.http_process import EndpointProcess, endpoint_process

from gpt2flow.cli.commands.agent.serve import HttpOptions

URL = "http://127.0.0.1:8080"
SECRET_COMMAND = blocks("http.md")[0].splitlines()[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[EndpointProcess]:
    """Command of the page on a free port, with its secret."""
    folder = tmp_path_factory.mktemp("http")
    if shutil.which("openssl") is None:
        pytest.skip("the page makes its secret with openssl, which is not installed")
    subprocess.run(["sh", "-c", SECRET_COMMAND], cwd=folder, check=True)
    options = ["--address", "127.0.0.1:0", "--server", address, "--ready-file", "port"]
    files = ["--secret-file", "webhook.secret", "--database", "shop.sqlite"]
    arguments = [str(folder / each) if each in NAMES else each for each in [*options, *files]]
    with endpoint_process(folder, "gpt2flow.cli", "agent", "serve", *arguments) as process:
        yield process


NAMES = {"port", "webhook.secret", "shop.sqlite"}


def run(code: str, process: EndpointProcess, *command: str) -> str:
    """Run an example of the page on the port of a process."""
    assert URL in code
    done = subprocess.run(
        [*command, code.replace(URL, str(process.client.base_url).rstrip("/"))],
        cwd=process.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_example_in_python_signs_and_reads(running: EndpointProcess) -> None:
    [code] = blocks("http.md", "python")
    reply = "Added 2 × umbrella. Your cart is now at 25.80."
    line = f"add_to_cart ['{reply}']\n"
    assert run(code, running, sys.executable, "-c") == 2 * line + f"['{reply}']\n"


def test_the_example_in_a_shell_signs(running: EndpointProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the example needs curl, which is not installed")
    [code] = blocks("http.md", "sh")
    report = json.loads(run(code, running, "sh", "-c"))
    assert (report["message_id"], report["actions"][0]["outcome"]) == ("msg_2", "added")


def test_the_page_has_the_limits_with_their_defaults() -> None:
    page = (DOCS / "http.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", page, re.MULTILINE))
    defaults = {name.replace("-", "_"): float(value) for name, value in stated.items()}
    options = HttpOptions()
    assert defaults == {name: getattr(options, name) for name in defaults}
    assert {name for name in vars(options) if name.startswith("max_")} <= set(defaults)

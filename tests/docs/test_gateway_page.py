"""Example of docs/gateway.md, run verbatim, and its tables."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from tests.support.doc_pages import DOCS, blocks
from tests.support.gateway_process import TEMPLATE, RunningGateway, gateway_process
from tests.support.interop_environment import environment, python_of
from tests.support.waiting import SECONDS

from gpt2flow.cli.commands.gateway import GatewayOptions
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.completion import CompletionRequest
from gpt2flow.gateway.fields.generation import EXTRA, IGNORED, REFUSED
from gpt2flow.gateway.http.metrics import GatewayMetrics
from gpt2flow.gateway.plan.completions import DEFAULT_MAX_TOKENS, MAX_STREAMED_PROMPTS

URL = "http://127.0.0.1:8000/v1"
PAGE = (DOCS / "gateway.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def gateway(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with gateway_process(address, tmp_path_factory.mktemp("gateway")) as running:
        yield running


def section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"^#+ ", PAGE.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]


def rows(title: str) -> dict[str, list[str]]:
    """Return the cells of a section's table, by each name."""
    found: dict[str, list[str]] = {}
    for line in section(title).splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|"):
            found |= dict.fromkeys(re.findall(r"`([a-z0-9_]+)`", first), rest)
    return found


def test_the_example_runs(gateway: RunningGateway) -> None:
    [code] = blocks("gateway.md", "python")
    assert URL in code
    done = subprocess.run(
        [str(python_of("openai")), "-c", code.replace(URL, gateway.url)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == '{"action":"add_to_cart","product":"umbrellas","quantity":2}'
    assert second in {'"umbrella"', '"kettle"'}


def test_the_template_is_that_of_the_tests() -> None:
    assert blocks("gateway.md", "jinja") == [TEMPLATE.read_text(encoding="utf-8")]


def test_every_field_is_in_one_table() -> None:
    completion, chat = set(CompletionRequest.model_fields), set(ChatRequest.model_fields)
    own = EXTRA | {"add_generation_prompt", "chat_template_kwargs"}
    standard = (completion | chat) - own - IGNORED - set(REFUSED)
    stated = rows("Fields of OpenAI")
    assert set(stated) == standard
    for name, (in_completions, in_chats, *_) in stated.items():
        assert (in_completions == "yes") == (name in completion), name
        assert (in_chats == "yes") == (name in chat), name
    assert set(rows("Own fields")) == own
    ignored = section("Ignored fields")
    assert set(re.findall(r"`([a-z_]+)`", ignored)) == IGNORED
    refused = {name: cells[0] for name, cells in rows("Refused fields").items()}
    assert refused == REFUSED


def test_the_page_has_the_limits_with_their_defaults() -> None:
    stated = dict(re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE))
    defaults = {name.replace("-", "_"): float(value) for name, value in stated.items()}
    options = GatewayOptions()
    assert defaults == {name: getattr(options, name) for name in defaults}
    assert {name for name in vars(options) if name.startswith("max_")} <= set(defaults)
    assert f"default {DEFAULT_MAX_TOKENS} in completions" in PAGE
    assert f"at most {MAX_STREAMED_PROMPTS} prompts" in PAGE


def test_the_page_has_every_metric() -> None:
    metrics = GatewayMetrics()
    metrics.observe_running(lambda: 0)
    names = {
        each.name + "_total" * (each.type == "counter")
        for each in metrics.registry.collect()
        if each.name.startswith("gpt2flow")
    }
    assert set(rows("Log and metrics")) == names

"""Examples of docs/kserve.md, run verbatim, and its tables."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from tests.support.doc_pages import ADDRESS, DOCS, blocks
from tests.support.interop_environment import environment, python_of
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process
from tests.support.waiting import SECONDS

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.kserve import KSERVE_RPCS
from gpt2flow.server.kserve.fields import INPUTS, OUTPUTS, USUAL_OUTPUTS, Form

PAGE = (DOCS / "kserve.md").read_text(encoding="utf-8")
SHAPES = {
    Form.ONE: "`[1]`",
    Form.LIST: "`[n]` or `[n, 1]`",
    Form.ROWS: "`[tokens]` or `[n, tokens]`",
}


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    [command] = [block for block in blocks("kserve.md") if block.startswith("gpt2flow serve")]
    assert "--model-control" in command
    with server_process(
        SHIPPED_BUNDLE, folder, "--model-control", name="shop", limits=()
    ) as server:
        yield server.address


def rows(title: str) -> dict[str, list[str]]:
    """Return the cells of a section's table, by each name."""
    text = re.split(r"^#+ ", PAGE.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|"):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", first), rest)
    return found


@pytest.mark.process
def test_the_examples_run(address: str) -> None:
    code = "\n".join(blocks("kserve.md", "python"))
    assert ADDRESS in code
    done = subprocess.run(
        [str(python_of("triton")), "-c", code.replace(ADDRESS, address)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    whole, first, second, state, ready, error = done.stdout.splitlines()
    assert whole == first == '{"action":"add_to_cart","product":"umbrellas","quantity":2}'
    assert '"kettles"' in second
    assert (state, ready) == ("UNAVAILABLE", "True")
    assert f"It prints `{error}`." in PAGE


def test_the_table_of_inputs_is_that_of_the_server() -> None:
    found = rows("Inputs")
    assert set(found) == set(INPUTS)
    for name, (datatype, shape, _) in found.items():
        field = INPUTS[name]
        assert (datatype, shape) == (field.kind.value[0], SHAPES[field.form]), name


def test_the_table_of_outputs_is_that_of_the_server() -> None:
    found = rows("Outputs")
    assert set(found) == set(OUTPUTS)
    for name, (datatype, shape, default, _) in found.items():
        field = OUTPUTS[name]
        rank = "`[rows, tokens]`" if field.per_token else "`[rows]`"
        assert (datatype, shape) == (field.datatype, rank), name
        assert (default == "yes") == (name in USUAL_OUTPUTS), name
    assert set(re.findall(r"`(\w+)`", found["finish_reason"][-1])) == {
        reason.value for reason in FinishReason
    }


def test_every_call_is_on_the_page() -> None:
    inference = {"ModelInfer", "ModelStreamInfer", "RepositoryModelLoad", "RepositoryModelUnload"}
    assert set(rows("Other calls")) | inference == KSERVE_RPCS

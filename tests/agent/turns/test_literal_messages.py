"""A message spells no special token, whatever the model's vocabulary is."""

from collections.abc import Iterator

import pytest
from tests.support.server_process import server_process
from tests.support.shipped_server import address
from tests.support.vocabulary_models import make_model

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.flows.prompt import PromptState, first_prompt, normalize
from gpt2flow.agent.turns.model import ServedModel
from gpt2flow.client import Client

__all__ = ["address"]
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def other_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a model with special tokens such as `</s>`."""
    folder = tmp_path_factory.mktemp("other")
    with server_process(make_model("Unigram", folder).bundle, folder, limits=()) as server:
        yield server.address


def count(client: Client, text: str, *, literal: bool) -> int:
    return len(client.tokenize(text, literal=literal, add_special_tokens=False))


@pytest.mark.parametrize(
    "message", ["a cup < 12 euros", "[urgent] where is <my> order?", "<|user|>杯子 <|act|>", "hi"]
)
def test_brackets_do_not_change_the_tokens_of_a_prompt(address: str, message: str) -> None:
    state = PromptState(frozenset({"cart"}))
    prompt = first_prompt(load_flows().shared, state, normalize(message))
    with Client(address) as client:
        model = ServedModel(address, "", 60.0)
        answer = model.choose(prompt, 'start: "a"')
        model.close()
        assert answer.prompt_tokens == count(client, prompt, literal=False)


def test_a_message_spells_no_special_token(other_address: str) -> None:
    control, message = "<|user|>", "学生 </s>学校<pad>"
    with Client(other_address) as client:
        model = ServedModel(other_address, "", 60.0)
        answer = model.choose(f"{control}{message}", 'start: "学生"')
        model.close()
        literal = count(client, control, literal=False) + count(client, message, literal=True)
        assert answer.prompt_tokens == literal
        assert count(client, message, literal=True) > count(client, message, literal=False)

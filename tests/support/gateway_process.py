"""Gateway process on a free port, in front of a server."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.http_process import EndpointProcess, endpoint_process
from tests.support.project import PROJECT

TEMPLATE = PROJECT / "tests" / "gateway" / "shop.jinja"
PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
MESSAGES = [
    {"role": "system", "content": "guest"},
    {"role": "user", "content": "two umbrellas please"},
]


@dataclass(frozen=True)
class RunningGateway:
    """Gateway in a process of its own.

    Attributes:
        process: The process, with its log and a client of its port.
    """

    process: EndpointProcess

    @property
    def client(self) -> httpx.Client:
        return self.process.client

    @property
    def url(self) -> str:
        """Base URL that a client of OpenAI's API takes."""
        return f"{str(self.client.base_url).rstrip('/')}/v1"

    def complete(self, prompt: Any = PROMPT, **fields: Any) -> httpx.Response:
        """Post a completion, greedy unless the fields say otherwise."""
        return self.post("completions", **{"prompt": prompt, "temperature": 0, **fields})

    def chat(self, messages: Any = MESSAGES, **fields: Any) -> httpx.Response:
        """Post a chat completion, greedy unless the fields say otherwise."""
        return self.post("chat/completions", **{"messages": messages, "temperature": 0, **fields})

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """Post fields to the model `shop`."""
        return self.client.post(f"/v1/{path}", json={"model": "shop"} | fields)


@contextmanager
def gateway_process(
    server: str, folder: Path, *options: str, chat_template: str = str(TEMPLATE)
) -> Iterator[RunningGateway]:
    """Run `gpt2flow gateway` until the block ends.

    Args:
        server: Address of the server.
        folder: Directory to write the log and the ready file to.
        options: Further options.
        chat_template: Value of `--chat-template`; empty gives none.
    """
    arguments = ["--address", "127.0.0.1:0", "--ready-file", str(folder / "port")]
    arguments += ["--chat-template", chat_template] if chat_template else []
    command = ("gpt2flow.cli", "gateway", *arguments, "--server", server, *options)
    with endpoint_process(folder, *command) as process:
        yield RunningGateway(process)


def answered(response: httpx.Response) -> dict[str, Any]:
    """Return the answer of a request that must succeed."""
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def refusal(response: httpx.Response) -> tuple[int, str | None, str | None, str]:
    """Return status, param, code and message of an error in OpenAI's form."""
    [(name, error)] = response.json().items()
    assert name == "error"
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["param"], error["code"], error["message"]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream that ended as it should."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *parts, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def contents(chunks: Sequence[dict[str, Any]]) -> dict[int, str]:
    """Return the text of each choice of a streamed completion."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts

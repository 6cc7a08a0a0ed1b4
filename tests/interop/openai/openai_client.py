"""Program with the package `openai`, in an environment of its own.

Usage: python openai_client.py URL

It prints what it got as JSON; its caller compares that with gRPC.
"""

import asyncio
import json
import sys
from typing import Any

import openai

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
MESSAGES: Any = [
    {"role": "system", "content": "guest"},
    {"role": "user", "content": "two umbrellas please"},
]
SCHEMA = {
    "type": "object",
    "properties": {"product": {"enum": ["umbrella", "kettle"]}},
    "required": ["product"],
    "additionalProperties": False,
}
FUNCTION = {"name": "add_to_cart", "description": "Add a product", "parameters": SCHEMA}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
GREEDY: Any = {"model": "shop", "temperature": 0, "seed": 1}


def completions(client: openai.OpenAI) -> dict[str, Any]:
    """Return completions, whole and streamed."""
    whole = client.completions.create(prompt=PROMPT, max_tokens=30, **GREEDY)
    chunks = list(
        client.completions.create(
            prompt=PROMPT,
            max_tokens=30,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    echo = client.completions.create(prompt=PROMPT, max_tokens=1, echo=True, logprobs=1, **GREEDY)
    beams = client.completions.create(
        model="shop", prompt=PROMPT, max_tokens=8, extra_body={"num_beams": 3}
    )
    return {
        "text": whole.choices[0].text,
        "usage": whole.usage and whole.usage.model_dump(),
        "streamed": "".join(chunk.choices[0].text for chunk in chunks if chunk.choices),
        "streamed_usage": chunks[-1].usage and chunks[-1].usage.model_dump(),
        "echo": echo.choices[0].logprobs and echo.choices[0].logprobs.model_dump(),
        "beams": beams.choices[0].text,
    }


def chats(client: openai.OpenAI) -> dict[str, Any]:
    """Return chat completions: text, schema, tool, and a streamed tool."""
    create = client.chat.completions.create
    plain = create(messages=MESSAGES, logprobs=True, top_logprobs=1, **GREEDY)
    form: Any = {"type": "json_schema", "json_schema": {"name": "wish", "schema": SCHEMA}}
    schema = create(messages=MESSAGES, response_format=form, **GREEDY)
    called = create(messages=MESSAGES, tools=TOOLS, tool_choice="required", **GREEDY)
    calls = called.choices[0].message.tool_calls or []
    with client.chat.completions.stream(
        messages=MESSAGES, tools=TOOLS, tool_choice="required", **GREEDY
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls or []
    logprobs = plain.choices[0].logprobs
    return {
        "text": plain.choices[0].message.content,
        "tokens": [entry.token for entry in (logprobs and logprobs.content) or ()],
        "schema": schema.choices[0].message.content,
        "calls": [each.function.model_dump() for each in calls if each.type == "function"],
        "finish_reason": called.choices[0].finish_reason,
        "streamed_calls": [
            {"name": each.function.name, "arguments": each.function.arguments} for each in streamed
        ],
    }


async def parallel(url: str) -> list[str]:
    """Return the texts of streams that run at the same time."""

    async def read(client: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await client.completions.create(prompt=prompt, max_tokens=8, stream=True, **GREEDY)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        return await asyncio.gather(*[read(client, f"{PROMPT}{i}") for i in range(8)])


def errors(client: openai.OpenAI) -> dict[str, Any]:
    """Return what is raised for bad requests, by their kind."""
    requests: dict[str, dict[str, Any]] = {
        "unknown model": {"model": "other"},
        "unknown field": {"extra_body": {"temperatur": 1}},
        "bad value": {"top_p": 2},
        "too long": {"max_tokens": 100_000},
        "too many": {"n": 10_000},
        "bad schema": {"extra_body": {"json_schema": {"type": "nothing"}}},
    }
    found: dict[str, Any] = {}
    for name, fields in requests.items():
        try:
            client.completions.create(**{"model": "shop", "prompt": PROMPT, **fields})
        except openai.APIStatusError as error:
            found[name] = {"class": type(error).__name__, "param": error.param, "code": error.code}
    return found


def main(url: str) -> None:
    """Print all results."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        results = {
            "models": [model.id for model in client.models.list()],
            "model": client.models.retrieve("shop").id,
            "completions": completions(client),
            "chats": chats(client),
            "errors": errors(client),
        }
    results["parallel"] = asyncio.run(parallel(url))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

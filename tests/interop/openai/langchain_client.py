"""Program with the package `langchain-openai`, in an environment of its own.

Usage: python langchain_client.py URL

It prints what it got as JSON; its caller compares that with gRPC.
"""

import asyncio
import json
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
MESSAGES: list[Any] = [SystemMessage("guest"), HumanMessage("two umbrellas please")]


class Wish(BaseModel):
    """Product that a customer wants."""

    product: Literal["umbrella", "kettle"]


@tool  # type: ignore[untyped-decorator,unused-ignore] # mypy runs without the package.
def add_to_cart(product: Literal["umbrella", "kettle"]) -> str:
    """Add a product to the cart."""
    return f"added {product}"


def chat(url: str, **options: Any) -> ChatOpenAI:
    """Return a chat model of the gateway."""
    options = {"model": "shop", "base_url": url, "api_key": "none", "temperature": 0} | options
    return ChatOpenAI(**options)


def use_tools(url: str) -> dict[str, Any]:
    """Return a call of a tool, and the answer to its result."""
    model = chat(url)
    answer = model.bind_tools([add_to_cart], tool_choice="any").invoke(MESSAGES)
    [call] = answer.tool_calls
    result = ToolMessage(add_to_cart.invoke(call["args"]), tool_call_id=call["id"])
    after = model.bind(max_tokens=4).invoke([*MESSAGES, answer, result])
    return {"name": call["name"], "args": call["args"], "after": after.content}


async def streamed(url: str) -> str:
    """Return the text of a stream."""
    return "".join([str(part.content) async for part in chat(url).astream(MESSAGES)])


def main(url: str) -> None:
    """Print all results."""
    settings: Any = {"model": "shop", "base_url": url, "api_key": "none", "temperature": 0}
    completion = OpenAI(max_tokens=30, **settings)
    best = OpenAI(max_tokens=8, best_of=3, **settings)
    structured = chat(url).with_structured_output(Wish, method="json_schema")
    answer = chat(url).invoke(MESSAGES)
    wish: Any = structured.invoke(MESSAGES)
    results = {
        "completion": completion.invoke(PROMPT),
        "batch": completion.bind(max_tokens=4).batch([PROMPT, f"{PROMPT}2"]),
        "streamed_completion": "".join(completion.stream(PROMPT)),
        "best": best.invoke(PROMPT),
        "chat": answer.content,
        "usage": answer.usage_metadata,
        "streamed_chat": asyncio.run(streamed(url)),
        "wish": wish.product,
        "tools": use_tools(url),
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

"""Prompts of conversations: special tokens come from the template alone."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

from gpt2flow.client import AsyncClient, Prompt, Text
from gpt2flow.gateway.chat.templates import ChatTemplate
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.messages import AssistantMessage, ChatMessage, ToolCall, content_text

# Characters of private use, around each content whose special tokens are text.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


async def chat_prompt(fields: ChatRequest, template: ChatTemplate, client: AsyncClient) -> Prompt:
    """Return the prompt of a conversation.

    Special tokens that are written out in a message are text like any other, so that a message
    cannot pose as another one.

    Args:
        fields: Fields of the request.
        template: Template of the model.
        client: Client of the server, whose tokenizer knows the special tokens.

    Raises:
        ApiError: The template refuses the messages.
        ClientError: A call of the server failed.
    """
    messages = [_written(message, i) for i, message in enumerate(fields.messages)]
    text = "\n".join(message["content"] or "" for message in messages)
    if text and await _has_special_tokens(text, fields.model, client):
        return await _marked_prompt(fields, messages, template, client)
    rendered = _render(fields, messages, template)
    return Text(rendered, add_special_tokens=False)


async def _has_special_tokens(text: str, model: str, client: AsyncClient) -> bool:
    """Return whether a text has special tokens, unless it is literal."""
    read = [
        client.tokenize(text, literal=literal, add_special_tokens=False, model=model)
        for literal in (False, True)
    ]
    as_read, as_text = await asyncio.gather(*read)
    return [token.id for token in as_read] != [token.id for token in as_text]


async def _marked_prompt(
    fields: ChatRequest,
    messages: Sequence[dict[str, Any]],
    template: ChatTemplate,
    client: AsyncClient,
) -> list[int]:
    """Return the tokens of a conversation whose contents are literal."""
    marked = [
        {**each, "content": each["content"] and f"{_OPEN}{_bare(each['content'])}{_CLOSE}"}
        for each in messages
    ]
    ids: list[int] = []
    parts = re.split(f"[{_OPEN}{_CLOSE}]", _render(fields, marked, template))
    # Parts at odd positions stood between the two characters.
    for i, part in enumerate(parts):
        if part:
            tokens = await client.tokenize(
                part, literal=i % 2 == 1, add_special_tokens=False, model=fields.model
            )
            ids += [token.id for token in tokens]
    return ids


def _bare(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _render(fields: ChatRequest, messages: Sequence[dict[str, Any]], template: ChatTemplate) -> str:
    tools = [
        {
            "type": "function",
            "function": {
                "name": each.function.name,
                "description": each.function.description or "",
                "parameters": each.function.parameters or {"type": "object", "properties": {}},
            },
        }
        for each in fields.tools or ()
    ]
    variables = {
        "tools": None if fields.tool_choice == "none" else tools or None,
        "add_generation_prompt": fields.add_generation_prompt is not False,
    }
    return template.render(messages, variables | (fields.chat_template_kwargs or {}))


def _written(message: ChatMessage, index: int) -> dict[str, Any]:
    """Return a message as templates expect it."""
    role = "system" if message.role == "developer" else message.role
    written: dict[str, Any] = {"role": role, "content": content_text(message.content)}
    if message.name is not None:
        written["name"] = message.name
    if isinstance(message, AssistantMessage):
        if message.content is None:
            written["content"] = None
        if message.tool_calls:
            written["tool_calls"] = [
                _written_call(call, f"messages[{index}].tool_calls[{i}]")
                for i, call in enumerate(message.tool_calls)
            ]
    elif message.role == "tool":
        written["tool_call_id"] = message.tool_call_id
    return written


def _written_call(call: ToolCall, path: str) -> dict[str, Any]:
    """Return a call with arguments as an object, as in transformers."""
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError) as error:
        raise invalid_field(f"{path}.function.arguments", "is not JSON") from error
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": call.type, "function": function}

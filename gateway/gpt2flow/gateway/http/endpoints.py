"""Routes that generate: completions and chat completions."""

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gpt2flow.client import ClientError, InvalidRequestError, Prompt, SettingsError, Text
from gpt2flow.gateway.answers.chat import ChatWriter
from gpt2flow.gateway.answers.completions import CompletionWriter
from gpt2flow.gateway.answers.envelope import Envelope
from gpt2flow.gateway.answers.failures import to_api_error
from gpt2flow.gateway.chat.prompts import chat_prompt
from gpt2flow.gateway.chat.templates import ChatTemplates
from gpt2flow.gateway.chat.tools import tool_grammar
from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import ApiError, invalid_field
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.completion import CompletionRequest
from gpt2flow.gateway.fields.generation import GenerationFields
from gpt2flow.gateway.fields.parsing import parse_fields
from gpt2flow.gateway.http.admission import Admission, request_id
from gpt2flow.gateway.http.answering import while_connected
from gpt2flow.gateway.http.backend import Backend
from gpt2flow.gateway.http.drain import Drain
from gpt2flow.gateway.http.generations import Responder, Writer
from gpt2flow.gateway.plan.chat import plan_chat
from gpt2flow.gateway.plan.completions import plan_completion
from gpt2flow.gateway.plan.plan import Plan

COMPLETIONS: Final = "/v1/completions"
CHAT_COMPLETIONS: Final = "/v1/chat/completions"


class GenerationRoutes:
    """Routes `/v1/completions` and `/v1/chat/completions`.

    Args:
        config: Settings of the gateway.
        backend: Connection to the server.
        admission: Checks of a request.
        drain: Drain of the gateway.
        templates: Chat templates of the models.
    """

    def __init__(
        self,
        config: GatewayConfig,
        backend: Backend,
        admission: Admission,
        drain: Drain,
        templates: ChatTemplates,
    ) -> None:
        self._backend = backend
        self._admission = admission
        self._drain = drain
        self._templates = templates
        self._responder = Responder(backend.client, drain, config.request_timeout)

    async def post_completion(self, request: Request) -> Response:
        """Continue prompts."""
        self._admission.admit(request)
        fields = parse_fields(CompletionRequest, await self._admission.body(request))
        call_id = request_id(request)
        try:
            plan = plan_completion(fields)
            starts = await self._starts(request, plan)
        except (ClientError, SettingsError) as error:
            raise to_api_error(error) from error
        envelope = _envelope("cmpl", "text_completion", fields, call_id)
        return await self._respond(request, fields, plan, CompletionWriter(envelope, plan, starts))

    async def post_chat_completion(self, request: Request) -> Response:
        """Answer a conversation."""
        self._admission.admit(request)
        fields = parse_fields(ChatRequest, await self._admission.body(request))
        call_id = request_id(request)
        try:
            tools = tool_grammar(fields)
            plan = plan_chat(fields, await self._chat_prompt(request, fields), tools)
        except InvalidRequestError as error:
            raise invalid_field("messages", str(error)) from error
        except (ClientError, SettingsError) as error:
            raise to_api_error(error) from error
        kind = "chat.completion.chunk" if fields.stream else "chat.completion"
        envelope = _envelope("chatcmpl", kind, fields, call_id)
        writer = ChatWriter(envelope, plan, tools.starts if tools else {})
        return await self._respond(request, fields, plan, writer)

    async def _respond(
        self, request: Request, fields: GenerationFields, plan: Plan, writer: Writer
    ) -> Response:
        if fields.stream:
            return self._responder.stream(request, plan, writer)
        return await self._responder.answer(request, plan, writer)

    async def _starts(self, request: Request, plan: Plan) -> list[int]:
        """Return the characters of each prompt, if positions are asked for."""
        if not plan.options.logprobs or plan.options.echo:
            return [0] * len(plan.prompts)
        lengths = self._lengths(plan.prompts, plan.model)
        return await while_connected(request.receive, self._drain, lengths)

    async def _lengths(self, prompts: Sequence[Prompt], model: str) -> list[int]:
        return await asyncio.gather(*[self._length(each, model) for each in prompts])

    async def _length(self, prompt: Prompt, model: str) -> int:
        if isinstance(prompt, str):
            return len(prompt)
        if isinstance(prompt, Text):
            return len(prompt.text)
        return len(await self._backend.client.detokenize(prompt, model=model))

    async def _chat_prompt(self, request: Request, fields: ChatRequest) -> Prompt:
        client = self._backend.client
        template = self._templates.get(fields.model)
        if template is None:
            # An unknown model is an error of its own.
            await client.model(fields.model)
            raise ApiError(
                400,
                f"the model {fields.model!r} has no chat template, which --chat-template gives"
                f" it; use {COMPLETIONS}",
                param="model",
                code="no_chat_template",
            )
        prompt = chat_prompt(fields, template, client)
        return await while_connected(request.receive, self._drain, prompt)


def _envelope(prefix: str, kind: str, fields: GenerationFields, call_id: str) -> Envelope:
    return Envelope(f"{prefix}-{call_id}", kind, fields.model, fields.includes_usage)

"""Protocol requests shared by the synchronous and the asyncio client."""

from collections.abc import Iterable

from gpt2flow.client import validation
from gpt2flow.client.options import Options
from gpt2flow.client.prompts import Prompt, build_prompt, build_prompts
from gpt2flow.inference.v1 import inference_pb2 as pb


def build_generate(prompts: Iterable[Prompt], options: Options, model: str) -> pb.GenerateRequest:
    """Return the request of a unary generation of several prompts."""
    return pb.GenerateRequest(
        model=validation.text("model", model),
        prompts=build_prompts("prompts", prompts),
        options=_options(options),
    )


def build_single(prompt: Prompt, options: Options, model: str) -> pb.GenerateRequest:
    """Return the request of a unary generation of one prompt."""
    return pb.GenerateRequest(
        model=validation.text("model", model),
        prompts=[build_prompt("prompt", prompt)],
        options=_options(options),
    )


def build_stream(prompt: Prompt, options: Options, model: str) -> pb.GenerateStreamRequest:
    """Return the request of a streamed generation."""
    return pb.GenerateStreamRequest(
        model=validation.text("model", model),
        prompt=build_prompt("prompt", prompt),
        options=_options(options),
    )


def build_score(prompt: Prompt, continuations: Iterable[Prompt], model: str) -> pb.ScoreRequest:
    """Return the request to score continuations of a prompt."""
    return pb.ScoreRequest(
        model=validation.text("model", model),
        prompt=build_prompt("prompt", prompt),
        continuations=build_prompts("continuations", continuations),
    )


def build_tokenize(
    text: str, *, literal: bool, add_special_tokens: bool, model: str
) -> pb.TokenizeRequest:
    """Return the request to encode text."""
    return pb.TokenizeRequest(
        model=validation.text("model", model),
        text=validation.text("text", text),
        literal=validation.boolean("literal", literal),
        add_special_tokens=validation.boolean("add_special_tokens", add_special_tokens),
    )


def build_detokenize(
    tokens: Iterable[int], *, skip_special_tokens: bool, model: str
) -> pb.DetokenizeRequest:
    """Return the request to decode token ids."""
    return pb.DetokenizeRequest(
        model=validation.text("model", model),
        tokens=pb.TokenIds(ids=validation.token_ids("tokens", tokens)),
        skip_special_tokens=validation.boolean("skip_special_tokens", skip_special_tokens),
    )


def build_get_model(name: str) -> pb.GetModelRequest:
    """Return the request to describe a model."""
    return pb.GetModelRequest(model=validation.text("name", name))


def _options(options: Options) -> pb.GenerationOptions:
    validation.check_type("options", options, (Options,), "Options")
    return options.message()

"""Builds the messages that the sync and the async client both send."""

from collections.abc import Sequence

from gpt2flow.client.options import Options, Prompt, prompt_message
from gpt2flow.inference.v1 import inference_pb2 as pb


def generate_request(prompts: Sequence[Prompt], options: Options, model: str) -> pb.GenerateRequest:
    """The unary request."""
    return pb.GenerateRequest(
        model=model, prompts=[prompt_message(p) for p in prompts], options=options.message()
    )


def stream_request(prompt: Prompt, options: Options, model: str) -> pb.GenerateStreamRequest:
    """The streaming request."""
    return pb.GenerateStreamRequest(
        model=model, prompt=prompt_message(prompt), options=options.message()
    )


def score_request(prompt: Prompt, continuations: Sequence[Prompt], model: str) -> pb.ScoreRequest:
    """The request to score `continuations`."""
    return pb.ScoreRequest(
        model=model,
        prompt=prompt_message(prompt),
        continuations=[prompt_message(c) for c in continuations],
    )


def detokenize_request(tokens: Sequence[int], model: str) -> pb.DetokenizeRequest:
    """The request for the text of `tokens`."""
    return pb.DetokenizeRequest(model=model, tokens=pb.TokenIds(ids=tokens))

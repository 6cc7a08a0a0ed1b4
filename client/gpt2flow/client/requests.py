"""Protocol requests shared by the synchronous and the asyncio client."""

from collections.abc import Sequence

from gpt2flow.client.options import Options, Prompt, build_prompt
from gpt2flow.inference.v1 import inference_pb2 as pb


def build_generate(prompts: Sequence[Prompt], options: Options, model: str) -> pb.GenerateRequest:
    """Return the request of a unary generation."""
    return pb.GenerateRequest(
        model=model, prompts=[build_prompt(p) for p in prompts], options=options.message()
    )


def build_stream(prompt: Prompt, options: Options, model: str) -> pb.GenerateStreamRequest:
    """Return the request of a streamed generation."""
    return pb.GenerateStreamRequest(
        model=model, prompt=build_prompt(prompt), options=options.message()
    )


def build_score(prompt: Prompt, continuations: Sequence[Prompt], model: str) -> pb.ScoreRequest:
    """Return the request to score continuations of a prompt."""
    return pb.ScoreRequest(
        model=model,
        prompt=build_prompt(prompt),
        continuations=[build_prompt(c) for c in continuations],
    )


def build_detokenize(tokens: Sequence[int], model: str) -> pb.DetokenizeRequest:
    """Return the request to decode token ids."""
    return pb.DetokenizeRequest(model=model, tokens=pb.TokenIds(ids=tokens))

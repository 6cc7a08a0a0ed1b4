"""Program with the package `tritonclient`, in an environment of its own.

Usage: python triton_client.py ADDRESS

It prints what it got as JSON; its caller compares that with gpt2flow's own client.
"""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
MODEL = "shop"
SCHEMA = '{"enum": ["umbrella", "kettle"]}'


def tensor(name: str, datatype: str, values: Any, shape: list[int] | None = None) -> Any:
    """Return an input of one dimension, or of the given shape."""
    kind = object if datatype == "BYTES" else triton_dtype(datatype)
    array = np.array(values, dtype=kind).reshape(shape or [-1])
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def triton_dtype(datatype: str) -> Any:
    """Return NumPy's type of a datatype."""
    return {"INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32, "BOOL": np.bool_}[datatype]


def greedy(prompts: list[str], max_tokens: int) -> list[Any]:
    """Return the inputs of greedy decoding."""
    return [
        tensor("text_input", "BYTES", prompts),
        tensor("max_tokens", "INT32", [max_tokens]),
        tensor("temperature", "FP32", [0.0]),
    ]


def texts(result: Any) -> list[str]:
    """Return the text of each row."""
    return [each.decode() for each in result.as_numpy("text_output")]


def descriptions(client: Any) -> dict[str, Any]:
    """Return what the server says about itself and the model."""
    metadata = client.get_model_metadata(MODEL, as_json=True)
    config = client.get_model_config(MODEL, as_json=True)["config"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready(MODEL), client.is_model_ready("none")],
        "server": client.get_server_metadata(as_json=True),
        "inputs": {each["name"]: each["datatype"] for each in metadata["inputs"]},
        "outputs": {each["name"]: each["datatype"] for each in metadata["outputs"]},
        "decoupled": config["model_transaction_policy"]["decoupled"],
    }


def inferences(client: Any) -> dict[str, Any]:
    """Return responses of single requests."""
    whole = client.infer(MODEL, greedy([PROMPT, f"{PROMPT}2"], 24), request_id="one")
    ids = client.infer(
        MODEL,
        [tensor("input_ids", "INT32", [5, 6, 7, 8], [2, 2]), *greedy([PROMPT], 5)[1:]],
        outputs=[
            triton.InferRequestedOutput("output_ids"),
            triton.InferRequestedOutput("output_log_probs"),
        ],
    )
    sampled = client.infer(
        MODEL,
        [tensor("text_input", "BYTES", [PROMPT]), tensor("seed", "UINT64", [2**63 + 1])],
        parameters={"temperature": 0.75, "top_k": 20, "n": 3, "max_tokens": 6},
    )
    beams = client.infer(
        MODEL,
        [tensor("text_input", "BYTES", [PROMPT]), tensor("beam_width", "INT32", [3])],
        parameters={"max_tokens": 8},
    )
    schema = client.infer(
        MODEL, [*greedy([PROMPT], 24), tensor("json_schema", "BYTES", [SCHEMA])], timeout=60_000_000
    )
    return {
        "id": whole.get_response().id,
        "texts": texts(whole),
        "tokens": whole.as_numpy("num_output_tokens").tolist(),
        "reasons": [each.decode() for each in whole.as_numpy("finish_reason")],
        "ids": ids.as_numpy("output_ids").tolist(),
        "logprobs": ids.as_numpy("output_log_probs").tolist(),
        "no text": ids.as_numpy("text_output") is None,
        "sampled": texts(sampled),
        "beams": texts(beams),
        "schema": texts(schema)[0],
    }


def streamed(client: Any) -> dict[str, Any]:
    """Return texts and errors of requests that share a stream."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    prompts = {str(number): f"{PROMPT}{number}" for number in range(4)}
    for request_id, prompt in prompts.items():
        client.async_stream_infer(
            MODEL,
            greedy([prompt], 16),
            request_id=request_id,
            enable_empty_final_response=True,
        )
    client.async_stream_infer("none", greedy([PROMPT], 2), request_id="bad")
    found, open_ids, chunks = dict.fromkeys(prompts, ""), set(prompts), 0
    refusals: list[str] = []
    while open_ids or not refusals:
        result, error = answers.get(timeout=60)
        if error is not None:
            refusals.append(error.message())
            continue
        response = result.get_response()
        found[response.id] += texts(result)[0]
        chunks += 1
        if response.parameters["triton_final_response"].bool_param:
            open_ids.remove(response.id)
    client.stop_stream()
    return {"texts": list(found.values()), "errors": refusals, "chunks": chunks}


def cancelled(client: Any) -> bool:
    """Cancel a stream; return whether the server goes on."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(MODEL, greedy([PROMPT], 200))
    answers.get(timeout=60)
    client.stop_stream(cancel_requests=True)
    return bool(client.infer(MODEL, greedy([PROMPT], 2)))


async def asynchronous(address: str) -> dict[str, Any]:
    """Return texts of the asyncio client, single and streamed."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": MODEL, "inputs": greedy([PROMPT], 24)}

    async with triton_aio.InferenceServerClient(address) as client:
        single = await asyncio.gather(
            *[client.infer(MODEL, greedy([f"{PROMPT}{number}"], 16)) for number in range(4)]
        )
        stream = client.stream_infer(requests())
        pieces = [texts(result)[0] async for result, _ in stream]
    return {"texts": [texts(each)[0] for each in single], "stream": "".join(pieces)}


def errors(client: Any) -> dict[str, list[str]]:
    """Return status and text of bad requests, by their kind."""
    lines: dict[str, tuple[str, list[Any]]] = {
        "unknown model": ("none", greedy([PROMPT], 2)),
        "missing": (MODEL, greedy([PROMPT], 2)[1:]),
        "type": (MODEL, [*greedy([PROMPT], 2), tensor("top_k", "FP32", [1.0])]),
        "shape": (MODEL, [*greedy([PROMPT], 2), tensor("top_k", "INT32", [1, 2])]),
        "unknown": (MODEL, [*greedy([PROMPT], 2), tensor("tempo", "INT32", [1])]),
        "slots": (MODEL, [tensor("text_input", "BYTES", [PROMPT]), tensor("n", "INT32", [9999])]),
    }
    found = {}
    for kind, (model, inputs) in lines.items():
        try:
            client.infer(model, inputs)
        except InferenceServerException as error:
            found[kind] = [error.status(), error.message()]
    return found


def repository(client: Any) -> dict[str, Any]:
    """Return states around an unload and a load."""

    def states() -> dict[str, str]:
        index = client.get_model_repository_index(as_json=True)
        return {each["name"]: each["state"] for each in index["models"]}

    found: dict[str, Any] = {"before": states()}
    client.unload_model(MODEL)
    found["unloaded"] = [states(), client.is_model_ready(MODEL)]
    try:
        client.infer(MODEL, greedy([PROMPT], 2))
    except InferenceServerException as error:
        found["refusal"] = error.status()
    client.load_model(MODEL)
    found["loaded"] = [states(), client.is_model_ready(MODEL)]
    found["text"] = texts(client.infer(MODEL, greedy([PROMPT], 24)))[0]
    return found


def main(address: str) -> None:
    """Print all results."""
    with triton.InferenceServerClient(address) as client:
        results = {
            "descriptions": descriptions(client),
            "inferences": inferences(client),
            "streamed": streamed(client),
            "cancelled": cancelled(client),
            "errors": errors(client),
            "asynchronous": asyncio.run(asynchronous(address)),
            "repository": repository(client),
        }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

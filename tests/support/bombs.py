"""Compressed messages that are far larger than a server accepts."""

from pathlib import Path
from typing import Any

import grpc

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

BOMB_BYTES = 64 * 2**20
# Most memory that a refusal may take. A server that inflates the bomb takes all of `BOMB_BYTES`.
MAX_GROWTH = BOMB_BYTES // 4
_SECONDS = 120.0


def refusal_of_bomb(address: str) -> grpc.StatusCode:
    """Send a compressed message of `BOMB_BYTES`, and return its status."""
    request = pb.TokenizeRequest(text="a" * BOMB_BYTES)
    with grpc.insecure_channel(address) as channel:
        stub: Any = InferenceServiceStub(channel)
        try:
            stub.Tokenize(request, compression=grpc.Compression.Gzip, timeout=_SECONDS)
        except grpc.RpcError as error:
            status: grpc.StatusCode = error.code()
            return status
    return grpc.StatusCode.OK


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1024

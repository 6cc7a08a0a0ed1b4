"""Descriptions of the server and its models."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.kserve.fields import INPUTS, OUTPUTS
from gpt2flow.server.kserve.results import VERSION

_NAME: Final = "gpt2flow"
_PLATFORM: Final = "gpt2flow_onnx"
_EXTENSIONS: Final = ("model_configuration", "model_repository", "parameters")
_TYPES: Final = {
    "BOOL": pb.TYPE_BOOL,
    "BYTES": pb.TYPE_STRING,
    "FP32": pb.TYPE_FP32,
    "INT32": pb.TYPE_INT32,
    "UINT64": pb.TYPE_UINT64,
}

_TensorMetadata = pb.ModelMetadataResponse.TensorMetadata


def server_metadata() -> pb.ServerMetadataResponse:
    """Return the description of the server."""
    try:
        number = version(_NAME)
    except PackageNotFoundError:  # It runs from a source tree.
        number = "unknown"
    return pb.ServerMetadataResponse(name=_NAME, version=number, extensions=_EXTENSIONS)


def model_metadata(name: str) -> pb.ModelMetadataResponse:
    """Return the description of a model; all have the same tensors."""
    return pb.ModelMetadataResponse(
        name=name,
        versions=[VERSION],
        platform=_PLATFORM,
        inputs=[
            _TensorMetadata(name=each.name, datatype=each.kind.value[0], shape=each.form.value)
            for each in INPUTS.values()
        ],
        outputs=[
            _TensorMetadata(name=each.name, datatype=each.datatype, shape=each.shape)
            for each in OUTPUTS.values()
        ],
    )


def model_config(name: str) -> pb.ModelConfigResponse:
    """Return a model in the form of Triton's configuration files.

    No input is required: a request has text or token ids.
    """
    config = pb.ModelConfig(
        name=name,
        platform=_PLATFORM,
        backend=_NAME,
        input=[
            pb.ModelInput(
                name=each.name,
                data_type=_TYPES[each.kind.value[0]],
                dims=each.form.value,
                optional=True,
            )
            for each in INPUTS.values()
        ],
        output=[
            pb.ModelOutput(name=each.name, data_type=_TYPES[each.datatype], dims=each.shape)
            for each in OUTPUTS.values()
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    return pb.ModelConfigResponse(config=config)

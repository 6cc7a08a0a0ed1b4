"""Parser of google.rpc.Status details without generated stubs.

The field numbers are those of google/rpc/status.proto and error_details.proto. The messages
have their own descriptor pool, so that they cannot collide with generated ones.
"""

from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_INT32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: "descriptor_pb2.FieldDescriptorProto.Type.ValueType",
    type_name: str = "",
    *,
    repeated: bool = False,
) -> None:
    label = descriptor_pb2.FieldDescriptorProto
    message.field.add(
        name=name,
        number=number,
        type=kind,
        type_name=type_name or None,
        label=label.LABEL_REPEATED if repeated else label.LABEL_OPTIONAL,
    )


@cache
def _message_classes() -> dict[str, type[Any]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="details.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto", "google/protobuf/duration.proto"],
    )
    status = file.message_type.add(name="Status")
    _add_field(status, "code", 1, _INT32)
    _add_field(status, "message", 2, _STRING)
    _add_field(status, "details", 3, _MESSAGE, ".google.protobuf.Any", repeated=True)
    violation = file.message_type.add(name="FieldViolation")
    _add_field(violation, "field", 1, _STRING)
    _add_field(violation, "description", 2, _STRING)
    bad_request = file.message_type.add(name="BadRequest")
    _add_field(
        bad_request, "field_violations", 1, _MESSAGE, ".google.rpc.FieldViolation", repeated=True
    )
    retry_info = file.message_type.add(name="RetryInfo")
    _add_field(retry_info, "retry_delay", 1, _MESSAGE, ".google.protobuf.Duration")
    pool = descriptor_pool.DescriptorPool()
    for dependency in (any_pb2, duration_pb2):
        pool.AddSerializedFile(dependency.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
        for name in ("Status", "BadRequest", "RetryInfo")
    }


def parse_details(status_bytes: bytes) -> tuple[list[tuple[str, str]], float | None]:
    """Return the violations and retry delay of a serialized google.rpc.Status.

    Returns:
        Violations as (field, description), and the delay in seconds, None if absent.

    Raises:
        DecodeError: The bytes are not a google.rpc.Status, or a detail is malformed.
    """
    classes = _message_classes()
    violations: list[tuple[str, str]] = []
    delay = None
    for detail in classes["Status"].FromString(status_bytes).details:
        name = detail.type_url.rpartition(".")[2]
        if name == "BadRequest":
            bad_request = classes[name].FromString(detail.value)
            violations += [(v.field, v.description) for v in bad_request.field_violations]
        elif name == "RetryInfo":
            duration = classes[name].FromString(detail.value).retry_delay
            delay = duration.seconds + duration.nanos / 1e9
    return violations, delay

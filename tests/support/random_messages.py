"""Hypothesis strategies of requests: valid, with arbitrary fields, and corrupt."""

from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from gpt2flow.inference.v1 import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
_F = FieldDescriptor
# Most characters of the strings of one field together.
_MAX_REPEATED = 50_000

# --- Arbitrary messages: each field absent, ordinary, or at the edge of its type ----------

_TEXTS = st.one_of(
    st.sampled_from(
        ["", "Where is my order?", "我想买", "\x00", "\u202e", "<|endoftext|>", "😀" * 50]
    ),
    st.sampled_from(["m", "[a-c]{2,9}", '{"type": "object"}', "start: /[a-z]{1,5}/", "((((", "{"]),
    st.sampled_from(["a" * 5000, "(a|b)*{1,99}", '{"$ref": "#"}', "start: start", ".{0,100000}"]),
    st.text(max_size=20),
)
_MODELS = st.sampled_from(["", "", "m", "m", "m", "other", "我" * 5000])
_SIZES = st.one_of(st.integers(0, 20), st.sampled_from([95, 96, 320, 2**31 - 1, 2**32 - 1]))
_REALS = st.one_of(
    st.sampled_from([0.0, 0.5, 0.9, 1.0, -1.0, 1e-30, 3e38, float("inf"), float("nan")]),
    st.floats(width=32),
)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_STRING: _TEXTS,
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_UINT32: _SIZES,
    _F.TYPE_UINT64: st.one_of(_SIZES, st.integers(0, 2**64 - 1)),
    _F.TYPE_INT32: st.one_of(st.integers(-200, 200), st.sampled_from([-(2**31), 2**31 - 1])),
    _F.TYPE_ENUM: st.one_of(st.integers(0, 6), st.sampled_from([-1, 99, 2**31 - 1])),
    _F.TYPE_FLOAT: _REALS,
}


def any_message(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Return messages of a type with arbitrary values in any fields."""
    fields = {field.name: _field(field) for field in descriptor.fields}
    kind: type[Message] = GetMessageClass(descriptor)
    # Of the fields of a `oneof`, the last one set remains.
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.name == "model":
        return _MODELS
    one = _SCALARS[field.type] if field.message_type is None else any_message(field.message_type)
    if not field.is_repeated:
        return one
    few = st.lists(one, max_size=3)
    if field.message_type is not None:
        return few
    return st.one_of(few, st.tuples(one, st.sampled_from([33, 300, 5000])).map(_repeat))


def _repeat(given: tuple[Any, int]) -> list[Any]:
    value, times = given
    if isinstance(value, str):
        # Longer messages than gRPC takes would say nothing about the server.
        times = min(times, _MAX_REPEATED // max(len(value), 1))
    return [value] * times


# --- Valid requests, and such with some fields overwritten ---------------------------------

_PROMPTS = st.one_of(
    st.text(min_size=1, max_size=20).map(lambda text: pb.Prompt(text=text)),
    st.lists(st.integers(0, 300), min_size=1, max_size=30).map(
        lambda ids: pb.Prompt(tokens=pb.TokenIds(ids=ids))
    ),
)
_SAMPLING = st.builds(
    pb.SamplingParams,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.125, 1.0),
    typical_p=st.floats(0.125, 1.0),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    no_repeat_ngram_size=st.integers(0, 3),
    bad_words=st.lists(st.sampled_from(["cup", "e", "我"]), max_size=2),
    n=st.integers(1, 4),
)
_BEAMS = st.builds(
    pb.BeamSearchParams,
    num_beams=st.integers(2, 5),
    num_return_sequences=st.integers(1, 2),
    early_stopping=st.integers(0, 3),
)
_CONSTRAINTS = st.sampled_from(
    [
        pb.Constraint(regex="[a-c]{2,9}"),
        pb.Constraint(choices=pb.Choices(values=["order", "orders", "我想买"])),
        pb.Constraint(json_schema='{"type": "integer", "maximum": 99}'),
        pb.Constraint(lark="start: /[a-z]{1,5}/"),
    ]
)
_STOPPING = st.builds(
    pb.StoppingCriteria,
    max_new_tokens=st.integers(1, 30),
    min_new_tokens=st.sampled_from([0, 1]),
    stop_strings=st.lists(st.sampled_from(["e", "is "]), max_size=2),
    time_limit_ms=st.sampled_from([0, 0, 0, 1, 50]),
    return_partial_on_time_limit=st.booleans(),
)
_OUTPUT = st.builds(
    pb.OutputOptions,
    logprobs=st.just(value=True),
    top_logprobs=st.integers(0, 5),
    prompt_logprobs=st.booleans(),
    echo=st.booleans(),
    token_ids=st.booleans(),
)


def _options() -> st.SearchStrategy[Message]:
    common: dict[str, st.SearchStrategy[Any]] = {
        "stopping": _STOPPING,
        "priority": st.integers(-100, 100),
    }
    rest: dict[str, st.SearchStrategy[Any]] = {"constraint": _CONSTRAINTS, "output": _OUTPUT}
    return st.one_of(
        st.fixed_dictionaries({"sampling": _SAMPLING, **common}, optional=rest),
        st.fixed_dictionaries({"beam_search": _BEAMS, **common}, optional=rest),
    ).map(lambda given: pb.GenerationOptions(**given))


_GOOD: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Generate": {"prompts": st.lists(_PROMPTS, min_size=1, max_size=3), "options": _options()},
    "GenerateStream": {"prompt": _PROMPTS, "options": _options()},
    "Score": {"prompt": _PROMPTS, "continuations": st.lists(_PROMPTS, min_size=1, max_size=3)},
    "Tokenize": {"text": st.text(max_size=50)},
    "Detokenize": {
        "tokens": st.builds(pb.TokenIds, ids=st.lists(st.integers(0, 300), max_size=20))
    },
    "ListModels": {},
    "GetModel": {"model": st.sampled_from(["", "m"])},
}


def valid(rpc: str) -> st.SearchStrategy[Message]:
    """Return requests that a server must accept."""
    kind: type[Message] = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)
    return st.fixed_dictionaries(_GOOD[rpc]).map(lambda given: kind(**given))


def partly_valid(rpc: str) -> st.SearchStrategy[Message]:
    """Return valid requests with an arbitrary message merged into them."""
    descriptor = SERVICE.methods_by_name[rpc].input_type

    def merged(pair: tuple[Message, Message]) -> Message:
        message = type(pair[0])()
        message.CopyFrom(pair[0])
        message.MergeFrom(pair[1])
        return message

    return st.tuples(valid(rpc), any_message(descriptor)).map(merged)


# --- Corrupt bytes -------------------------------------------------------------------------


@st.composite
def broken(draw: st.DrawFn, rpc: str) -> bytes:
    """Return a valid request with some bytes flipped, removed, repeated or inserted."""
    wire = bytearray(draw(valid(rpc)).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(wire)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "huge"]))
        if kind == "flip" and wire:
            wire[at % len(wire)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del wire[at : at + draw(st.integers(1, 9))]
        elif kind == "insert":
            wire[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "repeat":
            wire[at:at] = wire[: draw(st.integers(1, 40))] * draw(st.integers(1, 20))
        else:  # A varint, of a length or a number, that never ends.
            wire[at:at] = b"\xff" * draw(st.integers(1, 12))
    return bytes(wire)


_FILE = descriptor_pb2.FileDescriptorProto()
pb.DESCRIPTOR.CopyToProto(_FILE)
RPCS = [method.name for method in _FILE.service[0].method]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return an RPC and the bytes to send to it."""
    rpc = draw(st.sampled_from([*RPCS, "Generate", "GenerateStream", "GenerateStream"]))
    descriptor = SERVICE.methods_by_name[rpc].input_type
    kind = draw(st.sampled_from(["valid", "partly", "partly", "any", "broken"]))
    if kind == "broken":
        return rpc, draw(broken(rpc))
    strategy = {"valid": valid(rpc), "partly": partly_valid(rpc), "any": any_message(descriptor)}
    return rpc, draw(strategy[kind]).SerializeToString()

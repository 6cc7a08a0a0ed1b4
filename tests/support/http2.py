"""Bytes of HTTP/2 connections that no gRPC library would open."""

from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, _RESET, _SETTINGS, PING = 0, 1, 3, 4, 6
ACKNOWLEDGED = 1
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_ALLOW_TRUE_BINARY = 0xFE03
_CANCEL = 8
# Most bytes of a frame, unless a peer allows more.
_FRAME_BYTES = 16384


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame; stream 0 is the connection itself."""
    header = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)
    return header + payload


SETTINGS = frame(_SETTINGS)
# gRPC sends binary metadata as it is, not in base64 with Huffman codes.
TRUE_BINARY = frame(_SETTINGS, _ALLOW_TRUE_BINARY.to_bytes(2) + (1).to_bytes(4))
# The peer may send no byte of a message.
NO_WINDOW = frame(_SETTINGS, _INITIAL_WINDOW_SIZE.to_bytes(2) + (0).to_bytes(4))


def headers(path: str, stream: int, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the headers of a call.

    Args:
        path: `/SERVICE/METHOD`.
        stream: Number of the stream, which is odd.
        metadata: Metadata of the call.
    """
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **(metadata or {}),
    }
    # Literal fields, which are not indexed.
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())
    return frame(HEADERS, block, flags=_END_HEADERS, stream=stream)


def only_message(message: bytes, stream: int, *, compressed: bool = False) -> bytes:
    """Return the only message of a call, and its end."""
    body = bytes([compressed]) + len(message).to_bytes(4) + message
    parts = [body[at : at + _FRAME_BYTES] for at in range(0, len(body), _FRAME_BYTES)]
    last = len(parts) - 1
    return b"".join(
        frame(DATA, part, flags=_END_STREAM if number == last else 0, stream=stream)
        for number, part in enumerate(parts)
    )


def reset(stream: int) -> bytes:
    """Return the cancellation of a call."""
    return frame(_RESET, _CANCEL.to_bytes(4), stream=stream)


def unreadable_call(path: str, message: bytes) -> bytes:
    """Return a connection whose one call accepts no byte of its response.

    Args:
        path: `/SERVICE/METHOD`.
        message: Serialized request.
    """
    return PREFACE + NO_WINDOW + headers(path, 1) + only_message(message, 1)


def binary_metadata(received: bytes, name: str) -> bytes | None:
    """Return the value of binary metadata, if it has arrived.

    The metadata is a literal field without Huffman codes, after `TRUE_BINARY`.
    """
    _, found, rest = received.partition(name.encode("ascii"))
    if not found or not rest:
        return None
    size, at = rest[0] & 0x7F, 1
    if size == 0x7F:
        for shift in range(0, 28, 7):
            size += (rest[at] & 0x7F) << shift
            at += 1
            if rest[at - 1] < 0x80:
                break
    # A zero byte stands in front of the value.
    return rest[at + 1 : at + size] if len(rest) >= at + size else None


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")

"""Bytes of HTTP/2 connections that no gRPC library would open."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame; stream 0 is the connection itself."""
    header = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)
    return header + payload


SETTINGS = frame(_SETTINGS)


def unreadable_call(path: str, message: bytes) -> bytes:
    """Return a connection whose one call accepts no byte of its response.

    Args:
        path: `/SERVICE/METHOD`.
        message: Serialized request.
    """
    window = _INITIAL_WINDOW_SIZE.to_bytes(2) + (0).to_bytes(4)
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Literal fields, which are not indexed.
    headers = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())
    body = b"\0" + len(message).to_bytes(4) + message
    return b"".join(
        (
            PREFACE,
            frame(_SETTINGS, window),
            frame(_HEADERS, headers, flags=_END_HEADERS, stream=1),
            frame(_DATA, body, flags=_END_STREAM, stream=1),
        )
    )


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")

"""What BuildKit tells while it builds: the few fields of its trace that people want to see. No I/O.

Each line of the engine's answer holds a StatusResponse of moby.buildkit.v1.Control as protocol buffers, whose encoding
is simple enough (protobuf.dev/programming-guides/encoding) to be read here without a dependency.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

TRACE = "moby.buildkit.trace"  # the id of such a line

_VERTEXES, _LOGS = 1, 3  # of a StatusResponse
_NAME, _STARTED = 3, 5  # of a Vertex: a step
_MESSAGE = 4  # of a VertexLog: what a step writes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def told(entry: Mapping[str, object]) -> tuple[list[str], bytes]:
    """Return the names of the steps that are under way or through, and what was written, of one line of the answer.

    Nothing of a line that is none of BuildKit's, or that can't be read: it says nothing that a build depends on.
    """
    aux = entry.get("aux")
    if entry.get("id") != TRACE or not isinstance(aux, str):
        return [], b""
    steps, written = [], b""
    try:
        for number, field in _fields(base64.b64decode(aux)):
            parts = dict(_fields(field)) if number in (_VERTEXES, _LOGS) else {}
            if number == _VERTEXES and _STARTED in parts:
                steps.append(parts[_NAME].decode(errors="replace"))
            elif number == _LOGS:
                written += parts.get(_MESSAGE, b"")
    except (ValueError, LookupError):
        return [], b""
    return steps, written


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields that have bytes: texts and messages. Raises ValueError, IndexError."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("a field that is cut")
        if kind == _BYTES:
            yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        value |= (message[at] & 0x7F) << shift
        at += 1
        if not message[at - 1] & 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")

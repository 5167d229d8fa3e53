"""BuildKit's trace, as an engine sent it, and as none would."""

from __future__ import annotations

import base64

import pytest

from pytest_sandbox.engines.buildkit import TRACE, told

# From Docker 20.10: a step that begins, and what it writes.
BEGUN = (
    b"\n\xe0\x01\nGsha256:9699985ff972bc77bb92d27546b116c64c9652f0e1b3120c51a5d8ecd311a6e6"
    b"\x12Gsha256:20ee8a1d7b29b0cb60c5abeb0328b7eb417fb223c682a6f0e659ce246ffc16d0"
    b"\x1a?[stage-0 3/3] RUN for n in 1 2 3; do echo line $n; done; exit 3"
    b"*\x0b\x08\xc7\x82\xa9\xd8\x06\x10\xdf\xfb\xb24"
)
WRITTEN = (
    b"\x1ai\nGsha256:9699985ff972bc77bb92d27546b116c64c9652f0e1b3120c51a5d8ecd311a6e6"
    b'\x12\x0c\x08\xc7\x82\xa9\xd8\x06\x10\xba\xb3\xa3\xc9\x01\x18\x01"\x0eline 1\nline 2\n'
    b"\x1ab\nGsha256:9699985ff972bc77bb92d27546b116c64c9652f0e1b3120c51a5d8ecd311a6e6"
    b'\x12\x0c\x08\xc7\x82\xa9\xd8\x06\x10\x8f\x9a\xa5\xc9\x01\x18\x01"\x07line 3\n'
)
WAITING = b"\n\x12\n\x06sha256\x1a\x08a step 1"  # without a time at which it began


def entry(trace: bytes) -> dict[str, object]:
    return {"id": TRACE, "aux": base64.b64encode(trace).decode()}


def test_a_step_that_begins_and_what_it_writes() -> None:
    assert told(entry(BEGUN)) == (["[stage-0 3/3] RUN for n in 1 2 3; do echo line $n; done; exit 3"], b"")
    assert told(entry(WRITTEN)) == ([], b"line 1\nline 2\nline 3\n")
    assert told(entry(BEGUN + WRITTEN)) == (told(entry(BEGUN))[0], told(entry(WRITTEN))[1])


def test_a_step_that_waits_is_not_told() -> None:
    assert told(entry(WAITING)) == ([], b"")


def test_fields_of_other_kinds_are_passed_over() -> None:
    later = b"\x29" + bytes(8) + b"\x2d" + bytes(4) + b"\x30\x96\x01"  # fixed64, fixed32, varint

    assert told(entry(later + BEGUN)) == told(entry(BEGUN))


def test_a_trace_that_is_cut_anywhere_is_no_error() -> None:
    for length in range(len(BEGUN)):
        assert told(entry(BEGUN[:length])) == ([], b"")


@pytest.mark.parametrize(
    "line",
    [
        {"stream": "Successfully tagged x"},
        {"id": "moby.image.id", "aux": {"ID": "sha256:0"}},
        {"id": TRACE, "aux": {"ID": "sha256:0"}},
        {"id": TRACE, "aux": "no base64"},
        entry(b"\x0b"),  # a group, which no message of BuildKit's has
        entry(b"\xff" * 11),
    ],
)
def test_a_line_that_is_none_of_buildkits_tells_nothing(line: dict[str, object]) -> None:
    assert told(line) == ([], b"")

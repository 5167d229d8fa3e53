"""How much a report tells at most, and that nothing in it moves a cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from pytest_sandbox import failures
from pytest_sandbox.changes import Change, ChangeKind, Changes
from pytest_sandbox.core.events import Event, Outcome
from pytest_sandbox.errors import FailureClass, SandboxClosed, SandboxLost
from pytest_sandbox.models import FileKind
from pytest_sandbox.reporting import failure_of, sandboxes_of


class Box:
    """What a report asks of a sandbox."""

    name = "box"

    def __init__(self, changes: Callable[[], Awaitable[Changes]]) -> None:
        self.changes = changes


def changed(changes: Callable[[], Awaitable[Changes]]) -> list[str]:
    return asyncio.run(failures._changed(cast("Any", Box(changes))))


def test_of_many_changes_the_first_are_told() -> None:
    content = b"".join(b"%d\n" % number for number in range(30))
    added = [
        Change(f"file{number:02}", ChangeKind.ADDED, after=FileKind.FILE, differs=True, new=content)
        for number in range(25)
    ]

    async def changes() -> Changes:
        return Changes.of(added, {})

    lines = changed(changes)

    assert lines[:20] == [f"  added file{number:02}" for number in range(20)]
    assert lines[20] == "  and 5 more"
    assert lines[21:24] == ["  --- /dev/null", "  +++ b/file00", "  @@ -0,0 +1,30 @@"]
    assert len(lines[21:]) == failures.DIFF_LINES + 1
    assert lines[-1] == "  and more"


def test_changes_that_can_not_be_told_say_why() -> None:
    async def changes() -> Changes:
        raise SandboxClosed("box\x1b[2J")

    assert changed(changes) == [r"  not known: sandbox box\x1b[2J is closed; keep it open for as long as it is used"]


def test_changes_that_take_too_long_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = []

    async def changes() -> Changes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return Changes()

    monkeypatch.setattr(failures, "CHANGES_BOUND", 0.01)

    assert changed(changes) == ["  not known: looking took more than 0.01 s"]
    assert cancelled == [True]


@pytest.mark.parametrize(
    ("finish", "line"),
    [
        (None, "  exec `make`: has not ended"),
        (
            {"outcome": Outcome.CANCELLED, "error": "CancelledError: \x1b[2J"},
            r"  exec `make`: CancelledError: \x1b[2J, 1.50 s",
        ),
        ({"outcome": Outcome.OK, "facts": {"exit_code": 0}}, "  exec `make`: exit code 0, 1.50 s"),
        (
            {"outcome": Outcome.LIMIT, "facts": {"exit_code": -15}, "error": "CommandTimeout: `make` was killed"},
            "  exec `make`: exit code -15, 1.50 s, CommandTimeout",
        ),
    ],
)
def test_an_operation_is_a_line(finish: dict[str, Any] | None, line: str) -> None:
    start = Event("1", 0, "box", "exec", "start", "t", {"command": "make"})
    end = (
        None
        if finish is None
        else Event("1", 0, "box", "exec", "finish", "t", **{"facts": {}, "duration": 1.5, **finish})
    )

    assert failures._operation(start, end) == [line]


def test_a_section_keeps_its_end() -> None:
    assert failures._bounded("x" * failures.SECTION_SIZE) == "x" * failures.SECTION_SIZE
    assert failures._bounded("x" * failures.SECTION_SIZE + "end") == f"(cut) …\n{'x' * (failures.SECTION_SIZE - 3)}end"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\tb\r\x00\u202e", r"a	b\r\x00\u202e"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_printed_moves_no_cursor(text: str, printed: str) -> None:
    assert failures.printable(text) == printed


LOST, CLOSED = SandboxLost("box", "gone"), SandboxClosed("other")


@pytest.mark.parametrize(
    ("error", "failure", "lost"),
    [
        (None, None, set()),
        (ValueError(), None, set()),
        (LOST, FailureClass.INFRASTRUCTURE, {"box"}),
        (ExceptionGroup("", [LOST, ExceptionGroup("", [LOST])]), FailureClass.INFRASTRUCTURE, {"box"}),
        (ExceptionGroup("", [LOST, CLOSED]), FailureClass.USAGE, {"box"}),
        (ExceptionGroup("", [LOST, ValueError()]), None, {"box"}),
    ],
)
def test_a_group_is_the_infrastructures_only_if_all_in_it_is(
    error: BaseException | None, failure: FailureClass | None, lost: set[str]
) -> None:
    assert failure_of(error) is failure
    assert sandboxes_of(error) == lost

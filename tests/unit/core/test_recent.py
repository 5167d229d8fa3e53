"""What is remembered of operations: as much as reports tell, and nothing that would be large or alive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest

from pytest_sandbox.core.events import Event, Journal, Outcome, observed, running_test
from pytest_sandbox.core.recent import REMEMBERED, SANDBOXES, Recent
from pytest_sandbox.errors import CommandFailed
from pytest_sandbox.models import ExecResult, Output, ResourceUsage, SandboxSettings

pytestmark = pytest.mark.asyncio


class Core:
    """Something with operations."""

    def __init__(self, journal: Journal, name: str = "box") -> None:
        self.journal, self.name = journal, name
        self.settings = SandboxSettings()
        self.identity: dict[str, object] = {}

    async def exec(self, command: str | Sequence[str], *, check: bool = False) -> ExecResult:
        result = ExecResult(str(command), 3, Output(b"out"), Output(b""), 0.5, ResourceUsage(0, 0, 0))
        if check:
            raise CommandFailed(result)
        return result

    async def write_bytes(self, path: str, content: bytes) -> None:
        pass

    async def hang(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture(params=["memory", "listener"])
def recent_and_core(request: pytest.FixtureRequest) -> tuple[Recent, Core]:
    """As the memory of a journal that nobody listens to, and beside another listener."""
    recent = Recent()
    journal = Journal(memory=recent) if request.param == "memory" else Journal(list[Event]().append, recent)
    return recent, Core(journal)


async def run(core: Core, operation: object, *args: object, **kwargs: object) -> None:
    await observed(operation, core, args, kwargs)  # type: ignore[arg-type]


async def test_an_operation_is_told_as_to_a_listener(recent_and_core: tuple[Recent, Core]) -> None:
    recent, core = recent_and_core

    await run(core, Core.exec, ["ls", "-l"])
    await run(core, Core.write_bytes, "a", content=b"x" * 5000)

    (listed, end), (written, _) = recent.of_test(running_test())["box"]
    assert (listed.kind, listed.phase, listed.test, listed.facts) == (
        "exec",
        "start",
        running_test(),
        {"command": "ls -l"},
    )
    assert end is not None
    assert (end.id, end.outcome, end.facts["exit_code"], end.facts["stdout"]) == (listed.id, Outcome.OK, 3, "out")
    assert end.duration is not None
    assert end.duration < 5
    assert written.facts == {"path": "a", "content": {"bytes": 5000}}


async def test_a_failure_is_told_with_its_error_and_result(recent_and_core: tuple[Recent, Core]) -> None:
    recent, core = recent_and_core

    with pytest.raises(CommandFailed):
        await run(core, Core.exec, "make", check=True)

    [(_, end)] = recent.of_test(running_test())["box"]
    assert end is not None
    assert (end.outcome, end.facts["exit_code"]) == (Outcome.COMMAND, 3)
    assert str(end.error).startswith("CommandFailed: `make` failed with exit code 3")


async def test_what_has_not_ended_is_told_so(recent_and_core: tuple[Recent, Core]) -> None:
    recent, core = recent_and_core
    task = asyncio.create_task(run(core, Core.hang))
    await asyncio.sleep(0)

    [(start, end)] = recent.of_test(running_test())["box"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [(_, later)] = recent.of_test(running_test())["box"]

    assert (start.kind, end) == ("hang", None)
    assert later is not None
    assert later.outcome is Outcome.CANCELLED


async def test_the_last_operations_of_the_last_sandboxes_are_kept(recent_and_core: tuple[Recent, Core]) -> None:
    recent, core = recent_and_core

    for number in range(REMEMBERED + 1):
        await run(core, Core.exec, str(number))
    assert [start.facts["command"] for start, _ in recent.of_test(running_test())["box"]][:2] == ["1", "2"]
    for number in range(SANDBOXES):
        await run(Core(core.journal, str(number)), Core.exec, "x")

    assert list(recent.of_test(running_test())) == [str(number) for number in range(SANDBOXES)]


async def test_of_another_test_nothing_is_told(
    recent_and_core: tuple[Recent, Core], monkeypatch: pytest.MonkeyPatch
) -> None:
    recent, core = recent_and_core
    await run(core, Core.exec, "before")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "test_it.py::test_other (setup)")

    await run(core, Core.exec, "now")

    assert [start.facts["command"] for start, _ in recent.of_test("test_it.py::test_other")["box"]] == ["now"]
    assert recent.of_test("test_it.py::test_none") == {}


@pytest.mark.parametrize("argument", [b"x" * 5000, ["x"] * 65, ["x" * 5000], PurePosixPath("a"), {"a": "b"}, None])
async def test_only_small_arguments_that_do_not_change_are_kept_as_they_are(argument: object) -> None:
    recent = Recent()
    operation = recent.begin(Core(Journal(memory=recent)), Core.write_bytes, (argument, b""), {})

    kept = operation._arguments != ((), {})

    assert kept is (argument is None or isinstance(argument, PurePosixPath))

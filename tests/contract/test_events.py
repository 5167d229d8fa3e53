from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.async_faces import AsyncSandbox
from pytest_sandbox.core.events import EXCERPT, Event, JsonLines, Outcome
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.errors import CommandFailed, CommandTimeout, FileMissing, SandboxClosed, SandboxLost
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import SandboxSettings
from pytest_sandbox.secret import MASK
from tests.support.subprocess_engine import SubprocessEngine

SECRET = "s3cr3t 'value'"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def own(engine: Engine, settings: SandboxSettings, tmp_path: Path) -> SandboxSettings:
    """Settings of a sandbox that nobody shares."""
    if isinstance(engine, SubprocessEngine):
        settings = replace(settings, workspace=PurePosixPath(tmp_path / "workspace"))
    return replace(settings, environment={"API_TOKEN": SECRET, "PLAIN": "visible"})


def kinds(events: list[Event]) -> list[str]:
    return [f"{event.kind} {event.outcome.value if event.outcome else event.phase}" for event in events]


def test_an_error_has_its_class_and_its_message(own: SandboxSettings, engine: Engine, events: list[Event]) -> None:
    with Sandbox.create(own, engine, events=events.append) as sandbox:
        with pytest.raises(CommandFailed):
            sandbox.exec("echo seen; echo why >&2; exit 3", check=True)
        with pytest.raises(CommandTimeout):
            sandbox.exec("sleep 60", timeout=0.1)
        with pytest.raises(FileMissing):
            sandbox.read_bytes("missing")

    failed, timeout, missing = (event for event in events if event.error)
    assert failed.outcome is Outcome.COMMAND
    assert failed.facts["exit_code"] == 3
    assert failed.facts["stdout"] == "seen\n"
    assert failed.facts["stderr"] == "why\n"
    assert timeout.outcome is Outcome.LIMIT
    assert missing.error is not None
    assert missing.error.startswith("FileMissing: open")


def test_what_a_cancelled_and_a_lost_operation_did_is_told(
    own: SandboxSettings, engine: Engine, events: list[Event], vanish: Callable[[Sandbox], None]
) -> None:
    async def cancel() -> None:
        async with await AsyncSandbox.create(own, engine, events=events.append) as sandbox:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sandbox.exec("sleep 60")

    asyncio.run(cancel())
    with Sandbox.create(own, engine, events=events.append) as sandbox:
        vanish(sandbox)
        with pytest.raises(SandboxLost):
            sandbox.exec("true")
    with pytest.raises(SandboxClosed):
        sandbox.exec("true")

    outcomes = [event.outcome for event in events if event.kind == "exec" and event.phase == "finish"]
    assert outcomes == [Outcome.CANCELLED, Outcome.INFRASTRUCTURE, Outcome.USAGE]


def test_each_operation_is_told_when_it_starts_and_when_it_ends(
    own: SandboxSettings, engine: Engine, events: list[Event]
) -> None:
    with Sandbox.create(own, engine, events=events.append) as sandbox:
        sandbox.exec(["echo", "hello world"], timeout=5, env={"B": "1", "A": "2"})
        sandbox.write_text("note", "content")
        assert [*sandbox.read_chunks("note")] == [b"content"]
        with sandbox.start(["cat"]) as process:
            process.write(b"1234")

    assert kinds(events) == [
        f"{kind} {end}"
        for kind in ("create", "exec", "write_text", "read_chunks", "start", "write", "close")
        for end in ("start", "ok")
    ] + ["close start", "remove start", "remove ok", "close ok"]
    started, finished = events[2:4]
    assert started.id == finished.id
    assert started.session == sandbox.name
    assert started.facts == {"command": "echo 'hello world'", "timeout": 5, "env": ["A", "B"]}
    assert finished.facts["exit_code"] == 0
    assert finished.facts["stdout"] == "hello world\n"
    assert finished.duration is not None
    assert events[4].facts == {"path": "note", "text": {"characters": 7}}
    written = events[10]
    assert written.facts == {"pid": process.pid, "content": {"bytes": 4}}


def test_coroutines_are_told_alike(own: SandboxSettings, engine: Engine, events: list[Event]) -> None:
    async def scenario() -> None:
        async with await AsyncSandbox.create(own, engine, events=events.append) as sandbox:
            await sandbox.exec("true")
            assert [found async for found in sandbox.walk()] == []

    asyncio.run(scenario())

    expected = ["create start", "create ok", "exec start", "exec ok", "walk start", "walk ok"]
    assert kinds(events)[:6] == expected


def test_secrets_are_masked_wherever_they_turn_up(own: SandboxSettings, engine: Engine, events: list[Event]) -> None:
    with Sandbox.create(own, engine, events=events.append) as sandbox:
        sandbox.exec('printf "%s" "$API_TOKEN $PLAIN"')
        sandbox.exec(["echo", SECRET, "x" * 200])
        sandbox.exec(["echo", "x" * 185, "secret of the call"], env={"call_password": "secret of the call"})
        with pytest.raises(CommandFailed):
            sandbox.exec(["sh", "-c", "echo $0 >&2; exit 1", "x" * 165, SECRET], check=True)

    told = json.dumps([[*event.facts.values(), event.error] for event in events], default=str)
    assert events[3].facts["stdout"] == f"{MASK} visible"
    assert "s3cr3t" not in told
    assert "secret" not in told


def test_output_is_told_by_its_end(own: SandboxSettings, engine: Engine, events: list[Event]) -> None:
    with Sandbox.create(own, engine, events=events.append) as sandbox:
        sandbox.exec("seq 100000")

    facts = events[3].facts
    assert facts["stdout_bytes"] == 588895
    assert str(facts["stdout"]).endswith("99999\n100000\n")
    assert len(str(facts["stdout"])) == EXCERPT


def test_a_listener_that_fails_is_left_out_and_harms_nobody(
    own: SandboxSettings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fail(event: Event) -> None:
        calls.append(event)
        raise LookupError("mine")

    with Sandbox.create(own, engine, events=fail) as sandbox:
        assert sandbox.exec("true").ok

    assert len(calls) == 1
    assert "LookupError('mine')" in caplog.text


def test_a_file_of_events_has_one_object_a_line(own: SandboxSettings, engine: Engine, tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "below" / "events.jsonl")
    with Sandbox.create(own, engine, events=lines) as sandbox:
        sandbox.exec("printf 'two\\nlines \\377'")
    lines.close()

    told = [json.loads(line) for line in (tmp_path / "below" / "events.jsonl").read_text().splitlines()]
    assert told[3]["facts"]["stdout"] == "two\nlines �"
    assert told[3]["outcome"] == "ok"
    assert set(told[2]) == {"format", "id", "time", "session", "kind", "phase", "test", "facts"}
    assert set(told[3]) == {*told[2], "duration", "outcome"}

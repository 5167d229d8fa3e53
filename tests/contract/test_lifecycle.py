"""What making, losing and closing a sandbox promise, on every engine."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.core.sandbox import SandboxCore, next_name
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.errors import EngineError, InvalidSetting, SandboxClosed, SandboxLost, SandboxStartFailed
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import ExecResult, SandboxSettings
from pytest_sandbox.mounts import Tmpfs
from tests.support.folders import let_others_in
from tests.support.subprocess_engine import SubprocessEngine

Exists = Callable[[str], bool]
Vanish = Callable[[Sandbox], None]
END_BOUND = 5.0  # seconds for what takes half of one; a test must not hang


# --- create ---


def test_a_new_sandbox_runs_commands_in_an_empty_workspace(fresh: Sandbox) -> None:
    result = fresh.exec("pwd; ls -A | wc -l", check=True)

    assert result.stdout.text.split() == [str(fresh.workspace), "0"]
    assert fresh.running()


def test_a_sandbox_has_the_name_it_was_given(engine: Engine, settings: SandboxSettings, exists: Exists) -> None:
    name = next_name()

    async def named() -> str:
        async with await SandboxCore.create(engine, settings, name) as core:
            return core.name

    assert run(named()) == name
    assert not exists(name)


def test_the_workspace_belongs_to_the_user(engine: Engine, settings: SandboxSettings, tmp_path: Path) -> None:
    settings = replace(settings, user="65534")
    if isinstance(engine, SubprocessEngine):
        let_others_in(tmp_path)
        settings = replace(settings, workspace=PurePosixPath(tmp_path / "workspace"))

    with Sandbox.create(settings, engine) as sandbox:
        result = sandbox.exec("id -u; touch file", check=True)

    assert result.stdout == b"65534\n"


def test_the_environment_of_the_settings_reaches_each_command(engine: Engine, settings: SandboxSettings) -> None:
    with Sandbox.create(replace(settings, environment={"A": "1", "B": "1"}), engine) as sandbox:
        assert sandbox.exec("echo $A $B", env={"B": "2"}).stdout == b"1 2\n"
        assert sandbox.exec(["/usr/bin/env"], env={"B": "2"}, replace_env=True).stdout == b"B=2\n"


def test_a_workspace_that_can_not_be_made_leaves_nothing(
    engine: Engine, settings: SandboxSettings, exists: Exists
) -> None:
    name = next_name()

    with pytest.raises((SandboxStartFailed, EngineError)):  # the second where the engine mounts it
        run(SandboxCore.create(engine, replace(settings, workspace=PurePosixPath("/dev/null/workspace")), name))

    assert not exists(name)


def test_a_user_that_does_not_exist_leaves_nothing(engine: Engine, settings: SandboxSettings, exists: Exists) -> None:
    name = next_name()

    with pytest.raises(InvalidSetting, match="no-such-user"):
        run(SandboxCore.create(engine, replace(settings, user="no-such-user"), name))

    assert not exists(name)


@pytest.mark.parametrize("engine", ["subprocess"], indirect=True)
def test_an_engine_without_containers_has_no_mounts(engine: Engine, settings: SandboxSettings, exists: Exists) -> None:
    name = next_name()

    with pytest.raises(InvalidSetting, match="expected an engine with containers"):
        run(SandboxCore.create(engine, replace(settings, mounts=[Tmpfs("/scratch")]), name))

    assert not exists(name)


@pytest.mark.parametrize("steps", [0, 1, 3, 6, 10, 15, 30])
def test_cancelling_creation_at_any_moment_leaves_nothing(
    engine: Engine, settings: SandboxSettings, exists: Exists, steps: int
) -> None:
    name = next_name()

    async def cancelled_after(steps: int) -> None:
        creating = asyncio.create_task(SandboxCore.create(engine, settings, name))
        for _ in range(steps):
            await asyncio.sleep(0)  # one turn of the loop
        creating.cancel()
        try:
            await (await creating).close()
        except asyncio.CancelledError:
            pass

    run(cancelled_after(steps))

    assert not exists(name)


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (("/bin/true",), "exit code 0"),
        (("/bin/sh", "-c", "echo 'no such luck' >&2; exit 3"), "exit code 3"),
        (("/bin/cat",), "broke the protocol"),
        (("/bin/echo", "Welcome to the wrong container"), "broke the protocol"),
    ],
)
def test_something_else_than_an_agent_is_named_and_removed(
    settings: SandboxSettings, agent: tuple[str, ...], reason: str
) -> None:
    engine = SubprocessEngine(agent=agent)

    with pytest.raises(SandboxStartFailed, match=reason) as caught:
        Sandbox.create(settings, engine)

    assert "waiting for its agent's hello" in str(caught.value)
    assert "exit 3" not in agent[-1] or "no such luck" in str(caught.value)
    assert not engine.names


# --- close ---


def test_a_closed_sandbox_is_gone(fresh: Sandbox, exists: Exists) -> None:
    fresh.close()

    assert not fresh.running()
    assert not exists(fresh.name)
    with pytest.raises(SandboxClosed, match=fresh.name):
        fresh.exec(["true"])


def test_closing_again_is_nothing(fresh: Sandbox) -> None:
    fresh.close()
    fresh.close()

    assert not fresh.running()


def test_closing_twice_at_once_is_closing_once(fresh: Sandbox, exists: Exists) -> None:
    async def twice() -> None:
        await asyncio.gather(fresh._core.close(), fresh._core.close())

    run(twice())

    assert not exists(fresh.name)


def test_a_close_that_is_cancelled_still_ends_the_sandbox(fresh: Sandbox, exists: Exists) -> None:
    async def cancelled() -> None:
        closing = asyncio.create_task(fresh._core.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await fresh._core.close()

    run(cancelled())

    assert not exists(fresh.name)


def test_closing_ends_everything_that_runs(fresh: Sandbox) -> None:
    fresh.start("trap '' TERM; (setsid sleep 1000 &); sleep 1000")
    core = fresh._core

    async def closed_while_running() -> ExecResult | BaseException:
        running = asyncio.create_task(core.exec("sleep 1000"))
        await core.exec(["true"])
        await core.close()
        return (await asyncio.gather(running, return_exceptions=True))[0]

    assert isinstance(run(closed_while_running()), SandboxClosed)
    assert not fresh.running()


# --- loss ---


def test_a_container_removed_in_mid_command_is_a_lost_sandbox(fresh: Sandbox, vanish: Vanish) -> None:
    core = fresh._core

    async def running() -> list[asyncio.Task[ExecResult]]:
        tasks = [asyncio.create_task(core.exec("sleep 1000")) for _ in range(20)]
        await core.exec(["true"])
        return tasks

    async def outcomes(tasks: list[asyncio.Task[ExecResult]]) -> list[ExecResult | BaseException]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    tasks = run(running())
    vanish(fresh)
    errors = run(outcomes(tasks))

    assert {type(error) for error in errors} == {SandboxLost}
    assert fresh.name in str(errors[0])
    assert len(str(errors[0]).splitlines()) <= 15
    assert not fresh.running()
    with pytest.raises(SandboxLost):
        fresh.exec(["true"])


def test_a_lost_sandbox_can_be_closed(fresh: Sandbox, vanish: Vanish, exists: Exists) -> None:
    vanish(fresh)

    fresh.close()

    assert not exists(fresh.name)


def test_a_process_of_a_lost_sandbox_says_so(fresh: Sandbox, vanish: Vanish) -> None:
    process = fresh.start(["cat"])
    vanish(fresh)

    with pytest.raises(SandboxLost):
        process.wait()
    with pytest.raises(SandboxLost):
        process.stdout.read_some()
    with pytest.raises(SandboxLost):
        process.write(b"x")
    process.close()


def test_an_agent_that_is_killed_is_named_with_its_end(tmp_path: Path) -> None:
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path))
    with (
        Sandbox.create(settings, SubprocessEngine()) as sandbox,
        pytest.raises(SandboxLost, match="killed by signal 9"),
    ):
        sandbox.exec(f"kill -9 {sandbox.container.id}; sleep 1000")


HOST = """
import sys
from pathlib import PurePosixPath
from pytest_sandbox import Sandbox, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine
sandbox = Sandbox.create(SandboxSettings(workspace=PurePosixPath(sys.argv[1])), SubprocessEngine())
daemon = sandbox.exec("(setsid sh -c 'trap \\"\\" TERM; echo $$; exec sleep 1000' &); sleep 0.1").stdout
print(sandbox.container.id, int(daemon), flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_a_host_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as host:
        assert host.stdout is not None
        pids = [int(pid) for pid in host.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]

        host.send_signal(signal.SIGKILL)

        for end in ends:
            assert select.select([end], [], [], END_BOUND)[0]
            os.close(end)
    assert len(pids) == 2


def test_names_made_after_a_fork_are_new() -> None:
    before = next_name().rpartition("-")[0]
    reader, writer = os.pipe()

    child = os.fork()
    if not child:
        os.write(writer, next_name().encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert not os.read(reader, 100).decode().startswith(before)
    os.close(reader)
    os.close(writer)

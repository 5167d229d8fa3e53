"""What a command sees, and what a caller is told, at each limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.errors import (
    CommandHitLimit,
    FailureClass,
    LimitNotAvailable,
    TooManyProcesses,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import MEBIBYTE, Limit, LimitHit, SandboxSettings

MEMORY_HOG = "head -c 200m /dev/zero | tail -c 200m >/dev/null"  # tail has to keep all of it
FORK_SOME = "for n in $(seq 40); do sleep 60 & done; wait"


@contextmanager
def limited(sandbox: Sandbox, **limits: int) -> Iterator[Sandbox]:
    """Give a sandbox other settings for a while; only of those that a command has, not a container."""
    core: SandboxCore = sandbox._core
    settings = core.settings
    core.settings = replace(settings, **limits)  # type: ignore[arg-type]
    try:
        yield sandbox
    finally:
        core.settings = settings


def test_a_file_that_grows_too_large_is_told_with_its_limit(sandbox: Sandbox) -> None:
    with limited(sandbox, file_size=MEBIBYTE):
        assert sandbox.exec(["head", "-c", "2000000", "/dev/zero"]).ok  # to a pipe: no file, no limit
        with pytest.raises(CommandHitLimit) as caught:
            sandbox.exec("exec head -c 2000000 /dev/zero >big", check=True)

    assert caught.value.result.exit_code == -25
    assert caught.value.failure is FailureClass.LIMIT
    said = "killed: file too large, limit 1 MiB (`file_size` in the settings); signal 25 after"
    assert str(caught.value).startswith(f"`exec head -c 2000000 /dev/zero >big`: {said}")
    assert sandbox.stat("big").size == MEBIBYTE


def test_a_shell_that_had_the_signal_tells_of_it_too(sandbox: Sandbox) -> None:
    with limited(sandbox, file_size=1000):
        result = sandbox.exec("head -c 2000 /dev/zero > big; exit $?")

    assert result.exit_code == 153
    assert result.limits == (LimitHit(Limit.FILE_SIZE, 1000),)
    assert str(result.limits[0]) == "killed: file too large, limit 1000 bytes"


def test_open_files_is_the_soft_and_the_hard_limit(sandbox: Sandbox) -> None:
    with limited(sandbox, open_files=20):
        limits = sandbox.exec("ulimit -Sn; ulimit -Hn").stdout.text.split()
        opened = sandbox.exec('for n in 3 4 5 6 7 8 9; do eval "exec $n</dev/null"; done && echo all').stdout

    assert limits == ["20", "20"]
    assert opened == b"all\n"
    with limited(sandbox, open_files=8):
        assert sandbox.exec('for n in 3 4 5 6 7 8 9; do eval "exec $n</dev/null"; done').exit_code != 0


def test_the_limits_of_a_process_and_of_a_terminal_are_the_same(sandbox: Sandbox) -> None:
    with limited(sandbox, open_files=64, file_size=2048):
        with sandbox.start("ulimit -n; ulimit -f") as process:
            started = list(process.stdout)
        with sandbox.terminal("ulimit -n; head -c 4000 /dev/zero >big", env={"TERM": "dumb"}) as terminal:
            terminal.expect("64")
            ended = terminal.wait()

    assert started[0] == b"64\n"
    assert int(started[1]) in (2, 4)  # KiB, or blocks of 512 bytes
    assert ended.limits == (LimitHit(Limit.FILE_SIZE, 2048),)


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
class TestOfTheContainer:
    def test_more_open_files_than_the_engine_gives_are_refused(self, sandbox: Sandbox) -> None:
        with limited(sandbox, open_files=2**40), pytest.raises(LimitNotAvailable, match=r"open_files=1099511627776"):
            sandbox.exec("true")

    def test_a_process_killed_for_memory_is_told_with_the_limit(
        self, engine: Engine, settings: SandboxSettings
    ) -> None:
        with Sandbox.create(replace(settings, memory=64 * MEBIBYTE), engine) as sandbox:
            with pytest.raises(CommandHitLimit, match="killed: out of memory, limit 64 MiB") as caught:
                sandbox.exec(MEMORY_HOG, check=True)

            assert caught.value.result.limits == (LimitHit(Limit.MEMORY, 64 * MEBIBYTE),)
            assert sandbox.exec("exit 3").limits == ()  # one that was hit before is not this command's
            with sandbox.start(f"{MEMORY_HOG} || exit 9") as process:
                assert process.wait(30).limits == (LimitHit(Limit.MEMORY, 64 * MEBIBYTE),)
            assert sandbox.running()

    def test_processes_that_could_not_be_forked_are_told_with_the_limit(
        self, engine: Engine, settings: SandboxSettings
    ) -> None:
        with Sandbox.create(replace(settings, pids=24), engine) as sandbox:
            result = sandbox.exec(FORK_SOME, timeout=30)

            assert result.limits == (LimitHit(Limit.PIDS, 24),)
            assert str(result.limits[0]) == "no more processes: limit 24"
            with pytest.raises(TooManyProcesses) as caught:  # noqa: PT012  # which of them it is depends on the agent
                while True:
                    sandbox.start(["sleep", "60"])
            assert caught.value.failure is FailureClass.LIMIT
            assert sandbox.sweep() > 0
            assert sandbox.exec("true").ok

    def test_cpus_are_of_the_whole_sandbox(self, engine: Engine, settings: SandboxSettings) -> None:
        with Sandbox.create(replace(settings, cpus=0.1), engine) as sandbox:
            result = sandbox.exec("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", timeout=60)

        assert result.ok
        assert result.duration > 4 * (result.usage.user_seconds + result.usage.system_seconds)

    def test_a_size_that_the_storage_can_not_limit_is_refused(self, engine: Engine, settings: SandboxSettings) -> None:
        sizes: list[str] = []
        refusal = ""
        try:
            with Sandbox.create(replace(settings, disk=64 * MEBIBYTE), engine) as sandbox:
                sizes = sandbox.exec("df -Pk / /workspace | awk 'NR > 1 {print $2}'").stdout.text.split()
        except LimitNotAvailable as error:
            refusal = str(error)

        expected = r"no sandbox can have disk=64 MiB here: .*\(the engine's storage\)"
        assert re.fullmatch(expected, refusal) or [int(size) <= 64 * 1024 for size in sizes] == [True, True]

"""What a test may do with os.fork and multiprocessing: the child neither holds nor breaks what its parent has."""

from __future__ import annotations

import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable

import pytest

from pytest_sandbox import Sandbox
from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import MadeBeforeFork
from pytest_sandbox.loop import run
from pytest_sandbox.models import SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine

BOUND = 20  # seconds; a child that hangs is to fail its test


def in_child(function: Callable[[], object]) -> str:
    """Call a function in a forked child, and return what it returned, or the name of its exception and the message."""
    ours, childs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork of a process with threads is what this is about
        child = os.fork()
    if not child:
        try:
            try:
                answer = str(function())
            except Exception as error:  # noqa: BLE001  # told to the parent
                answer = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            os.write(childs, answer.encode())
        finally:
            os._exit(0)
    os.close(childs)
    try:
        assert select.select([ours], [], [], BOUND)[0], "the child hangs"
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda sandbox: sandbox.exec(["true"]),
        lambda sandbox: sandbox.start(["true"]),
        lambda sandbox: sandbox.read_bytes("file"),
        lambda sandbox: sandbox.snapshot(),
        lambda sandbox: sandbox.running(),
        lambda sandbox: sandbox.sweep(),
    ],
    ids=["exec", "start", "read", "snapshot", "running", "sweep"],
)
def test_a_child_that_uses_its_parents_sandbox_is_told_so(sandbox: Sandbox, use: Callable[[Sandbox], object]) -> None:
    said = in_child(lambda: use(sandbox))

    assert said.startswith(f"{MadeBeforeFork.__name__}: sandbox {sandbox.name} belongs to process {os.getpid()}")
    assert sandbox.exec(["true"]).ok


def test_a_child_that_waits_for_what_its_parent_has_begun_is_told_so(sandbox: Sandbox) -> None:
    with sandbox.start("cat") as process:
        said = [in_child(process.wait), in_child(process.stdout.read_some), in_child(lambda: process.write(b"x"))]

        assert [each.split(":")[0] for each in said] == [MadeBeforeFork.__name__] * 3
        process.write(b"y")
        process.close_stdin()
        assert process.stdout.read_some() == b"y"


def test_a_child_that_closes_takes_nothing_from_its_parent(sandbox: Sandbox) -> None:
    with sandbox.start("cat") as process:
        assert in_child(lambda: (process.close(), sandbox.close())) == "(None, None)"

        process.write(b"y")
        assert process.stdout.read_some() == b"y"


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
def test_a_childs_own_sandbox_is_none_of_its_parents(sandbox: Sandbox, settings: SandboxSettings) -> None:
    def own() -> str:
        with Sandbox.create(settings) as another:
            return another.exec("echo mine", check=True).stdout.text

    assert in_child(own) == "mine\n"
    assert sandbox.exec(["true"]).ok


def test_a_child_leaves_its_parents_pool_and_engine_alone(engine: Engine, settings: SandboxSettings) -> None:
    async def find() -> Engine:
        return SubprocessEngine() if isinstance(engine, SubprocessEngine) else await find_engine()

    pool = SandboxPool(find)
    sandbox = run(pool.lease(settings))

    said = in_child(lambda: run(pool.lease(settings)))
    assert said.startswith(f"{MadeBeforeFork.__name__}: the pool of sandboxes belongs to process {os.getpid()}")
    assert in_child(lambda: (run(pool.release(sandbox)), run(pool.close()), run(engine.close()))) != ""

    assert run(sandbox.exec(["true"])).ok
    assert run(pool.lease(settings)) is not sandbox
    run(pool.close())

"""What fork() promises: an equal workspace, a life of its own, and an end with what it was forked from.

On real engines only: sandboxes of the subprocess engine share this machine's directories, and so are never two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pytest_sandbox import Changes, Isolation, Sandbox, SandboxClosed, SandboxLost
from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.loop import run
from pytest_sandbox.models import SandboxSettings

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = run(find_engine())
    yield engine
    run(engine.close())


@pytest.fixture
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(find_engine)
    yield pool
    run(pool.close())


def test_a_fork_begins_with_the_same_workspace_and_goes_its_own_way(fresh: Sandbox) -> None:
    fresh.exec("mkdir d; echo 1 > d/f; ln d/f g; chmod 4711 d/f; touch -d @5 d", check=True)

    with fresh.fork() as fork:
        assert fork.persist().sha256 == fresh.persist().sha256
        assert fork.changes() == Changes()
        fork.write_text("d/f", "of the fork")
        fresh.write_text("h", "")

        assert fresh.read_text("d/f") == "1\n"
        assert not fork.exists("h")
        assert fork.changes() == Changes(modified={"d/f"})  # written anew, so `g` is another file now
    assert fresh.running()


def test_a_fork_has_nothing_else_of_the_other(fresh: Sandbox) -> None:
    fresh.exec("touch /tmp/mine; sleep 1000 >/dev/null 2>&1 &", check=True)

    with fresh.fork() as fork:
        assert not fork.exists("/tmp/mine")
        assert fork.sweep() == 0


def test_several_forks_are_made_at_once(fresh: Sandbox) -> None:
    fresh.write_text("f", "1")

    with ThreadPoolExecutor() as threads:
        forks = list(threads.map(lambda _: fresh.fork(), range(3)))

    assert len({fork.name for fork in forks}) == 3
    assert [fork.read_text("f") for fork in forks] == ["1"] * 3


def test_forks_end_with_what_they_were_forked_from(
    engine: Engine, settings: SandboxSettings, exists: Callable[[str], bool]
) -> None:
    sandbox = Sandbox.create(settings, engine)
    fork = sandbox.fork()
    fork_of_fork = fork.fork()

    sandbox.close()

    assert not any(map(exists, (sandbox.name, fork.name, fork_of_fork.name)))
    with pytest.raises(SandboxClosed):
        fork.exec("true")


def test_a_fork_of_what_was_lost_or_closed_leaves_nothing(fresh: Sandbox, vanish: Callable[[Sandbox], None]) -> None:
    vanish(fresh)

    with pytest.raises(SandboxLost):
        fresh.fork()
    fresh.close()
    with pytest.raises(SandboxClosed):
        fresh.fork()
    assert fresh._core._forks == []


def test_a_fork_of_a_pool_s_sandbox_goes_back_to_the_pool(pool: SandboxPool, settings: SandboxSettings) -> None:
    sandbox = Sandbox(run(pool.lease(settings)))
    sandbox.write_text("f", "1")
    fork = sandbox.fork()
    assert fork.read_text("f") == "1"

    run(pool.release(sandbox._core))

    again = {Sandbox(run(pool.lease(settings))).name for _ in range(2)}
    assert again == {sandbox.name, fork.name}


@pytest.mark.parametrize("isolation", Isolation)
def test_a_fork_is_made_whatever_the_isolation(
    pool: SandboxPool, settings: SandboxSettings, isolation: Isolation
) -> None:
    sandbox = Sandbox(run(pool.lease(replace(settings, isolation=isolation))))
    sandbox.write_text("f", "1")
    fork = sandbox.fork()
    fork.exec("echo 2 > f", check=True)

    assert (sandbox.read_text("f"), fork.read_text("f")) == ("1", "2\n")
    assert fork.changes() == Changes(modified={"f"})


def test_a_fork_that_has_died_does_not_keep_the_other_from_going_back(
    pool: SandboxPool, settings: SandboxSettings
) -> None:
    sandbox = Sandbox(run(pool.lease(settings)))
    fork, closed = sandbox.fork(), sandbox.fork()
    run(fork._core._engine.remove(fork.container))
    closed.close()

    run(pool.release(sandbox._core))

    assert Sandbox(run(pool.lease(settings))).name == sandbox.name

"""Sandboxes and processes that end before their time: the next test is unharmed, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from docker import DockerClient

from .conftest import Announcements, RunSuite, existing, wait_until_gone

pytestmark = pytest.mark.docker

NEXT_IS_FINE = """
        def test_next(sandbox):
            assert sandbox.exec("echo fine", check=True).stdout == b"fine\\n"
            assert sandbox.read_text("base") == "x"
"""

BASELINE = """
        import docker
        import os
        import pytest
        from pytest_sandbox import Baseline, SandboxLost
        from pytest_sandbox.errors import CommandLost

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(files={"base": "x"})
"""

ENDINGS = {
    "killed at the end": """
            docker.from_env().containers.get(sandbox.name).kill()
    """,
    "removed at the end": """
            docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
    """,
    "removed while a command runs": """
            with sandbox.start("sleep 1000") as process, pytest.raises(SandboxLost):
                docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
                process.wait()
    """,
    "closed by the test": """
            sandbox.close()
    """,
    "everything killed from inside": """
            with pytest.raises(CommandLost):
                sandbox.exec("kill -9 1; kill -9 -1; kill -9 $PPID")
    """,
    "the supervisor killed from inside": """
            with pytest.raises(CommandLost):
                sandbox.exec("kill -9 $PPID; sleep 1000")
    """,
    "frozen processes": """
            sandbox.exec("sleep 1000 & kill -STOP $!")
    """,
    "out of processes": """
            sandbox.exec("i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done")
    """,
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_the_next_test_is_unharmed(suite: RunSuite, ending: str) -> None:
    result = suite(
        BASELINE
        + f"""
        @pytest.mark.sandbox(pids=200)
        def test_ends_it(sandbox):
            {ending.strip()}

        pytestmark = pytest.mark.sandbox(pids=200)
        """
        + NEXT_IS_FINE
    )

    result.assert_outcomes(passed=2)


def test_a_sandbox_lost_in_mid_exec_is_told_in_a_few_lines(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        BASELINE
        + """
        def test_loses_it(sandbox):
            sandbox.start("sleep 1000")
            docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
            sandbox.exec("sleep 1000")
        """
        + NEXT_IS_FINE
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *pytest_sandbox.errors.SandboxLost: sandbox pytest-sandbox-* is gone: *"])


def test_a_worker_that_exits_leaves_nothing_and_the_rest_runs(
    suite: RunSuite, announcements: Announcements, engine: DockerClient
) -> None:
    result = suite(
        """
        import os

        def test_exits(sandbox, announce):
            announce(sandbox.name)
            os._exit(1)

        def test_next(sandbox):
            assert sandbox.exec(["true"]).ok
        """,
        "-n1",
    )

    result.assert_outcomes(passed=1, failed=1)
    wait_until_gone(engine, announcements.read(1), seconds=2)


def test_a_run_that_exits_leaves_nothing(suite: RunSuite, announcements: Announcements, engine: DockerClient) -> None:
    suite(
        """
        import os

        def test_exits(sandbox, session_sandbox, announce):
            announce(sandbox.name)
            announce(session_sandbox.name)
            os._exit(1)
        """
    )

    wait_until_gone(engine, announcements.read(2), seconds=2)


def start_suite(pytester: pytest.Pytester, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a suite, as a process group, of four tests that announce their sandboxes and then wait in a command."""
    pytester.makepyfile(
        textwrap.dedent(
            """
            import pytest

            @pytest.mark.parametrize("turn", [1, 2, 3, 4])
            def test_hangs(sandbox, announce, turn):
                with sandbox.start("sleep 1000") as process:
                    announce(sandbox.name)
                    process.wait()
            """
        )
    )
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=pytester.path,
        start_new_session=True,
    )


def kill_group(run: subprocess.Popen[bytes], number: signal.Signals) -> None:
    os.killpg(run.pid, number)


def kill_controller(run: subprocess.Popen[bytes], number: signal.Signals) -> None:
    run.send_signal(number)


@pytest.mark.parametrize(
    ("workers", "count", "kill", "number", "seconds"),
    [
        ((), 1, kill_group, signal.SIGKILL, 2),
        (("-n4",), 4, kill_group, signal.SIGKILL, 2),
        # Workers whose controller is gone give their test 5 s, and then 5 s to heed an interrupt: that is execnet's.
        (("-n2",), 2, kill_controller, signal.SIGKILL, 12),
        ((), 1, kill_group, signal.SIGTERM, 2),
        ((), 1, kill_group, signal.SIGHUP, 2),
    ],
    ids=["plain", "group", "controller", "SIGTERM", "SIGHUP"],
)
def test_a_killed_run_leaves_nothing(
    pytester: pytest.Pytester,
    announcements: Announcements,
    engine: DockerClient,
    workers: tuple[str, ...],
    count: int,
    kill: Callable[[subprocess.Popen[bytes], signal.Signals], None],
    number: signal.Signals,
    seconds: float,
) -> None:
    run = start_suite(pytester, *workers)
    names = announcements.read(count)
    assert len(existing(engine, names)) == count

    kill(run, number)
    assert run.wait() == -number

    wait_until_gone(engine, names, seconds)


@pytest.mark.parametrize(("workers", "count"), [((), 1), (("-n2",), 2)], ids=["plain", "xdist"])
def test_an_interrupted_run_has_cleaned_up_when_it_ends(
    pytester: pytest.Pytester, announcements: Announcements, engine: DockerClient, workers: tuple[str, ...], count: int
) -> None:
    run = start_suite(pytester, *workers)
    names = announcements.read(count)

    os.killpg(run.pid, signal.SIGINT)

    assert run.wait(timeout=20) == pytest.ExitCode.INTERRUPTED
    wait_until_gone(engine, names, seconds=2)


def test_a_finished_run_has_removed_its_sandboxes(
    suite_both_ways: RunSuite, announcements: Announcements, engine: DockerClient
) -> None:
    result = suite_both_ways(
        """
        def test_some(sandbox, session_sandbox, sandbox_factory, announce):
            for each in (sandbox, session_sandbox, sandbox_factory(isolation="container")):
                announce(each.name)
        """
    )

    result.assert_outcomes(passed=1)
    assert existing(engine, announcements.read(3)) == []

"""Sandboxes and processes that end before their time: the next test is unharmed, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable

import pytest
from docker import DockerClient

from tests.support.engine_proxy import EngineProxy, Fault

from .conftest import Announcements, Remains, RunSuite, StartSuite, existing, wait_until_gone, wait_until_none

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


# Four tests that say that they are there, and wait in a command.
HANGING = """
    import pytest

    @pytest.mark.parametrize("turn", [1, 2, 3, 4])
    def test_hangs(sandbox, announce, turn):
        with sandbox.start("sleep 1000") as process:
            announce("here")
            process.wait()
"""


def kill_group(run: subprocess.Popen[str], number: signal.Signals) -> None:
    os.killpg(run.pid, number)


def kill_controller(run: subprocess.Popen[str], number: signal.Signals) -> None:
    run.send_signal(number)


@pytest.mark.parametrize(
    ("workers", "count", "kill", "number", "seconds"),
    [
        ((), 1, kill_group, signal.SIGKILL, 2),
        (("-n4",), 4, kill_group, signal.SIGKILL, 2),
        # Execnet gives workers whose controller is gone 5 s, and then interrupts them.
        (("-n2",), 2, kill_controller, signal.SIGKILL, 12),
        ((), 1, kill_group, signal.SIGTERM, 2),
        ((), 1, kill_group, signal.SIGHUP, 2),
    ],
    ids=["plain", "group", "controller", "SIGTERM", "SIGHUP"],
)
def test_a_killed_run_leaves_nothing(
    start: StartSuite,
    announcements: Announcements,
    remains: Remains,
    workers: tuple[str, ...],
    count: int,
    kill: Callable[[subprocess.Popen[str], signal.Signals], None],
    number: signal.Signals,
    seconds: float,
) -> None:
    run = start(HANGING, *workers)
    announcements.read(count)
    runs = remains.runs()
    assert len(runs) == count

    kill(run, number)
    assert run.wait() == -number

    remains.wait_until_none(runs.values(), seconds)


def test_a_worker_that_is_killed_leaves_nothing_and_the_rest_runs(
    start: StartSuite, announcements: Announcements, remains: Remains
) -> None:
    run = start(
        """
        import os
        import pytest

        def test_hangs(sandbox, announce):
            announce(str(os.getpid()))
            sandbox.exec("sleep 1000")

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_next(sandbox, turn):
            assert sandbox.exec(["true"]).ok
        """,
        "-n2",
    )
    pid = int(announcements.read(1)[0])
    killed = remains.runs()[pid]

    os.kill(pid, signal.SIGKILL)
    wait_until_none(lambda: remains.of([killed]))
    output, _ = run.communicate(timeout=60)

    assert "1 failed, 3 passed" in output, output
    assert re.search(r"worker 'gw\d' crashed while running 'test_suite.py::test_hangs'", output), output
    remains.wait_until_none([killed])


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

# How tests say where they are without a fixture of pytest's for one test.
SAY = """
    import pytest
    from pytest_sandbox import Baseline

    def say():
        with open("announcements", "a") as fifo:
            fifo.write("here\\n")
"""
IN_BASELINE = (
    SAY
    + """
    def prepare(sandbox):
        say()
        sandbox.exec("sleep 1000")

    @pytest.fixture(scope="module")
    def sandbox_baseline():
        return Baseline(prepare=prepare, key="1")

    @pytest.mark.parametrize("turn", [1, 2])
    def test_never_begins(sandbox, turn):
        pass
"""
)
SLOW_END = (
    SAY
    + """
    @pytest.fixture
    def slow_end(sandbox):
        yield
        say()
        sandbox.exec("sleep 1000")
"""
)
IN_TEARDOWN = (
    SLOW_END
    + """
    @pytest.mark.parametrize("turn", [1, 2])
    def test_ends_slowly(slow_end, turn):
        pass
"""
)


@pytest.mark.parametrize(
    ("source", "workers", "count"),
    [
        (HANGING, (), 1),
        (HANGING, ("-n2",), 2),
        (IN_BASELINE, (), 1),
        (IN_BASELINE, ("-n2",), 1),  # the other worker waits for it
        (IN_TEARDOWN, (), 1),
        (IN_TEARDOWN, ("-n2",), 2),
    ],
    ids=["test", "test-xdist", "baseline", "baseline-xdist", "teardown", "teardown-xdist"],
)
def test_an_interrupted_run_has_cleaned_up_when_it_ends(
    start: StartSuite,
    announcements: Announcements,
    remains: Remains,
    source: str,
    workers: tuple[str, ...],
    count: int,
) -> None:
    run = start(source, *workers)
    announcements.read(count)
    runs = remains.runs()

    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=20)

    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "! KeyboardInterrupt !" in output
    remains.wait_until_none(runs.values())


@pytest.mark.parametrize(
    ("request_line", "fault"),
    [
        (r"POST \S+/create\b", Fault.HOLD_ANSWER),
        (r"POST \S+/start\b", Fault.HOLD_ANSWER),
        (r"DELETE \S+/containers/[0-9a-f]{64}", Fault.HOLD),
    ],
    ids=["created", "started", "removed"],
)
def test_a_run_that_is_interrupted_while_a_container_is_made_or_removed_leaves_nothing(
    start: StartSuite, remains: Remains, monkeypatch: pytest.MonkeyPatch, request_line: str, fault: Fault
) -> None:
    with EngineProxy() as proxy:
        proxy.fault(request_line, fault)
        monkeypatch.setenv("DOCKER_HOST", proxy.endpoint)
        run = start("def test_one(sandbox): pass")
        assert proxy.seen.wait(30)
        runs = remains.runs()

        os.killpg(run.pid, signal.SIGINT)
        if fault is Fault.HOLD_ANSWER:
            proxy.let_go()
        output, _ = run.communicate(timeout=20)

    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "! KeyboardInterrupt !" in output
    remains.wait_until_none(runs.values())


TWICE = (
    SLOW_END
    + """
    @pytest.mark.parametrize("turn", [1, 2])
    def test_hangs(sandbox, slow_end, turn):
        say()
        sandbox.exec("sleep 1000")
"""
)


@pytest.mark.parametrize(("workers", "count"), [((), 1), (("-n2",), 2)], ids=["plain", "xdist"])
def test_a_run_that_is_interrupted_twice_leaves_nothing(
    start: StartSuite, announcements: Announcements, remains: Remains, workers: tuple[str, ...], count: int
) -> None:
    run = start(TWICE, *workers)
    announcements.read(count)
    runs = remains.runs()

    os.killpg(run.pid, signal.SIGINT)
    announcements.read(count)  # pytest tears down
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=20)

    assert run.returncode in (pytest.ExitCode.INTERRUPTED, -signal.SIGINT), output
    assert "KeyboardInterrupt" in output
    remains.wait_until_none(runs.values())


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


# --- pytest-timeout ---------------------------------------------------------------------------------------------------


def test_a_test_that_times_out_by_a_signal_fails_and_what_it_waited_for_is_ended(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def afterwards(sandbox):
            yield
            assert b"sleep 1000" not in sandbox.exec(["ps"], check=True).stdout

        def test_exec(sandbox):
            sandbox.exec("sleep 1000")

        def test_output(sandbox):
            with sandbox.start("sleep 1000") as process:
                next(iter(process.stdout))

        def test_terminal(sandbox):
            with sandbox.terminal("sleep 1000") as terminal:
                terminal.expect("never", timeout=1000)

        def test_next(sandbox):
            assert sandbox.exec("echo fine", check=True).stdout == b"fine\\n"
        """,
        "--timeout=1",
        "--timeout-method=signal",
        "-otimeout_func_only=true",
    )

    result.assert_outcomes(passed=1, failed=3)
    # At the user's own line: how we wait is of no interest.
    told = r"^E +Failed: Timeout \(>1\.0s\) from pytest-timeout\.\n\ntest_suite\.py:\d+: Failed$"
    assert len(re.findall(told, result.stdout.str(), re.MULTILINE)) == 3
    result.stdout.re_match_lines([r"  exec `sleep 1000`: CancelledError, 1\.\d\d s"])


def test_a_run_that_ends_by_a_timeout_in_a_thread_leaves_nothing(
    start: StartSuite, announcements: Announcements, remains: Remains
) -> None:
    run = start(HANGING, "--timeout=1", "--timeout-method=thread", "-otimeout_func_only=true")
    announcements.read(1)
    runs = remains.runs()

    output, _ = run.communicate(timeout=20)

    assert run.returncode == 1
    assert "+ Timeout +" in output
    remains.wait_until_none(runs.values())

"""Engines that freeze, die and come back during a run: it ends within its limits, says why, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_proxy import EngineProxy
from tests.support.private_engine import CGROUPS, PrivateEngine

from .conftest import IMAGE, Announcements, RunSuite, StartSuite, wait_until_none

pytestmark = pytest.mark.private_engine


def test_an_engine_of_ones_own_leaves_nothing() -> None:
    with PrivateEngine(IMAGE) as engine:
        api = engine.client()
        host = api.create_host_config(network_mode="none")
        container = api.create_container(IMAGE, ["sleep", "1000"], host_config=host)["Id"]
        api.start(container)
        process = api.inspect_container(container)["State"]["Pid"]
        api.close()
        daemon = engine.pid
        folder = Path(engine.endpoint.removeprefix("unix://")).parent
        assert process > 1  # in the engine's own namespace

    assert not Path(f"/proc/{daemon}").exists()
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert not list(CGROUPS.glob(f"**/{folder.name}"))


# --- one engine for all of what follows -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivateEngine]:
    with PrivateEngine(IMAGE) as engine:
        yield engine


@pytest.fixture
def engine(shared: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> PrivateEngine:
    """The engine that suites use here. A test leaves it as it was: answering, and empty."""
    monkeypatch.setenv("DOCKER_HOST", shared.endpoint)
    return shared


# Bounds of calls in these suites, so that nobody has to wait for the real ones.
IMPATIENT = """
    import os
    import pytest
    import pytest_sandbox.engines.docker as docker_engine
    import pytest_sandbox.engines.waiting as waiting

    docker_engine.CALL_SECONDS = docker_engine.START_SECONDS = 3
    waiting.NOTICE_SECONDS = 1.0
"""

# Something to be broken in the middle of, and two tests after it.
THREE_TESTS = """
    def test_one(sandbox, announce):
        announce(sandbox.name)
        sandbox.exec("sleep 4")

    def test_two(sandbox):
        assert sandbox.exec("echo fine", check=True).stdout == b"fine\\n"

    def test_three(sandbox):
        assert sandbox.exec("echo fine", check=True).stdout == b"fine\\n"
"""


def left(engine: PrivateEngine) -> list[str]:
    """What of ours the engine has: containers, networks, and volumes other than the agent's."""
    api = engine.client()
    try:
        containers = [name for entry in api.containers(all=True) for name in entry["Names"]]
        volumes = [f"{volume['Name']} of {volume['Labels']}" for volume in api.volumes()["Volumes"] or []]
        networks = [network["Name"] for network in api.networks(filters={"type": "custom"})]
        return [*containers, *networks, *(name for name in volumes if "-agent-" not in name)]
    finally:
        api.close()


def wait_until_empty(engine: PrivateEngine, seconds: float = 2) -> None:
    wait_until_none(lambda: left(engine), seconds)


def errors(output: str) -> list[str]:
    """The text of each failure and error of a run, without pytest's header line."""
    sections = re.split(r"^_{3,} .* _{3,}$", output.partition("short test summary")[0], flags=re.MULTILINE)
    return [section.strip() for section in sections[1:]]


def test_an_engine_that_is_killed_fails_tests_in_a_few_lines_and_the_next_run_is_clean(
    engine: PrivateEngine, start: StartSuite, suite: RunSuite, announcements: Announcements
) -> None:
    run = start(THREE_TESTS)
    announcements.read(1)

    engine.kill()
    output, _ = run.communicate(timeout=30)
    engine.start()

    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"SandboxLost: sandbox pytest-sandbox-\S+ is gone: the agent's stream ended", output)
    assert output.count("EngineNotReachable: no container engine answers at") >= 2
    assert max(len(text.splitlines()) for text in errors(output)) <= 15, output
    assert left(engine), "an engine removes containers of its last life without their volumes"
    suite("def test_next(sandbox): assert sandbox.exec(['true']).ok").assert_outcomes(passed=1)
    wait_until_empty(engine)


def test_an_engine_that_comes_back_serves_the_tests_that_follow(
    engine: PrivateEngine, start: StartSuite, announcements: Announcements
) -> None:
    run = start(
        """
        import time

        def test_one(sandbox, announce):
            announce(sandbox.name)
            sandbox.exec("sleep 1000")

        def test_two(sandbox_factory):
            deadline = time.monotonic() + 60
            while True:  # a daemon has no event for "ready" that a stranger could wait for
                try:
                    sandbox = sandbox_factory()
                    break
                except Exception:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            sandbox.exec("true", check=True)
        """
    )
    announcements.read(1)

    engine.kill()
    engine.start()
    output, _ = run.communicate(timeout=90)

    assert "1 failed, 1 passed" in output, output
    wait_until_empty(engine)


# A test that asks for a sandbox when the engine has been frozen.
IN_THE_COLD = (
    IMPATIENT
    + """
    def test_in_the_cold(announce, sandbox_factory):
        announce("ready")
        while not os.path.exists("frozen"):
            pass
        assert sandbox_factory().exec("true").ok
"""
)


def freeze(engine: PrivateEngine, pytester: pytest.Pytester, announcements: Announcements) -> None:
    """Freeze an engine that IN_THE_COLD is about to use."""
    announcements.read(1)
    engine.freeze()
    (pytester.path / "frozen").touch()


def test_an_engine_that_freezes_for_a_moment_fails_nothing_and_that_is_told(
    engine: PrivateEngine, start: StartSuite, announcements: Announcements, pytester: pytest.Pytester
) -> None:
    run = start(IN_THE_COLD)
    freeze(engine, pytester, announcements)
    assert run.stdout is not None

    told = next(line for line in run.stdout if "waiting for the engine's" in line)
    engine.thaw()
    output, _ = run.communicate(timeout=60)

    assert re.search(r"sandbox: waiting for the engine's `[a-z ]+` of \S+.* for 1 s", told)
    assert "1 passed" in output, output
    wait_until_empty(engine)


def test_an_engine_that_stays_frozen_fails_tests_within_the_bound_and_names_the_call(
    engine: PrivateEngine, start: StartSuite, announcements: Announcements, pytester: pytest.Pytester
) -> None:
    run = start(IN_THE_COLD + IN_THE_COLD[len(IMPATIENT) :].replace("in_the_cold", "there_still"))
    freeze(engine, pytester, announcements)
    try:
        output, _ = run.communicate(timeout=60)
    finally:
        engine.thaw()

    assert "2 failed" in output, output
    assert re.search(r"EngineTimeout: the container engine at \S+ did not answer `[a-z ]+` of .* within 3 s", output)
    assert max(len(text.splitlines()) for text in errors(output)) <= 15 + IN_THE_COLD.count("\n"), output
    wait_until_empty(engine)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_ends_a_run_that_waits_for_a_frozen_engine(
    engine: PrivateEngine, start: StartSuite, announcements: Announcements, pytester: pytest.Pytester, times: int
) -> None:
    run = start(IN_THE_COLD.replace("START_SECONDS = 3", "START_SECONDS = 3; docker_engine.START_SECONDS = 60"))
    freeze(engine, pytester, announcements)
    assert run.stdout is not None
    next(line for line in run.stdout if "waiting for the engine's" in line)
    try:
        began = time.monotonic()
        for _ in range(times):
            os.killpg(run.pid, signal.SIGINT)
            time.sleep(0.5 * (times - 1))  # a person's second Ctrl-C comes when the first seems to do nothing
        output, _ = run.communicate(timeout=60)
    finally:
        engine.thaw()

    # The second may strike pytest itself as it writes what the first has interrupted.
    assert run.returncode in (pytest.ExitCode.INTERRUPTED, -signal.SIGINT), output
    assert time.monotonic() - began < 20
    wait_until_empty(engine, seconds=5)


# --- a network between ------------------------------------------------------------------------------------------------


@pytest.fixture
def network(engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProxy]:
    """Between suites and the engine."""
    with EngineProxy() as network:
        monkeypatch.setenv("DOCKER_HOST", network.endpoint)
        yield network


def test_a_network_that_is_cut_fails_tests_in_a_few_lines_and_the_next_run_is_clean(
    engine: PrivateEngine, network: EngineProxy, start: StartSuite, suite: RunSuite, announcements: Announcements
) -> None:
    run = start(THREE_TESTS)
    announcements.read(1)

    network.cut()
    output, _ = run.communicate(timeout=30)

    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"SandboxLost: sandbox pytest-sandbox-\S+ is gone: the agent's stream ended", output), output
    assert output.count("EngineNotReachable: no container engine answers at tcp://") >= 2
    assert max(len(text.splitlines()) for text in errors(output)) <= 15, output
    wait_until_empty(engine)  # the engine has seen the end of the stream, too
    network.heal()
    suite("def test_next(sandbox): assert sandbox.exec(['true']).ok").assert_outcomes(passed=1)
    wait_until_empty(engine)


def test_a_network_that_falls_silent_fails_tests_within_the_bounds_and_the_next_run_is_clean(
    engine: PrivateEngine, network: EngineProxy, start: StartSuite, suite: RunSuite, announcements: Announcements
) -> None:
    run = start(
        IMPATIENT
        + """
    import pytest_sandbox.agent.client as agent_client

    agent_client.BEAT = 0.1  # of which 14 are awaited
    docker_engine.PROBE_SECONDS = 1
"""
        + THREE_TESTS.replace("sleep 4", "sleep 1000")
    )
    announcements.read(1)

    network.silence()
    output, _ = run.communicate(timeout=40)

    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"SandboxLost: sandbox pytest-sandbox-\S+ is gone: its agent does not answer, for 1.4 s", output)
    assert output.count("EngineTimeout: the container engine at tcp://") >= 2
    assert max(len(text.splitlines()) for text in errors(output)) <= 15, output
    assert left(engine), "nobody has told it"
    network.heal()
    suite("def test_next(sandbox): assert sandbox.exec(['true']).ok").assert_outcomes(passed=1)
    wait_until_empty(engine)

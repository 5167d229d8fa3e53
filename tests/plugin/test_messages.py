"""What is on the screen after the commonest mishaps: a few lines that say what happened, to what, and what to try."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.errors import AgentMissing, EnginePermissionDenied, NoSpaceOnHost, SandboxError, SandboxStartFailed
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import SandboxSettings
from tests.support.engine_proxy import EngineProxy, Fault
from tests.support.subprocess_engine import SubprocessEngine

from .conftest import RunSuite

MOST = 15  # lines, the user's own source left out

ONE = "def test_one(sandbox): pass"


def told(result: pytest.RunResult) -> dict[str, list[str]]:
    """What is said of each test that failed: what is below its rule, from the line on in which it failed."""
    blocks: dict[str, list[str]] = {}
    name = ""
    for line in result.outlines:
        if rule := re.match(r"_{3,} (?:ERROR at setup of )?(\S+) _{3,}", line):
            name = rule[1]
            blocks[name] = []
        elif line.startswith(("====", "----")):
            name = ""
        elif name and (blocks[name] or line.startswith(("E ", ">", "["))):
            blocks[name].append(line)
    return blocks


def assert_told(lines: list[str], *patterns: str) -> None:
    text = "\n".join(line.removeprefix("E").strip() for line in lines)
    for pattern in patterns:
        assert re.search(pattern, text), text
    assert len(lines) <= MOST, text


# --- without an engine ------------------------------------------------------------------------------------------------


@pytest.fixture
def deaf_socket(tmp_path: Path) -> Iterator[str]:
    """An engine that takes connections and never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "deaf.sock"))
        listener.listen(64)
        yield f"unix://{tmp_path}/deaf.sock"


def test_the_daemon_is_down(suite: RunSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    result = suite(ONE)

    result.assert_outcomes(errors=1)
    assert_told(
        told(result)["test_one"], r"no container engine answers at unix://\S+none.sock", "start it .*DOCKER_HOST"
    )


def test_the_daemon_hangs(suite: RunSuite, monkeypatch: pytest.MonkeyPatch, deaf_socket: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", deaf_socket)

    result = suite(ONE, "--sandbox-missing=skip")  # it is not missing

    assert_told(told(result)["test_one"], r"did not answer `version` within 3 s; it may be hanging: try `docker ps`")


def test_the_context_is_not_there(suite: RunSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    result = suite(ONE)

    assert_told(told(result)["test_one"], "elsewhere", "context")


@pytest.mark.parametrize(
    ("source", "arguments", "patterns"),
    [
        (
            ONE,
            ["--sandbox-memory=lots"],
            [r"--sandbox-memory: 'lots' is not valid; expected bytes, or a number with `k`"],
        ),
        (
            ONE,
            ["-o", "sandbox_isolation=full"],
            ["sandbox_isolation.*: 'full' is not valid", "`workspace`, `container` or `none`"],
        ),
    ],
)
def test_a_setting_is_invalid(suite: RunSuite, source: str, arguments: list[str], patterns: list[str]) -> None:
    result = suite(source, *arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert_told(result.errlines, *patterns)


def test_without_an_engine_tests_can_be_skipped(
    suite: RunSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    source = "def test_one(sandbox): pass\ndef test_two(module_sandbox): pass\ndef test_three(): pass"

    result = suite(source, "--sandbox-missing=skip", "-rs")

    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.re_match_lines(
        [r"SKIPPED .*: no container engine: no container engine answers at unix://\S+none.sock"]
    )


@pytest.mark.parametrize(
    ("error", "patterns"),
    [
        (
            EnginePermissionDenied("unix:///var/run/docker.sock"),
            ["permission denied at the container engine's socket unix:///var/run/docker.sock", "`docker` group"],
        ),
        (NoSpaceOnHost("/tmp", 5 * 2**20), ["no space left in /tmp on this host, with 5.0 MiB", "TMPDIR"]),
        (AgentMissing("riscv64", ["x86_64"]), [r"no agent for riscv64 .*\(it has: x86_64\)", "install a wheel"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SandboxError) else "",
)
def test_what_takes_another_machine_to_happen(error: SandboxError, patterns: list[str]) -> None:
    assert_told(str(error).splitlines(), *patterns)


def test_the_agent_is_for_another_architecture(tmp_path: Path) -> None:
    engine = SubprocessEngine(("sh", "-c", "echo 'exec /.pytest-sandbox/agent: exec format error' >&2; exit 1"))

    with pytest.raises(SandboxStartFailed) as caught:
        Sandbox.create(SandboxSettings(), engine)

    assert_told(str(caught.value).splitlines(), "the engine says that it is for .*, but does not run programs for that")


# --- on an engine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProxy]:
    with EngineProxy(tmp_path / "engine.sock") as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.endpoint)
        yield proxy


DENIED = "pull access denied for acme/app, repository does not exist or may require 'docker login'"
NOT_EXECUTABLE = (
    "OCI runtime create failed: unable to start container process: exec /.pytest-sandbox/agent: permission denied"
)


@pytest.mark.docker
def test_a_pull_is_denied_and_an_agent_is_not_executable(suite: RunSuite, proxy: EngineProxy) -> None:
    proxy.fault(r"POST .*/images/create", Fault.REFUSE, DENIED)
    denied = suite("import pytest\n@pytest.mark.sandbox(image='acme/app', pull='missing')\n" + ONE)
    proxy.fault(r"POST .*/start ", Fault.REFUSE, NOT_EXECUTABLE)
    noexec = suite(ONE)

    assert_told(
        told(denied)["test_one"],
        r"image acme/app is not available \(pull=missing\): pull access denied for acme/app",
        "run `docker pull acme/app`, or name another one",
    )
    assert_told(
        told(noexec)["test_one"],
        "the engine keeps its volumes where nothing may be executed",
        "without noexec, or move it",
    )


MISHAPS = """
    import socket

    import docker
    import pytest
    from pytest_sandbox import Baseline

    sandbox = pytest.mark.sandbox

    @sandbox(image="no-such:image")
    def test_image(sandbox): pass

    @sandbox(memory="64m")
    def test_space(sandbox):
        sandbox.write_bytes("/tmp/large", bytes(40 * 2**20))

    def test_port(sandbox):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            sandbox.endpoint(80, host_port=taken.getsockname()[1])

    def test_timeout(sandbox):
        sandbox.exec("echo begun; sleep 1000", timeout=0.2)

    @sandbox(memory="64m")
    def test_memory(sandbox):
        sandbox.exec("tail -c 200m /dev/zero | tail -c 100m >/dev/null; x=$(yes | head -c 200m)", check=True)

    @sandbox(memmory="64m")
    def test_keyword(sandbox): pass

    @sandbox(user="nobody-here")
    def test_user(sandbox):
        sandbox.exec("true")

    @sandbox(workspace="/proc/here")
    def test_workspace(sandbox): pass

    def test_removed(sandbox):
        docker.from_env().containers.get(sandbox.name).remove(force=True, v=True)
        sandbox.exec("true")

    def test_slots(sandbox_factory):
        for _ in range(3):
            sandbox_factory()
"""

TOLD = {
    "test_image": [
        r"image no-such:image is not available \(pull=never\): not present, and pulling is off",
        "docker pull",
    ],
    "test_space": ["No space left on device"],
    "test_port": [r"port \d+ of this machine can't be had: Address already in use; leave host_port out for a free one"],
    "test_timeout": ["was killed with all its processes after timeout=0.2 s", "stdout until then:\nbegun"],
    "test_memory": [r"killed: out of memory, limit 64 MiB \(`memory` in the settings\)"],
    "test_keyword": ["'memmory' is not valid; expected `memory`, or another keyword out of image, pull"],
    "test_user": ["user: 'nobody-here' is not valid; expected a user of the image's /etc/passwd"],
    "test_workspace": [
        "workspace: '/proc/here' is not valid; expected a directory on which the engine can mount a volume"
    ],
    "test_removed": [r"sandbox pytest-sandbox-\S+ is gone: "],
    "test_slots": [
        "no slot for another sandbox: all 2 are taken",
        "let fewer tests run at a time, or .*--sandbox-slots",
    ],
}


@pytest.mark.docker
def test_mishaps_of_sandboxes(suite: RunSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # slots of our own
    result = suite(MISHAPS, "--sandbox-slots=2")

    blocks = told(result)
    assert set(blocks) == set(TOLD)
    for name, patterns in TOLD.items():
        assert_told(blocks[name], *patterns)


@pytest.mark.docker
def test_a_baseline_fails(suite: RunSuite) -> None:
    result = suite(
        """
        import pytest
        from pytest_sandbox import Baseline

        @pytest.fixture(scope="module")
        def sandbox_baseline():
            return Baseline(commands=["echo no such package >&2; exit 3"])

        def test_one(sandbox): pass
        def test_two(sandbox): pass
        """
    )

    result.assert_outcomes(errors=2)
    for lines in told(result).values():
        assert_told(
            lines, "failed with exit code 3", "stderr:\nno such package", "raised by the fixture sandbox_baseline"
        )


@pytest.mark.docker
def test_a_worker_crashes(suite: RunSuite) -> None:
    result = suite("import os\ndef test_one(sandbox): os._exit(1)", "-n1")

    assert_told(told(result)["test_suite.py"], r"worker 'gw0' crashed while running 'test_suite.py::test_one'")

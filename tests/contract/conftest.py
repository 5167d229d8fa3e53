"""Each contract test runs on every engine: the agent as a subprocess, and in a container.

`-m "not docker"` leaves the real engine out; an engine that is selected and missing is a failure, never a skip.
It is the one that the `docker` command would use; SANDBOX_TEST_ENGINE=podman makes it Podman.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import PullPolicy, SandboxSettings
from tests.support.podman import use_podman
from tests.support.subprocess_engine import SubprocessEngine

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")  # small: `sh` and the usual tools, nothing more


collect_ignore = [] if os.environ.get("SANDBOX_TEST_ENGINE") == "podman" else ["test_podman.py"]

# The capability table: what an engine can't do, and the tests marked with `needs` leave out there. To users
# docs/how-to.md tells the same.
LACKING = {
    "podman": {
        "joining networks": "a running container that has no network is let into none",
        "BuildKit": "it builds in its own way, which can do most of the same",
    },
}


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("SANDBOX_TEST_ENGINE") == "podman":
        use_podman()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = LACKING.get(os.environ.get("SANDBOX_TEST_ENGINE", ""), {})
    for item in items:
        for mark in item.iter_markers("needs"):
            if (reason := lacking.get(mark.args[0])) is not None:
                item.add_marker(pytest.mark.skip(f"{mark.args[0]}: {reason}"))


@pytest.fixture(scope="module", params=["subprocess", pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = run(find_engine()) if request.param == "docker" else SubprocessEngine()
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def settings(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> SandboxSettings:
    settings = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, timeout=60)
    if isinstance(engine, SubprocessEngine):
        workspace = tmp_path_factory.mktemp("sandbox") / "workspace"
        return replace(settings, workspace=PurePosixPath(workspace))
    return settings


@pytest.fixture(scope="module")
def _shared(engine: Engine, settings: SandboxSettings) -> Iterator[list[Sandbox]]:
    """One sandbox for all tests of a module: starting a container for each would take longer than all that they do."""
    shared = [Sandbox.create(settings, engine)]
    yield shared
    for sandbox in shared:
        sandbox.close()


@pytest.fixture
def sandbox(_shared: list[Sandbox], engine: Engine, settings: SandboxSettings) -> Sandbox:
    """A sandbox without processes and with an empty workspace."""
    if not _shared[-1].running():
        _shared.append(Sandbox.create(settings, engine))
    sandbox = _shared[-1]
    sandbox.sweep()
    sandbox.exec("chmod -R u+rwx . 2>/dev/null; find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +", check=True)
    return sandbox


@pytest.fixture
def core(sandbox: Sandbox) -> SandboxCore:
    """The same, for tests that run coroutines in the owner loop."""
    return sandbox._core


@pytest.fixture
def fresh(engine: Engine, settings: SandboxSettings, tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox that a test may destroy."""
    if isinstance(engine, SubprocessEngine):
        settings = replace(settings, workspace=PurePosixPath(tmp_path / "workspace"))
    with Sandbox.create(settings, engine) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def mapper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that changes a file through a shared mapping: tests/support/mapper.c."""
    program = tmp_path_factory.mktemp("mapper") / "mapper"
    source = Path(__file__).parent.parent / "support" / "mapper.c"
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def exists(engine: Engine) -> Callable[[str], bool]:
    """Whether the engine knows a container of that name, running or not."""
    if isinstance(engine, SubprocessEngine):
        return lambda name: name in engine.names
    import docker

    client = docker.from_env()
    return lambda name: bool(client.containers.list(all=True, filters={"name": name}))


@pytest.fixture
def vanish(engine: Engine) -> Callable[[Sandbox], None]:
    """End a sandbox from outside, as `docker rm -f` does it: nobody in it gets to say anything."""
    if isinstance(engine, SubprocessEngine):
        return lambda sandbox: os.kill(int(sandbox.container.id), signal.SIGKILL)
    return lambda sandbox: run(engine.remove(sandbox.container))

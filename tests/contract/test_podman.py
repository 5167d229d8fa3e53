"""What is Podman's own: the service that is started for a run, names of images, what it can't do."""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import NotWithThisEngine
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import PullPolicy, SandboxSettings
from pytest_sandbox.mounts import Volume
from tests.support.engine_proxy import EngineProxy, Fault

pytestmark = pytest.mark.docker

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")
SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER)

# Holds a sandbox on Podman, says so and the container's id, and lives until its input ends.
OWNER = """
import sys
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from tests.contract.test_podman import SETTINGS
engine = run(find_engine("podman"))
sandbox = Sandbox.create(SETTINGS, engine)
sandbox.exec(["true"], check=True)
print(sandbox.container.id, str(run(engine.describe())).replace(" ", "_"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One in which no service has been started yet, and where no socket of Podman's is."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


def listener(path: Path) -> int:
    """The process that listens on a socket."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        return int(struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


@pytest.mark.skipif(Path("/run/podman/podman.sock").exists(), reason="this machine has a service of Podman's already")
def test_workers_share_a_service_that_ends_with_the_last_of_them_when_they_are_killed(runtime_directory: Path) -> None:
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", OWNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    said = [owner.stdout.readline().split() for owner in owners if owner.stdout is not None]
    (serving,) = runtime_directory.glob("pytest-sandbox/*/socket")
    service = os.pidfd_open(listener(serving))

    os.kill(owners[0].pid, signal.SIGKILL)
    owners[0].communicate()
    shared = not select.select([service], [], [], 0.5)[0]
    os.kill(owners[1].pid, signal.SIGKILL)
    owners[1].communicate()

    assert all("podman" in description and "started_for_this_run" in description for _, description in said)
    assert shared
    assert select.select([service], [], [], 20)[0], "the service is still there"
    os.close(service)
    left = subprocess.run(["podman", "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True).stdout
    assert not {container for container, _ in said} & set(left.split())


def test_a_bare_name_is_that_of_an_image_which_is_there() -> None:
    with Sandbox.create(SETTINGS) as sandbox:
        assert sandbox.container.image_digest.startswith("sha256:")


def test_the_runtime_that_it_tells_is_the_one_that_can_be_had() -> None:
    engine = run(find_engine())
    [only] = run(engine.facts()).runtimes

    with Sandbox.create(replace(SETTINGS, runtime=only), engine) as sandbox:
        assert sandbox.exec("true").ok
    run(engine.close())


def test_a_network_for_the_sandboxes_of_a_test_is_refused_in_words() -> None:
    pool = SandboxPool(find_engine)
    network = run(pool.network())
    sandbox = Sandbox(run(pool.lease(SETTINGS)))

    with pytest.raises(NotWithThisEngine, match="give the sandboxes of a test no names"):
        run(network.join(sandbox._core, "server"))

    run(network.close())
    run(pool.close())


@pytest.mark.asyncio
async def test_a_volume_is_not_removed_between_its_making_and_that_of_the_container_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(f"pytest-sandbox-test-{secrets.token_hex(4)}", "/v", options={"type": "tmpfs", "device": "tmpfs"})
    settings = replace(SETTINGS, mounts=[volume])
    with EngineProxy(tmp_path / "engine.sock") as proxy:
        first = await SandboxCore.create(await find_engine(), settings)
        monkeypatch.setenv("DOCKER_HOST", proxy.endpoint)
        proxy.fault(r"POST .*/containers/create", Fault.HOLD)
        making = asyncio.create_task(SandboxCore.create(await find_engine(), settings))
        await asyncio.to_thread(proxy.seen.wait)

        ending = asyncio.create_task(first.close())
        await asyncio.wait([ending], timeout=1)  # it has to wait for the other one's container
        proxy.let_go()

        second = await making
        await ending
        assert "tmpfs /v tmpfs" in await second.read_text("/proc/mounts")
        await second.close()
        with closing(docker.from_env()) as client:
            assert volume.name not in [each.name for each in client.volumes.list()]
        for sandbox in (first, second):
            await sandbox._engine.close()

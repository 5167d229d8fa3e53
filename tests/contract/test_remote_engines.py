"""An engine at the other end of ssh or TLS is as good as one beside us. The other ends are real, on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import EngineNotReachable, SandboxLost
from pytest_sandbox.models import PullPolicy, SandboxSettings
from tests.support.engine_proxy import EngineProxy, certificates
from tests.support.ssh_server import SshServer

pytestmark = pytest.mark.docker

SETTINGS = SandboxSettings(image=os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox"), pull=PullPolicy.NEVER)

# Holds a sandbox, says its container's id, and lives until its input ends.
OWNER = """
import asyncio, sys
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.discovery import find_engine
from tests.contract.test_remote_engines import SETTINGS

async def main():
    sandbox = await SandboxCore.create(await find_engine(), SETTINGS)
    print(sandbox.container.id, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def ssh(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """The server, named by DOCKER_HOST; connections of this process end with the test."""
    held: dict[Path, int] = {}
    monkeypatch.setattr("pytest_sandbox.engines.companions._held", held)
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", server.url)
    with tempfile.TemporaryDirectory() as directory:  # pytest's would be too long for a socket in it
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield server
        for descriptor in held.values():
            os.close(descriptor)


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_an_engine_behind_ssh_carries_the_stream_as_well(ssh: SshServer) -> None:
    content = os.urandom(4 * 2**20)
    engine = await find_engine()

    async with await SandboxCore.create(engine, SETTINGS) as sandbox:
        result = await sandbox.exec(["cat"], stdin=content)

    assert result.stdout == content
    assert (await engine.describe()).endpoint == ssh.url
    await engine.close()


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_a_connection_that_is_cut_loses_the_sandbox_and_is_opened_again_for_the_next_one(ssh: SshServer) -> None:
    engine = await find_engine()
    sandbox = await SandboxCore.create(engine, SETTINGS)

    ssh.cut()

    with pytest.raises(SandboxLost):
        await sandbox.exec(["sleep", "60"])
    await sandbox.close()
    async with await SandboxCore.create(engine, SETTINGS) as sandbox:
        assert (await sandbox.exec(["true"])).ok
    await engine.close()


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_while_the_other_end_is_gone_ssh_says_why_and_then_it_goes_on(ssh: SshServer) -> None:
    engine = await find_engine()
    sandbox = await SandboxCore.create(engine, SETTINGS)

    ssh.stop()

    try:
        with pytest.raises(SandboxLost, match="Connection refused"):
            await sandbox.exec(["sleep", "60"])
        with pytest.raises(EngineNotReachable, match=r"at ssh://\S+: ssh: connect to host .* Connection refused"):
            await SandboxCore.create(engine, SETTINGS)
    finally:
        ssh.start()
    await sandbox.close()
    async with await SandboxCore.create(engine, SETTINGS) as sandbox:
        assert (await sandbox.exec(["true"])).ok
    await engine.close()


@pytest.mark.ssh
def test_sigkill_of_the_owner_removes_a_container_behind_ssh(ssh: SshServer) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdout is not None
    container = process.stdout.readline().strip()

    os.kill(process.pid, signal.SIGKILL)

    client = docker.APIClient(base_url="unix:///var/run/docker.sock", version="auto")
    try:
        client.wait(container, timeout=5, condition="removed")
    except docker.errors.NotFound:
        pass  # before we asked
    client.close()
    process.communicate()


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_an_unknown_host_key_is_not_reachable(ssh: SshServer) -> None:
    ssh.trust(False)

    with pytest.raises(EngineNotReachable, match=r"ssh://\S+: Host key verification failed"):
        await find_engine()

    ssh.trust()


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_a_socket_that_is_not_at_the_other_end_is_told_as_ssh_tells_it(
    ssh: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"{ssh.url}/no/such.sock")

    with pytest.raises(EngineNotReachable, match=r"such\.sock: .*open failed"):
        await find_engine()


@pytest.mark.ssh
@pytest.mark.asyncio
async def test_without_the_ssh_program_a_remote_engine_is_not_reachable(
    ssh: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(EngineNotReachable, match="ssh"):
        await find_engine()


@pytest.mark.asyncio
async def test_a_context_brings_its_tls_files_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"far").hexdigest()
    meta, tls = tmp_path / "contexts" / "meta" / digest, tmp_path / "contexts" / "tls" / digest / "docker"
    for folder in (meta, tls):
        folder.mkdir(parents=True)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    with EngineProxy(tls=certificates(tls)) as proxy:
        endpoint = {"Host": proxy.endpoint, "SkipTLSVerify": False}
        (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": endpoint}}))

        engine = await find_engine()

        async with await SandboxCore.create(engine, SETTINGS) as sandbox:
            assert (await sandbox.exec(["true"])).ok
        assert str(await engine.describe()).endswith(
            f"at {proxy.endpoint} (current context `far`), linux/{os.uname().machine}"
        )
        await engine.close()
        (tls / "ca.pem").unlink()
        with pytest.raises(EngineNotReachable, match="certificate verify failed"):
            await find_engine()

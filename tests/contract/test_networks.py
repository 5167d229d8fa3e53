"""Networks of several sandboxes: on the real engine, for nothing else has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import docker
import docker.errors
import pytest

from pytest_sandbox.configuration import RunSettings
from pytest_sandbox.core.network import PrivateNetwork
from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.errors import EngineRequestFailed, InvalidSetting, NameTaken
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import PullPolicy, SandboxSettings

pytestmark = pytest.mark.docker
joining = pytest.mark.needs("joining networks")

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")
SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, timeout=30)
INTERFACES = "ls /sys/class/net"


@pytest.fixture
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(find_engine, RunSettings(slots=100))  # others may use this machine, too
    yield pool
    run(pool.close())


@pytest.fixture
def network(pool: SandboxPool) -> Iterator[PrivateNetwork]:
    network = run(pool.network())
    yield network
    run(network.close())


@pytest.fixture
def pair(pool: SandboxPool) -> list[Sandbox]:
    return [Sandbox(run(pool.lease(SETTINGS))) for _ in range(2)]


def exists(network: PrivateNetwork) -> bool:
    client = docker.from_env()
    try:
        return bool(client.networks.list(names=[network.name]))
    finally:
        client.close()


def join(network: PrivateNetwork, sandbox: Sandbox, name: str) -> None:
    run(network.join(sandbox._core, name))


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ü", "a" * 64])
def test_what_is_no_host_name_is_refused(network: PrivateNetwork, pair: list[Sandbox], name: str) -> None:
    with pytest.raises(InvalidSetting, match="a host name"):
        join(network, pair[0], name)

    assert not exists(network)


@joining
def test_a_name_is_taken_once_in_either_case(network: PrivateNetwork, pair: list[Sandbox]) -> None:
    join(network, pair[0], "server")

    with pytest.raises(NameTaken, match=f"'Server' is taken: sandbox {pair[0].name} has it"):
        join(network, pair[1], "Server")


@joining
def test_a_sandbox_that_is_gone_can_not_join(network: PrivateNetwork, pair: list[Sandbox]) -> None:
    pair[0].close()

    with pytest.raises(EngineRequestFailed):
        join(network, pair[0], "server")
    run(network.close())

    assert not exists(network)


@joining
def test_sandboxes_reach_each_other_by_name_and_nothing_else(network: PrivateNetwork, pair: list[Sandbox]) -> None:
    server, client = pair
    join(network, server, "server")
    join(network, client, "client")
    server.start("echo hello | nc -l -p 7000")
    server.wait_for_command("grep -q ':1B58 .* 0A ' /proc/net/tcp /proc/net/tcp6", timeout=10)

    assert client.exec("nc -w 5 server 7000 < /dev/null").stdout == b"hello\n"
    assert server.exec("ping -c 1 -W 5 client").ok
    routers = client.exec(["ip", "route", "show", "default"]).stdout.text.split()[2:3]
    assert not any(client.exec(["ping", "-c", "1", "-W", "1", router]).ok for router in routers), "it leads out"


@joining
def test_a_sandbox_that_has_joined_is_not_another_tests(
    network: PrivateNetwork, pair: list[Sandbox], pool: SandboxPool
) -> None:
    join(network, pair[0], "server")

    assert not run(pool.release(pair[0]._core)), "the engine's own changes are told as the test's"

    again = Sandbox(run(pool.lease(SETTINGS)))
    assert again.name != pair[0].name
    join(network, again, "server")
    join(network, pair[1], "client")
    assert pair[1].exec("ping -c 1 -W 5 server").ok


@joining
@pytest.mark.parametrize("heir", [True, False], ids=["by its heir", "by the next run"])
def test_the_network_of_a_killed_run_is_removed(network: PrivateNetwork, heir: bool) -> None:
    script = """
import asyncio, os, signal, sys
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.engines.heir import heir
async def main():
    heir._deaf = sys.argv[2] == "False"
    engine = await DockerEngine.from_environment()
    await engine.create_network(sys.argv[1])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    client = docker.from_env()
    began = int(time.time())
    killed = subprocess.run([sys.executable, "-c", script, network.name, str(heir)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL

    if heir:
        destroyed = {"network": network.name, "event": "destroy"}
        assert any(client.events(since=began, until=int(time.time()) + 3, filters=destroyed, decode=True))
    else:
        assert exists(network)
        run(sweep())

    assert not exists(network)
    client.close()


async def sweep() -> None:
    engine = await DockerEngine.from_environment()
    await engine.sweep()
    await engine.close()


@joining
def test_a_network_is_removed_though_sandboxes_are_in_it(network: PrivateNetwork, pair: list[Sandbox]) -> None:
    join(network, pair[0], "server")

    run(network.close())
    run(network.close())

    assert not exists(network)
    assert pair[0].exec(INTERFACES).stdout.text.split() == ["lo"]

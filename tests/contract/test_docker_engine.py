"""What the seam promises, of Docker Engine: above all that nothing is left behind, whoever fails, at whatever step.

A real engine throughout; where it has to fail, a proxy stands before its socket.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import pytest
import pytest_asyncio

from pytest_sandbox.agent.binaries import agent_binary
from pytest_sandbox.agent.client import AgentClient
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.engines.docker import DockerEngine, _named
from pytest_sandbox.errors import (
    EngineError,
    EngineNotReachable,
    EnginePermissionDenied,
    EngineRequestFailed,
    EngineTimeout,
    ImageNotAvailable,
    TerminalNotAvailable,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import PullPolicy, SandboxSettings
from tests.support.engine_proxy import EngineProxy, Fault, certificates

pytestmark = pytest.mark.docker

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")
SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER)
PODMAN_ADDS = {"TERM=xterm", "container=podman"}  # to what an image says of the environment
CHECKOUT = Path(__file__).parent.parent.parent

_names = itertools.count(1)

# Each step of a start, as the engine sees it.
CREATE, ATTACH, START = r"POST .*/containers/create", r"POST .*/attach\?", r"POST .*/start "

# A process that holds a sandbox, and says its name, id and build. Arguments: the image, Python for before and after.
OWNER = """
import asyncio, os, pathlib, signal, sys
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.agent import binaries
from pytest_sandbox.agent.client import AgentClient
from pytest_sandbox.models import PullPolicy, SandboxSettings

async def main():
    engine = await DockerEngine.from_environment()
    name = f"pytest-sandbox-owned-{os.getpid()}"
    started = await engine.start(SandboxSettings(image=sys.argv[1], pull=PullPolicy.NEVER), name)
    client = AgentClient(started.stream)
    hello = await client.start()
    words = [name, started.container.id, hello.build]
    exec(sys.argv[3])
    print(*words, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.close()
    await engine.remove(started.container)
    await engine.close()

exec(sys.argv[2])
asyncio.run(main())
"""


@pytest.fixture
def name() -> str:
    return f"pytest-sandbox-test-{os.getpid()}-{next(_names)}"


@pytest.fixture(scope="module")  # to find out what it speaks takes Podman half a second
def api() -> Iterator[docker.APIClient]:
    """The engine as seen from outside."""
    client = docker.from_env().api
    yield client
    client.close()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and markers of a host of our own: what other runs left here is not ours to find."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pytest_sandbox.engines.runs._current", None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.from_environment()
    yield engine
    await engine.close()


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProxy]:
    """Stands before the engine: ask for it before `engine`."""
    with EngineProxy(tmp_path / "engine.sock") as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.endpoint)
        yield proxy


def left(api: docker.APIClient, name: str) -> list[str]:
    """The containers of that name, in whatever state."""
    return [entry["Id"] for entry in api.containers(all=True, filters={"name": name})]


def wait_until_gone(api: docker.APIClient, container: str, seconds: int = 10) -> None:
    try:
        api.wait(container, timeout=seconds, condition="removed")
    except docker.errors.NotFound:
        pass  # before we asked


def wait_until_destroyed(api: docker.APIClient, name: str, began: float, seconds: int = 2) -> None:
    """Wait for a container that may be there already or yet to come. began: before it was made."""
    until = int(time.time()) + seconds + 1
    for event in api.events(since=int(began), until=until, filters={"container": name}, decode=True):
        if event["Action"] in ("destroy", "remove"):  # the other one is Podman's
            return
    pytest.fail(f"{name} was not made or not removed within {seconds} s; now: {left(api, name)}")


def owner(before: str = "", after: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, IMAGE, before, after],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words, f"the owner ended with {process.wait()}"
    return words


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# --- what a container is like -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_discovery_finds_the_engine() -> None:
    engine = await find_engine()

    description = await engine.describe()

    assert description.name in ("docker", "podman")
    assert description.architecture == os.uname().machine
    assert description.id
    await engine.close()


@pytest.mark.asyncio
async def test_start_gives_the_stream_of_an_agent_that_runs_as_root(engine: DockerEngine, name: str) -> None:
    started = await engine.start(SETTINGS, name)
    client = AgentClient(started.stream)

    hello = await client.start()

    assert (hello.pid, hello.uid) == (1, 0)
    assert hello.build == agent_binary(os.uname().machine).build
    assert await engine.alive(started.container)
    await client.close()
    await engine.remove(started.container)


@pytest.mark.asyncio
async def test_a_container_is_confined_as_the_settings_say(
    engine: DockerEngine, api: docker.APIClient, name: str
) -> None:
    settings = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, memory=256 * 2**20, cpus=0.5, pids=99)
    started = await engine.start(settings, name)

    facts = api.inspect_container(started.container.id)

    host, config = facts["HostConfig"], facts["Config"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (2**28, 2**28, 5 * 10**8, 99)
    assert (host["NetworkMode"], host["Privileged"], host["SecurityOpt"]) == ("none", False, ["no-new-privileges"])
    assert (host["AutoRemove"], host["LogConfig"]["Type"]) == (True, "none")
    assert (config["OpenStdin"], config["Tty"]) == (True, False)
    assert config["StdinOnce"] or (await engine.describe()).name == "podman"  # which does it and does not say so
    writable = {mount["Destination"]: mount["RW"] for mount in facts["Mounts"]}
    assert writable == {"/.pytest-sandbox": False, "/workspace": True}
    assert started.container.image_digest == facts["Image"]
    started.stream.close()
    wait_until_gone(api, started.container.id)


@pytest.mark.asyncio
async def test_the_health_check_of_an_image_does_not_run_in_its_sandboxes(
    engine: DockerEngine, api: docker.APIClient, name: str
) -> None:
    image = f"{name}:checked"
    list(api.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nHEALTHCHECK CMD true\n".encode()), tag=image, rm=True))
    unchanged = api.create_container(image, "never", name=f"{name}-unchanged")
    started = await engine.start(replace(SETTINGS, image=image), name)

    facts = [api.inspect_container(each) for each in (unchanged["Id"], started.container.id)]

    assert [each["Config"]["Healthcheck"]["Test"] for each in facts] == [["CMD-SHELL", "true"], ["NONE"]]
    api.remove_container(unchanged["Id"])
    started.stream.close()
    await engine.remove(started.container)
    api.remove_image(image, force=True)


@pytest.mark.asyncio
async def test_more_cpus_than_the_engine_has_are_as_many_as_it_has(engine: DockerEngine, name: str) -> None:
    settings = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, cpus=4096.0)

    started = await engine.start(settings, name)

    await engine.remove(started.container)
    started.stream.close()


@pytest.mark.asyncio
async def test_a_container_of_the_same_name_is_refused_and_left_alone(engine: DockerEngine, name: str) -> None:
    first = await engine.start(SETTINGS, name)

    with pytest.raises(EngineRequestFailed, match="already in use"):
        await engine.start(SETTINGS, name)

    assert await engine.alive(first.container)
    await engine.remove(first.container)
    first.stream.close()


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_end_of_the_stream_removes_container_and_anonymous_volumes(
    engine: DockerEngine, api: docker.APIClient, name: str
) -> None:
    started = await engine.start(SETTINGS, name)
    mounts = api.inspect_container(started.container.id)["Mounts"]
    anonymous = [mount["Name"] for mount in mounts if mount["Destination"] == "/workspace"]

    started.stream.close()

    wait_until_gone(api, started.container.id)
    assert not await engine.alive(started.container)
    assert len(anonymous) == 1
    with pytest.raises(docker.errors.NotFound):
        api.inspect_volume(anonymous[0])


@pytest.mark.asyncio
async def test_remove_is_idempotent_even_at_once(engine: DockerEngine, api: docker.APIClient, name: str) -> None:
    started = await engine.start(SETTINGS, name)
    started.stream.close()

    await asyncio.gather(*(engine.remove(started.container) for _ in range(4)))
    await engine.remove(started.container)

    assert left(api, name) == []


@pytest.mark.asyncio
async def test_a_removal_from_outside_ends_the_stream_and_is_told(
    engine: DockerEngine, api: docker.APIClient, name: str
) -> None:
    started = await engine.start(SETTINGS, name)

    api.remove_container(started.container.id, force=True, v=True)

    assert await started.stream.read() == b""
    assert not await engine.alive(started.container)
    podman = (await engine.describe()).name == "podman"  # which does not say by what
    how = "exit code 137" if podman else "killed through the engine with signal 9"
    assert how in await engine.post_mortem(started.container)
    with pytest.raises(BrokenPipeError):
        await started.stream.write(b"anyone there?")
    started.stream.close()


@pytest.mark.asyncio
async def test_post_mortem_knows_the_exit_code_of_a_container_that_is_gone(engine: DockerEngine, name: str) -> None:
    started = await engine.start(SETTINGS, name)

    await started.stream.write(b"\xff" * 64)  # no frame: the agent ends with EX_DATAERR

    assert await started.stream.read() == b""
    assert await engine.post_mortem(started.container) == "exit code 65; removed"
    started.stream.close()


@pytest.mark.asyncio
async def test_post_mortem_of_a_living_container_says_so(engine: DockerEngine, name: str) -> None:
    started = await engine.start(SETTINGS, name)

    assert await engine.post_mortem(started.container) == "still running"

    await engine.remove(started.container)
    started.stream.close()


@pytest.mark.asyncio
async def test_sigkill_of_the_owner_removes_the_container(api: docker.APIClient) -> None:
    process = owner()
    _, container, _ = said(process)

    os.kill(process.pid, signal.SIGKILL)

    began = time.monotonic()
    wait_until_gone(api, container)
    assert time.monotonic() - began < 2
    end(process)


@pytest.mark.asyncio
async def test_a_forked_child_does_not_keep_its_killed_parents_container(api: docker.APIClient) -> None:
    process = owner(after="child = os.fork()\nif not child:\n    signal.pause()\nwords.append(child)")
    _, container, _, child = said(process)

    os.kill(process.pid, signal.SIGKILL)

    try:
        wait_until_gone(api, container)
        os.kill(int(child), 0)  # it is still there
    finally:
        os.kill(int(child), signal.SIGKILL)
    end(process)


def test_a_killed_run_leaves_no_container_whose_agent_was_stopped(api: docker.APIClient) -> None:
    began = time.time()
    process = owner()
    name, container, _ = said(process)
    os.kill(api.inspect_container(container)["State"]["Pid"], signal.SIGSTOP)

    end(process)

    wait_until_destroyed(api, name, began)


# --- failure and cancellation at every step ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.LOSE_ANSWER], ids=lambda fault: fault.value)
@pytest.mark.parametrize("step", [CREATE, ATTACH, START], ids=["create", "attach", "start"])
@pytest.mark.asyncio
async def test_a_step_that_fails_leaves_no_container(
    proxy: EngineProxy, engine: DockerEngine, api: docker.APIClient, name: str, step: str, fault: Fault
) -> None:
    proxy.fault(step, fault)

    with pytest.raises(EngineError):
        await engine.start(SETTINGS, name)

    assert proxy.seen.is_set()
    assert left(api, name) == []


@pytest.mark.parametrize("step", [CREATE, ATTACH, START], ids=["create", "attach", "start"])
@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_leaves_no_container(
    proxy: EngineProxy, engine: DockerEngine, api: docker.APIClient, name: str, step: str
) -> None:
    proxy.fault(step, Fault.HOLD)
    starting = asyncio.create_task(engine.start(SETTINGS, name))
    await asyncio.to_thread(proxy.seen.wait)

    starting.cancel()
    asyncio.get_running_loop().call_later(0.05, proxy.let_go)

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert left(api, name) == []


@pytest.mark.asyncio
async def test_an_unknown_network_is_the_engines_own_error_and_leaves_no_container(
    engine: DockerEngine, api: docker.APIClient, name: str
) -> None:
    settings = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, network="no-such-network")

    with pytest.raises(EngineRequestFailed, match="no-such-network"):
        await engine.start(settings, name)

    assert left(api, name) == []


@pytest.mark.parametrize(
    ("step", "fault"), [(f"{CREATE}.*-owned-", Fault.HOLD_ANSWER), (START, Fault.HOLD)], ids=["create", "start"]
)
def test_a_run_that_is_killed_on_the_way_to_a_start_leaves_nothing(
    proxy: EngineProxy, api: docker.APIClient, step: str, fault: Fault
) -> None:
    proxy.fault(step, fault)
    began = time.time()
    killed = owner()
    proxy.seen.wait()

    end(killed)

    wait_until_destroyed(api, f"pytest-sandbox-owned-{killed.pid}", began)


@pytest.mark.asyncio
async def test_what_a_run_killed_with_its_heir_left_is_swept(
    proxy: EngineProxy, api: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fault(START, Fault.HOLD)
    killed = owner(before="from pytest_sandbox.engines import heir; heir.heir._deaf = True")
    await asyncio.to_thread(proxy.seen.wait)
    end(killed)
    monkeypatch.setenv("DOCKER_HOST", proxy.engine)
    engine = await DockerEngine.from_environment()
    assert len(left(api, f"pytest-sandbox-owned-{killed.pid}")) == 1

    await engine.sweep()

    assert left(api, f"pytest-sandbox-owned-{killed.pid}") == []
    await engine.close()


@pytest.mark.asyncio
async def test_a_living_run_is_never_swept(engine: DockerEngine, api: docker.APIClient) -> None:
    process = owner()
    name, _, _ = said(process)

    await engine.sweep()

    assert len(left(api, name)) == 1
    process.communicate("")
    assert left(api, name) == []


@pytest.mark.asyncio
async def test_a_living_run_is_not_taken_for_dead_when_our_environment_changes(
    engine: DockerEngine, api: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = owner()
    name, _, _ = said(process)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    await engine.sweep()

    assert len(left(api, name)) == 1
    process.communicate("")


@pytest.mark.asyncio
async def test_volumes_of_others_are_never_swept(api: docker.APIClient, name: str) -> None:
    api.create_volume(name, labels={"theirs": "1"})
    api.create_volume(f"{name}-bare")
    engine = await DockerEngine.from_environment()

    await engine.sweep()
    await engine.close()

    for volume in (name, f"{name}-bare"):
        api.remove_volume(volume)


def test_a_container_that_the_engine_lists_without_a_name_is_gone() -> None:
    listed = [{"Id": "1", "Names": []}, {"Id": "2", "Names": ["/two"]}]

    assert list(_named(listed)) == [("two", listed[1])]


# --- the agent's volume -----------------------------------------------------------------------------------------------


@pytest.fixture
def other_agent(tmp_path: Path, api: docker.APIClient) -> Iterator[str]:
    """An agent that no engine has seen, as a line of Python for an owner: the real one, and a byte."""
    real = agent_binary(os.uname().machine)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "BUILD").write_text(real.build)
    (binaries / real.path.name).write_bytes(real.path.read_bytes() + os.urandom(8))
    before = {volume["Name"] for volume in api.volumes()["Volumes"] or []}
    yield f"binaries.BINARIES = pathlib.Path({str(binaries)!r})"
    for volume in api.volumes(filters={"name": "pytest-sandbox-agent-"})["Volumes"] or []:
        if volume["Name"] not in before:
            api.remove_volume(volume["Name"], force=True)


@pytest.mark.asyncio
async def test_eight_processes_that_need_the_agent_volume_at_once_all_get_it(other_agent: str) -> None:
    processes = [owner(before=other_agent) for _ in range(8)]

    builds = [said(process)[-1] for process in processes]

    assert set(builds) == {agent_binary(os.uname().machine).build}
    for process in processes:
        process.communicate("")
    assert [process.returncode for process in processes] == [0] * 8


@pytest.mark.asyncio
async def test_an_agent_volume_that_was_pruned_is_filled_again(
    engine: DockerEngine,
    api: docker.APIClient,
    other_agent: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pytest_sandbox.agent.binaries.BINARIES", tmp_path / "bin")
    first = await engine.start(SETTINGS, name)
    volume = f"pytest-sandbox-agent-{agent_binary(os.uname().machine).sha256[:12]}"
    first.stream.close()
    await engine.remove(first.container)
    api.remove_volume(volume)

    second = await engine.start(SETTINGS, name)

    client = AgentClient(second.stream)
    assert (await client.start()).pid == 1
    await client.close()
    await engine.remove(second.container)


@pytest.mark.asyncio
async def test_a_lost_marker_does_not_touch_a_volume_that_is_right(
    engine: DockerEngine, proxy: EngineProxy, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = await engine.start(SETTINGS, name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    proxy.fault(r"PUT .*/archive", Fault.REFUSE)
    guarded = await DockerEngine.from_environment()

    second = await guarded.start(SETTINGS, f"{name}-second")

    assert not proxy.seen.is_set()
    for started in (first, second):
        started.stream.close()
        await engine.remove(started.container)
    await guarded.close()


@pytest.mark.parametrize(("days", "count"), [(2, 0), (0, 1)], ids=["long unused", "just used"])
@pytest.mark.asyncio
async def test_agents_of_other_versions_go_when_they_were_not_used_for_a_day(
    engine: DockerEngine,
    api: docker.APIClient,
    other_agent: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    count: int,
) -> None:
    with monkeypatch.context() as other:
        other.setattr("pytest_sandbox.agent.binaries.BINARIES", tmp_path / "bin")
        started = await engine.start(SETTINGS, name)
        volume = f"pytest-sandbox-agent-{agent_binary(os.uname().machine).sha256[:12]}"
    (marker,) = tmp_path.glob(f"cache/**/{volume}")
    used = time.time() - days * 86400
    os.utime(marker, (used, used))
    await engine.sweep()
    assert len(api.volumes(filters={"name": volume})["Volumes"]) == 1, "a container has it"
    await engine.remove(started.container)
    started.stream.close()

    await engine.sweep()

    assert len(api.volumes(filters={"name": volume})["Volumes"] or []) == count
    assert len(list(tmp_path.glob(f"cache/**/{volume}*"))) == 2 * count


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_missing_image_that_may_not_be_pulled_is_not_available(engine: DockerEngine) -> None:
    settings = SandboxSettings(image="pytest-sandbox/never-made", pull=PullPolicy.NEVER)

    with pytest.raises(ImageNotAvailable, match="pulling is off"):
        await engine.ensure_image(settings)


@pytest.mark.parametrize("pull", [PullPolicy.MISSING, PullPolicy.ALWAYS])
@pytest.mark.asyncio
async def test_an_image_that_cannot_be_pulled_is_not_available_and_says_why(
    engine: DockerEngine, pull: PullPolicy
) -> None:
    settings = SandboxSettings(image="localhost:1/pytest-sandbox/never-made:1", pull=pull)

    with pytest.raises(ImageNotAvailable) as caught:
        await engine.ensure_image(settings)

    assert "refused" in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.asyncio
async def test_an_image_that_vanished_after_it_was_ensured_is_not_available(engine: DockerEngine, name: str) -> None:
    settings = SandboxSettings(image="pytest-sandbox/never-made", pull=PullPolicy.MISSING)

    with pytest.raises(ImageNotAvailable):
        await engine.start(settings, name)


@pytest.mark.asyncio
async def test_an_image_may_be_named_by_its_id(engine: DockerEngine) -> None:
    digest = await engine.ensure_image(SETTINGS)

    assert await engine.ensure_image(SandboxSettings(image=digest, pull=PullPolicy.NEVER)) == digest


# --- images made of containers ----------------------------------------------------------------------------------------


@pytest.fixture
def configured_image(api: docker.APIClient, name: str) -> Iterator[str]:
    """An image that says all that can be said of how to run it."""
    container = api.create_container(IMAGE, ["never", "started"], name=f"{name}-source")
    says = {
        "Entrypoint": ["/bin/echo"],
        "Cmd": ["by default"],
        "User": "1000:1000",
        "Env": ["PATH=/bin", "A=b"],
        "WorkingDir": "/bin",
        "Labels": {"theirs": "1"},
    }
    image = api.commit(container["Id"], name, "source", conf=says)
    api.remove_container(container["Id"])
    yield image["Id"]
    api.remove_image(image["Id"], force=True)


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.asyncio
async def test_an_image_of_a_container_has_its_files_and_the_configuration_of_the_image_before(
    engine: DockerEngine, api: docker.APIClient, name: str, configured: bool, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue("configured_image") if configured else IMAGE
    core = await SandboxCore.create(engine, replace(SETTINGS, image=image))
    await core.write_text("/etc/made", "in the system", user="0")
    await core.write_text("made", "in the workspace")
    await core.write_text("/tmp/made", "in /tmp")

    try:
        made = await engine.commit(core.container, f"{name}:made", {"test": name})
        await core.close()

        before, after = (api.inspect_image(each)["Config"] for each in (image, made))  # type: ignore[no-untyped-call]
        for key in ("Entrypoint", "Cmd"):
            assert (after.get(key) or None, key) == (before.get(key) or None, key)
        assert set(after["Env"]) - PODMAN_ADDS == set(before["Env"]) - PODMAN_ADDS
        assert after["WorkingDir"] == (before["WorkingDir"] or "/")
        assert after["User"] == (before["User"] or "0:0")
        theirs = before["Labels"] or {}
        assert {label: text for label, text in after["Labels"].items() if text} == {**theirs, "test": name}
        async with await SandboxCore.create(engine, replace(SETTINGS, image=made)) as again:
            assert await again.read_text("/etc/made") == "in the system"
            assert not await again.exists("made")
            assert not await again.exists("/tmp/made")
    finally:
        api.remove_image(f"{name}:made", force=True)


@pytest.mark.asyncio
async def test_images_are_found_by_label_and_removed_when_no_container_needs_them(
    engine: DockerEngine, name: str
) -> None:
    core = await SandboxCore.create(engine, SETTINGS)
    made = await engine.commit(core.container, f"{name}:made", {"test": name})
    await core.close()
    assert [(image.id, image.labels["test"]) for image in await engine.images(f"test={name}")] == [(made, name)]

    async with await SandboxCore.create(engine, replace(SETTINGS, image=made)):
        await engine.remove_image(made)
        assert [image.id for image in await engine.images(f"test={name}")] == [made]

    await engine.remove_image(made)
    await engine.remove_image(made)
    assert await engine.images(f"test={name}") == []


@pytest.mark.asyncio
async def test_a_commit_that_the_engine_refuses_is_its_own_error(
    proxy: EngineProxy, engine: DockerEngine, name: str
) -> None:
    async with await SandboxCore.create(engine, SETTINGS) as core:
        proxy.fault(r"POST .*/commit", Fault.REFUSE)

        with pytest.raises(EngineError):
            await engine.commit(core.container, f"{name}:made", {"test": name})

    assert await engine.images(f"test={name}") == []


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_no_socket_is_not_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    with pytest.raises(EngineNotReachable, match="No such file or directory"):
        await find_engine()


@pytest.mark.asyncio
async def test_a_socket_without_a_daemon_is_not_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/stale.sock")

        with pytest.raises(EngineNotReachable, match="refused"):
            await find_engine()


@pytest.mark.asyncio
async def test_a_port_without_a_daemon_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(EngineNotReachable, match="refused"):
            await find_engine()


@pytest.mark.asyncio
async def test_an_endpoint_that_is_none_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "carrier-pigeon://roof")

    with pytest.raises(EngineNotReachable, match="carrier-pigeon"):
        await find_engine()


@pytest.mark.asyncio
async def test_a_docker_context_that_does_not_exist_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")

    with pytest.raises(EngineNotReachable, match="no-such-context"):
        await find_engine()


@pytest.mark.asyncio
async def test_something_that_is_no_engine_is_not_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_unix_server(_greet, tmp_path / "mail.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mail.sock")

    with pytest.raises(EngineNotReachable):
        await find_engine()

    server.close()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    writer.close()


@pytest.mark.asyncio
async def test_an_engine_that_hangs_is_given_up_after_three_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/deaf.sock")
        began = time.monotonic()

        with pytest.raises(EngineTimeout, match="within 3 s"):
            await find_engine()

        assert time.monotonic() - began < 4


def test_a_socket_that_may_not_be_used_is_permission_denied() -> None:
    # Root may use any socket, so root becomes nobody first, once all is imported; and tmp_path is root's alone.
    script = (
        "import asyncio, os; from pytest_sandbox.engines.docker import DockerEngine\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: asyncio.run(DockerEngine.from_environment())\n"
        "except Exception as error: print(type(error).__name__)"
    )
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as guarded:
        path = Path(directory, "guarded.sock")
        guarded.bind(str(path))
        guarded.listen()
        path.chmod(0)
        path.parent.chmod(0o755)
        environment = {**os.environ, "DOCKER_HOST": f"unix://{path}", "HOME": "/nonexistent"}

        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT, env=environment
        )

    assert done.stdout.strip() == EnginePermissionDenied.__name__, done.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.asyncio
async def test_an_engine_behind_tcp_carries_the_stream_as_well(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = os.urandom(4 * 2**20)
    with EngineProxy(tls=certificates(tmp_path) if tls else None) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.endpoint)
        if tls:
            monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
            monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")  # which requests would prefer
        engine = await DockerEngine.from_environment()

        async with await SandboxCore.create(engine, SETTINGS, name) as sandbox:
            result = await sandbox.exec(["cat"], stdin=content)

        assert result.stdout == content
        await engine.close()


@pytest.mark.parametrize("replaced_by", ["", "mkfifo /dev/ptmx", "ln -s /dev/null /dev/ptmx"])
def test_a_container_that_has_no_terminals(replaced_by: str) -> None:
    with Sandbox.create(SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER)) as sandbox:
        sandbox.exec(f"rm /dev/ptmx; {replaced_by}", check=True)

        with pytest.raises(TerminalNotAvailable, match="did not start: no terminal"):
            sandbox.terminal()

        assert sandbox.exec(["true"]).ok

"""Mounts of a real engine: what they give a sandbox, and what nothing does to them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import pytest

from pytest_sandbox.configuration import RunSettings
from pytest_sandbox.core.archive import Archive, Entry
from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.core.state import SessionState
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.errors import (
    EngineRequestFailed,
    FileOperationError,
    FileSystemReadOnly,
    InvalidMount,
)
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import MEBIBYTE, PullPolicy, SandboxSettings
from pytest_sandbox.mounts import Bind, Mount, Tmpfs, Volume

from .conftest import IMAGE

pytestmark = pytest.mark.docker

SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, timeout=30)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = run(find_engine())
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def api() -> Iterator[docker.APIClient]:
    client = docker.from_env().api
    yield client
    client.close()


@pytest.fixture
def volume(api: docker.APIClient) -> Iterator[str]:
    """A name that no volume has; afterwards none has it again."""
    name = f"pytest-sandbox-test-{secrets.token_hex(4)}"
    yield name
    assert not exists(api, name), "it was left behind"


def exists(api: docker.APIClient, name: str) -> bool:
    try:
        api.inspect_volume(name)
    except docker.errors.NotFound:
        return False
    return True


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    (source / "in").mkdir()
    (source / "in" / "precious").write_text("kept")
    (source / "out").mkdir()
    (source / "conf").write_text("a = 1\n")
    return source


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(find_engine, RunSettings(slots=100))  # others may use this machine, too
    yield pool
    run(pool.close())


@pytest.fixture(scope="module")
def cache() -> str:
    return f"pytest-sandbox-test-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def settings(source: Path, cache: str) -> SandboxSettings:
    mounts = [
        Bind(source / "in", "/workspace/deep/in"),
        Bind(source / "out", "/out", read_only=False),
        Bind(source / "conf", "/etc/app.conf"),
        Volume(cache, "/workspace/cache"),
        Tmpfs("/scratch", MEBIBYTE, 0o750),
    ]
    return replace(SETTINGS, mounts=mounts)


@pytest.fixture(scope="module")
def leased(pool: SandboxPool, settings: SandboxSettings, cache: str, api: docker.APIClient) -> Iterator[Sandbox]:
    sandbox = Sandbox(run(pool.lease(settings)))
    yield sandbox
    assert not run(pool.release(sandbox._core)), "mounts, or what is in them, are told as changes of the test"
    run(pool.close())
    assert not exists(api, cache)


@pytest.fixture
def sandbox(leased: Sandbox) -> Sandbox:
    leased.hydrate(Archive.build([Entry("f", content=b"1\n"), Entry("deep/f", content=b"2\n")]))
    leased.exec("rm -rf cache/* /out/*; echo volume > cache/v; echo out > /out/o", check=True)
    return leased


def test_binds_are_read_only_unless_they_say_otherwise(sandbox: Sandbox, source: Path) -> None:
    assert sandbox.read_text("deep/in/precious") == "kept"
    assert sandbox.read_text("/etc/app.conf") == "a = 1\n"
    with pytest.raises(FileSystemReadOnly):
        sandbox.write_text("deep/in/more", "")
    with pytest.raises((FileSystemReadOnly, FileOperationError)):
        sandbox.write_text("/etc/app.conf", "")
    assert not sandbox.exec("echo >> /etc/app.conf").ok
    sandbox.write_text("/out/made", "here")

    assert (source / "out" / "made").read_text() == "here"
    assert (source / "conf").read_text() == "a = 1\n"


def test_snapshots_and_archives_are_without_mounts(sandbox: Sandbox) -> None:
    snapshot = sandbox.snapshot()

    assert [str(member.path) for member in sandbox.persist().members()] == [".", "deep", "deep/f", "f"]
    sandbox.exec("echo new > cache/w; rm f; echo 3 > deep/f; echo > g", check=True)
    changes = sandbox.changes(snapshot)
    assert (changes.added, changes.modified, changes.removed) == ({"g"}, {"deep/f"}, {"f"})
    sandbox.restore(snapshot)

    assert not sandbox.changes(snapshot)
    assert not sandbox.changes(snapshot, paranoid=True)
    assert sandbox.read_text("cache/w") == "new\n"
    assert sandbox.read_text("deep/in/precious") == "kept"


def test_making_the_workspace_equal_to_an_archive_leaves_mounts_alone(sandbox: Sandbox) -> None:
    sandbox.hydrate(Archive.build([Entry("only", content=b"x"), Entry("cache/v", content=b"not there")]))

    assert {entry.path.name for entry in sandbox.list_dir()} == {"only", "cache", "deep"}
    assert sandbox.read_text("cache/v") == "volume\n"
    assert sandbox.read_text("deep/in/precious") == "kept"


def test_removal_does_not_enter_mounts(sandbox: Sandbox, source: Path) -> None:
    for path in ("cache", "deep", "/out"):
        with pytest.raises(FileOperationError, match="busy"):
            sandbox.remove(path, recursive=True)

    assert sandbox.read_text("cache/v") == "volume\n"
    assert (source / "out" / "o").read_text() == "out\n"
    assert not sandbox.exists("deep/f"), "what is beside a mount goes"


def test_walking_does_not_enter_mounts_but_can_begin_in_one(sandbox: Sandbox) -> None:
    assert {str(entry.path) for entry in sandbox.walk()} == {"f", "deep", "deep/f", "deep/in", "cache"}
    assert {str(path) for path in sandbox.glob("**/f")} == {"f", "deep/f"}
    assert [str(entry.path) for entry in sandbox.walk("deep/in")] == ["precious"]
    assert [str(path) for path in sandbox.glob("cache/*")] == ["cache/v"]


def test_a_tmpfs_is_empty_again_for_the_next_test(sandbox: Sandbox) -> None:
    sandbox.exec("echo > /scratch/f; mkdir -p /scratch/d/e; chmod 777 /scratch; chown 5:5 /scratch", check=True)
    assert not sandbox.exec("head -c 2000000 /dev/zero > /scratch/big").ok, "larger than its size"

    sandbox.reset()

    assert sandbox.list_dir("/scratch") == []
    found = sandbox.stat("/scratch")
    assert (found.mode, found.uid, found.gid) == (0o750, 0, 0)
    assert sandbox.read_text("cache/v") == "volume\n"


def test_a_fork_has_the_same_mounts(sandbox: Sandbox) -> None:
    with sandbox.fork() as fork:
        fork.exec("echo 2 > cache/v; echo > /scratch/f; test -f f -a -f deep/in/precious", check=True)

    assert sandbox.read_text("cache/v") == "2\n"
    assert sandbox.list_dir("/scratch") == []


def test_the_next_lease_has_the_container_with_its_mounts(
    pool: SandboxPool, sandbox: Sandbox, settings: SandboxSettings
) -> None:
    changes = run(pool.release(sandbox._core))
    again = run(pool.lease(settings))

    assert not changes
    assert again is sandbox._core
    assert sandbox.read_text("cache/v") == "volume\n"


def test_another_settings_mounts_are_another_container(
    pool: SandboxPool, sandbox: Sandbox, settings: SandboxSettings
) -> None:
    other = run(pool.lease(replace(settings, mounts=settings.mounts[:1])))

    assert other is not sandbox._core
    assert not Sandbox(other).exists("cache")
    run(pool.release(other))


def test_one_that_is_there_is_used_and_left_alone(engine: Engine, api: docker.APIClient, volume: str) -> None:
    api.create_volume(volume)
    for content in ("1\n", "1\n1\n"):
        with Sandbox.create(replace(SETTINGS, mounts=[Volume(volume, "/v")]), engine) as sandbox:
            assert sandbox.exec("echo 1 >> /v/f; cat /v/f").stdout.text == content

    assert exists(api, volume)
    api.remove_volume(volume)


def test_one_that_was_made_goes_with_the_last_sandbox_that_has_it(
    engine: Engine, api: docker.APIClient, volume: str
) -> None:
    settings = replace(
        SETTINGS, mounts=[Volume(volume, "/v", driver="local", options={"type": "tmpfs", "device": "tmpfs"})]
    )
    with Sandbox.create(settings, engine) as second:
        with Sandbox.create(settings, engine) as first:
            first.write_text("/v/f", "shared")
            assert api.inspect_volume(volume)["Options"] == {"type": "tmpfs", "device": "tmpfs"}
            assert "tmpfs /v tmpfs" in first.read_text("/proc/mounts")

        assert second.read_text("/v/f") == "shared"

    assert not exists(api, volume)


def test_it_goes_though_the_sandbox_was_lost(engine: Engine, api: docker.APIClient, volume: str) -> None:
    sandbox = Sandbox.create(replace(SETTINGS, mounts=[Volume(volume, "/v")]), engine)
    api.remove_container(sandbox.container.id, force=True, v=True)

    sandbox.close()

    assert not exists(api, volume)


KILLED = """
import os, signal, sys
from pytest_sandbox import PullPolicy, Sandbox, SandboxSettings, Volume
for volume in sys.argv[2:]:
    settings = SandboxSettings(sys.argv[1], PullPolicy.NEVER, mounts=[Volume(volume, "/v")])
    print(Sandbox.create(settings, keep="kept" in volume).container.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_those_of_a_killed_process_are_swept_but_for_what_it_kept(
    engine: Engine, api: docker.APIClient, volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A host of our own, for another worker of this run may sweep, too.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("pytest_sandbox.engines.runs._current", None)
    names = [volume, f"{volume}-kept", f"{volume}-kept-and-lost"]
    killed = subprocess.run([sys.executable, "-c", KILLED, IMAGE, *names], check=False, stdout=subprocess.PIPE)
    ended, kept, lost = killed.stdout.decode().split()
    assert killed.returncode == -signal.SIGKILL
    wait_until_gone(api, ended)
    api.remove_container(lost, force=True, v=True)
    assert [exists(api, name) for name in names] == [True, True, True]

    run(swept())

    assert [exists(api, name) for name in names] == [False, True, False]
    [left] = [each for each in Sandbox.kept(engine) if each.id == kept]
    Sandbox.remove_kept(left, engine)
    assert not exists(api, names[1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"colour": "blue"}, "colour"),  # when the second volume is made
        ({"type": "ext4", "device": "/no/such/device"}, "/no/such/device"),  # when the container is started
    ],
)
def test_what_the_driver_refuses_is_told_and_leaves_no_volume(
    engine: Engine, api: docker.APIClient, volume: str, options: dict[str, str], reason: str
) -> None:
    mounts = [Volume(volume, "/v"), Volume(f"{volume}-x", "/w", options=options)]

    with pytest.raises(EngineRequestFailed, match=reason):
        Sandbox.create(replace(SETTINGS, mounts=mounts), engine)

    assert not exists(api, f"{volume}-x")


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (Bind("no/such/directory", "/data"), "no/such/directory: no such file or directory"),
        (Bind("/var/run/docker.sock", "/run/docker.sock"), "an engine's socket"),
        (Bind("/", "/data"), "the root of the engine's machine"),
        (Tmpfs("/.pytest-sandbox/agent"), "the agent's"),
        (Bind("/etc", "/workspace"), "its target is the workspace"),
    ],
)
def test_a_mount_that_is_refused_leaves_no_container(
    engine: Engine, exists: Callable[[str], bool], mount: Mount, reason: str
) -> None:
    with pytest.raises(InvalidMount, match=reason):
        Sandbox.create(replace(SETTINGS, mounts=[mount]), engine)


def test_what_is_mounted_below_a_source_does_not_come_along(engine: Engine, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", below], check=False, capture_output=True).returncode:
        pytest.skip("mounting takes CAP_SYS_ADMIN")
    try:
        (below / "secret").write_text("")
        with Sandbox.create(replace(SETTINGS, mounts=[Bind(tmp_path, "/data")]), engine) as sandbox:
            assert sandbox.list_dir("/data/below") == []
            with pytest.raises(FileSystemReadOnly):
                sandbox.write_text("/data/below/f", "")
    finally:
        subprocess.run(["umount", below], check=True)


def test_a_session_goes_on_with_its_mounts(engine: Engine, tmp_path: Path, volume: str, api: docker.APIClient) -> None:
    (tmp_path / "f").write_text("here")
    mounts = [
        Bind(tmp_path, "/data"),
        Volume(volume, "/v", options={"type": "tmpfs", "device": "tmpfs"}),
        Tmpfs("/s", 4096),
    ]
    first = Sandbox.create(replace(SETTINGS, mounts=mounts), engine, keep=True)
    state = SessionState.from_json(first.state(store=tmp_path / "store").to_json())
    first.detach()

    with Sandbox.resume(state, engine, store=tmp_path / "store") as again:
        assert again.container.id == first.container.id
        assert again.settings.mounts == tuple(mounts)
        assert again.read_text("/data/f") == "here"
    assert not exists(api, volume)
    with Sandbox.resume(state, engine, store=tmp_path / "store") as anew:
        assert anew.container.id != first.container.id
        assert anew.read_text("/data/f") == "here"
        assert "tmpfs /v tmpfs" in anew.read_text("/proc/mounts")


async def swept() -> None:
    engine = await DockerEngine.from_environment()
    await engine.sweep()
    await engine.close()


def wait_until_gone(api: docker.APIClient, container: str) -> None:
    """Wait for the engine to have removed it by itself."""
    try:
        api.wait(container, condition="removed", timeout=30)
    except docker.errors.NotFound:
        pass  # it was over before we asked

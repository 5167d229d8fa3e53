"""hardened: what its commands can't do, and what works all the same. And the engine's runtimes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import docker
import pytest

from pytest_sandbox.core.network import PrivateNetwork
from pytest_sandbox.core.sandbox import next_name
from pytest_sandbox.errors import CommandNotStarted, InvalidSetting
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import PullPolicy, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine, agent_path

from .conftest import IMAGE

SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, hardened=True, timeout=60)
NONE = "0000000000000000"
AGENTS = (0, 1, 3, 4, 5, 6, 7, 8)  # CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP


@pytest.fixture(scope="module")
def hardened() -> Iterator[Sandbox]:
    with Sandbox.create(SETTINGS) as sandbox:
        yield sandbox


def as_agent(*wrapper: str) -> SubprocessEngine:
    return SubprocessEngine((*wrapper, str(agent_path())))


def subprocess_settings(tmp_path: Path) -> SandboxSettings:
    me = f"{os.geteuid()}:{os.getegid()}"
    return replace(SETTINGS, user=me, workspace=PurePosixPath(tmp_path / "workspace"))


def test_an_agent_that_may_not_drop_capabilities_does_not_start_a_command(tmp_path: Path) -> None:
    without = ("setpriv", "--bounding-set", "-setpcap") if os.geteuid() == 0 else ()  # others have none anyway

    refused = pytest.raises(CommandNotStarted, match="capabilities 'bounding set': Operation not permitted")
    with Sandbox.create(subprocess_settings(tmp_path), as_agent(*without)) as sandbox, refused:
        sandbox.exec("true")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to drop")
def test_an_agent_beside_an_engine_drops_them_too(tmp_path: Path) -> None:
    with Sandbox.create(subprocess_settings(tmp_path), as_agent()) as sandbox:
        status = sandbox.exec("grep -E '^(Cap...|NoNewPrivs)' /proc/self/status", check=True).stdout.text

    assert [line.split()[1] for line in status.splitlines()] == [NONE] * 5 + ["1"]


# --- in a container -------------------------------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.parametrize("user", [None, "root", 1234])
def test_no_command_has_capabilities_or_a_way_to_get_any(hardened: Sandbox, user: str | int | None) -> None:
    lines = hardened.exec("cat /proc/self/status", user=user, check=True).stdout.text.splitlines()

    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [NONE] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.docker
def test_nobody_runs_commands_and_terminals_and_owns_files(hardened: Sandbox) -> None:
    hardened.write_text("mine", "")

    assert hardened.exec("echo $(id -u):$(id -g) $HOME", check=True).stdout == b"65534:65534 /tmp\n"
    assert (hardened.stat("mine").uid, hardened.stat(".").uid) == (65534, 65534)
    with hardened.terminal("grep CapBnd /proc/self/status; id -u") as terminal:
        terminal.expect(f"CapBnd:\t{NONE}\n65534\n")


@pytest.mark.docker
@pytest.mark.parametrize("user", [None, "root"])
@pytest.mark.parametrize(
    "command",
    [
        "touch /etc/passwd",
        "touch /bin/new",
        "echo >/.pytest-sandbox/agent",
        "cp /bin/busybox /tmp/program && /tmp/program true",
        "cp /bin/busybox /var/tmp/program && /var/tmp/program true",
        "touch mine && chown 1:1 mine",
        "mount -t tmpfs none /workspace",
        "mknod null c 1 3",
        "ls /proc/1/root/",
        "chroot / true",
    ],
)
def test_what_can_not_be_done(hardened: Sandbox, command: str, user: str | None) -> None:
    assert not hardened.exec(command, user=user).ok


@pytest.mark.docker
def test_the_loopback_interface_is_the_only_one(hardened: Sandbox) -> None:
    assert hardened.exec("ls /sys/class/net").stdout == b"lo\n"


@pytest.mark.docker
def test_workspaces_programs_and_ports_work_as_ever(hardened: Sandbox) -> None:
    hardened.exec("cp /bin/busybox program; ln -s program true", check=True)
    before = hardened.snapshot()

    assert hardened.exec(["./true"]).ok
    hardened.write_text("more", "x")
    hardened.exec("echo x >/tmp/scratch; sleep 1000 & rm program", check=True)
    hardened.start("nc -ll -p 7000 -e cat")
    hardened.wait_for_port(7000, timeout=10)
    hardened.reset(before)

    assert {str(entry.path) for entry in hardened.walk()} >= {"program", "true"}
    assert not hardened.exists("more")
    assert not hardened.exists("/tmp/scratch")
    assert hardened.exec("ps | grep -c '[s]leep 1000'").stdout == b"0\n"


@pytest.mark.docker
def test_the_container_has_what_its_agent_needs_and_no_more(hardened: Sandbox) -> None:
    client = docker.from_env()
    host = client.api.inspect_container(hardened.container.id)["HostConfig"]
    client.close()
    agent = hardened.exec("cat /proc/1/status", check=True).stdout.text.splitlines()

    status = dict(line.split(":\t", 1) for line in agent if ":\t" in line)
    needed = f"{sum(1 << number for number in AGENTS):016x}"
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [needed] * 3 + [NONE]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (host["ReadonlyRootfs"], host["NetworkMode"], host["Privileged"]) == (True, "none", False)


@pytest.mark.docker
def test_networks_and_users_are_refused(hardened: Sandbox) -> None:
    with pytest.raises(InvalidSetting, match="network: 'bridge' is not valid; expected `none`"):
        Sandbox.create(replace(SETTINGS, network="bridge"))
    with pytest.raises(InvalidSetting, match="users: 'ann' is not valid; expected none"):
        Sandbox.create(replace(SETTINGS, users=["ann"]))

    async def join() -> None:
        await PrivateNetwork(hardened._core._engine, f"{next_name()}-network").join(hardened._core, "server")

    with pytest.raises(InvalidSetting, match="name: 'server' is not valid; expected none"):
        run(join())


@pytest.mark.docker
def test_a_user_who_is_named_is_taken() -> None:
    with Sandbox.create(replace(SETTINGS, user="1000:1000")) as sandbox:
        assert sandbox.exec("id -u; touch here", check=True).stdout == b"1000\n"


@pytest.mark.docker
def test_the_engine_s_runtimes_can_be_chosen_and_others_are_refused() -> None:
    client = docker.from_env()
    facts = client.info()
    podman = "Podman" in str(client.version()["Components"])
    # Podman's API heeds no other than the one of its configuration, though it lists more, and never says which it was.
    known = facts["DefaultRuntime"] if podman else next(name for name in sorted(facts["Runtimes"]) if "runc" in name)
    with Sandbox.create(replace(SETTINGS, hardened=False, runtime=known)) as sandbox:
        host = client.api.inspect_container(sandbox.container.id)["HostConfig"]
    client.close()
    assert podman or host["Runtime"] == known

    with pytest.raises(InvalidSetting, match=rf"runtime: 'no-such' is not valid; expected one .*{known}"):
        Sandbox.create(replace(SETTINGS, runtime="no-such"))

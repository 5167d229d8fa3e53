"""Mounts as objects and as lines: what is taken, what is refused, and with which words."""

from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox.errors import InvalidMount
from pytest_sandbox.models import SandboxSettings
from pytest_sandbox.mounts import Bind, Mount, Tmpfs, Volume, anchored, check, parsed

WORKSPACE = PurePosixPath("/srv/workspace")
OWN = ("/tmp", "/var/tmp")
AGENT = "/opt/agent"


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        ("type=bind,source=./data,target=/data", Bind("data", "/data")),
        ("type=bind,src=/x,dst=/data,readonly", Bind(Path("/x"), PurePosixPath("/data"))),
        (" TYPE=bind, src=/x, destination=/data/, ro=false ", Bind("/x", "/data", read_only=False)),
        ("type=bind,source=~/x,target=/data", Bind(Path.home() / "x", "/data")),
        ('type=bind,"source=/a,b",target=//data', Bind("/a,b", "/data")),
        ('type=bind,"source=/say ""a=b""",target=/data', Bind('/say "a=b"', "/data")),
        ("source=cache,target=/cache", Volume("cache", "/cache")),
        ("type=volume,source=c.1_2-3,target=/cache,readonly=1", Volume("c.1_2-3", "/cache", read_only=True)),
        (
            'source=c,target=/c,volume-driver=nfs,volume-opt=o=addr,"volume-opt=p=x,y"',
            Volume("c", "/c", driver="nfs", options={"o": "addr", "p": "x,y"}),
        ),
        ("type=tmpfs,target=/scratch", Tmpfs("/scratch")),
        ("type=tmpfs,dst=/scratch,tmpfs-size=1.5m,tmpfs-mode=0700", Tmpfs("/scratch", 1536 * 1024, 0o700)),
    ],
)
def test_a_line_is_read_and_written(line: str, mount: Mount) -> None:
    assert parsed(line) == mount
    assert parsed(str(mount)) == mount


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "needs a target"),
        ("type=bind,source=/x", "needs a target"),
        ("type=bind,target=/data", "needs a source, the path"),
        ("type=bind,source=,target=/data", "needs a source, the path"),
        ("type=bind,source=/x,target=", "needs a target"),
        ("type=bind,source=/x,target=data", "'data' is relative; it has to begin with a slash"),
        ("type=bind,source=/x,target=/data/../etc", "'/data/../etc' has a `..`"),
        ("type=bind,source=/x,target=//", "is the root of the sandbox"),
        ("type=bind,source=/x,target=/a\0", "needs a target"),
        ("type=bind,source=/x\0,target=/a", "needs a source"),
        ("type=bind,source=/x,target=/a,target=/b", "'target' is there twice"),
        ("type=bind,source=/x,src=/y,target=/a", "'source' is there twice"),
        ("type=bind,source=/x,target=/a,readonly=maybe", "readonly is true or false, not 'maybe'"),
        ("type=bind,source=/x,target=/a,bind-propagation=shared", "'bind-propagation' is no option of a bind here"),
        ("type=bind,source=/x,target=/a,volume-opt=a=b", "'volume-opt' is no option of a bind here"),
        ("type=npipe,source=/x,target=/a", "its type 'npipe' is none of bind, volume, tmpfs"),
        ('type=bind,"source=/x', "can't be read"),
        ("type=bind,source=/x,target=/a,=b", "'=b' has no name"),
        ("source=./data,target=/data", "'./data' is no name of a volume; a path is the source of a bind"),
        ("target=/data", "'' is no name of a volume"),
        ("source=c,target=/c,volume-opt=a=1,volume-opt=a=2", "'volume-opt' is there twice"),
        ("type=tmpfs,source=c,target=/c", "'source' is no option of a tmpfs here; those are type, target, tmpfs-size"),
        ("type=tmpfs,target=/c,tmpfs-size=lots", "tmpfs-size is bytes or a number with k, m or g"),
        ("type=tmpfs,target=/c,tmpfs-mode=9", "tmpfs-mode is octal"),
        ("type=tmpfs,target=/c,tmpfs-size=0", "its size 0 is not a number of bytes above 0"),
        ("type=tmpfs,target=/c,tmpfs-mode=77777", "is not one of 0 to 0o7777"),
    ],
)
def test_a_line_that_can_not_be_meant_is_named_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidMount) as caught:
        parsed(line)

    assert reason in caught.value.reason
    assert str(caught.value).startswith("mounts: mount '")


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        ([Bind("/x", "/srv/workspace")], "its target is the workspace /srv/workspace"),
        ([Volume("v", "/srv/")], "its target is above the workspace /srv/workspace"),
        ([Tmpfs("/tmp")], "would hide /tmp, which is each sandbox's own"),
        ([Tmpfs("/var")], "would hide /var/tmp"),
        ([Bind("/x", "/opt")], "would hide /opt/agent"),
        ([Bind("/x", "/opt/agent/x")], "/opt/agent is the kernel's, or the agent's"),
        ([Bind("/x", "/proc/sys")], "/proc is the kernel's"),
        ([Tmpfs("/dev/shm")], "/dev is the kernel's"),
        ([Bind("/x", "/a"), Volume("v", "/a")], "'type=bind,source=/x,target=/a,readonly' has the same target"),
        ([Bind("/x", "/a/b"), Volume("v", "/a")], "'type=bind,source=/x,target=/a/b,readonly' are one in the other"),
        ([Bind("/x", "/a"), Volume("v", "/a/b/c")], "are one in the other"),
        (["type=bind"], "a str is none of Bind, Volume, Tmpfs"),
    ],
)
def test_what_can_not_be_in_a_sandbox_is_named_with_the_reason(mounts: list[Mount], reason: str) -> None:
    with pytest.raises(InvalidMount) as caught:
        check(mounts, WORKSPACE, OWN, AGENT)

    assert caught.value.mount == str(mounts[-1])
    assert reason in caught.value.reason


def test_mounts_below_the_workspace_and_beside_each_other_are_taken() -> None:
    check(
        [Bind("/x", "/srv/workspace/data"), Tmpfs("/srv/workspace/data2"), Volume("v", "/srv/a")], WORKSPACE, OWN, AGENT
    )
    check([Tmpfs("/tmp/mine"), Bind("/x", "/procfs"), Bind("/x", "/etc/app.conf")], WORKSPACE, OWN, AGENT)


def test_relative_sources_begin_at_the_root_directory() -> None:
    mounts = (Bind("data", "/a"), Bind("/x", "/b"), Volume("data", "/c"))

    assert anchored(mounts, Path("/root")) == (Bind("/root/data", "/a"), Bind("/x", "/b"), Volume("data", "/c"))


def test_mounts_are_part_of_what_a_container_is_made_from() -> None:
    one = SandboxSettings(mounts=[Volume("v", "/a", driver="local", options={"type": "tmpfs"})])
    other = SandboxSettings(mounts=[Volume("v", "/a", driver="local", options={"type": "nfs"})])

    assert one.container_key == SandboxSettings(mounts=list(one.mounts)).container_key
    assert hash(one.container_key) == hash(SandboxSettings(mounts=one.mounts).container_key)
    assert one.container_key != other.container_key != SandboxSettings().container_key


def test_the_error_goes_to_another_process_as_it_is() -> None:
    error = InvalidMount("type=bind", "it needs a target", "tox.ini")

    assert str(pickle.loads(pickle.dumps(error))) == "tox.ini: mount 'type=bind': it needs a target"

"""What an engine is told of mounts, and which sources it never is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.engines.mounting import engine_mounts, engine_tmpfs, refused
from pytest_sandbox.errors import InvalidMount
from pytest_sandbox.models import SandboxSettings
from pytest_sandbox.mounts import Bind, Mount, Tmpfs, Volume

REMOTE = "tcp://engine.example:2376"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """Of an engine on this machine, whose socket is in a directory of its own."""
    folder = tmp_path / "run" / "engine"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "engine.sock"))
        yield f"unix://{folder}/engine.sock"


def source(mount: Mount, endpoint: str) -> str:
    return str(engine_mounts(SandboxSettings(mounts=[mount]), endpoint, {})[0]["Source"])


def test_the_source_of_a_bind_is_told_without_links(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")

    assert source(Bind(tmp_path / "link" / ".." / "link", "/data"), endpoint) == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("path", "reason"), [("missing", "missing: no such file or directory"), ("loop", "symbolic links")]
)
def test_a_source_that_is_not_there_is_named(tmp_path: Path, endpoint: str, path: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(InvalidMount, match=reason):
        source(Bind(tmp_path / path, "/data"), endpoint)


@pytest.mark.parametrize("path", ["run/engine/engine.sock", "run/engine", "run", "link", "link to it", "/"])
def test_no_source_leads_to_the_engine(tmp_path: Path, endpoint: str, path: str) -> None:
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "link to it").symlink_to("run/engine/engine.sock")

    with pytest.raises(InvalidMount, match=r"engine's (socket|machine)"):
        source(Bind(tmp_path / path, "/data"), endpoint)


def test_a_socket_of_something_else_is_taken(tmp_path: Path, endpoint: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent.sock"))

        assert source(Bind(tmp_path / "agent.sock", "/agent.sock"), endpoint) == str(tmp_path / "agent.sock")


@pytest.mark.parametrize("path", ["/var/run/docker.sock", "/run/../run/podman/podman.sock", "/var/run/", "/run", "//"])
def test_of_another_machine_what_is_written_counts(path: str) -> None:
    with pytest.raises(InvalidMount, match=r"engine's (socket|machine)"):
        source(Bind(path, "/data"), REMOTE)

    assert source(Bind("/no/such/directory", "/data"), REMOTE) == "/no/such/directory"


def test_the_sockets_of_a_rootless_engine_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/4242")

    with pytest.raises(InvalidMount, match=r"an engine's socket \(/run/user/4242/podman/podman.sock\)"):
        source(Bind("/run/user/4242/podman", "/data"), REMOTE)


def test_what_the_engine_is_told() -> None:
    settings = SandboxSettings(
        memory=1000,
        mounts=[
            Volume("v", "/b", read_only=True),
            Volume("w", "/c", options={"type": "tmpfs"}),
            Tmpfs("/d"),
            Tmpfs("/e", 77, 0o700),
        ],
    )

    first, second = engine_mounts(settings, REMOTE, {"made-by": "us"})

    assert (first["Type"], first["Source"], first["Target"], first["ReadOnly"]) == ("volume", "v", "/b", True)
    assert first["VolumeOptions"] == {"Labels": {"made-by": "us"}}
    assert second["VolumeOptions"]["DriverConfig"] == {"Name": "local", "Options": {"type": "tmpfs"}}
    assert engine_tmpfs(settings) == {
        "/d": "rw,exec,nosuid,nodev,mode=1777,size=500",
        "/e": "rw,exec,nosuid,nodev,mode=700,size=77",
    }


@pytest.mark.parametrize(
    ("answer", "named", "reason"),
    [
        (
            'invalid mount config for type "bind": bind source path does not exist: /no/such dir',
            0,
            "is not there on the",
        ),
        ("statfs /no/such dir: no such file or directory", 0, "is not there on the"),
        # After 15 s, in which Docker looks for it again and again; so no test asks for one.
        (
            'create v: error looking up volume plugin blue: plugin "blue" not found',
            1,
            "the engine has no volume driver 'blue'",
        ),
    ],
)
def test_what_an_engine_says_of_a_mount_is_told_of_that(answer: str, named: int, reason: str) -> None:
    mounts = [Bind("/no/such dir", "/a"), Volume("v", "/b", driver="blue"), Volume("w", "/c"), Tmpfs("/d")]

    error = refused(mounts, answer)

    assert error is not None
    assert error.mount == str(mounts[named])
    assert reason in error.reason
    assert refused(mounts[2:], answer) is None
    assert refused(mounts, "no space left on device") is None

"""Which engine is chosen where none answers; what is found where one does is told in tests/contract."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import EngineNotFound, EngineNotReachable


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without engines, and with nothing that names one; its runtime directory is returned."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's would be too long for sockets
        for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HOME", "PATH", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, directory)
        monkeypatch.setattr("pytest_sandbox.engines.addresses.DEFAULT_URL", f"unix://{directory}/var/docker.sock")
        yield Path(directory)


def listened_on_by_nobody(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.asyncio
async def test_where_none_is_found_each_place_is_told_with_the_reason(nowhere: Path) -> None:
    with pytest.raises(EngineNotFound) as caught:
        await find_engine()

    lines = str(caught.value).splitlines()
    assert len(lines) <= 12
    assert f"  unix://{nowhere}/docker.sock (rootless Docker's socket): No such file or directory" in lines
    assert "  `podman system service` (started for this run): no such program on PATH" in lines


@pytest.mark.parametrize(("choice", "count"), [("docker", 5), ("podman", 3), ("auto", 8)])
@pytest.mark.asyncio
async def test_a_kind_that_is_chosen_is_looked_for_alone(nowhere: Path, choice: str, count: int) -> None:
    with pytest.raises(EngineNotFound) as caught:
        await find_engine(choice)

    assert len(caught.value.tried) == count


@pytest.mark.asyncio
async def test_where_only_one_is_there_its_own_failure_is_told(nowhere: Path) -> None:
    listened_on_by_nobody(nowhere / ".colima" / "default" / "docker.sock")

    with pytest.raises(EngineNotReachable, match=r"colima/default/docker\.sock: Connection refused"):
        await find_engine()


@pytest.mark.asyncio
async def test_where_several_are_there_the_failure_of_each_is_told(nowhere: Path) -> None:
    listened_on_by_nobody(nowhere / "docker.sock")
    listened_on_by_nobody(nowhere / "podman" / "podman.sock")

    with pytest.raises(EngineNotFound) as caught:
        await find_engine()

    assert str(caught.value).count("Connection refused") == 2


@pytest.mark.asyncio
async def test_podmans_program_that_fails_is_told_in_its_own_words(nowhere: Path) -> None:
    (nowhere / "podman").write_text("#!/bin/sh\necho 'Error: no space for it' >&2\nexit 125\n")
    (nowhere / "podman").chmod(0o755)

    with pytest.raises(EngineNotReachable, match="at `podman system service`: Error: no space for it"):
        await find_engine()


@pytest.mark.parametrize(
    ("variable", "choice", "named"),
    [
        ("DOCKER_HOST", "auto", True),
        ("DOCKER_HOST", "podman", False),
        ("CONTAINER_HOST", "auto", True),
        ("CONTAINER_HOST", "docker", False),
    ],
)
@pytest.mark.asyncio
async def test_what_a_variable_names_has_to_answer(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, variable: str, choice: str, named: bool
) -> None:
    monkeypatch.setenv(variable, f"unix://{nowhere}/none.sock")

    with pytest.raises(EngineNotReachable) as caught:
        await find_engine(choice)

    assert isinstance(caught.value, EngineNotFound) != named
    assert ("none.sock" in str(caught.value)) == named


def test_looking_where_nobody_is_does_not_import_the_client(nowhere: Path) -> None:
    script = (
        "import asyncio, sys; from pytest_sandbox.engines import addresses, discovery\n"
        "addresses.DEFAULT_URL = 'unix:///nowhere/docker.sock'\n"
        "try: asyncio.run(discovery.find_engine())\n"
        "except Exception as error: print(type(error).__name__, 'docker' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[3], env=os.environ
    )

    assert done.stdout.split() == ["EngineNotFound", "False"], done.stderr

"""Each test here writes a small suite and runs it in a pytest of its own, against the real engine."""

from __future__ import annotations

import os
import selectors
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker import DockerClient

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")

RunSuite = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def only_test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of whoever runs this suite don't reach the suites in it; theirs use the small image and never pull.

    Nor do kept baselines: each test has a store of its own.
    """
    for name in [name for name in os.environ if name.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    # A worker of this suite is not to be taken for a worker of the suite it runs.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_") or name == "PYTEST_ADDOPTS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SANDBOX_IMAGE", IMAGE)
    monkeypatch.setenv("SANDBOX_PULL", "never")
    monkeypatch.setenv("SANDBOX_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SANDBOX_SLOTS", "100")  # others may use this machine, too


@pytest.fixture
def suite(pytester: pytest.Pytester) -> RunSuite:
    """Run a suite given as text, with pytest's arguments."""

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_suite=textwrap.dedent(source))
        return pytester.runpytest_subprocess(*arguments, timeout=120)

    return run


@pytest.fixture(params=[(), ("-n2", "--dist=loadfile")], ids=["plain", "xdist"])
def suite_both_ways(suite: RunSuite, request: pytest.FixtureRequest) -> RunSuite:
    """The same, in one process and on two xdist workers; a module stays on one, so that its tests follow each other."""
    arguments: tuple[str, ...] = request.param
    return lambda source, *more: suite(source, *more, *arguments)


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    """The engine's own client, to look at sandboxes from outside."""
    client = docker.from_env()
    yield client
    client.close()


class Announcements:
    """A FIFO in which tests of a running suite say a line each; reading waits for them."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fifo = os.open(path, os.O_RDWR)  # a writer of our own keeps it from ending between two tests

    def read(self, count: int, timeout: float = 60.0) -> list[str]:
        """Return that many lines, or fail after so many seconds."""
        text = b""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._fifo, selectors.EVENT_READ)
            while text.count(b"\n") < count:
                assert selector.select(deadline - time.monotonic()), f"{count} lines awaited, came: {text!r}"
                text += os.read(self._fifo, 4096)
        return text.decode().splitlines()

    def close(self) -> None:
        os.close(self._fifo)


@pytest.fixture
def announcements(pytester: pytest.Pytester) -> Iterator[Announcements]:
    """Suites get at it through the fixture `announce`."""
    fifo = Announcements(pytester.path / "announcements")
    pytester.makeconftest(
        f"""
        import pytest

        @pytest.fixture
        def announce():
            def write(line):
                with open({str(fifo.path)!r}, "a") as fifo:
                    fifo.write(line + "\\n")
            return write
        """
    )
    yield fifo
    fifo.close()


def wait_until_gone(engine: DockerClient, names: list[str], seconds: float) -> None:
    """Fail if one of the containers still exists after so many seconds; for this the engine has to be polled."""
    deadline = time.monotonic() + seconds
    while left := existing(engine, names):
        assert time.monotonic() < deadline, f"still there after {seconds:g} s: {left}"
        time.sleep(0.05)


def existing(engine: DockerClient, names: list[str]) -> list[str]:
    return [c["Names"][0][1:] for c in engine.api.containers(all=True) if c["Names"] and c["Names"][0][1:] in names]

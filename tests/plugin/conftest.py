"""Each test here writes a small suite and runs it in a pytest of its own, against the real engine."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import docker
import pytest
from docker import DockerClient

from pytest_sandbox.folders import state_folder

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")

RunSuite = Callable[..., pytest.RunResult]
StartSuite = Callable[..., "subprocess.Popen[str]"]

LABEL_RUN = "pytest-sandbox.run"
HEIR = "heir_main.py"


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


@pytest.fixture
def start(pytester: pytest.Pytester) -> Iterator[StartSuite]:
    """Start a suite as a process group, for something to happen to it. by: a program that runs what follows it."""
    started: list[subprocess.Popen[str]] = []

    def run(source: str, *arguments: str, by: Sequence[str] = ()) -> subprocess.Popen[str]:
        pytester.makepyfile(test_suite=textwrap.dedent(source))
        started.append(
            subprocess.Popen(
                [*by, sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=pytester.path,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


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


class Remains:
    """What suites of a test leave behind: on the engine by the labels of their runs, on this host by a variable."""

    def __init__(self, engine: DockerClient, folder: Path, temporary: Path) -> None:
        self._engine = engine
        self._folder = folder
        self.temporary = temporary
        self._mark = f"TMPDIR={temporary}".encode()

    def runs(self) -> dict[int, str]:
        """Return the runs of now that have used the engine, by process: what they say themselves (engines/runs.py)."""
        said = {path.stem: path.read_text().split(" ", 3) for path in state_folder("runs").glob("*.lock")}
        found = {int(pid): run for run, (_, pid, _, folder) in said.items() if folder == str(self._folder)}
        assert found
        return found

    def of(self, runs: Collection[str]) -> list[str]:
        """Return what the engine has of some runs: containers, volumes, networks."""
        api = self._engine.api
        listed = [*api.containers(all=True), *(api.volumes()["Volumes"] or []), *api.networks()]
        ours = [each for each in listed if (each["Labels"] or {}).get(LABEL_RUN) in runs]
        return [str(each.get("Name") or each["Names"]) for each in ours]

    def here(self) -> list[str]:
        """Return what is on this host: processes of any suite of this test, and temporary files.

        Without heirs, which look for some seconds more whether what they are to end comes late.
        """
        processes = [_command(path) for path in Path("/proc").glob("[0-9]*") if self._mark in _variables(path)]
        return [
            *(command for command in processes if command and HEIR not in command),
            *map(str, self.temporary.iterdir()),
        ]

    def wait_until_none(self, runs: Collection[str], seconds: float = 2) -> None:
        """Fail if anything is left after so many seconds, of some runs or of any suite here."""
        wait_until_none(lambda: [*self.of(runs), *self.here()], seconds)


@pytest.fixture
def remains(engine: DockerClient, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remains]:
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:  # short: companions have sockets there
        monkeypatch.setenv("TMPDIR", folder)
        yield Remains(engine, pytester.path, Path(folder))


def _variables(process: Path) -> list[bytes]:
    return _told(process / "environ").split(b"\0")


def _command(process: Path) -> str:
    return _told(process / "cmdline").replace(b"\0", b" ").decode(errors="replace")


def _told(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # it has ended, or is another user's


def wait_until_gone(engine: DockerClient, names: list[str], seconds: float) -> None:
    """Fail if one of the containers still exists after so many seconds."""
    wait_until_none(lambda: existing(engine, names), seconds)


def wait_until_none(look: Callable[[], list[str]], seconds: float = 2) -> None:
    """Fail if there still is something after so many seconds; neither an engine nor /proc has an event for it."""
    deadline = time.monotonic() + seconds
    while left := look():
        assert time.monotonic() < deadline, f"still there after {seconds:g} s: {left}"
        time.sleep(0.05)


def existing(engine: DockerClient, names: list[str]) -> list[str]:
    return [c["Names"][0][1:] for c in engine.api.containers(all=True) if c["Names"] and c["Names"][0][1:] in names]

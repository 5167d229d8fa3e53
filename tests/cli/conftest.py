"""The command as people use it: a process of its own, on a terminal of its own where it takes one."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import PullPolicy, SandboxSettings

IMAGE = os.environ.get("SANDBOX_TEST_IMAGE", "pytest-sandbox/busybox")
SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER)

Keep = Callable[..., Sandbox]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of a host of our own, for this process and for the commands."""
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(state))
        patch.setattr("pytest_sandbox.engines.runs._current", None)
        yield state


@pytest.fixture(scope="module")
def keep(host: Path) -> Iterator[Keep]:
    """Make a kept sandbox, left by the one who made it; it is removed at the end."""
    made: list[str] = []

    def make(note: str = "test_it.py::test_one", settings: SandboxSettings = SETTINGS) -> Sandbox:
        sandbox = Sandbox.create(settings)
        made.append(sandbox.name)
        sandbox.keep(note)
        sandbox.detach()
        _as_of_an_ended_run(sandbox.name)
        return sandbox

    yield make
    for kept in Sandbox.kept():
        if kept.name in made:
            Sandbox.remove_kept(kept)


def _as_of_an_ended_run(name: str) -> None:
    """This process goes on; a run whose tests failed does not."""
    from dataclasses import replace

    notes = KeptNotes()
    [note] = [note for note in notes.all() if note.name == name]
    notes.write(replace(note, run="00000000"))


@pytest.fixture
def command(host: Path) -> Command:
    """Run the command with arguments, without a terminal."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest_sandbox.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )

    return run


class Person:
    """Somebody at a terminal on which the command runs."""

    def __init__(self, *arguments: str, rows: int = 24, columns: int = 80) -> None:
        self._terminal, theirs = os.openpty()
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(theirs)
        self._theirs = theirs  # held on to: its modes are looked at when the command is over
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest_sandbox.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = b""

    def types(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def sees(self, text: bytes, timeout: float = 60.0) -> None:
        """Wait until it has been shown since the last time."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            assert select.select([self._terminal], [], [], deadline - time.monotonic())[0], self.seen
            self.seen += os.read(self._terminal, 4096)
        self.seen = self.seen.partition(text)[2]

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def modes_are_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.modes

    def hangs_up(self) -> None:
        """Close the window."""
        for descriptor in (self._theirs, self._terminal):
            os.close(descriptor)
        self._theirs = self._terminal = -1

    def leaves(self) -> int:
        """Wait for the end of the command, and return its exit status."""
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._terminal >= 0:
            self.hangs_up()


@pytest.fixture
def person(host: Path) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def make(*arguments: str, rows: int = 24, columns: int = 80) -> Person:
        people.append(Person(*arguments, rows=rows, columns=columns))
        return people[-1]

    yield make
    for each in people:
        each.close()

"""Programs that are shared by processes, and end with the last of them, however that ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.engines.companions import SOCKET, CompanionFailed, companion
from pytest_sandbox.engines.connections import _companion_again

SECONDS = 20
CHECKOUT = Path(__file__).parent.parent.parent.parent

# Says its process id to each that connects. Arguments: the socket's path, a signal to ignore or nothing.
SERVER = """
import os, signal, socket, sys
if sys.argv[2:]:
    signal.signal(int(sys.argv[2]), signal.SIG_IGN)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    caller, _ = server.accept()
    try:
        caller.sendall(b"%d" % os.getpid())
    except OSError:
        pass  # it only wanted to see whether somebody answers
    caller.close()
"""
COMMAND = (sys.executable, "-c", SERVER, SOCKET)

# Needs the companion, says what answers, and lives until its input ends.
USER = """
import os, signal, sys
from pytest_sandbox.engines.companions import companion
from tests.unit.engines.test_companions import who
print(who(companion({command}, {seconds})), flush=True)
{then}
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One of our own; pytest's would be too long for a socket in it. What this process holds ends with the test."""
    held: dict[Path, int] = {}
    monkeypatch.setattr("pytest_sandbox.engines.companions._held", held)
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
        for descriptor in held.values():
            os.close(descriptor)


def who(serving: Path) -> int:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(serving))
        return int(caller.recv(100))


def kill(process: subprocess.Popen[str]) -> None:
    if process.returncode is None:
        process.kill()
        process.communicate()


class Users:
    """Makes processes that need the companion, and ends those that are left."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, then: str = "", command: tuple[str, ...] = COMMAND) -> tuple[subprocess.Popen[str], int]:
        """Return one, and the process id of what answered it. then: Python that it runs after that."""
        process = subprocess.Popen(
            [sys.executable, "-c", USER.format(command=command, seconds=SECONDS, then=then)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        self.processes.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())


@pytest.fixture
def user() -> Iterator[Users]:
    users = Users()
    yield users
    for process in users.processes:
        kill(process)


def ends(pid: int, seconds: float) -> bool:
    """Whether a process is gone within so many seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_processes_share_one_and_it_ends_with_the_last_that_is_killed(user: Users) -> None:
    (first, one), (second, other) = user(), user()

    kill(first)

    assert one == other
    assert not ends(one, 0.3)
    kill(second)
    assert ends(one, 5)


def test_a_forked_child_does_not_keep_it(user: Users) -> None:
    process, companion_pid = user("child = os.fork()\nif not child:\n    signal.pause()\nprint(child, flush=True)")
    assert process.stdout is not None
    child = int(process.stdout.readline())

    process.kill()

    try:
        assert ends(companion_pid, 5)
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_kills_a_whole_group_or_interrupts_it_leaves_it_to_the_others(user: Users) -> None:
    (first, one), (second, _) = user("os.setpgrp()\nprint(flush=True)"), user()
    assert first.stdout is not None
    first.stdout.readline()

    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()

    assert not ends(one, 0.3)
    kill(second)
    assert ends(one, 5)


def test_one_that_ignores_sigterm_is_killed(user: Users) -> None:
    process, companion_pid = user(command=(*COMMAND, str(int(signal.SIGTERM))))

    kill(process)

    assert ends(companion_pid, 8)


def test_one_that_ended_is_started_again() -> None:
    first = who(companion(COMMAND, SECONDS))
    os.kill(first, signal.SIGKILL)
    assert ends(first, 5)

    second = who(companion(COMMAND, SECONDS))

    assert second != first


def test_one_that_comes_back_while_the_last_is_ending_is_served(user: Users) -> None:
    for _ in range(2):
        process, _ = user()
        kill(process)

    assert who(companion(COMMAND, SECONDS))


def test_one_that_ends_at_once_says_why_in_its_last_words() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('first line\\nno such host\\n')", SOCKET)

    with pytest.raises(CompanionFailed, match=r"^no such host$"):
        companion(command, SECONDS)


def test_one_that_says_nothing_is_named() -> None:
    with pytest.raises(CompanionFailed, match=r"^`true` ended without a word$"):
        companion(("true", SOCKET), SECONDS)


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(CompanionFailed, match="no-such-program"):
        companion(("no-such-program", SOCKET), SECONDS)


def test_one_that_does_not_come_up_is_given_up_and_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    os.mkfifo(told)
    reader = os.open(told, os.O_RDWR)

    with pytest.raises(CompanionFailed, match="did not come up in time"):
        companion(("sh", "-c", f"echo $$ > {told}; exec sleep 600", SOCKET), 0.5)

    assert ends(int(os.read(reader, 100)), 5)
    os.close(reader)


def test_a_folder_that_others_may_enter_is_not_used(runtime_directory: Path) -> None:
    (runtime_directory / "pytest-sandbox").mkdir()
    (runtime_directory / "pytest-sandbox").chmod(0o755)

    with pytest.raises(CompanionFailed, match="not this user's alone"):
        companion(COMMAND, SECONDS)


def test_no_place_for_a_folder_is_told(runtime_directory: Path) -> None:
    (runtime_directory / "pytest-sandbox").touch()

    with pytest.raises(CompanionFailed, match="for its socket"):
        companion(COMMAND, SECONDS)


def test_without_a_runtime_directory_it_is_a_folder_of_this_users_alone(
    monkeypatch: pytest.MonkeyPatch, runtime_directory: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(runtime_directory))

    serving = companion(COMMAND, SECONDS)

    assert serving.parent.parent == runtime_directory / f"pytest-sandbox-{os.geteuid()}"
    assert serving.parent.parent.stat().st_mode & 0o777 == 0o700


def test_one_that_takes_long_to_fail_in_mid_run_is_given_up_for_as_long_again() -> None:
    command = ("sh", "-c", "sleep 1.2; echo it is broken", SOCKET)
    with pytest.raises(ConnectionError, match="it is broken"):
        _companion_again(command)
    began = time.monotonic()

    with pytest.raises(ConnectionError, match="it is broken"):
        _companion_again(command)

    assert time.monotonic() - began < 1

"""The heir: what was left to it ends after its process, however that has ended; what was taken back does not."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_sandbox.engines.heir import HEAR_SECONDS, Heir, temporary_folder
from pytest_sandbox.engines.heir_main import PATH_VARIABLE

BOUND = 10  # seconds for what takes milliseconds
CHECKOUT = Path(__file__).parent.parent.parent.parent

# A process that leaves three things and takes one back. Argument: the file to which the heir writes what was left.
OWNER = """
    import functools, os, pickle, signal, sys
    from pytest_sandbox.engines.heir import heir
    from tests.support.heirs import write
    end = pickle.dumps(functools.partial(write, sys.argv[1]))
    heir.leave(end, "container 1")
    heir.leave(end, "container 2")
    heir.leave(end, "network 3")
    heir.take_back(end, "container 2")
"""


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A FIFO: reading it waits for an heir to write."""
    fifo = tmp_path / "ended"
    os.mkfifo(fifo)
    return fifo


@pytest.fixture
def owner(ended: Path, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    owners: list[subprocess.Popen[str]] = []

    def start(script: str) -> subprocess.Popen[str]:
        owners.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(OWNER) + textwrap.dedent(script), ended],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=CHECKOUT,
                env={**os.environ, "OWNER": str(ended)},
            )
        )
        return owners[-1]

    yield start
    for each in owners:
        each.kill()
        each.communicate()


def heirs(ended: Path) -> list[int]:
    """Those of the test's own processes, by what they have inherited."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environment.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"OWNER={ended}".encode() in variables and any(v.startswith(PATH_VARIABLE.encode()) for v in variables):
            found.append(int(environment.parent.name))
    return found


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGHUP)", "os._exit(0)", ""]
)
def test_what_a_process_has_left_is_ended_however_that_ends(
    owner: Callable[[str], subprocess.Popen[str]], ended: Path, end: str
) -> None:
    owner(end)

    assert ended.read_text().split("\n") == ["container 1", "network 3"]


def test_an_heir_is_none_of_its_owners_group_or_children(
    owner: Callable[[str], subprocess.Popen[str]], ended: Path
) -> None:
    process = owner(
        """
        try:
            os.wait()
        except ChildProcessError:
            print("no child", flush=True)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        os.killpg(0, signal.SIGKILL)
        """
    )

    assert process.stdout is not None
    assert process.stdout.readline() == "no child\n"
    assert ended.read_text().split("\n") == ["container 1", "network 3"]


def test_a_forked_child_does_not_keep_the_heir_waiting(
    owner: Callable[[str], subprocess.Popen[str]], ended: Path
) -> None:
    process = owner(
        """
        child = os.fork()
        if not child:
            signal.pause()
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())

    try:
        assert ended.read_text().split("\n") == ["container 1", "network 3"]
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_an_heir_to_nothing_ends_at_once(owner: Callable[[str], subprocess.Popen[str]], ended: Path) -> None:
    process = owner(
        """
        heir.take_back(end, "container 1")
        heir.take_back(end, "network 3")
        print("done", flush=True)
        signal.pause()
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    (pid,) = heirs(ended)
    with os.fdopen(os.pidfd_open(pid)) as heir:
        process.kill()

        assert select.select([heir], [], [], BOUND)[0]


def test_an_heir_that_was_stopped_or_killed_costs_its_owner_a_second_at_most(
    owner: Callable[[str], subprocess.Popen[str]], ended: Path
) -> None:
    script = """
        print("begun", flush=True)
        sys.stdin.readline()
        for number in range(2000):
            heir.leave(end, f"container {number}" + 100 * "x")
        print(heir._deaf, flush=True)
        """
    for number in (signal.SIGSTOP, signal.SIGKILL):
        process = owner(script)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        (pid,) = heirs(ended)
        os.kill(pid, number)
        began = time.monotonic()

        process.stdin.write("go on\n")
        process.stdin.flush()

        assert process.stdout.readline() == "True\n"
        assert time.monotonic() - began < HEAR_SECONDS + 1
        os.kill(pid, signal.SIGKILL) if number is signal.SIGSTOP else None


def test_without_a_shell_there_is_no_heir_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pytest_sandbox.engines.heir.SHELL", str(tmp_path / "none"))
    heir = Heir()

    heir.leave(b"", "container 1")
    heir.take_back(b"", "container 1")


def test_a_killed_process_leaves_no_temporary_folder(tmp_path: Path) -> None:
    script = """
        import os, signal
        from pytest_sandbox.engines.heir import temporary_folder
        with temporary_folder() as one, temporary_folder() as other:
            (one / "deep").mkdir()
            (one / "deep" / "file").touch(mode=0o400)
            assert one.stat().st_mode & 0o777 == 0o700
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(tmp_path), "OWNER": str(tmp_path)},
    )

    assert killed.returncode == -signal.SIGKILL
    for heir in heirs(tmp_path):
        with suppress(ProcessLookupError), os.fdopen(os.pidfd_open(heir)) as ending:
            assert select.select([ending], [], [], BOUND)[0]
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_ends_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with temporary_folder() as folder:
        assert [folder] == list(tmp_path.iterdir())

    assert list(tmp_path.iterdir()) == []

"""Sandboxes in which root does its worst: the test is told why, this process stays small, the next one does not suffer.

What a stopped or killed worker and agent cost without an engine is in test_agent_faults.py, hostile frames in
tests/unit/core/test_hostile_agent.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_sandbox.configuration import RunSettings
from pytest_sandbox.core.pool import SandboxPool
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.errors import CommandHitLimit, NoSpaceInSandbox
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.loop import run
from pytest_sandbox.models import MEBIBYTE, PullPolicy, SandboxSettings

from .conftest import IMAGE

pytestmark = pytest.mark.docker

PIDS = 48
SETTINGS = SandboxSettings(image=IMAGE, pull=PullPolicy.NEVER, memory=96 * MEBIBYTE, pids=PIDS, timeout=60)
FLOOD = 96  # MiB
GROWTH = 48 * 1024  # KiB that this process may grow by, whatever comes: some windows and buffers
MANY = 5_000  # files


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(find_engine, RunSettings(slots=100))
    yield pool
    run(pool.close())


@pytest.fixture
def victim(pool: SandboxPool) -> Iterator[Sandbox]:
    """A test's sandbox; the next test's is looked at when this one is over."""
    sandbox = Sandbox(run(pool.lease(SETTINGS)))
    yield sandbox
    run(pool.release(sandbox._core))
    following = Sandbox(run(pool.lease(SETTINGS)))
    try:
        assert following.list_dir() == []
        assert following.exec("ls /tmp /dev/shm | grep -c .").stdout == b"2\n"  # the names of both
        # Supervisors don't count: that of the command before this one may not have been reaped yet.
        processes = following.exec("cat /proc/[0-9]*/comm | grep -vc supervisor").stdout
        assert int(processes) <= 4  # the agent, and what counts here
    finally:
        run(pool.release(following._core))


@contextmanager
def bounded_memory() -> Iterator[None]:
    """See to it that this process does not grow in the block, by its high water mark, lowered first (proc(5))."""

    def most() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    Path("/proc/self/clear_refs").write_text("5")
    before = most()
    yield
    assert most() - before < GROWTH


# --- the agent itself ------------------------------------------------------------------------------------------------


FILES = ("1/fd/0", "1/fd/1", "1/fd/3", "1/mem", "1/environ", "1/exe", "1/root/", "$PPID/fd/3", "$PPID/mem")


@pytest.mark.parametrize("file", FILES)
def test_nobody_gets_at_the_agent_s_streams_and_memory(victim: Sandbox, file: str) -> None:
    """Neither at its supervisors'. To open a memory takes what ptrace(2) takes."""
    result = victim.exec(f"exec < /proc/{file}; echo opened")

    assert result.stdout == b""
    assert victim.exec("echo fine").stdout == b"fine\n"


def test_signals_from_within_do_not_reach_the_agent(victim: Sandbox) -> None:
    """As PID 1 it gets only those that it asked for (pid_namespaces(7)): no SIGSTOP, no SIGKILL."""
    victim.exec("for s in STOP KILL TERM INT SEGV ABRT USR1 USR2 HUP PIPE; do kill -$s 1; done", check=True)

    assert victim.exec(["true"]).ok


@pytest.fixture(scope="module")
def meddler(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program for a sandbox: tests/support/meddler.c."""
    program = tmp_path_factory.mktemp("meddler") / "meddler"
    source = Path(__file__).parents[1] / "support" / "meddler.c"
    subprocess.run(["cc", "-static", "-D_GNU_SOURCE", "-o", program, source], check=True)
    return program.read_bytes()


def test_a_signal_does_not_reach_it_that_is_forged_to_come_from_outside(victim: Sandbox, meddler: bytes) -> None:
    victim.write_bytes("meddler", meddler, mode=0o755)
    victim.exec(["./meddler", "forge"], check=True)

    assert victim.exec(["true"]).ok


STANDING = """
ulimit -a; ionice -p 1; taskset -p 1; cat /proc/1/limits /proc/1/oom_score_adj
cut -d ' ' -f 18,19,41 /proc/1/stat # priority, nice and policy (proc(5))
"""


@pytest.mark.parametrize(
    ("change", "regained"),
    [
        ("./meddler soft; taskset -p 1 1; ionice -c 3 -p 1; echo 999 > /proc/1/oom_score_adj", True),
        ("./meddler hard", False),
        ("./meddler idle", False),
        ("renice -n 19 -p 1", False),
    ],
)
def test_limits_and_priorities_that_it_lost_are_not_the_next_test_s(
    pool: SandboxPool, meddler: bytes, change: str, regained: bool
) -> None:
    """Each takes no capability. What can't be had back costs the container."""
    sandbox = Sandbox(run(pool.lease(SETTINGS)))
    sandbox.write_bytes("meddler", meddler, mode=0o755)
    name, before = sandbox.name, sandbox.exec(STANDING, check=True).stdout
    sandbox.exec(change, check=True)
    run(pool.release(sandbox._core))

    following = Sandbox(run(pool.lease(SETTINGS)))

    assert following.exec(STANDING, check=True).stdout == before
    assert (following.name == name) is regained
    run(pool.release(following._core))


def test_what_a_sandbox_may_not_do_by_default(victim: Sandbox) -> None:
    victim.write_bytes("file", b"")

    clock = "date -s 2001-01-01; test $(date +%Y) = 2001"
    for script in (clock, "mkdir m && mount -t tmpfs none m", "chattr +i file", "unshare -m true"):
        assert not victim.exec(script).ok, script


# --- its limits ------------------------------------------------------------------------------------------------------


def test_a_fork_bomb_ends_with_its_test(victim: Sandbox) -> None:
    with pytest.raises(CommandHitLimit, match=f"no more processes: limit {PIDS}"):
        victim.exec("f() { f | f & }; f; for n in $(seq 100); do sleep 60 & done; wait", check=True)


def test_a_memory_bomb_is_told(victim: Sandbox) -> None:
    with pytest.raises(CommandHitLimit, match="killed: out of memory, limit 96 MiB"):
        victim.exec("head -c 500m /dev/zero | tail -c 500m > /dev/null", check=True)


def test_a_full_disk_is_told_and_emptied(victim: Sandbox) -> None:
    with pytest.raises(NoSpaceInSandbox):
        victim.write_bytes("/var/tmp/full", (bytes(MEBIBYTE) for _ in range(100)))
    assert not victim.exec("head -c 100m /dev/zero > /var/tmp/full").ok


def test_output_that_nobody_reads_waits_in_the_sandbox(victim: Sandbox) -> None:
    with bounded_memory(), victim.start(["cat", "/dev/zero"]) as flood:
        assert victim.exec("echo fine").stdout == b"fine\n"
        assert not flood.finished


def test_output_that_is_read_leaves_nothing_behind(victim: Sandbox) -> None:
    read = 0
    with bounded_memory(), victim.start(["head", "-c", f"{FLOOD}m", "/dev/zero"]) as flood:
        while chunk := flood.stdout.read_some():
            read += len(chunk)

    assert read == FLOOD * MEBIBYTE


def test_output_beyond_the_limit_is_counted(victim: Sandbox) -> None:
    with bounded_memory():
        result = victim.exec(["head", "-c", f"{FLOOD}m", "/dev/zero"], output_limit=MEBIBYTE)

    assert (len(result.stdout), result.stdout.total_bytes) == (MEBIBYTE, FLOOD * MEBIBYTE)


def test_many_files_are_listed_and_gone_for_the_next_test(victim: Sandbox) -> None:
    victim.exec(f"i=0; while [ $i -lt {MANY} ]; do : > $i; i=$((i + 1)); done", check=True)

    assert len(victim.list_dir()) == MANY

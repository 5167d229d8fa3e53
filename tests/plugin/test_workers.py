"""Under xdist: each worker has sandboxes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Announcements, RunSuite

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def own_slots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_each_worker_has_its_own_sandboxes(suite: RunSuite, announcements: Announcements) -> None:
    result = suite(
        """
        import pytest

        @pytest.mark.parametrize("turn", range(6))
        def test_one(sandbox, session_sandbox, announce, worker_id, turn):
            assert not sandbox.exists("mine")
            sandbox.write_text("mine", worker_id)
            session_sandbox.write_text("mine", worker_id)
            assert session_sandbox.read_text("mine") == worker_id
            announce(f"{worker_id} {sandbox.name} {session_sandbox.name}")
        """,
        "-n2",
        "--dist=each",
    )

    result.assert_outcomes(passed=12)
    used: dict[str, set[str]] = {}
    for line in announcements.read(12):
        worker, *names = line.split()
        used.setdefault(worker, set()).update(names)
    assert {worker: len(names) for worker, names in used.items()} == {"gw0": 2, "gw1": 2}
    assert not used["gw0"] & used["gw1"]


def test_workers_wait_for_a_slot_and_say_so(suite: RunSuite, pytester: pytest.Pytester) -> None:
    result = suite(
        """
        def test_takes_a_while(sandbox):
            sandbox.exec("sleep 2", check=True)
        """,
        "-n2",
        "--dist=each",
        "--sandbox-slots=1",
    )

    result.assert_outcomes(passed=2)
    lines = result.stdout.lines + result.stderr.lines
    assert sum("sandbox: waiting for one of 1 slots" in line for line in lines) == 1


def test_a_test_that_needs_more_sandboxes_than_there_are_slots_is_told_so(suite_both_ways: RunSuite) -> None:
    result = suite_both_ways(
        """
        def test_two(sandbox, sandbox_factory):
            sandbox_factory()

        def test_one(sandbox):
            pass
        """,
        "--sandbox-slots=1",
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["E *NoFreeSlot: no slot for another sandbox: all 1 are taken, and *", "E *--sandbox-slots"]
    )

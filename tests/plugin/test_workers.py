"""Under xdist: each worker has sandboxes of its own."""

from __future__ import annotations

import pytest

from .conftest import Announcements, RunSuite

pytestmark = pytest.mark.docker


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

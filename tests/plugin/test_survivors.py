"""--sandbox-keep: sandboxes of failed tests outlive the run, whatever becomes of it; no others do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from pytest_sandbox.core.state import SessionState
from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.survivors import MOST

from .conftest import Announcements, RunSuite, existing, wait_until_gone

pytestmark = pytest.mark.docker

SUITE = """
    def test_fails(sandbox, sandbox_factory, announce):
        sandbox.write_text("evidence", "of the failure")
        announce(sandbox.name)
        other = sandbox_factory().fork()
        announce(other.name)
        raise AssertionError

    def test_passes(sandbox, announce):
        announce(sandbox.name)
        assert not sandbox.exists("evidence")
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Notes of a host of our own; what is kept is removed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    for kept in Sandbox.kept():
        if KeptNotes().find(kept.identity) is not None:
            Sandbox.remove_kept(kept)


def opened(output: str) -> list[str]:
    """The names of sandboxes that a report says how to open."""
    return re.findall(r"^pytest-sandbox shell (pytest-sandbox-\S+)$", output, re.MULTILINE)


def test_sandboxes_of_a_failed_test_stay_and_its_report_says_how_they_are_opened(
    suite_both_ways: RunSuite, announcements: Announcements, engine: DockerClient
) -> None:
    result = suite_both_ways(SUITE, "--sandbox-keep=failed")

    result.assert_outcomes(passed=1, failed=1)
    failed, forked, passed = announcements.read(3)
    names = opened(result.stdout.str())
    assert len(names) == 3
    assert {failed, forked} < set(names)
    assert sorted(existing(engine, [*names, passed])) == sorted(names)
    notes = {note.name: note for note in KeptNotes().all()}
    assert {note.note for note in notes.values()} == {"test_suite.py::test_fails"}
    with Sandbox.resume(SessionState.from_json(notes[failed].state)) as resumed:
        assert resumed.read_text("evidence") == "of the failure"
    # The next run, which looks for what dead ones have left, leaves the others alone.
    other = [name for name in names if name != failed]
    subprocess.run([sys.executable, "-c", SWEEP], check=True)
    assert sorted(existing(engine, [*names, passed])) == sorted(other)


SWEEP = """
import asyncio
from pytest_sandbox.engines.discovery import find_engine

async def main():
    engine = await find_engine()
    await engine.sweep()
    await engine.close()

asyncio.run(main())
"""


def test_a_run_that_is_killed_after_the_failure_leaves_that_one_alone(
    suite: RunSuite, announcements: Announcements, engine: DockerClient
) -> None:
    suite(
        """
        import os, signal

        def test_fails(sandbox, announce):
            announce(sandbox.name)
            raise AssertionError

        def test_is_killed(sandbox, announce):
            announce(sandbox.name)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        "--sandbox-keep=failed",
    )

    failed, killed = announcements.read(2)
    wait_until_gone(engine, [killed], seconds=2)
    assert existing(engine, [failed]) == [failed]


def test_all_stay_if_that_is_asked_for_but_only_so_many(
    suite: RunSuite, announcements: Announcements, engine: DockerClient
) -> None:
    source = f"""
        import pytest

        def test_shared(module_sandbox, announce):
            announce(module_sandbox.name)

        def test_shared_again(module_sandbox):
            pass

        @pytest.mark.parametrize("turn", range({MOST}))
        def test_own(sandbox, announce, turn):
            announce(sandbox.name)
            assert turn < {MOST - 1}
    """

    result = suite(source, "--sandbox-keep=always")

    result.assert_outcomes(passed=MOST + 1, failed=1)
    *names, last = announcements.read(MOST + 1)
    result.stdout.fnmatch_lines([f"{last} is not kept: {MOST} are already; `pytest-sandbox rm --all` makes room"])
    assert sorted(existing(engine, [*names, last])) == sorted(names)

    # Those of a run that is over make room. Of one that the test itself has ended nothing is said.
    result = suite(
        """
        def test_fails(sandbox, sandbox_factory):
            sandbox_factory().close()
            raise AssertionError
        """,
        "--sandbox-keep=failed",
    )

    [name] = opened(result.stdout.str())
    assert sorted(existing(engine, [*names, name])) == sorted([*names[1:], name])

"""A reproducible evaluation harness: candidates are judged by what they did to a workspace, not by what they say.

The candidates here are scripts, so that the example runs anywhere; a coding agent, a code generator or a codemod takes
their place with no other change. Shown here: the same start for each; the whole verdict from the files; a candidate
that hangs is a verdict, a sandbox that breaks an error; a judge that runs where the candidate has never been.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_sandbox import Baseline, CommandTimeout, Sandbox

HERE = Path(__file__).parent
ALLOWED = {"shop/cart.py", "shop/receipt.py"}
CHECK = ["python3", "-B", "-m", "unittest"]


@dataclass(frozen=True)
class Verdict:
    """solved: the original check passes on the candidate's work. changed: paths added, removed or modified."""

    ended: str
    solved: bool
    changed: frozenset[str]

    @property
    def overreach(self) -> frozenset[str]:
        return self.changed - ALLOWED


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    return Baseline(trees={".": HERE / "task"}, commands=["find . -name __pycache__ -prune -exec rm -r {} +"])


@pytest.fixture
def judge(sandbox_factory: Callable[[], Sandbox]) -> Callable[[str], Verdict]:
    """Run a candidate in one sandbox, and the check on what it left in another, which no candidate has touched."""

    def judged(candidate: str) -> Verdict:
        candidates_own, judges_own = sandbox_factory(), sandbox_factory()
        before = contents(candidates_own)
        candidates_own.upload(HERE / "candidates" / f"{candidate}.py", "/tmp/candidate.py")
        try:
            result = candidates_own.exec(["python3", "-B", "/tmp/candidate.py"], timeout=5)
            ended = "finished" if result.ok else f"failed ({result.exit_code})"
        except CommandTimeout:
            ended = "out of time"
        after = contents(candidates_own)

        for path in ALLOWED & after.keys():
            judges_own.write_bytes(path, after[path])
        solved = judges_own.exec(CHECK, timeout=30).ok
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        return Verdict(ended, solved, frozenset(changed))

    return judged


def contents(sandbox: Sandbox) -> dict[str, bytes]:
    return {str(entry.path): sandbox.read_bytes(entry.path) for entry in sandbox.walk() if entry.is_file}


def test_the_task_is_not_solved_to_begin_with(sandbox: Sandbox) -> None:
    assert "AttributeError" in sandbox.exec(CHECK).stderr.text


@pytest.mark.parametrize(
    ("candidate", "ended", "solved", "overreach"),
    [
        ("careful", "finished", True, set()),
        ("sloppy", "finished", False, {"CHANGES.md", "TASK.md", "test_shop.py"}),
        ("cheat", "finished", False, {"test_shop.py"}),
        ("stuck", "out of time", False, set()),
        ("nosy", "failed (1)", False, set()),
    ],
)
def test_candidate(
    judge: Callable[[str], Verdict], candidate: str, ended: str, solved: bool, overreach: set[str]
) -> None:
    verdict = judge(candidate)

    assert verdict.ended == ended
    assert verdict.solved == solved
    assert verdict.overreach == overreach


def test_the_same_candidate_leaves_the_same_workspace(sandbox_factory: Callable[[], Sandbox]) -> None:
    """Fingerprints compare whole workspaces: names, contents, modes, owners, links."""
    fingerprints = set()
    for _ in range(2):
        sandbox = sandbox_factory()
        sandbox.upload(HERE / "candidates" / "careful.py", "/tmp/candidate.py")
        sandbox.exec(["python3", "-B", "/tmp/candidate.py"], check=True)
        fingerprints.add(sandbox.persist().fingerprint())

    assert len(fingerprints) == 1


def test_a_run_can_be_kept_for_later(sandbox: Sandbox, tmp_path: Path) -> None:
    """The archive of a workspace is a tar file like any other, and can be put into any sandbox again."""
    sandbox.upload(HERE / "candidates" / "careful.py", "/tmp/candidate.py")
    sandbox.exec(["python3", "-B", "/tmp/candidate.py"], check=True)
    sandbox.persist().save(tmp_path / "careful.tar")
    sandbox.exec("rm -r shop", check=True)

    sandbox.hydrate(tmp_path / "careful.tar")

    assert "def total_price(" in sandbox.read_text("shop/cart.py")

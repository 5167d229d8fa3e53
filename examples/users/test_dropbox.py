"""Testing rights: what several people may do to each other's files, on an image that knows none of them.

Shown here: users and groups that the settings make, a workspace with owners and modes, and commands and file operations
as this person or that one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sandbox import Baseline, Directory, File, Sandbox

HERE = Path(__file__).parent

# Ann and Bob are in the team, Eve is not; root is who installs things.
pytestmark = pytest.mark.sandbox(users=["ann::team", "bob::team", "eve"], user="root")


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline:
    """A box that the team can write to, and papers of their own."""
    return Baseline(
        trees={"bin/dropbox": HERE / "dropbox.py", "box": Directory(mode=0o2770, owner="root:team")},
        files={
            "ann/plan": File("meet at noon\n", mode=0o600, owner="ann"),
            "bob/list": File("milk\n", mode=0o644, owner="bob"),
        },
        commands=["chmod 755 bin/dropbox"],
    )


def run(sandbox: Sandbox, user: str, *arguments: str) -> tuple[int, str]:
    result = sandbox.exec(["python3", "bin/dropbox", *arguments], user=user)
    return result.exit_code, result.stdout.text or result.stderr.text.rstrip().rpartition("\n")[2]


def test_a_paper_goes_from_one_to_the_other(sandbox: Sandbox) -> None:
    assert run(sandbox, "ann", "give", "bob", "ann/plan") == (0, "")

    assert run(sandbox, "bob", "take") == (0, "plan: meet at noon\n")


def test_who_is_not_in_the_team_has_no_part_in_it(sandbox: Sandbox) -> None:
    run(sandbox, "ann", "give", "bob", "ann/plan")

    code, reason = run(sandbox, "eve", "give", "bob", "bob/list")

    assert (code, reason) == (1, "PermissionError: [Errno 13] Permission denied: 'box/bob-list'")
    with pytest.raises(PermissionError):
        sandbox.read_text("box/bob-plan", user="eve")


def test_nobody_gives_away_what_is_not_theirs_to_read(sandbox: Sandbox) -> None:
    code, reason = run(sandbox, "bob", "give", "bob", "ann/plan")

    assert (code, reason) == (1, "PermissionError: [Errno 13] Permission denied: 'ann/plan'")


def test_papers_belong_to_the_team_and_to_who_gave_them(sandbox: Sandbox) -> None:
    run(sandbox, "bob", "give", "ann", "bob/list")

    paper = sandbox.stat("box/ann-list")

    assert (paper.owner, paper.group, paper.mode) == ("bob", "team", 0o640)


def test_a_paper_is_taken_once(sandbox: Sandbox) -> None:
    run(sandbox, "ann", "give", "bob", "ann/plan")
    run(sandbox, "bob", "take")

    assert run(sandbox, "bob", "take") == (0, "")

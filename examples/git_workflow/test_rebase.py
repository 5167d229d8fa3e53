"""Testing Git workflows: one prepared repository with a history, for tests that rewrite it.

Shown here: an expensive set-up written once as a function, from which each test begins; reproducible commits (fixed
names and dates, so the hashes are the same in every run); a hook on the server's side; two clones that race.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_sandbox import Sandbox

# No test depends on who runs it, or when: not on ~/.gitconfig, not on the clock.
pytestmark = pytest.mark.sandbox(
    environment={
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": "2024-05-01T12:00:00Z",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_COMMITTER_DATE": "2024-05-01T12:00:00Z",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_EDITOR": "true",  # a rebase accepts every message as it is
    }
)

RECIPE = "flour\nwater\nsalt\nyeast\n"


def git(sandbox: Sandbox, *arguments: str, cwd: str = "clone") -> str:
    return sandbox.exec(["git", *arguments], cwd=cwd, check=True).stdout.text.strip()


def commit(sandbox: Sandbox, path: str, text: str, message: str, cwd: str = "clone") -> None:
    sandbox.write_text(f"{cwd}/{path}", text)
    git(sandbox, "add", path, cwd=cwd)
    git(sandbox, "commit", "-qm", message, cwd=cwd)


@pytest.fixture(scope="module")
def sandbox_baseline() -> Callable[[Sandbox], None]:
    """A bare repository, and a clone whose branch `sourdough` and `main` have both moved on."""

    def prepare(sandbox: Sandbox) -> None:
        git(sandbox, "init", "-q", "--bare", "-b", "main", "origin.git", cwd=".")
        git(sandbox, "clone", "-q", "origin.git", "clone", cwd=".")
        git(sandbox, "checkout", "-qb", "main")
        commit(sandbox, "bread", RECIPE, "Bread")
        git(sandbox, "push", "-qu", "origin", "main")
        git(sandbox, "checkout", "-qb", "sourdough")
        commit(sandbox, "bread", RECIPE.replace("yeast", "sourdough"), "Use sourdough")
        commit(sandbox, "notes", "feed it daily\n", "Add notes")
        git(sandbox, "checkout", "-q", "main")
        commit(sandbox, "butter", "cream\n", "Butter")
        git(sandbox, "push", "-q")

    return prepare


def test_a_branch_is_rebased_without_conflict(sandbox: Sandbox) -> None:
    git(sandbox, "rebase", "-q", "main", "sourdough")

    assert git(sandbox, "log", "--format=%s").splitlines() == ["Add notes", "Use sourdough", "Butter", "Bread"]
    assert sandbox.read_text("clone/bread").endswith("sourdough\n")


def test_a_conflict_stops_the_rebase_and_is_resolved(sandbox: Sandbox) -> None:
    commit(sandbox, "bread", RECIPE.replace("yeast", "baking soda"), "Use soda")

    result = sandbox.exec(["git", "rebase", "main", "sourdough"], cwd="clone")

    assert result.exit_code == 1
    assert "CONFLICT (content): Merge conflict in bread" in result.stdout.text
    assert "<<<<<<< " in sandbox.read_text("clone/bread")

    sandbox.write_text("clone/bread", RECIPE.replace("yeast", "sourdough and soda"))
    git(sandbox, "add", "bread")
    git(sandbox, "rebase", "--continue")

    assert git(sandbox, "status", "--porcelain") == ""
    assert git(sandbox, "show", "sourdough:bread").endswith("sourdough and soda")


def test_an_aborted_rebase_leaves_the_branch_where_it_was(sandbox: Sandbox) -> None:
    commit(sandbox, "bread", RECIPE.replace("yeast", "baking soda"), "Use soda")
    before = git(sandbox, "rev-parse", "sourdough")
    sandbox.exec(["git", "rebase", "main", "sourdough"], cwd="clone")

    git(sandbox, "rebase", "--abort")

    assert git(sandbox, "rev-parse", "sourdough") == before
    assert not sandbox.exists("clone/.git/rebase-merge")


def test_of_two_who_push_at_once_the_second_has_to_rebase(sandbox: Sandbox) -> None:
    git(sandbox, "clone", "-q", "origin.git", "other", cwd=".")
    commit(sandbox, "jam", "berries\n", "Jam", cwd="other")
    commit(sandbox, "honey", "bees\n", "Honey")
    git(sandbox, "push", "-q", cwd="other")

    refused = sandbox.exec(["git", "push"], cwd="clone")
    git(sandbox, "pull", "-q", "--rebase")
    git(sandbox, "push", "-q")

    assert "fetch first" in refused.stderr.text
    assert git(sandbox, "log", "-2", "--format=%s", "main", cwd="origin.git").splitlines() == ["Honey", "Jam"]


def test_a_hook_refuses_what_was_not_finished(sandbox: Sandbox) -> None:
    hook = (
        '#!/bin/sh\nif git show --format= --unified=0 "$3" | grep -q FIXME; then echo "no FIXME here" >&2; exit 1; fi\n'
    )
    sandbox.write_text("origin.git/hooks/update", hook, mode=0o755)
    commit(sandbox, "bread", RECIPE + "FIXME how much?\n", "Hurry")

    result = sandbox.exec(["git", "push"], cwd="clone")

    assert result.exit_code == 1
    assert "remote: no FIXME here" in result.stderr.text


def test_a_force_push_destroys_history_for_this_test_only(sandbox: Sandbox) -> None:
    git(sandbox, "checkout", "-q", "--orphan", "fresh")
    git(sandbox, "commit", "-qm", "Nothing ever happened")

    git(sandbox, "push", "-qf", "origin", "fresh:main")

    assert git(sandbox, "rev-list", "--count", "main", cwd="origin.git") == "1"


def test_commits_have_the_same_hash_in_every_run(sandbox: Sandbox) -> None:
    assert git(sandbox, "log", "-1", "--format=%h %s", "main~1") == "9c5b292 Bread"


def test_a_damaged_object_is_found(sandbox: Sandbox) -> None:
    blob = git(sandbox, "rev-parse", "main:butter")
    stored = f"clone/.git/objects/{blob[:2]}/{blob[2:]}"
    sandbox.write_bytes(stored, sandbox.read_bytes(stored)[:-6])

    result = sandbox.exec(["git", "fsck", "--full"], cwd="clone")

    assert not result.ok
    assert blob in result.stderr.text

"""What apply_patch promises, on every engine. How patches are read and computed: tests/unit/core/test_patch.py."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from pytest_sandbox import Sandbox
from pytest_sandbox.errors import FileForbidden, FileMissing, FileNotDirectory, FileOperationError, PatchRejected

EDIT = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"
NOBODY = "65534:65534"


def added(name: str) -> str:
    return f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+new\n"


def tree(sandbox: Sandbox, path: str = ".") -> dict[str, object]:
    """All below a path that a failed patch must leave as it was."""
    return {
        str(entry.path): (
            entry.kind, entry.mode, entry.uid, entry.gid,
            sandbox.read_bytes(PurePosixPath(path, entry.path)) if entry.is_file else entry.target,
        )
        for entry in sandbox.walk(path)
    }  # fmt: skip


def test_a_patch_changes_adds_moves_and_removes(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n", mode=0o640, owner=NOBODY)
    sandbox.write_text("old/deep/name", "x\n", mode=0o755)
    sandbox.write_text("gone/g", "1\n")
    patch = (
        EDIT + added("d/e/new") + "diff --git a/old/deep/name b/moved\nrename from old/deep/name\nrename to moved\n"
        "diff --git a/gone/g b/gone/g\ndeleted file mode 100644\n--- a/gone/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
    )

    changes = sandbox.apply_patch(patch)

    assert changes.modified == {"f"}
    assert changes.added == {"d/e/new", "moved"}
    assert changes.removed == {"gone/g", "old/deep/name"}
    assert changes.renamed == {"old/deep/name": "moved"}
    assert "+b" in changes.diff()
    assert sorted(str(entry.path) for entry in sandbox.walk()) == ["d", "d/e", "d/e/new", "f", "moved"]
    assert sandbox.read_text("f") == "b\n"
    assert (sandbox.stat("f").mode, sandbox.stat("f").uid) == (0o640, 65534)
    assert sandbox.stat("moved").mode == 0o755


def test_a_v4a_patch_is_applied_below_a_directory(sandbox: Sandbox) -> None:
    sandbox.write_text("project/f", "a\nb\n")

    changes = sandbox.apply_patch(
        b"*** Begin Patch\n*** Update File: f\n@@\n a\n-b\n+B\n*** End Patch\n", path="project"
    )

    assert changes.modified == {"f"}
    assert sandbox.read_text("project/f") == "a\nB\n"


def test_a_patch_that_fits_by_half_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n")
    sandbox.write_text("g", "other\n")
    before = tree(sandbox)

    with pytest.raises(PatchRejected) as rejected:
        sandbox.apply_patch(EDIT + added("d/new") + EDIT.replace("/f", "/g"))

    assert rejected.value.path == "g"
    assert tree(sandbox) == before


def test_a_write_that_fails_puts_everything_back(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n", mode=0o640, owner=NOBODY)
    sandbox.write_text("gone/g", "1\n", mode=0o604, owner=NOBODY)
    sandbox.chmod("gone", 0o751)
    before = tree(sandbox)
    patch = "--- a/gone/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n" + added("d/e/new") + EDIT

    with pytest.raises(FileOperationError):
        sandbox.apply_patch(patch + added("x" * 256))

    assert tree(sandbox) == before


def test_a_user_who_may_not_write_changes_nothing(sandbox: Sandbox) -> None:
    directory = PurePosixPath("/tmp", sandbox.name)
    sandbox.mkdir(directory, mode=0o755, user="")
    try:
        sandbox.write_text(directory / "open", "a\n", mode=0o666)
        sandbox.write_text(directory / "shut", "a\n", mode=0o644)
        before = tree(sandbox, str(directory))

        with pytest.raises(FileForbidden):
            sandbox.apply_patch(EDIT.replace("/f", "/open") + EDIT.replace("/f", "/shut"), path=directory, user=NOBODY)

        assert tree(sandbox, str(directory)) == before
    finally:
        sandbox.remove(directory, recursive=True, user="")


@pytest.mark.parametrize("name", ["link", "door/f", "sub/door/f"])
def test_nothing_is_written_through_a_link(sandbox: Sandbox, name: str) -> None:
    sandbox.write_text("outside/f", "a\n")
    sandbox.mkdir("w/sub", parents=True)
    sandbox.symlink("w/link", "../outside/f")
    sandbox.symlink("w/door", "../outside")
    sandbox.symlink("w/sub/door", "../../outside")
    before = tree(sandbox)

    for patch in (EDIT.replace("/f", f"/{name}"), added(name)):
        with pytest.raises(PatchRejected, match="symbolic link"):
            sandbox.apply_patch(patch, path="w")

    assert tree(sandbox) == before


def test_what_is_no_file_is_not_patched(sandbox: Sandbox) -> None:
    sandbox.mkdir("f")

    with pytest.raises(PatchRejected, match="no regular file but a directory"):
        sandbox.apply_patch(EDIT)


def test_a_file_and_a_directory_can_take_each_others_place(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n")
    sandbox.write_text("d/only", "a\n")
    patch = (
        "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n" + added("f/inside")
        + "--- a/d/only\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n" + added("d")
    )  # fmt: skip

    sandbox.apply_patch(patch)

    assert sandbox.read_text("f/inside") == sandbox.read_text("d") == "new\n"


def test_the_directory_must_be_one(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n")

    with pytest.raises(FileMissing):
        sandbox.apply_patch(EDIT, path="missing")
    with pytest.raises(FileNotDirectory):
        sandbox.apply_patch(EDIT, path="f")


def test_the_workspace_itself_stays_when_its_last_file_goes(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n")
    workspace = sandbox.workspace

    sandbox.apply_patch(f"--- a/{workspace.name}/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", path=workspace.parent)

    assert sandbox.list_dir() == []


def test_what_changes_tells_can_be_applied_elsewhere(sandbox: Sandbox) -> None:
    sandbox.write_text("f", "a\n")
    before = sandbox.snapshot()
    sandbox.write_text("f", "b\n")
    sandbox.write_text("d/new", "no newline")
    changes = sandbox.changes(since=before)
    after = tree(sandbox)
    sandbox.restore(before)

    sandbox.apply_patch(changes.diff())

    assert tree(sandbox) == after

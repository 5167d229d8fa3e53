"""Patches: what is taken, what is refused and why, with git and GNU diff as independent witnesses."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox.core import patch as patch_module
from pytest_sandbox.core.patch import File, patched, paths_of
from pytest_sandbox.core.patch_formats import read_patch
from pytest_sandbox.errors import PatchRejected

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="this machine has no git to compare with")
needs_diff = pytest.mark.skipif(shutil.which("diff") is None, reason="this machine has no diff to compare with")
ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", "TZ": "UTC"}

Tree = Mapping[str, File]


def apply(patch: str | bytes, files: Mapping[str, bytes], strip: int | None = None) -> dict[str, bytes]:
    """The contents after a patch to files of mode 644."""
    after = apply_tree(patch, {name: File(content, 0o644) for name, content in files.items()}, strip)
    return {name: file.content for name, file in after.items()}


def apply_tree(patch: str | bytes, files: Tree, strip: int | None = None) -> dict[str, File]:
    raw = patch.encode() if isinstance(patch, str) else patch
    written, _ = patched(read_patch(raw, strip), files)
    after = {**files, **written}
    return {name: file for name, file in after.items() if file is not None}


def rejected(patch: str | bytes, files: Mapping[str, bytes] | None = None, strip: int | None = None) -> PatchRejected:
    with pytest.raises(PatchRejected) as caught:
        apply(patch, files or {}, strip)
    return caught.value


def diff_of(hunks: str, name: str = "f") -> str:
    return f"--- a/{name}\n+++ b/{name}\n{hunks}"


# --- what git and diff say of two trees -------------------------------------------------------------------------------

_LINE = st.sampled_from([b"a", b"b", b"c", b"", b" ", b"-- ", b"++ x", b"@@ -1 +1 @@", b"a\r", b"\xff\xfe", b"\\ No"])
_CONTENT = st.builds(
    lambda lines, end: b"\n".join(lines) + (b"\n" if end and lines else b""),
    st.lists(_LINE, max_size=12),
    st.booleans(),
)
_NAME = st.sampled_from(
    ["a", "b", "d/a", "d/e/f", "x y", "d/t\tab", 'q"uote', "b\\s", "ü", "\udcff", "n\nl", "-rf", "c "]
)


def _no_file_is_a_directory(tree: Tree) -> bool:
    return not any(other.startswith(f"{name}/") for name in tree for other in tree)


def _trees(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, File]]:
    files = st.builds(File, content, st.sampled_from([0o644, 0o755]))
    return st.dictionaries(_NAME, files, max_size=5).filter(_no_file_is_a_directory)


def lay_out(root: Path, tree: Tree) -> None:
    root.mkdir()
    for name, file in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)


def run_in(directory: str, *command: str) -> bytes:
    done = subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@needs_git
@quick
@given(
    old=_trees(_CONTENT), new=_trees(_CONTENT), options=st.sampled_from([(), ("-C", "--find-copies-harder"), ("-U0",)])
)
def test_a_git_diff_of_two_trees_makes_the_second_of_the_first(old: Tree, new: Tree, options: tuple[str, ...]) -> None:
    with TemporaryDirectory() as directory:
        lay_out(Path(directory, "old"), old)
        lay_out(Path(directory, "new"), new)
        diff = run_in(directory, "git", "diff", "--no-index", "--text", *options, "old", "new")

    assert (apply_tree(diff, old, strip=2) if diff else old) == new


@needs_diff
@quick
@given(old=_trees(_CONTENT.filter(bool)), new=_trees(_CONTENT.filter(bool)))
def test_a_plain_diff_of_two_trees_makes_the_second_of_the_first(old: Tree, new: Tree) -> None:
    with TemporaryDirectory() as directory:
        lay_out(Path(directory, "old"), old)
        lay_out(Path(directory, "new"), new)
        for path in Path(directory).glob("*/**/*"):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        diff = run_in(directory, "diff", "-ruN", "--text", "old", "new")

    after = apply_tree(diff, old, strip=1) if diff else dict(old)
    assert {name: file.content for name, file in after.items()} == {name: file.content for name, file in new.items()}


@needs_git
@quick
@given(data=st.data())
def test_a_hunk_goes_where_git_puts_it(data: st.DataObject) -> None:
    """In a file that is not quite the one that the diff was made of, with lines that are there once."""
    old = [b"%d\n" % number for number in range(30)]
    places = st.integers(0, 30)
    new, target = list(old), list(old)
    for name, lines in (("new", new), ("there", target)):
        for number in range(data.draw(st.integers(1, 3))):
            at = data.draw(places)
            removed = data.draw(st.integers(0, 2))
            lines[at : at + removed] = [b"%s %d %d\n" % (name.encode(), number, at)] * data.draw(st.integers(0, 2))
    with TemporaryDirectory() as directory:
        for name, lines in (("old", old), ("new", new)):
            lay_out(Path(directory, name), {"f": File(b"".join(lines), 0o644)})
        diff = run_in(directory, "git", "diff", "--no-index", "old", "new")
        lay_out(Path(directory, "there"), {"f": File(b"".join(target), 0o644)})
        there = Path(directory, "there")
        done = subprocess.run(
            ["git", "apply", "-p2", "-"], cwd=there, env=ENVIRONMENT, input=diff, capture_output=True, check=False
        )
        expected = (there / "f").read_bytes()
    if not diff:
        return

    if done.returncode == 0:
        assert apply(diff, {"f": b"".join(target)}, strip=2) == {"f": expected}
    elif any(b"".join(hunk.before) not in b"".join(target) for hunk in read_patch(diff, 2)[0].hunks):
        # git refuses more: a hunk at line 1, with context before what it changes, that has moved.
        rejected(diff, {"f": b"".join(target)}, strip=2)


# --- unified diffs ----------------------------------------------------------------------------------------------------


def test_a_file_is_changed_where_its_lines_are() -> None:
    patch = diff_of("@@ -1,3 +1,3 @@ in whatever\n a\n-b\n+B\n c\n")

    assert apply(patch, {"f": b"a\nb\nc\n"}) == {"f": b"a\nB\nc\n"}


def test_what_surrounds_a_patch_is_ignored() -> None:
    patch = (
        "From: me\nSubject: [PATCH] x\n\n---\n f | 2 +-\n\n"
        "diff --git a/f b/f\nindex 1..2 100644\n" + diff_of("@@ -1 +1 @@\n-a\n+b\n") + "-- \n2.39\n\n"
    )

    assert apply(patch, {"f": b"a\n"}) == {"f": b"b\n"}


def test_lines_that_have_moved_are_found_at_the_nearest_place() -> None:
    patch = diff_of("@@ -3,3 +3,3 @@\n a\n-b\n+B\n c\n")
    block = "a\nb\nc\n"

    after = apply(patch, {"f": (block + "x\n" * 5 + block + "x\n" + block).encode()})

    assert after["f"] == ("a\nB\nc\n" + "x\n" * 5 + block + "x\n" + block).encode()


def test_later_hunks_follow_where_the_first_was_found() -> None:
    patch = diff_of("@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -5,3 +5,3 @@\n a\n-b\n+B\n c\n")
    block = "a\nb\nc\nx\n"

    after = apply(patch, {"f": ("0\n" * 8 + block * 2).encode()})

    assert after["f"] == b"0\n" * 8 + b"a\nB\nc\nx\n" * 2


def test_no_line_that_is_not_as_the_patch_has_it_is_skipped() -> None:
    error = rejected(diff_of("@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"), {"f": b"a\nb\nC\n"})

    assert (error.path, error.line, error.hunk) == ("f", 3, 1)
    assert str(error) == (
        "patch rejected at line 3 of the patch, hunk 1, 'f': its 3 lines are not in the file as they stand in "
        "the patch; nothing was changed\n"
        "expected 'c\\n'\n"
        "found    line 3: 'C\\n'\n"
        "the file is not what the patch was made from: read it again"
    )


def test_white_space_is_told_of_when_it_is_all_that_differs() -> None:
    error = rejected(diff_of("@@ -1 +1 @@\n-a\n+b\n"), {"f": b"a\r\n"})

    assert "white space alone" in str(error)


def test_a_hunk_without_context_goes_nowhere_but_where_it_says() -> None:
    patch = diff_of("@@ -2 +2 @@\n-b\n+B\n")

    assert apply(patch, {"f": b"a\nb\nc\n"}) == {"f": b"a\nB\nc\n"}
    rejected(patch, {"f": b"a\nx\nb\n"})


@pytest.mark.parametrize(
    ("hunk", "before", "after"),
    [
        ("@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n", b"a", b"a\n"),
        ("@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n", b"a\n", b"a"),
        ("@@ -1 +1,2 @@\n-a\n\\ Kein Zeilenumbruch\n+a\n+b\n\\ Kein Zeilenumbruch\n", b"a", b"a\nb"),
        ("@@ -1,2 +1,2 @@\n-x\n+y\n a\n\\ No newline at end of file\n", b"x\na", b"y\na"),
        ("@@ -1,3 +1,3 @@\n-x\n+y\n\n a\n", b"x\n\na\n", b"y\n\na\n"),  # an editor took the blank away
        ("@@ -1 +1 @@\n-a\r\n+b\r\n", b"a\r\n", b"b\r\n"),
        ("@@ -1 +0,0 @@\n-a\n", b"a\n", b""),
        ("@@ -0,0 +1 @@\n+a\n", b"", b"a\n"),
    ],
)
def test_ends_of_lines_and_files_are_what_the_patch_says(hunk: str, before: bytes, after: bytes) -> None:
    assert apply(diff_of(hunk), {"f": before}) == {"f": after}


def test_a_patch_of_other_line_ends_than_the_file_is_rejected() -> None:
    rejected(diff_of("@@ -1 +1 @@\n-a\n+b\n"), {"f": b"a"})


def test_files_come_and_go() -> None:
    patch = (
        "--- /dev/null\n+++ b/d/new\n@@ -0,0 +1 @@\n+1\n"
        "--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
        "diff --git a/empty b/empty\nnew file mode 100755\nindex 0..e\n"
        "diff --git a/void b/void\ndeleted file mode 100644\nindex e..0\n"
    )
    files = {"old": File(b"1\n", 0o644), "void": File(b"", 0o644)}

    assert apply_tree(patch, files) == {"d/new": File(b"1\n", 0o644), "empty": File(b"", 0o755)}


def test_a_rename_a_copy_and_a_mode_need_no_hunk() -> None:
    patch = (
        "diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n"
        "diff --git a/c b/d\nsimilarity index 100%\ncopy from c\ncopy to d\n"
        "diff --git a/x y b/x y\nold mode 100644\nnew mode 100755\n"
    )
    files = {name: File(name.encode(), 0o640) for name in ("a", "c", "x y")}

    written, changes = patched(read_patch(patch.encode()), files)

    assert written == {"a": None, "b": files["a"], "d": files["c"], "x y": File(b"x y", 0o750)}
    assert (changes.added, changes.removed, changes.modified) == ({"b", "d"}, {"a"}, {"x y"})
    assert changes.renamed == {"a": "b"}


def test_two_names_can_be_swapped() -> None:
    patch = (
        "diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n"
        "diff --git a/b b/a\nsimilarity index 100%\nrename from b\nrename to a\n"
    )

    assert apply(patch, {"a": b"1", "b": b"2"}) == {"a": b"2", "b": b"1"}


def test_a_file_can_be_patched_twice() -> None:
    patch = diff_of("@@ -1 +1 @@\n-a\n+b\n") + diff_of("@@ -1 +1 @@\n-b\n+c\n")

    assert apply(patch, {"f": b"a\n"}) == {"f": b"c\n"}


def test_names_are_stripped_as_asked() -> None:
    plain, prefixed = "--- d/f\n+++ d/f\n@@ -1 +1 @@\n-a\n+b\n", diff_of("@@ -1 +1 @@\n-a\n+b\n", "d/f")

    assert paths_of(read_patch(plain.encode())) == ["d/f"]
    assert paths_of(read_patch(plain.encode(), 1)) == ["f"]
    assert paths_of(read_patch(prefixed.encode())) == ["d/f"]
    assert paths_of(read_patch(prefixed.encode(), 2)) == ["f"]
    assert paths_of(read_patch(prefixed.encode(), 0)) == ["b/d/f"]


def test_quoted_names_are_read_as_git_writes_them() -> None:
    patch = '--- "a/\\303\\274\\t\\"\\\\"\n+++ "b/\\303\\274\\t\\"\\\\"\n@@ -1 +1 @@\n-a\n+b\n'

    assert apply(patch, {'ü\t"\\': b"a\n"}) == {'ü\t"\\': b"b\n"}


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("", "no change"),
        ("just words\n", "no change"),
        (diff_of("@@ -1,2 +1,2 @@\n-a\n+b\n"), "cut off"),
        (diff_of("@@ -1 +1 @@\n-a\n+b\n+c\n"), "more lines"),
        (diff_of("@@ -1 +1 @@\n-a\n b\n"), "other lines"),
        (diff_of("@@ -1 +1 @@\n-a\n*b\n"), "begins with none"),
        (diff_of("@@ -1 +1\n-a\n+b\n"), "expected a hunk"),
        (diff_of(""), "no hunk"),
        ("@@ -1 +1 @@\n-a\n+b\n", "without the names"),
        ("--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+b\n", "neither side"),
        ("diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 3\n", "binary"),
        ("Binary files a/x and b/x differ\n", "binary"),
        ("diff --git a/l b/l\nnew file mode 120000\n", "symbolic link"),
        ("diff --git a/s b/s\nnew file mode 160000\n", "submodule"),
        ("diff --git a/s b/s\nnew file mode 060000\n", "of mode 060000"),
        ("diff --git a/a b/b\nrename from a\n", "without both"),
        ("diff --git a/a b/b\nold mode 100644\nnew mode 100755\n", "can't be told apart"),
        ("diff --git a/f b/f\nindex 1..2\n", "no hunk"),
        ("diff --git a/f b/f\nnew mode 100755\n" + diff_of("@@ -1 +1 @@\n-a\n+b\n", "g"), "another than"),
        ("diff --git a/f b/g\nrename from f\nrename to g\n" + diff_of("@@ -1 +1 @@\n-a\n+b\n"), "another than"),
        (diff_of("@@ -9999999999 +1 @@\n-a\n+b\n"), "expected a hunk"),
    ],
)
def test_what_can_not_be_read_is_rejected(patch: str, reason: str) -> None:
    assert reason in str(rejected(patch, {"f": b"a\n"}))


@pytest.mark.parametrize(
    "patch",
    [
        "--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n",
        diff_of("@@ -1 +1 @@\n-a\n+b\n", "../f"),
        diff_of("@@ -1 +1 @@\n-a\n+b\n", "d/../../f"),
        '--- "a/\\056\\056/f"\n+++ "b/\\056\\056/f"\n@@ -1 +1 @@\n-a\n+b\n',
        diff_of("@@ -1 +1 @@\n-a\n+b\n", "x\\000").replace("a/x\\000", '"a/x\\000"').replace("b/x\\000", '"b/x\\000"'),
        diff_of("@@ -1 +1 @@\n-a\n+b\n", "."),
        "diff --git a/a b/b\nrename from a\nrename to ../b\n",
        "diff --git a/a b/b\nrename from /a\nrename to b\n",
        "*** Begin Patch\n*** Delete File: ../f\n*** End Patch\n",
        "*** Begin Patch\n*** Add File: /f\n+x\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: f\n*** Move to: ../g\n*** End Patch\n",
    ],
)
def test_no_path_leads_out(patch: str) -> None:
    with pytest.raises(PatchRejected, match=r"is absolute|has `\.\.` in it|has a NUL in it|nothing is left"):
        read_patch(patch.encode())


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (diff_of("@@ -1 +1 @@\n-a\n+b\n", "missing"), "there is no file 'missing'"),
        ("--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+1\n", "there already"),
        ("--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "more lines"),
        ("diff --git a/f b/g\nrename from f\nrename to g\n", "there already"),
        (diff_of("@@ -1,0 +2 @@\n+b\n"), "no newline at its end"),
    ],
)
def test_what_does_not_fit_the_files_is_rejected(patch: str, reason: str) -> None:
    assert reason in str(rejected(patch, {"f": b"a\nz"} if "more" in reason else {"f": b"a", "g": b""}))


def test_too_much_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_module, "MAX_PATCH", 3)

    assert "more than 3 bytes" in str(rejected(diff_of("@@ -1 +1,2 @@\n a\n+b\n"), {"f": b"a\n"}))


def test_a_repetitive_file_is_searched_in_linear_time() -> None:
    lines = 50_000
    hunk = f"@@ -1,{lines} +1,{lines} @@\n" + " a\n" * (lines - 1) + "-b\n+c\n"

    rejected(diff_of(hunk), {"f": b"a\n" * 2 * lines})


def test_the_error_can_be_pickled() -> None:
    error = rejected(diff_of("@@ -1 +1 @@\n-a\n+b\n"), {"f": b"c\n"})

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.hunk, again.expected) == (str(error), 1, "'a\\n'")


_PATCH_LINES = b"""--- a/f
+++ b/f
@@ -1 +1 @@
-a
+b
 a
diff --git a/f b/f
rename from f
rename to g
new mode 100755
new file mode 100644
*** Begin Patch
*** End Patch
*** Update File: f
@@
*** End of File
*** Add File: g
\\ No newline at end of file
""".split(b"\n")


@given(patch=st.binary(max_size=300) | st.lists(st.sampled_from(_PATCH_LINES), max_size=14).map(b"\n".join))
def test_whatever_is_given_is_applied_or_rejected(patch: bytes) -> None:
    try:
        apply(patch, {"f": b"a\n"})
    except PatchRejected:
        pass


# --- V4A --------------------------------------------------------------------------------------------------------------


def v4a(body: str) -> str:
    return f"*** Begin Patch\n{body}*** End Patch\n"


def test_v4a_adds_updates_moves_and_deletes() -> None:
    patch = v4a(
        "*** Add File: d/new\n+1\n+2\n"
        "*** Update File: a\n@@\n x\n-y\n+Y\n"
        "*** Update File: b\n*** Move to: d/b\n@@\n-1\n+2\n"
        "*** Delete File: c\n"
    )

    after = apply(patch, {"a": b"x\ny\nz\n", "b": b"1\n", "c": b"whatever"})

    assert after == {"d/new": b"1\n2\n", "a": b"x\nY\nz\n", "d/b": b"2\n"}


def test_v4a_anchors_say_where_to_begin() -> None:
    patch = v4a("*** Update File: f\n@@ class B\n@@ def m():\n-  pass\n+  go\n")
    source = "class A:\n def m():\n  pass\nclass B\n def m():\n  pass\n"

    assert apply(patch, {"f": source.encode()})["f"].decode() == source[:-7] + "  go\n"


def test_v4a_takes_the_end_of_lines_from_the_file() -> None:
    patch = v4a("*** Update File: f\n@@\n-b\n+B\n+C\n*** End of File\n")

    assert apply(patch, {"f": b"b\r\na\r\nb"}) == {"f": b"b\r\na\r\nB\r\nC"}


def test_v4a_adds_at_the_end_without_context() -> None:
    assert apply(v4a("*** Update File: f\n+b\n"), {"f": b"a\n"}) == {"f": b"a\nb\n"}


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("*** Begin Patch\n*** Delete File: f\n", "cut off"),
        (v4a(""), "no change"),
        (v4a("words\n"), "expected `*** Add File: `"),
        (v4a("*** Rename File: f\n"), "expected `*** Add File: `"),
        (v4a("*** Update File: f\n"), "no change for this file"),
        (v4a("*** Update File: f\n@@\n"), "has no lines"),
        (v4a("*** Update File: f\n@@\n*x\n"), "begins with none"),
        (v4a("*** Update File: f\n@@ nowhere\n-a\n"), "not in the rest of the file"),
        (v4a("*** Update File: f\n@@\n-b\n"), "not in the file"),
        (v4a("*** Update File: f\n@@\n-a\n*** End of File\n"), "not in the file"),
        (v4a("*** Update File: missing\n@@\n-a\n"), "there is no file"),
        (v4a("*** Delete File: missing\n"), "there is no file"),
        (v4a("*** Add File: f\n+a\n"), "there already"),
        (v4a("*** Delete File: f\n") + "more\n", "after `*** End Patch`"),
    ],
)
def test_v4a_that_does_not_fit_is_rejected(patch: str, reason: str) -> None:
    assert reason in str(rejected(patch, {"f": b"a\nc\n"}))

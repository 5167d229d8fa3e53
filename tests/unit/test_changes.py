"""Changes as values: compared, ordered, and safe to print."""

from __future__ import annotations

import pickle
from collections.abc import Set

import pytest

from pytest_sandbox.changes import Change, ChangeKind, Changes, PathSet, unified_diff
from pytest_sandbox.models import FileKind
from pytest_sandbox.reporting import explained_comparison


def written(path: str, old: bytes, new: bytes) -> Change:
    return Change(path, ChangeKind.MODIFIED, FileKind.FILE, FileKind.FILE, ("content",), differs=True, old=old, new=new)


def test_paths_equal_plain_sets_and_come_in_order() -> None:
    paths: Set[str] = PathSet(["b", "a-b", "a/b", ".", "a"])

    assert paths == {".", "a", "a/b", "a-b", "b"} == paths
    assert list(paths) == [".", "a", "a/b", "a-b", "b"]
    assert repr(paths) == "{'.', 'a', 'a/b', 'a-b', 'b'}"
    assert repr(PathSet()) == "set()"


def test_changes_compare_by_their_paths() -> None:
    told = Changes.of([written("b", b"1", b"2"), written("a", b"1", b"2")], {})

    assert told == Changes(modified={"a", "b"})
    assert told != Changes(added={"a", "b"})
    assert hash(told) == hash(Changes(modified={"b", "a"}))
    assert [change.path for change in told] == ["a", "b"]
    assert repr(told) == "Changes(modified={'a', 'b'})"


def test_no_changes_are_false() -> None:
    assert not Changes()
    assert str(Changes()) == "nothing changed"
    assert Changes(removed={"a"})


def test_changes_can_be_pickled() -> None:
    told = Changes.of([written("a", b"1", b"2")], {})

    again = pickle.loads(pickle.dumps(told))

    assert again == told
    assert again.diff() == told.diff()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"", b"", ""),
        (b"a\n", b"a\n", ""),
        (b"", b"a\n", "@@ -0,0 +1 @@\n+a\n"),
        (b"a\n", b"", "@@ -1 +0,0 @@\n-a\n"),
        (b"a", b"a\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"),
        (b"a\r\n", b"a\n", "@@ -1 +1 @@\n-a\\r\n+a\n"),
        (b"\xff\n", b"\x1b[2J\n", "@@ -1 +1 @@\n-\\xff\n+\\x1b[2J\n"),
        (b"a\x0cb\n", b"a\xe2\x80\xa8c\n", "@@ -1 +1 @@\n-a\\x0cb\n+a\\u2028c\n"),
        (b"-a\n", b"@@ b\n", "@@ -1 +1 @@\n--a\n+@@ b\n"),
    ],
)
def test_diffs(old: bytes, new: bytes, expected: str) -> None:
    assert unified_diff(old, new, "a", "b") == (f"--- a\n+++ b\n{expected}" if expected else "")


def test_a_change_far_into_a_long_file_has_the_right_line_numbers() -> None:
    lines = [b"%d\n" % number for number in range(1, 20_001)]
    changed = [*lines[:9_999], b"here\n", *lines[9_999:]]

    diff = unified_diff(b"".join(lines), b"".join(changed), "a", "b")

    assert diff.splitlines()[2:] == [
        "@@ -9997,6 +9997,7 @@",
        *(f" {number}" for number in range(9997, 10000)),
        "+here",
        *(f" {number}" for number in range(10000, 10003)),
    ]


def test_what_is_too_long_or_no_text_is_said_in_a_line() -> None:
    long = b"".join(b"%d\n" % number for number in range(2000))

    assert unified_diff(b"", long, "a", "b") == "Files a and b differ in more lines than are shown (0 and 2000)\n"
    assert unified_diff(b"a", b"\0", "a", "b") == "Binary files a and b differ (1 and 1 bytes)\n"
    assert Change("a", ChangeKind.MODIFIED, FileKind.FILE, FileKind.FILE, differs=True).diff == (
        "Files a/a and b/a differ (too long to show, or sparse)\n"
    )


def test_a_name_is_safe_to_print() -> None:
    told = Changes.of([written("\x1b[2J\udcff\n", b"1\n", b"2\n")], {})

    for text in (str(told), told.diff(), repr(told)):
        assert text.replace("\n", "").isprintable()


def test_a_failing_comparison_is_explained_path_by_path() -> None:
    told = Changes.of([written("a", b"1\n", b"2\n"), Change("b", ChangeKind.ADDED)], {})

    assert explained_comparison("==", told, Changes(modified={"c"}, added={"b"})) == [
        "Changes(added={'b'}, modified={'a'}) == Changes(added={'b'}, modified={'c'})",
        "not expected: modified a: content",
        "expected, but not so: modified c",
        *("--- a/a", "+++ b/a", "@@ -1 +1 @@", "-1", "+2"),
    ]
    assert explained_comparison("==", {"c", 7}, told.modified) == [
        f"{ {'c', 7}!r} == {{'a'}}",
        "not expected: modified a: content",
        "expected, but not so: c",
        "expected, but not so: 7",
        *("--- a/a", "+++ b/a", "@@ -1 +1 @@", "-1", "+2"),
    ]


@pytest.mark.parametrize(
    ("operator", "left", "right"),
    [("==", {"a"}, {"b"}), ("==", PathSet("a"), "a"), ("!=", Changes(), Changes()), ("==", Changes(), {"a"})],
)
def test_other_comparisons_are_left_to_pytest(operator: str, left: object, right: object) -> None:
    assert explained_comparison(operator, left, right) is None

"""Two archives compared: what a sandbox is not needed for."""

from __future__ import annotations

import io

from pytest_sandbox.changes import MAX_DIFFED, Changes
from pytest_sandbox.core.archive import Archive, Entry
from pytest_sandbox.core.comparison import MAX_KEPT, compared
from pytest_sandbox.core.tar import BLOCK, Member, MemberKind, encode_header


def archive(*members: tuple[Member, bytes]) -> Archive:
    blocks = [encode_header(member) + content + bytes(-len(content) % BLOCK) for member, content in members]
    return Archive.read(io.BytesIO(b"".join(blocks) + bytes(2 * BLOCK)))


def test_nothing_differs_in_an_archive_and_itself() -> None:
    one = Archive.build([Entry("a", content=b"1"), Entry("d/l", target="x")])

    assert compared(one, one) == Changes()


def test_hard_links_are_their_file_by_another_name() -> None:
    file = Member(b"a", MemberKind.FILE, 0o644, size=1)
    link = Member(b"b", MemberKind.HARD_LINK, 0o644, link=b"a")

    assert compared(archive((file, b"1")), archive((file, b"1"), (link, b""))) == Changes(added={"b"})
    assert compared(archive((file, b"1"), (link, b"")), archive((file, b"2"), (link, b""))) == Changes(
        modified={"a", "b"}
    )
    assert (
        compared(archive((file, b"1"), (link, b"")), archive((file, b"1"), (file._replace(name=b"b"), b"1")))
        == Changes()
    )


def test_extended_attributes_count_in_no_order() -> None:
    def with_xattrs(*xattrs: tuple[bytes, bytes]) -> Archive:
        return archive((Member(b"a", MemberKind.FILE, 0o644, xattrs=xattrs), b""))

    one, two = (b"user.a", b"1"), (b"user.b", b"2")

    assert compared(with_xattrs(one, two), with_xattrs(two, one)) == Changes()
    [change] = compared(with_xattrs(one), with_xattrs(two))
    assert change.facts == ("extended attributes",)


def test_times_do_not_count() -> None:
    assert not compared(Archive.build([Entry("a", mtime_ns=1)]), Archive.build([Entry("a", mtime_ns=2)]))


def test_a_sparse_file_equals_one_with_its_zeros() -> None:
    content = b"x" * 4096 + bytes(1 << 16) + b"y" * 4096
    sparse_map = b"2\n0\n4096\n%d\n4096\n" % (4096 + (1 << 16))
    stored = sparse_map.ljust(BLOCK, b"\0") + content[:4096] + content[-4096:]
    sparse = Member(b"a", MemberKind.FILE, 0o644, size=len(stored), real_size=len(content))

    assert compared(archive((sparse, stored)), Archive.build([Entry("a", content=content)])) == Changes()
    assert compared(archive((sparse, stored)), Archive.build([Entry("a", content=content[:-1] + b"z")])) == Changes(
        modified={"a"}
    )


def test_members_that_were_not_sent_are_as_they_were() -> None:
    before = Archive.build([Entry("a", content=b"1"), Entry("b", content=b"1"), Entry("c", content=b"1")])
    part = Archive.build([Entry("b", content=b"2")])

    assert compared(before, part, {b"c"}) == Changes(modified={"b"}, removed={"c"})


def test_a_rename_pairs_each_path_once() -> None:
    before = Archive.build([Entry("a", content=b"same"), Entry("b", content=b"same"), Entry("c", content=b"long one")])
    after = Archive.build([Entry("x", content=b"same"), Entry("y", content=b"diff"), Entry("z", content=b"long one")])

    assert compared(before, after).renamed == {"a": "x", "c": "z"}


def test_contents_kept_for_diffs_are_bounded() -> None:
    count = MAX_KEPT // MAX_DIFFED + 5
    after = Archive.build([Entry(f"{number:03}", content=b"x" * MAX_DIFFED) for number in range(count)])

    told = compared(Archive.build([Entry("000", content=b"x" * (MAX_DIFFED + 1))]), after)

    assert len(told.added) == count - 1
    assert sum(len(change.old or b"") + len(change.new or b"") for change in told) <= MAX_KEPT
    assert next(iter(told)).diff.endswith("differ (too long to show, or sparse)\n")

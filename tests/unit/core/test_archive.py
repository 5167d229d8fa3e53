"""The tar format and the archives made of it, against tarfile and GNU tar as independent witnesses."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox.core.archive import Archive, ArchiveSink, Entry
from pytest_sandbox.core.tar import (
    BLOCK,
    ArchiveLimits,
    Member,
    MemberKind,
    canonical_stream,
    encode_header,
)
from pytest_sandbox.errors import DamagedArchive, NoSpaceOnHost, UnsafeArchive, UsageError
from pytest_sandbox.models import MEBIBYTE

END = bytes(2 * BLOCK)
NANO = 1_700_000_000_123_456_789
gnu_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="this machine has no tar to compare with")


def whole(archive: Archive) -> bytes:
    return archive.open().read()


def taken(raw: bytes) -> Archive:
    """An archive as a sandbox sent it: nothing looked at yet."""
    sink = ArchiveSink()
    sink.write(raw)
    return sink.finish()


def raw_member(name: bytes, kind: MemberKind = MemberKind.FILE, content: bytes = b"", **fields: object) -> bytes:
    member = Member(name, kind, 0o644, size=len(content))._replace(**fields)  # type: ignore[arg-type]
    return encode_header(member) + content + bytes(-len(content) % BLOCK)


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def of_tarfile(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def pax_header(records: bytes, kind: bytes = b"x") -> bytes:
    header = bytearray(encode_header(Member(b"PaxHeaders/x", MemberKind.FILE, 0o644, size=len(records))))
    header[156:157] = kind
    return with_checksum(header) + records + bytes(-len(records) % BLOCK)


def record(keyword: str, value: str) -> bytes:
    body = f" {keyword}={value}\n".encode()
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


# --- the canonical form ---------------------------------------------------------------------------------------------


def test_a_plain_member_is_one_ustar_header_as_posix_has_it() -> None:
    header = encode_header(Member(b"a\xff", MemberKind.FILE, 0o4755, 1000, 100, 5 * 10**9, 11))

    assert len(header) == BLOCK
    assert header[:100] == b"a\xff".ljust(100, b"\0")
    assert header[100:148] == b"0004755\x000001750\x000000144\x0000000000013\x0000000000005\0"
    assert header[156:265] == b"0" + bytes(100) + b"ustar\x0000"
    assert header[265:345] == bytes(64) + b"0000000\x000000000\0"
    assert header[345:] == bytes(167)
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    assert header[148:156] == b"%06o\0 " % total


@pytest.mark.parametrize(
    ("change", "records"),
    [
        ({"mtime_ns": NANO}, b"30 mtime=1700000000.123456789\n"),
        ({"mtime_ns": -1_500_000_000}, b"22 mtime=-1.500000000\n"),
        ({"mtime_ns": 8**11 * 10**9}, b"30 mtime=8589934592.000000000\n"),
        ({"name": b"n" * 101}, b"111 path=" + b"n" * 101 + b"\n"),
        ({"uid": 8**7, "gid": 8**7}, b"15 gid=2097152\n15 uid=2097152\n"),
        ({"size": 8**11}, b"19 size=8589934592\n"),
        (
            {"xattrs": ((b"user.b", b"\0\n"), (b"user.a", b""))},
            b"24 SCHILY.xattr.user.a=\n26 SCHILY.xattr.user.b=\0\n\n",
        ),
    ],
)
def test_what_a_header_can_not_hold_goes_into_pax_records_in_order(change: dict[str, object], records: bytes) -> None:
    member = Member(b"name", MemberKind.FILE, 0o644)._replace(**change)  # type: ignore[arg-type]

    header = encode_header(member)

    assert header[:14] == b"PaxHeaders/x\0\0"
    assert header[BLOCK : BLOCK + len(records)] == records
    assert len(header) == 3 * BLOCK


@pytest.mark.parametrize("length", [99, 100, 101])
def test_names_and_targets_around_the_field_s_width_survive(length: int) -> None:
    archive = Archive.build([Entry("n" * length, target="t" * length), Entry("d" * (length - 1))])

    directory, link = archive.members()

    assert (link.name, link.link) == (b"n" * length, b"t" * length)
    assert (directory.name, directory.kind) == (b"d" * (length - 1), MemberKind.DIRECTORY)


def test_order_is_by_components_not_by_bytes_of_the_path() -> None:
    archive = Archive.build([Entry("a-b", content=b""), Entry("a/c", content=b""), Entry("a"), Entry(".", mode=0o700)])

    assert [member.name for member in archive.members()] == [b"", b"a", b"a/c", b"a-b"]


def test_equal_trees_make_equal_bytes_whoever_wrote_the_archive_and_in_whatever_order() -> None:
    infos = [
        (tar_info("d", tarfile.DIRTYPE, mode=0o755, mtime=5), b""),
        (tar_info("d/f", mode=0o644, mtime=5), b"content"),
        (tar_info("d/" + "l" * 150, tarfile.SYMTYPE, "/x" * 100, mode=0o777, mtime=5), b""),
    ]
    mine = Archive.build(
        [
            Entry("d", mode=0o755, mtime_ns=5 * 10**9),
            Entry("d/f", content=b"content", mtime_ns=5 * 10**9),
            Entry("d/" + "l" * 150, target="/x" * 100, mtime_ns=5 * 10**9),
        ]
    )

    pax = Archive.read(of_tarfile(infos))
    gnu = Archive.read(of_tarfile(reversed(infos), tarfile.GNU_FORMAT))

    assert whole(pax) == whole(gnu) == whole(mine)
    assert pax.sha256 == mine.sha256


def test_reading_what_was_written_changes_nothing() -> None:
    archive = Archive.build(
        [Entry(".", mode=0o1777), Entry(b"\xff\n", content=b"x" * 513, mtime_ns=-1), Entry("l -> m", target="\\ :")]
    )

    assert Archive.read(whole(archive)).sha256 == archive.sha256


component = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw)
    .filter(lambda raw: raw not in (b".", b".."))
)
names = st.lists(component, min_size=1, max_size=4).map(b"/".join)
leaves = st.one_of(
    st.binary(max_size=1500),
    st.binary(min_size=1, max_size=200).filter(lambda raw: b"\0" not in raw).map(lambda t: (t,)),
)


@settings(max_examples=150)
@given(
    st.dictionaries(names, leaves, max_size=8),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**63), 2**63 - 1),
)
def test_every_legal_tree_survives_the_round_trip(
    tree: dict[bytes, bytes | tuple[bytes]], mode: int, uid: int, mtime_ns: int
) -> None:
    entries: dict[bytes, Entry] = {}
    for name, leaf in tree.items():
        if any(other.startswith(name + b"/") for other in tree):
            continue
        content, target = (leaf, None) if isinstance(leaf, bytes) else (None, leaf[0])
        entries[name] = Entry(name, content, target, mode, uid, uid // 2, mtime_ns)

    archive = Archive.build(entries.values())

    found = {member.name: member for member in archive.members() if member.kind is not MemberKind.DIRECTORY}
    assert found.keys() == entries.keys()
    for name, member in found.items():
        entry = entries[name]
        assert (member.mode, member.uid, member.gid, member.mtime_ns) == (mode, uid, uid // 2, mtime_ns)
        assert b"".join(archive.content(member)) == (entry.content or b"")
        assert member.link == (entry.target or b"")
    assert Archive.read(whole(archive)).sha256 == archive.sha256


@settings(max_examples=60)
@given(st.dictionaries(names, st.binary(max_size=1500), max_size=6), st.integers(0, 2**33))
def test_tarfile_reads_what_we_write(files: dict[bytes, bytes], mtime: int) -> None:
    leaves = {n: c for n, c in files.items() if not any(other.startswith(n + b"/") for other in files)}
    archive = Archive.build(Entry(name, content, mtime_ns=mtime * 10**9) for name, content in leaves.items())

    with tarfile.open(fileobj=archive.open(), encoding="utf-8", errors="surrogateescape") as witness:
        found = {}
        for info in witness:
            if info.isfile():
                content = witness.extractfile(info)
                assert content is not None
                found[info.name.encode("utf-8", "surrogateescape")] = content.read()
                assert int(info.mtime) == mtime

    # tarfile strips slashes and trailing spaces of nothing else; the names must be the very same bytes.
    assert found == leaves


# --- archives of others ---------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a" / "empty").mkdir(parents=True)
    (root / "a" / "script").write_bytes(b"#!/bin/sh\n")
    (root / "a" / "script").chmod(0o4750)
    (root / "z").write_bytes(b"shared")
    os.link(root / "z", root / "b")
    (root / "link").symlink_to("/nowhere/at/all")
    (root / ("long" * 40)).write_bytes(b"x" * 1000)
    (root / os.fsdecode(b"bad \xff\nname")).write_bytes(b"")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"in the middle")
    for path in root.rglob("*"):
        os.utime(path, ns=(NANO, NANO), follow_symlinks=False)
    return root


def packed_by_gnu_tar(tree: Path, *options: str) -> bytes:
    return subprocess.run(["tar", "-C", tree, *options, "-cf", "-", "."], check=True, capture_output=True).stdout


@gnu_tar
@pytest.mark.parametrize("options", [("--format=gnu",), ("--format=pax",), ("--format=pax", "--sparse")], ids=" ".join)
def test_archives_of_gnu_tar_are_read(tree: Path, options: tuple[str, ...]) -> None:
    archive = Archive.read(packed_by_gnu_tar(tree, *options))

    members = {member.name: member for member in archive.members()}
    assert members[b""].kind is MemberKind.DIRECTORY
    assert members[b"a/script"].mode == 0o4750
    assert members[b"link"].link == b"/nowhere/at/all"
    assert members[b"bad \xff\nname"].size == 0
    assert (members[b"b"].kind, members[b"z"].kind, members[b"z"].link) == (
        MemberKind.FILE,
        MemberKind.HARD_LINK,
        b"b",
    )
    assert (members[b"sparse"].real_size == 1 << 20) == ("--sparse" in options)
    if "--format=pax" in options:
        assert members[b"z"].mtime_ns == NANO


@gnu_tar
def test_gnu_tar_unpacks_what_we_write_to_the_same_tree(tree: Path, tmp_path: Path) -> None:
    archive = Archive.read(packed_by_gnu_tar(tree, "--format=pax", "--sparse", "--numeric-owner"))
    target = tmp_path / "target"
    target.mkdir()

    subprocess.run(["tar", "-C", target, "-xpf", "-"], input=whole(archive), check=True)

    again = Archive.read(packed_by_gnu_tar(target, "--format=pax", "--sparse", "--numeric-owner"))
    assert again.fingerprint() == archive.fingerprint()
    assert (target / "z").stat().st_ino == (target / "b").stat().st_ino
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 19


@gnu_tar
def test_old_gnu_sparse_members_are_refused_by_name_of_their_format(tree: Path) -> None:
    with pytest.raises(DamagedArchive, match="old GNU format"):
        Archive.read(packed_by_gnu_tar(tree, "--format=gnu", "--sparse"))


def test_long_names_of_gnu_and_the_prefix_of_ustar_are_joined() -> None:
    long_name, target = "d/" + "n" * 200, "t" * 200
    gnu = Archive.read(of_tarfile([(tar_info(long_name, tarfile.SYMTYPE, target), b"")], tarfile.GNU_FORMAT))
    ustar = Archive.read(of_tarfile([(tar_info("p" * 90 + "/" + "n" * 90), b"x")], tarfile.USTAR_FORMAT))

    assert [(m.name, m.link) for m in gnu.members()][1] == (long_name.encode(), target.encode())
    assert ustar.members()[1].name == b"p" * 90 + b"/" + b"n" * 90


def test_base_256_numbers_are_read() -> None:
    raw = of_tarfile([(tar_info("f", uid=2**31, gid=8**7, mtime=-7), b"x")], tarfile.GNU_FORMAT)

    (member,) = Archive.read(raw).members()

    assert (member.uid, member.gid, member.mtime_ns) == (2**31, 8**7, -7 * 10**9)


def test_global_pax_headers_count_for_all_that_follow_and_yield_to_a_member_s_own() -> None:
    raw = (
        pax_header(record("mtime", "7") + record("comment", "made by git"), b"g")
        + raw_member(b"a")
        + pax_header(record("mtime", "9.5"))
        + raw_member(b"b")
        + END
    )

    assert [member.mtime_ns for member in Archive.read(raw).members()] == [7 * 10**9, 9_500_000_000]


def test_directories_that_an_archive_leaves_out_are_made() -> None:
    archive = Archive.read(of_tarfile([(tar_info("a/b/c"), b"x"), (tar_info("a", tarfile.DIRTYPE, mode=0o700), b"")]))

    assert [(m.name, m.mode) for m in archive.members()] == [(b"a", 0o700), (b"a/b", 0o755), (b"a/b/c", 0o644)]


@pytest.mark.parametrize("name", ["./a/b", "a//b", "a/./b", "././a/b"])
def test_dots_and_doubled_slashes_in_foreign_names_are_taken_out(name: str) -> None:
    assert Archive.read(of_tarfile([(tar_info(name), b"")])).members()[-1].name == b"a/b"


def test_the_first_name_in_order_carries_the_content_of_a_hard_linked_file() -> None:
    infos = [
        (tar_info("m", mode=0o600), b"shared"),
        (tar_info("z", tarfile.LNKTYPE, "m"), b""),
        (tar_info("a", tarfile.LNKTYPE, "./m"), b""),
    ]

    archive = Archive.read(of_tarfile(infos))

    first, *others = archive.members()
    assert (first.name, b"".join(archive.content(first))) == (b"a", b"shared")
    assert [(m.name, m.kind, m.link, m.mode, m.size) for m in others] == [
        (b"m", MemberKind.HARD_LINK, b"a", 0o600, 0),
        (b"z", MemberKind.HARD_LINK, b"a", 0o600, 0),
    ]


compressions: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("form", compressions)
def test_compressed_archives_are_read_from_bytes_paths_and_files(form: str, tmp_path: Path) -> None:
    plain = of_tarfile([(tar_info("f"), b"x" * 300_000)])
    packed = compressions[form](plain)
    path = tmp_path / "archive"
    path.write_bytes(packed)

    with path.open("rb") as file:
        found = {Archive.read(packed).sha256, Archive.read(path).sha256, Archive.read(file).sha256}

    assert found == {Archive.read(plain).sha256}


@pytest.mark.parametrize("form", compressions)
def test_concatenated_compressed_streams_are_one_archive(form: str) -> None:
    plain = of_tarfile([(tar_info("f"), b"x")])

    joined = compressions[form](plain[:700]) + compressions[form](plain[700:])

    assert Archive.read(joined).sha256 == Archive.read(plain).sha256


@pytest.mark.parametrize("form", compressions)
def test_a_compressed_archive_cut_at_any_byte_is_damaged(form: str) -> None:
    packed = compressions[form](of_tarfile([(tar_info("f"), b"x")]))

    for length in range(len(packed)):
        with pytest.raises(DamagedArchive):
            Archive.read(packed[:length])


@pytest.mark.parametrize("form", compressions)
def test_anything_after_a_compressed_archive_is_damage(form: str) -> None:
    with pytest.raises(DamagedArchive):
        Archive.read(compressions[form](of_tarfile([])) + b"more")


@pytest.mark.parametrize("form", compressions)
def test_a_decompression_bomb_stops_at_the_limit(form: str) -> None:
    bomb = compressions[form](bytes(50 << 20))

    with pytest.raises(UnsafeArchive, match="beyond the limit of 1048576 bytes"):
        Archive.read(bomb, ArchiveLimits(total_bytes=1 << 20))


@pytest.mark.skipif(
    bool(importlib.util.find_spec("compression") or importlib.util.find_spec("backports")),
    reason="zst can be read here",
)
def test_without_zst_the_error_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"backports\.zstd"):
        Archive.read(b"\x28\xb5\x2f\xfd" + bytes(600))


def test_zst_is_read() -> None:
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

    assert Archive.read(zstd.compress(of_tarfile([(tar_info("f"), b"x")]))).members()[0].name == b"f"


@pytest.mark.parametrize("raw", [b"", b"x", b"PK\3\4" + bytes(600), b"no tar at all" * 100])
def test_what_is_no_tar_archive_is_damaged(raw: bytes) -> None:
    with pytest.raises(DamagedArchive):
        Archive.read(raw)


# --- damage ---------------------------------------------------------------------------------------------------------


def test_an_archive_cut_at_any_byte_is_damaged() -> None:
    raw = whole(Archive.build([Entry("d"), Entry("d/f", content=b"x" * 700, mtime_ns=NANO), Entry("l", target="f")]))

    for length in range(len(raw)):
        with pytest.raises(DamagedArchive):
            Archive.read(raw[:length])
        with pytest.raises(DamagedArchive):
            taken(raw[:length]).members()


def test_no_header_with_a_changed_byte_is_taken_for_a_whole_one() -> None:
    raw = bytearray(whole(Archive.build([Entry("f", content=b"x")])))

    for place in range(BLOCK):
        if not 148 <= place < 156:  # the checksum's own leading zeros may be spaces just as well
            raw[place] ^= 1
            with pytest.raises(DamagedArchive, match="checksum"):
                Archive.read(bytes(raw))
            raw[place] ^= 1


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (raw_member(b"f"), "cut off"),
        (raw_member(b"f") + bytes(BLOCK), "cut off"),
        (raw_member(b"f") + bytes(BLOCK) + raw_member(b"g") + END, "one zero block"),
        (raw_member(b"f") + END + b"\1", "after the end"),
        (raw_member(b"f") + END + bytes(10_000) + b"\1", "after the end"),
        (pax_header(record("mtime", "1")) + END, "without its member"),
        (pax_header(record("mtime", "1")) * 2 + raw_member(b"f") + END, "out of place"),
        (pax_header(b"6 a=b") + raw_member(b"f") + END, "malformed"),
        (pax_header(b"99 a=b\n") + raw_member(b"f") + END, "malformed"),
        (pax_header(b"3\n") + raw_member(b"f") + END, "malformed"),
        (pax_header(b"6 =bb\n") + raw_member(b"f") + END, "malformed"),
        (pax_header(b"0 a=b\n") + raw_member(b"f") + END, "malformed"),
        (pax_header(b"-6 a=b\n") + raw_member(b"f") + END, "not a number"),
        (pax_header(record("mtime", "1") * 2) + raw_member(b"f") + END, "comes twice"),
        (pax_header(record("mtime", "soon")) + raw_member(b"f") + END, "not a"),
        (pax_header(record("mtime", "1.5x")) + raw_member(b"f") + END, "not a"),
        (pax_header(record("size", "-1")) + raw_member(b"f") + END, "not a number"),
        (pax_header(record("size", "10000")) + raw_member(b"f", content=b"x") + END, "cut off"),
        (pax_header(record("path", "g"), b"g") + raw_member(b"f") + END, "for all members"),
        (raw_member(b"d", MemberKind.DIRECTORY, b"content") + END, "has a content"),
        (raw_member(b"l", MemberKind.SYMLINK, b"content", link=b"t") + END, "has a content"),
        (raw_member(b"f", size=5 * BLOCK) + END, "cut off"),
        (pax_header(record("GNU.sparse.map", "0,1")) + raw_member(b"f") + END, "another format than GNU 1.0"),
    ],
)
def test_damage_is_told_with_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(DamagedArchive, match=reason):
        Archive.read(raw)


@pytest.mark.parametrize("sparse_map", [b"", b"x\n", b"1\n", b"1\n0\n", b"2\n0\n9\n5\n9\n", b"1\n0\n99\n", b"9" * 30])
def test_a_sparse_file_with_a_wrong_map_is_damaged(sparse_map: bytes) -> None:
    content = sparse_map.ljust(BLOCK, b"\0") + b"some data"

    with pytest.raises(DamagedArchive):
        Archive.read(raw_member(b"s", content=content, real_size=50) + END)


@pytest.mark.parametrize("field", [slice(100, 108), slice(108, 116), slice(124, 136), slice(136, 148)])
@pytest.mark.parametrize("junk", [b"9", b"0x1", b"-1", b"1_0", b"1 1", b"\xfe"])
def test_numbers_that_are_none_are_damage(field: slice, junk: bytes) -> None:
    header = bytearray(raw_member(b"f"))
    header[field] = junk.ljust(field.stop - field.start, b" ")

    with pytest.raises(DamagedArchive):
        Archive.read(with_checksum(header) + END)


# --- hostile members ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (raw_member(b"/etc/passwd"), "absolute"),
        (raw_member(b"../up"), "`..`"),
        (raw_member(b"a/../../up"), "`..`"),
        (raw_member(b".."), "`..`"),
        (raw_member(b""), "root"),
        (pax_header(record("path", "a\0b")) + raw_member(b"f"), "NUL"),
        (pax_header(record("linkpath", "a\0b")) + raw_member(b"f", MemberKind.SYMLINK, link=b"t"), "NUL"),
        (raw_member(b"l", MemberKind.SYMLINK), "to nothing"),
        (raw_member(b"l", MemberKind.SYMLINK, link=b"/etc") + raw_member(b"l/passwd"), "below 'l', which is a symlink"),
        (raw_member(b"l/passwd") + raw_member(b"l", MemberKind.SYMLINK, link=b"/etc"), "below 'l', which is a symlink"),
        (raw_member(b"f") + raw_member(b"f/g"), "below 'f', which is a file"),
        (raw_member(b"f") + raw_member(b"f"), "twice"),
        (raw_member(b"f") + raw_member(b"./f"), "twice"),
        (raw_member(b"f") + raw_member(b"f", MemberKind.DIRECTORY), "twice"),
        (raw_member(b"f", MemberKind.SYMLINK, link=b"/etc") + raw_member(b"f", MemberKind.DIRECTORY), "twice"),
        (raw_member(b"h", MemberKind.HARD_LINK, link=b"f"), "no file before it"),
        (raw_member(b"h", MemberKind.HARD_LINK, link=b"f") + raw_member(b"f"), "no file before it"),
        (raw_member(b"h", MemberKind.HARD_LINK, link=b"/etc/passwd"), "absolute"),
        (raw_member(b"h", MemberKind.HARD_LINK, link=b"../f"), "`..`"),
        (raw_member(b"d", MemberKind.DIRECTORY) + raw_member(b"h", MemberKind.HARD_LINK, link=b"d"), "no file before"),
        (
            raw_member(b"l", MemberKind.SYMLINK, link=b"t") + raw_member(b"h", MemberKind.HARD_LINK, link=b"l"),
            "no file",
        ),
        (raw_member(b".", MemberKind.SYMLINK, link=b"t"), "root"),
        (raw_member(b"f", uid=2**32 - 1), "owner"),
        (pax_header(record("mtime", "9" * 15)) + raw_member(b"f"), "time"),
        (pax_header(record("path", "n" * 20_000)) + raw_member(b"f"), "more than 16384 bytes"),
        (pax_header(record("comment", "c" * (1 << 20))) + raw_member(b"f"), "extended header of"),
    ],
)
def test_hostile_members_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(UnsafeArchive, match=reason):
        Archive.read(raw + END)


@pytest.mark.parametrize(
    ("kind", "reason"), [(b"3", "character device"), (b"4", "block device"), (b"6", "FIFO"), (b"V", "unknown type")]
)
def test_kinds_that_no_workspace_needs_are_refused(kind: bytes, reason: str) -> None:
    header = bytearray(raw_member(b"node"))
    header[156:157] = kind

    with pytest.raises(UnsafeArchive, match=reason):
        Archive.read(with_checksum(header) + END)


def test_the_number_of_members_is_limited() -> None:
    raw = whole(Archive.build(Entry(f"{number}", content=b"") for number in range(11)))

    assert len(Archive.read(raw, ArchiveLimits(members=11)).members()) == 11
    with pytest.raises(UnsafeArchive, match="one too many"):
        Archive.read(raw, ArchiveLimits(members=10))


def test_what_is_kept_of_members_is_limited() -> None:
    limits = ArchiveLimits(all_name_bytes=2 * BLOCK)
    named = Member(b"f", MemberKind.FILE, 0o644, xattrs=((b"user.a", bytes(BLOCK)),))
    holes = b"1\n0\n9\n".ljust(BLOCK, b"\0") + b"some data"
    few = encode_header(named) + raw_member(b"s", content=holes, real_size=50)

    with pytest.raises(UnsafeArchive, match="one too many"):
        Archive.read(few + END, limits)
    for one in (encode_header(named), raw_member(b"s", content=holes, real_size=50)):
        assert len(Archive.read(one + END, limits).members()) == 1


def test_of_records_for_all_members_only_those_that_count_are_kept() -> None:
    comments = (pax_header(record(f"comment.{number}", "x" * (MEBIBYTE - 99)), b"g") for number in range(32))
    raw = b"".join(comments) + raw_member(b"f") + END

    tracemalloc.start()
    try:
        Archive.read(io.BytesIO(raw))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 16 * MEBIBYTE


def test_directories_that_deep_names_imply_are_limited_too() -> None:
    raw = b"".join(pax_header(record("path", f"{n}/" * 4000)) + raw_member(b"f") for n in range(3)) + END

    with pytest.raises(UnsafeArchive, match="more directories than are taken"):
        Archive.read(raw, ArchiveLimits(all_name_bytes=1 << 20))


@pytest.mark.parametrize(
    "raw",
    [
        raw_member(b"b") + raw_member(b"a"),
        raw_member(b"d/f"),
        raw_member(b"./f"),
        raw_member(b"f/"),
        raw_member(b"l", MemberKind.SYMLINK, link=b"/etc") + raw_member(b"l/passwd"),
        raw_member(b"f") + raw_member(b"f"),
        raw_member(b"h", MemberKind.HARD_LINK, link=b"f"),
        pax_header(record("mtime", "1"), b"g") + raw_member(b"f"),
        raw_member(b"f") + bytes(4 * BLOCK),
    ],
)
def test_a_sandbox_s_own_archive_must_have_the_canonical_form(raw: bytes) -> None:
    with pytest.raises((DamagedArchive, UnsafeArchive)):
        taken(raw + END).members()


@settings(max_examples=300)
@given(st.data())
def test_no_change_of_bytes_makes_anything_but_our_errors(data: st.DataObject) -> None:
    infos = [(tar_info("d", tarfile.DIRTYPE), b""), (tar_info("d/" + "f" * 110, mtime=1.5), b"x")]
    raw = bytearray(of_tarfile(infos)[: 12 * BLOCK])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for start in range(0, len(raw), BLOCK):  # checksums made good, so that the changes are looked at
        if raw[start + 257 : start + 262] == b"ustar":
            raw[start : start + BLOCK] = with_checksum(raw[start : start + BLOCK])

    try:
        archive = Archive.read(bytes(raw))
    except (DamagedArchive, UnsafeArchive):
        return

    for member in archive.members():
        assert not member.name.startswith(b"/")
        assert b".." not in member.name.split(b"/")


# --- on this host ---------------------------------------------------------------------------------------------------


def test_a_local_tree_and_its_archive_unpack_to_the_same(tree: Path, tmp_path: Path) -> None:
    Archive.from_tree(tree).extract(tmp_path / "copy")

    copy = tmp_path / "copy"
    assert {p.relative_to(copy) for p in copy.rglob("*")} == {p.relative_to(tree) for p in tree.rglob("*")}
    assert (copy / "a" / "script").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((copy / "a" / "script").stat().st_mode) == 0o750  # without setuid
    assert (copy / "link").readlink() == Path("/nowhere/at/all")
    assert (copy / "sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (copy / "a" / "empty").stat().st_mtime_ns == NANO


@gnu_tar
def test_hard_links_and_sparse_files_are_unpacked_as_such(tree: Path, tmp_path: Path) -> None:
    Archive.read(packed_by_gnu_tar(tree, "--format=pax", "--sparse")).extract(tmp_path / "copy")

    copy = tmp_path / "copy"
    assert (copy / "z").stat().st_ino == (copy / "b").stat().st_ino
    assert (copy / "sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (copy / "sparse").stat().st_blocks * 512 < 1 << 19


def test_unpacking_replaces_files_and_keeps_what_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    (tmp_path / "other").write_text("kept")
    outside = tmp_path.parent / "outside"
    outside.write_text("untouched")
    (tmp_path / "g").symlink_to(outside)

    Archive.build([Entry("f", content=b"new"), Entry("g", content=b"a file now")]).extract(tmp_path)

    assert (tmp_path / "f").read_text() == "new"
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "g").is_symlink()
    assert outside.read_text() == "untouched"


def test_unpacking_follows_no_symbolic_link_that_was_there_before(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)

    with pytest.raises(UnsafeArchive, match="symbolic link"):
        Archive.build([Entry("d/f", content=b"x")]).extract(target)

    assert list(outside.iterdir()) == []


def test_a_hostile_archive_touches_nothing_when_unpacked(tmp_path: Path) -> None:
    raw = raw_member(b"a") + raw_member(b"l", MemberKind.SYMLINK, link=b"..") + raw_member(b"l/escaped") + END

    with pytest.raises(UnsafeArchive):
        taken(raw).extract(tmp_path / "target")

    assert list(tmp_path.iterdir()) == []


def test_directories_without_permissions_can_be_unpacked_and_removed(tmp_path: Path) -> None:
    Archive.build([Entry("d", mode=0), Entry("d/f", content=b"x", mode=0)]).extract(tmp_path / "copy")

    assert stat.S_IMODE((tmp_path / "copy" / "d").stat().st_mode) == 0o700
    shutil.rmtree(tmp_path / "copy")


def test_save_writes_a_private_file_whole_or_not_at_all(tmp_path: Path) -> None:
    archive = Archive.build([Entry("f", content=b"x")])

    archive.save(tmp_path / "saved.tar")

    assert (tmp_path / "saved.tar").read_bytes() == whole(archive)
    assert stat.S_IMODE((tmp_path / "saved.tar").stat().st_mode) == 0o600
    with pytest.raises(IsADirectoryError):
        archive.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["saved.tar"]


def test_a_large_archive_lives_on_disk_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = os.urandom(5 << 20)

    archive = Archive.build([Entry("f", content=content)])

    assert not archive.in_memory
    assert list(tmp_path.iterdir()) == []
    assert b"".join(archive.content(archive.members()[0])) == content
    assert Archive.read(archive.open()).sha256 == archive.sha256


def test_a_full_disk_is_named_and_nothing_stays_on_it(full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(full_disk))

    with pytest.raises(NoSpaceOnHost, match=rf"no space left in {full_disk} on this host, with 0.0 MiB.*\n.*TMPDIR"):
        Archive.build([Entry("f", content=bytes(5 << 20))])

    usage = os.statvfs(full_disk)
    assert usage.f_bfree == usage.f_blocks


def test_readers_of_one_archive_do_not_disturb_each_other() -> None:
    archive = Archive.build([Entry("f", content=b"0123456789" * 1000)])
    first, second = archive.open(), archive.open()

    first.seek(BLOCK + 5)

    assert second.read(1) == b"f"
    assert first.read(3) == b"567"
    assert first.seek(0, io.SEEK_END) == archive.size
    assert first.read() == b""
    with pytest.raises(OSError, match="negative"):
        first.seek(-1)


def test_fingerprint_leaves_times_out_unless_asked() -> None:
    one, two = (Archive.build([Entry("f", content=b"x", mtime_ns=time)]) for time in (1, 2))

    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint(times=True) != two.fingerprint(times=True)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("g", content=b"x"),
        Entry("f", content=b"y"),
        Entry("f", content=b"x", mode=0o600),
        Entry("f", content=b"x", uid=1),
        Entry("f", target="x"),
        Entry("f"),
    ],
)
def test_fingerprint_tells_every_other_difference(entry: Entry) -> None:
    assert Archive.build([entry]).fingerprint() != Archive.build([Entry("f", content=b"x")]).fingerprint()


def test_a_file_that_shrinks_while_it_is_packed_is_an_error_and_one_that_grows_is_not(tmp_path: Path) -> None:
    member = Member(b"f", MemberKind.FILE, 0o644, size=3)

    with pytest.raises(OSError, match="changed its size while it was read, from 3 to 2 bytes"):
        list(canonical_stream([(member, [b"xy"])]))


def test_sockets_and_fifos_of_a_local_tree_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"")

    assert [member.name for member in Archive.from_tree(tmp_path).members()] == [b"file"]

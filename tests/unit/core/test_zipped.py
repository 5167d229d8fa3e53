"""Zip archives as ours, with zipfile and, where there is one, Info-ZIP as witnesses; and those that lie."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox.core import zipped
from pytest_sandbox.core.archive import Archive
from pytest_sandbox.core.tar import ArchiveLimits, Member, MemberKind
from pytest_sandbox.errors import ArchiveError, DamagedArchive, UnsafeArchive

LINK, FIFO = stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644


def zipped_of(*members: tuple[str, bytes, int | None], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of (name, content, mode of a Unix or None)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6))
            info.compress_type = method
            info.create_system = 0 if mode is None else 3
            info.external_attr = (mode or 0) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def contents(archive: Archive) -> dict[str, bytes]:
    return {
        str(member.path): b"".join(archive.content(member))
        for member in archive.members()
        if member.kind is MemberKind.FILE
    }


def members(raw: bytes) -> dict[str, Member]:
    return {str(member.path): member for member in Archive.read(raw).members()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_contents_come_out_of_every_compression(method: int) -> None:
    raw = zipped_of(("d/a", b"x" * 1_000_000, None), ("b", b"", None), method=method)

    assert contents(Archive.read(raw)) == {"b": b"", "d/a": b"x" * 1_000_000}


def test_modes_links_times_and_implied_directories_are_kept() -> None:
    raw = zipped_of(
        ("run", b"#!", stat.S_IFREG | 0o4755), ("plain", b"", None), ("l", b"../x", LINK),
        ("e/", b"", stat.S_IFDIR | 0o700), ("deep/er/f", b"", None),
    )  # fmt: skip

    found = members(raw)

    assert {name: (member.kind.name, member.mode) for name, member in found.items()} == {
        "run": ("FILE", 0o4755), "plain": ("FILE", 0o644), "l": ("SYMLINK", 0o777), "e": ("DIRECTORY", 0o700),
        "deep": ("DIRECTORY", 0o755), "deep/er": ("DIRECTORY", 0o755), "deep/er/f": ("FILE", 0o644),
    }  # fmt: skip
    assert found["l"].link == b"../x"
    assert found["run"].mtime_ns == 981_173_106 * 10**9


def test_an_archive_without_members_is_one() -> None:
    assert Archive.read(zipped_of()).members() == ()


@pytest.mark.skipif(shutil.which("zip") is None, reason="this machine has no zip to compare with")
def test_what_info_zip_writes_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "ü").write_bytes(b"1")
    (tree / "l").symlink_to("d")
    (tree / "run").write_bytes(b"2")
    (tree / "run").chmod(0o755)
    subprocess.run(["zip", "-qry", tmp_path / "a.zip", "."], cwd=tree, check=True)

    archive = Archive.read(tmp_path / "a.zip")

    assert contents(archive) == {"d/ü": b"1", "run": b"2"}
    assert {member.name for member in archive.members() if member.kind is MemberKind.SYMLINK} == {b"l"}


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ([("/etc/passwd", b"", None)], "absolute"),
        ([("../f", b"", None)], r"`\.\.`"),
        ([("d/../../f", b"", None)], r"`\.\.`"),
        ([("f", b"", None), ("./f", b"", None)], "twice"),
        ([("l", b"/etc", LINK), ("l/f", b"", None)], "is below"),
        ([("p", b"", FIFO)], "neither"),
        ([("d", b"", stat.S_IFDIR | 0o755)], "but not by both"),
        ([("f/", b"", stat.S_IFREG | 0o755)], "but not by both"),
        ([("l", b"", LINK)], "without a target"),
        ([("l", b"a\0b", LINK)], "NUL"),
        ([("l", b"x" * 20_000, LINK)], "longer than is taken"),
        ([("n" * 20_000, b"", None)], "longer than is taken"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_could_do_harm_is_refused(hostile: list[tuple[str, bytes, int | None]], reason: str) -> None:
    with pytest.raises(UnsafeArchive, match=reason):
        Archive.read(zipped_of(*hostile))


def test_a_nul_in_a_name_is_not_where_it_ends() -> None:
    raw = zipped_of(("a_b", b"", None)).replace(b"a_b", b"a\0b")

    with pytest.raises(UnsafeArchive, match="NUL"):
        Archive.read(raw)


def test_an_encrypted_member_is_refused() -> None:
    raw = bytearray(zipped_of(("f", b"1", None)))
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1

    with pytest.raises(UnsafeArchive, match="encrypted"):
        Archive.read(bytes(raw))


def test_limits_hold_for_what_comes_out() -> None:
    bomb = zipped_of(*((f"{number}", bytes(1_000_000), None) for number in range(4)))

    assert len(bomb) < 10_000
    with pytest.raises(UnsafeArchive, match="limit of 2000000 bytes"):
        Archive.read(bomb, ArchiveLimits(total_bytes=2_000_000))
    with pytest.raises(UnsafeArchive, match="limit of 3 members"):
        Archive.read(bomb, ArchiveLimits(members=3))


def test_a_member_that_lies_about_its_size_is_damaged() -> None:
    raw = bytearray(zipped_of(("f", b"12345", None), method=zipfile.ZIP_STORED))
    for signature, place in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
        struct.pack_into("<II", raw, raw.index(signature) + place, 9, 9)

    with pytest.raises(DamagedArchive):
        Archive.read(bytes(raw))


def test_a_place_before_the_beginning_is_damage() -> None:
    raw = bytearray(zipped_of(("f", b"1", None)))
    end = raw.index(b"PK\x05\x06")
    struct.pack_into("<I", raw, end + 16, end)  # the list of members begins later than it does: all else lies before 0

    with pytest.raises(DamagedArchive):
        Archive.read(bytes(raw))


def test_a_wrong_checksum_is_damage() -> None:
    raw = bytearray(zipped_of(("f", b"12345", None), method=zipfile.ZIP_STORED))
    raw[raw.index(b"12345")] ^= 1

    with pytest.raises(DamagedArchive, match="CRC"):
        Archive.read(bytes(raw))


def test_a_long_list_of_members_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "_MAX_DIRECTORY", 1000)

    with pytest.raises(DamagedArchive, match="list of members"):
        Archive.read(zipped_of(*((f"{number:0100}", b"", None) for number in range(20))))


_WHOLE = zipped_of(
    ("d/run", b"#!" * 50, stat.S_IFREG | 0o755), ("l", b"d", LINK), ("b", b"1" * 300, None), method=zipfile.ZIP_BZIP2
)


def test_whatever_is_cut_off_is_refused() -> None:
    for length in range(4, len(_WHOLE)):
        with pytest.raises(ArchiveError):
            Archive.read(_WHOLE[:length])


@settings(max_examples=300, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_is_changed_is_read_or_refused(places: list[tuple[int, int]]) -> None:
    raw = bytearray(_WHOLE)
    for place, value in places:
        raw[place] = value
    try:
        names = [os.fsdecode(member.name) for member in Archive.read(bytes(raw)).members()]
    except ArchiveError:
        return

    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)

"""What unpack promises, on every engine. What archives may be: tests/unit/core/test_archive.py and test_zipped.py."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Archive, ArchiveLimits, Sandbox
from pytest_sandbox.errors import DamagedArchive, FileMissing, FileOperationError, UnsafeArchive
from pytest_sandbox.models import FileKind

NOBODY = "65534:65534"


def tar_of(*members: tuple[str, bytes], links: tuple[tuple[str, str], ...] = (), mode: int = 0o755) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime, info.uid = len(content), mode, 1_000_000_000, 4321
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o755) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _zst(raw: bytes) -> bytes:
    if sys.version_info < (3, 14) and importlib.util.find_spec("backports.zstd") is None:
        pytest.skip("this Python can't write zst: the extra `zstd` is not installed")
    module = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return bytes(module.compress(raw))


PACKED: dict[str, Callable[[], bytes]] = {
    "tar": lambda: tar_of(("d/run", b"1")),
    "tar.gz": lambda: gzip.compress(tar_of(("d/run", b"1"))),
    "tar.bz2": lambda: bz2.compress(tar_of(("d/run", b"1"))),
    "tar.xz": lambda: lzma.compress(tar_of(("d/run", b"1"))),
    "tar.zst": lambda: _zst(tar_of(("d/run", b"1"))),
    "zip": lambda: zip_of(("d/run", b"1")),
}


@pytest.mark.parametrize("kind", PACKED)
def test_every_kind_of_archive_is_unpacked_where_it_lies(sandbox: Sandbox, kind: str) -> None:
    sandbox.write_bytes(f"in/a.{kind}", PACKED[kind]())

    sandbox.unpack(f"in/a.{kind}", "out/there")

    assert sandbox.read_bytes("out/there/d/run") == b"1"
    assert sandbox.stat("out/there/d/run").mode == 0o755
    assert sandbox.stat("out/there/d/run").uid == sandbox.stat("out").uid
    assert {str(entry.path) for entry in sandbox.list_dir()} == {"in", "out"}


def test_an_archive_of_this_host_is_unpacked(sandbox: Sandbox, tmp_path: Path) -> None:
    raw = PACKED["tar.gz"]()
    (tmp_path / "a").write_bytes(raw)

    sandbox.unpack(tmp_path / "a", "0")
    sandbox.unpack(raw, "1")
    sandbox.unpack(io.BytesIO(raw), "2")
    sandbox.unpack(Archive.read(raw), "3")

    assert len(sandbox.glob("*/d/run")) == 4


def test_what_is_there_stays_and_files_are_replaced(sandbox: Sandbox) -> None:
    sandbox.write_text("d/kept", "old")
    sandbox.write_text("d/f", "old")

    sandbox.unpack(tar_of(("d/f", b"new"), links=(("l", "d/f"),)))

    assert (sandbox.read_text("d/kept"), sandbox.read_text("d/f"), sandbox.read_text("l")) == ("old", "new", "new")
    assert sandbox.stat("d/f").mtime_ns == 1_000_000_000 * 10**9


def test_an_owner_can_be_named(sandbox: Sandbox) -> None:
    sandbox.unpack(tar_of(("d/f", b"")), "theirs", owner=NOBODY)

    assert {entry.uid for entry in sandbox.walk("theirs")} == {65534}
    assert sandbox.stat("theirs").uid == 65534


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (tar_of(("../f", b"")), UnsafeArchive),
        (tar_of(("/f", b"")), UnsafeArchive),
        (zip_of(("../f", b"")), UnsafeArchive),
        (tar_of(("good", b""), ("d/f", b""))[:1400], DamagedArchive),
        (gzip.compress(tar_of(("f", b"")))[:-9], DamagedArchive),
        (b"not an archive", DamagedArchive),
    ],
    ids=["above", "absolute", "above, zip", "cut", "cut, gz", "no archive"],  # a gz has the time in it
)
def test_an_archive_that_is_refused_leaves_nothing(sandbox: Sandbox, raw: bytes, error: type[Exception]) -> None:
    sandbox.write_bytes("a", raw)

    with pytest.raises(error):
        sandbox.unpack("a", "out")

    assert [str(entry.path) for entry in sandbox.list_dir()] == ["a"]


def test_limits_are_the_caller_s(sandbox: Sandbox) -> None:
    bomb = gzip.compress(tar_of(("f", bytes(1_000_000))))

    with pytest.raises(UnsafeArchive, match="limit"):
        sandbox.unpack(bomb, limits=ArchiveLimits(total_bytes=100_000))
    with pytest.raises(UnsafeArchive, match="member"):
        sandbox.unpack(tar_of(("a", b""), ("b", b"")), limits=ArchiveLimits(members=1))
    sandbox.write_bytes("big", tar_of(("f", b"")))
    with pytest.raises(UnsafeArchive, match="more than the 100 allowed"):
        sandbox.unpack("big", limits=ArchiveLimits(total_bytes=100))

    assert not sandbox.exists("f")


def test_nothing_is_written_through_a_link(sandbox: Sandbox) -> None:
    sandbox.write_text("outside/f", "old")
    sandbox.mkdir("w")
    sandbox.symlink("w/door", "../outside")
    sandbox.symlink("w/link", "../outside/f")

    sandbox.unpack(tar_of(("door/f", b"new"), ("link", b"new")), "w")

    assert sandbox.read_text("outside/f") == "old"
    assert sandbox.lstat("w/link").kind is FileKind.FILE
    assert sandbox.lstat("w/door").kind is FileKind.DIRECTORY


def test_what_can_not_be_read_or_made_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.write_text("file", "")

    with pytest.raises(FileMissing):
        sandbox.unpack("missing")
    with pytest.raises(FileMissing):
        sandbox.unpack(PurePosixPath("missing"))
    with pytest.raises(FileOperationError):
        sandbox.unpack(tar_of(("f", b"")), "file/d")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        sandbox.unpack(tmp_path / "missing")

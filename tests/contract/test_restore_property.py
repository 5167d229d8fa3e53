"""Whatever a script does to a workspace, restore() undoes, and changes() tells of.

The agent runs as a subprocess, so that the tree can be looked at without it: by lstat, xattrs and reading.
"""

from __future__ import annotations

import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox import Changes, Sandbox, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do to a tree all that a container's root may")

NAMES = [b"a", b"b", b"a-b", b".h", b" ", b"\n", b"-rf", b"*", b"a\\b", b"\xff\xfe", "é".encode(), b"x" * 255]
CONTENTS = [b"", b"1", b"2", b"same length", b"SAME LENGTH", b"z" * 5000, bytes(70_000), b"q" * 70_000]
TIMES = [0, -1, 1, 981_173_106_789_012_345, 4_102_444_800_000_000_000, -62_135_596_800_000_000_000]
DEEP = 30  # levels of names of 255 bytes: far more than one path may have


class Seen(NamedTuple):
    """All that is promised of one path."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes
    xattrs: dict[str, bytes]
    others: frozenset[bytes]  # names of the same file


@contextmanager
def opened(name: bytes | Path, directory: int | None = None) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def walk(directory: int, prefix: bytes = b"") -> Iterator[tuple[bytes, int, bytes]]:
    """Each path, with a descriptor of the directory it is in and its name there: no path is too long."""
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        yield prefix + name, directory, name
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            with opened(name, directory) as inside:
                yield from walk(inside, prefix + name + b"/")


def looked_at(name: bytes, directory: int) -> tuple[os.stat_result, bytes, dict[str, bytes]]:
    status = os.lstat(name, dir_fd=directory)
    if stat.S_ISLNK(status.st_mode):
        return status, os.fsencode(os.readlink(name, dir_fd=directory)), {}
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return status, b"", {}
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        xattrs = {key: os.getxattr(fd, key) for key in os.listxattr(fd)}
        content = b"" if stat.S_ISDIR(status.st_mode) else os.pread(fd, status.st_size, 0)
    finally:
        os.close(fd)
    return status, content, xattrs


def seen(root: Path) -> dict[bytes, Seen]:
    found: dict[bytes, tuple[os.stat_result, bytes, dict[str, bytes]]] = {}
    names: dict[int, set[bytes]] = {}
    with opened(root) as top:
        found[b"."] = looked_at(b".", top)
        for path, directory, name in walk(top):
            found[path] = looked_at(name, directory)
            if not stat.S_ISDIR(found[path][0].st_mode):
                names.setdefault(found[path][0].st_ino, set()).add(path)
    return {
        path: Seen(
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            content,
            xattrs,
            frozenset(names.get(status.st_ino, ())) - {path},
        )
        for path, (status, content, xattrs) in found.items()
    }


def expected_changes(before: dict[bytes, Seen], after: dict[bytes, Seen]) -> Changes:
    """What changes() has to say, from what was seen."""
    in_archives = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    old, new = (
        {
            os.fsdecode(path): each._replace(mtime=0, others=frozenset())
            for path, each in tree.items()
            if each.kind in in_archives
        }
        for tree in (before, after)
    )
    return Changes(
        added=new.keys() - old.keys(),
        removed=old.keys() - new.keys(),
        modified={path for path in old.keys() & new.keys() if old[path] != new[path]},
    )


def populate(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    (root / "d" / "e").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o1770)
    (root / "f").write_bytes(b"same length")
    (root / "d" / "f").write_bytes(CONTENTS[-1])
    (root / "d" / "e" / "run").write_bytes(b"#!/bin/sh\n")
    (root / "d" / "e" / "run").chmod(0o4755)
    (root / "linked").hardlink_to(root / "f")
    (root / "d" / "linked").hardlink_to(root / "f")
    (root / "link").symlink_to("d/e")
    (root / "dangling").symlink_to("/nowhere")
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.utime(root / "d", ns=(0, TIMES[3]))
    os.chown(root / "empty", 12, 34)
    with suppress(OSError):
        os.setxattr(root / "f", "user.color", b"blue")


# --- what the script may do: at a directory, to one name in it, with a second name and a number -----------------------


def write_in_place(directory: int, name: bytes, other: bytes, number: int) -> None:
    status = os.lstat(name, dir_fd=directory)
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        os.pwrite(fd, CONTENTS[number % len(CONTENTS)], (number % 3) * 4096)
        if number % 2:
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def write_mapped(directory: int, name: bytes, other: bytes, number: int) -> None:
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        with mmap.mmap(fd, 0) as mapped:
            mapped[number % len(mapped)] ^= 0x20
    except ValueError as error:
        raise OSError("an empty file can't be mapped") from error
    finally:
        os.close(fd)


def create(directory: int, name: bytes, other: bytes, number: int) -> None:
    fd = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640, dir_fd=directory)
    try:
        os.write(fd, CONTENTS[number % len(CONTENTS)])
        os.ftruncate(fd, number * 1000)
    finally:
        os.close(fd)


def replace_by_copy(directory: int, name: bytes, other: bytes, number: int) -> None:
    status, content, _ = looked_at(name, directory)
    if stat.S_ISREG(status.st_mode):
        remove(directory, name, other, number)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=directory)
        try:
            os.write(fd, content)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def remove(directory: int, name: bytes, other: bytes, number: int) -> None:
    if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        shutil.rmtree(os.fsdecode(name), dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def turn_into(directory: int, name: bytes, other: bytes, number: int) -> None:
    remove(directory, name, other, number)
    makers = [make_directory, create, make_link, make_fifo, make_socket]
    makers[number % len(makers)](directory, other, name, number)


def make_directory(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.mkdir(other, number % 0o1000, dir_fd=directory)
    with opened(other, directory) as inside:
        create(inside, name, name, number)


def make_deep(directory: int, name: bytes, other: bytes, number: int) -> None:
    at = os.dup(directory)
    try:
        for _ in range(DEEP):
            os.mkdir(b"y" * 255, dir_fd=at)
            with opened(b"y" * 255, at) as inside:
                os.dup2(inside, at)
        create(at, name, other, number)
    finally:
        os.close(at)


def make_link(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.symlink([name, b"/etc/passwd", b"..", b".", b"/nowhere", b"t" * 300][number % 6], other, dir_fd=directory)


def make_hard_link(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.link(name, other, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def make_fifo(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.mkfifo(other, dir_fd=directory)


def make_socket(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.mknod(other, stat.S_IFSOCK | 0o600, dir_fd=directory)


def rename(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.rename(name, other, src_dir_fd=directory, dst_dir_fd=directory)


def move_up(directory: int, name: bytes, other: bytes, number: int) -> None:
    if Path(f"/proc/self/fd/{directory}/../empty").exists():  # not out of the workspace
        os.rename(name, b"../" + other, src_dir_fd=directory, dst_dir_fd=directory)


def change_mode(directory: int, name: bytes, other: bytes, number: int) -> None:
    if not stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
        os.chmod(name, number * 37 % 0o10000, dir_fd=directory)


def change_owner(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.chown(name, number, number * 99_991, dir_fd=directory, follow_symlinks=False)


def change_time(directory: int, name: bytes, other: bytes, number: int) -> None:
    os.utime(name, ns=(0, TIMES[number % len(TIMES)]), dir_fd=directory, follow_symlinks=False)


def change_xattrs(directory: int, name: bytes, other: bytes, number: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        if number % 3:
            os.setxattr(fd, f"user.{number % 5}", b"\0" * (number % 200))
        else:
            os.removexattr(fd, "user.color")
    finally:
        os.close(fd)


def truncate(directory: int, name: bytes, other: bytes, number: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        os.ftruncate(fd, number * number * 100)
    finally:
        os.close(fd)


Operation = Callable[[int, bytes, bytes, int], None]
OPERATIONS: list[Operation] = [
    write_in_place, write_mapped, create, replace_by_copy, remove, turn_into, make_directory, make_deep, make_link,
    make_hard_link, make_fifo, make_socket, rename, move_up, change_mode, change_owner, change_time, change_xattrs,
    truncate,
]  # fmt: skip

Step = tuple[Operation, int, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 200), st.integers(0, len(NAMES) - 1), st.integers(0, 200)),
    max_size=12,
)


def carry_out(root: Path, script: list[Step]) -> None:
    for operation, place, name, number in script:
        with opened(root) as top:
            count = sum(1 for _ in walk(top))
            # The walk holds the directories open that lead to where it is.
            places = islice(walk(top), place % max(1, count), None)
            _, directory, subject = next(places, (b"", top, b"f"))
            with suppress(OSError):
                operation(directory, subject, NAMES[name], number)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("property") / "workspace"


@pytest.fixture(scope="module")
def restored(workspace: Path) -> Iterator[Sandbox]:
    with Sandbox.create(SandboxSettings(workspace=PurePosixPath(workspace)), SubprocessEngine()) as sandbox:
        yield sandbox


@settings(max_examples=int(os.environ.get("SANDBOX_TEST_EXAMPLES", "100")), derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
@given(first=steps, second=steps, how=st.sampled_from(["restore", "paranoid", "reset"]))
def test_restore_undoes_whatever_a_script_does(
    restored: Sandbox, workspace: Path, first: list[Step], second: list[Step], how: str
) -> None:
    populate(workspace)
    snapshot = restored.snapshot()
    before = seen(workspace)

    for script in (first, second):
        carry_out(workspace, script)
        assert restored.changes(snapshot) == expected_changes(before, seen(workspace))

        if how == "reset":
            restored.reset(snapshot)
        else:
            restored.restore(snapshot, paranoid=how == "paranoid")

        assert seen(workspace) == before
        assert restored.persist().sha256 == snapshot.archive.sha256
        assert not restored.changes(snapshot)

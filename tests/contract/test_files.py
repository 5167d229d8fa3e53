"""What the file API promises, on every engine."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Sandbox
from pytest_sandbox.core.files import Content
from pytest_sandbox.errors import (
    FileAlreadyExists,
    FileForbidden,
    FileIsDirectory,
    FileLinkLoop,
    FileMissing,
    FileNotDirectory,
    FileOperationError,
    LimitExceeded,
    UnsafeArchive,
    UsageError,
    WorkspaceRootProtected,
)
from pytest_sandbox.models import FileKind

ODD_NAMES = [
    " leading space",
    "trailing ",
    "new\nline",
    "a\\b",
    "c:x",
    "l -> m",
    "*?[",
    "-rf",
    "\udcff\udcfe",
    "ü",
    "~",
]
NOBODY = "65534:65534"


@pytest.fixture
def shared(sandbox: Sandbox) -> Iterator[PurePosixPath]:
    """A directory that users other than root can reach; not all may enter the workspace's parents."""
    directory = PurePosixPath("/tmp", sandbox.name)
    sandbox.mkdir(directory, mode=0o755, user="")
    yield directory
    sandbox.remove(directory, recursive=True, user="")


def leftovers(sandbox: Sandbox, path: str = ".") -> list[str]:
    return [str(entry.path) for entry in sandbox.list_dir(path)]


# --- read and write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)), b"y" * 65_536, os.urandom(300_001)], ids=len)
def test_what_is_written_is_read(sandbox: Sandbox, content: bytes) -> None:
    sandbox.write_bytes("file", content)

    assert sandbox.read_bytes("file") == content


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_legal_name_names_a_file(sandbox: Sandbox, name: str) -> None:
    sandbox.write_bytes(name, b"here")

    assert sandbox.read_bytes(name) == b"here"
    assert [str(entry.path) for entry in sandbox.list_dir()] == [name]


def test_paths_may_be_bytes_and_pure_paths_and_absolute(sandbox: Sandbox) -> None:
    sandbox.write_bytes(b"d/\xff", b"here")

    assert sandbox.read_bytes(PurePosixPath("d/\udcff")) == b"here"
    assert sandbox.read_bytes(sandbox.workspace / "d/\udcff") == b"here"


def test_a_nul_in_a_path_is_refused_before_anything_is_sent(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="NUL"):
        sandbox.read_bytes("a\0b")


def test_text_is_exact_and_has_an_encoding(sandbox: Sandbox) -> None:
    sandbox.write_text("file", "ä\r\n", "latin-1")

    assert sandbox.read_bytes("file") == b"\xe4\r\n"
    assert sandbox.read_text("file", "latin-1") == "ä\r\n"
    assert sandbox.read_text("file", errors="replace") == "\ufffd\r\n"
    with pytest.raises(UnicodeDecodeError):
        sandbox.read_text("file")


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 0, b""), (3, None, b"3456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, 1, b""), (99, None, b"")],
)
def test_reading_a_range(sandbox: Sandbox, offset: int, length: int | None, expected: bytes) -> None:
    sandbox.write_bytes("file", b"0123456789")

    assert sandbox.read_bytes("file", offset=offset, length=length) == expected


def test_chunks_can_be_left_early_and_the_sandbox_goes_on(sandbox: Sandbox) -> None:
    content = os.urandom(8 << 20)
    sandbox.write_bytes("file", content)

    for chunk in sandbox.read_chunks("file"):
        assert content.startswith(chunk)
        break

    assert b"".join(sandbox.read_chunks("file")) == content


def test_an_endless_device_can_be_read_in_part(sandbox: Sandbox) -> None:
    assert sandbox.read_bytes("/dev/zero", length=100_000) == bytes(100_000)


def test_files_under_proc_are_read_though_their_size_says_zero(sandbox: Sandbox) -> None:
    assert sandbox.read_text("/proc/self/status").startswith("Name:")


def test_missing_forbidden_and_directory_are_three_errors_and_the_built_in_ones(
    sandbox: Sandbox, shared: PurePosixPath
) -> None:
    sandbox.write_bytes(shared / "secret", b"", mode=0o600, user="")

    with pytest.raises(FileMissing) as missing:
        sandbox.read_bytes("no/such")
    with pytest.raises(FileForbidden) as forbidden:
        sandbox.read_bytes(shared / "secret", user=NOBODY)
    with pytest.raises(FileIsDirectory) as directory:
        sandbox.read_bytes(".")

    assert isinstance(missing.value, FileNotFoundError)
    assert isinstance(forbidden.value, PermissionError)
    assert isinstance(directory.value, IsADirectoryError)
    assert missing.value.errno == errno.ENOENT
    assert missing.value.filename == "no/such"


def test_a_fifo_is_refused_and_does_not_hang(sandbox: Sandbox) -> None:
    sandbox.exec("mkfifo fifo", check=True)

    with pytest.raises(FileOperationError) as refused:
        sandbox.read_bytes("fifo")

    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize("form", [bytearray, memoryview, io.BytesIO, lambda content: [content[:1], b"", content[1:]]])
def test_content_comes_as_bytes_file_or_iterable(sandbox: Sandbox, form: Callable[[bytes], Content]) -> None:
    sandbox.write_bytes("file", form(b"abc"))

    assert sandbox.read_bytes("file") == b"abc"


def test_text_in_the_place_of_bytes_is_a_type_error(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="write_text"):
        sandbox.write_bytes("file", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        sandbox.write_bytes("file", ["text"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="str"):
        sandbox.write_bytes("file", io.StringIO("text"))  # type: ignore[arg-type]

    assert leftovers(sandbox) == []


def test_a_source_that_fails_leaves_the_old_content_and_nothing_else(sandbox: Sandbox) -> None:
    def failing() -> Iterator[bytes]:
        yield b"new" * 500_000
        raise RuntimeError("the source broke")

    sandbox.write_bytes("file", b"old")

    with pytest.raises(RuntimeError, match="the source broke"):
        sandbox.write_bytes("file", failing())

    assert sandbox.read_bytes("file") == b"old"
    assert leftovers(sandbox) == ["file"]


def test_a_reader_never_sees_a_part(sandbox: Sandbox) -> None:
    old = b"old" * 100_000
    seen: list[bytes] = []

    def content() -> Iterator[bytes]:
        yield b"new" * 200_000
        seen.append(sandbox.read_bytes("file"))
        yield b"."

    sandbox.write_bytes("file", old)
    sandbox.write_bytes("file", content())

    assert seen == [old]
    assert sandbox.read_bytes("file") == b"new" * 200_000 + b"."


def test_mode_is_kept_for_an_old_file_set_by_argument_and_0644_for_a_new_one(sandbox: Sandbox) -> None:
    sandbox.write_bytes("new", b"")
    sandbox.write_bytes("script", b"", mode=0o4750)
    sandbox.write_bytes("script", b"again")

    assert sandbox.stat("new").mode == 0o644
    assert sandbox.stat("script").mode == 0o4750


def test_owner_is_kept_for_an_old_file_and_set_by_argument(sandbox: Sandbox) -> None:
    sandbox.write_bytes("file", b"", owner="1234:5678")
    sandbox.write_bytes("file", b"again", user="")

    found = sandbox.stat("file")
    assert (found.uid, found.gid) == (1234, 5678)


def test_a_write_has_the_rights_of_its_user(sandbox: Sandbox, shared: PurePosixPath) -> None:
    sandbox.write_bytes(shared / "root's", b"old", mode=0o644, user="")
    sandbox.mkdir(shared / "free", user="")
    sandbox.chmod(shared / "free", 0o1777, user="")

    with pytest.raises(FileForbidden):
        sandbox.write_bytes(shared / "root's", b"new", user=NOBODY)
    with pytest.raises(FileForbidden):
        sandbox.write_bytes(shared / "mine", b"new", user=NOBODY)
    sandbox.write_bytes(shared / "free/mine", b"new", user=NOBODY)

    assert sandbox.read_bytes(shared / "root's") == b"old"
    assert sandbox.stat(shared / "free/mine").uid == 65534


def test_a_user_who_does_not_exist_is_a_usage_error(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="'nobody-has-this-name'"):
        sandbox.exists("file", user="nobody-has-this-name")


def test_missing_parents_are_made_unless_told_otherwise(sandbox: Sandbox) -> None:
    sandbox.write_bytes("a/b/file", b"")

    assert sandbox.is_file("a/b/file")
    with pytest.raises(FileMissing):
        sandbox.write_bytes("c/file", b"", parents=False)


def test_append_adds_and_exclusive_refuses(sandbox: Sandbox) -> None:
    sandbox.write_bytes("log", b"one", append=True)
    sandbox.write_bytes("log", b"two", append=True)

    assert sandbox.read_bytes("log") == b"onetwo"
    with pytest.raises(FileAlreadyExists):
        sandbox.write_bytes("log", b"", exclusive=True)
    sandbox.write_bytes("new", b"", exclusive=True)
    assert sandbox.is_file("new")


def test_writing_onto_a_directory_is_an_error(sandbox: Sandbox) -> None:
    sandbox.mkdir("d")

    with pytest.raises(FileIsDirectory):
        sandbox.write_bytes("d", b"")


def test_writing_below_a_file_is_an_error(sandbox: Sandbox) -> None:
    sandbox.write_bytes("f", b"")

    with pytest.raises(FileNotDirectory):
        sandbox.write_bytes("f/g", b"")


def test_writing_through_a_symbolic_link_keeps_the_link(sandbox: Sandbox) -> None:
    sandbox.write_bytes("file", b"old")
    sandbox.symlink("link", "file")

    sandbox.write_bytes("link", b"new")

    assert sandbox.lstat("link").is_symlink
    assert sandbox.read_bytes("file") == b"new"


# --- stat, list, walk, glob -----------------------------------------------------------------------------------------


def test_stat_tells_what_lstat_of_the_kernel_tells(sandbox: Sandbox) -> None:
    sandbox.write_bytes("file", b"12345", mode=0o6711, owner="0:0")
    sandbox.exec("touch -d '2001-02-03 04:05:06 UTC' file || touch -d '2001-02-03 04:05:06' file", env={"TZ": "UTC"})
    sandbox.symlink("link", "file")

    found = sandbox.stat("file")

    assert (found.kind, found.size, found.mode, found.uid, found.gid, found.links) == (
        FileKind.FILE,
        5,
        0o6711,
        0,
        0,
        1,
    )
    assert found.mtime_ns == 981173106 * 10**9
    assert found.path == PurePosixPath("file")
    assert sandbox.stat("link").inode == found.inode
    assert sandbox.lstat("link").target == "file"
    assert sandbox.stat("link", follow=False).is_symlink


def test_owners_have_the_names_of_the_sandbox_s_passwd(sandbox: Sandbox) -> None:
    if not sandbox.exists("/etc/passwd"):
        pytest.skip("an image without passwd")

    found = sandbox.stat("/")

    assert (found.owner, found.group) == ("root", "root")


def test_a_loop_of_links_is_an_error_of_its_own(sandbox: Sandbox) -> None:
    sandbox.symlink("loop", "loop")

    for operation in (sandbox.read_bytes, sandbox.stat, sandbox.list_dir):
        with pytest.raises(FileLinkLoop):
            operation("loop")
    with pytest.raises(FileLinkLoop):
        sandbox.write_text("loop", "")
    with pytest.raises(FileLinkLoop):
        sandbox.mkdir("loop/d")


def test_exists_follows_links_and_takes_a_loop_for_nothing(sandbox: Sandbox) -> None:
    sandbox.write_bytes("file", b"")
    sandbox.symlink("dangling", "nowhere")
    sandbox.symlink("loop", "loop")

    assert sandbox.exists("file")
    assert not sandbox.exists("dangling")
    assert not sandbox.exists("loop")
    assert not sandbox.exists("file/below")
    assert not sandbox.is_dir("file")
    assert sandbox.is_dir(".")
    assert not sandbox.is_file("dangling")


def test_list_dir_is_in_byte_order_and_typed(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir d; mkfifo p; touch .hidden; ln -s d l; touch a-b a", check=True)

    found = [(str(entry.path), entry.kind) for entry in sandbox.list_dir()]

    assert found == [
        (".hidden", FileKind.FILE),
        ("a", FileKind.FILE),
        ("a-b", FileKind.FILE),
        ("d", FileKind.DIRECTORY),
        ("l", FileKind.SYMLINK),
        ("p", FileKind.FIFO),
    ]


def test_list_dir_of_nothing_and_of_a_file(sandbox: Sandbox) -> None:
    sandbox.mkdir("empty")
    sandbox.write_bytes("file", b"")

    assert sandbox.list_dir("empty") == []
    with pytest.raises(FileMissing):
        sandbox.list_dir("missing")
    with pytest.raises(FileNotDirectory):
        sandbox.list_dir("file")


def test_walk_has_directories_before_what_is_in_them_and_follows_no_link(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p a/b && touch a/b/c a-b && ln -s a l", check=True)

    assert [str(entry.path) for entry in sandbox.walk()] == ["a", "a/b", "a/b/c", "a-b", "l"]
    assert [str(entry.path) for entry in sandbox.walk("a")] == ["b", "b/c"]


def test_walk_of_thousands_comes_whole(sandbox: Sandbox) -> None:
    sandbox.exec("for i in $(seq 3000); do echo > a-rather-long-name-for-a-file-$i; done", check=True)

    assert sum(1 for _ in sandbox.walk()) == 3000


PATTERNS = """
    * *.py */*.py src/* src/?.py src/[ab].* src/[!a].* src/pkg none* none/* README.md README.md/ ./src/*.py src/a.py/*
    **/*.py src/**/*.py **/pkg/* **/ */ src/**/ **/* **/**/c.py
"""
TREE = "mkdir -p src/pkg/.deep .git && touch README.md src/a.py src/b.txt src/pkg/c.py src/pkg/.deep/d.py .git/x.py .py"


@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_glob_finds_what_pathlib_finds(sandbox: Sandbox, tmp_path: Path, pattern: str) -> None:
    sandbox.exec(TREE, check=True)
    for path in TREE.partition("touch ")[2].split():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    found = sandbox.glob(pattern)

    assert sorted(map(str, found)) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob(pattern))


def test_glob_below_another_directory_gives_paths_that_can_be_opened(sandbox: Sandbox) -> None:
    sandbox.exec(TREE, check=True)

    assert sandbox.glob("*.py", "src") == [PurePosixPath("src/a.py")]
    assert sandbox.glob("*.py", sandbox.workspace / "src") == [sandbox.workspace / "src/a.py"]
    assert sandbox.glob("*", "missing") == []


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "a/../*"])
def test_glob_refuses_patterns_that_lead_elsewhere(sandbox: Sandbox, pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        sandbox.glob(pattern)


# --- mkdir, remove, rename, copy, chmod, chown, symlink -------------------------------------------------------------


def test_mkdir_is_as_pathlib_has_it(sandbox: Sandbox) -> None:
    sandbox.mkdir("d", mode=0o700)

    assert sandbox.stat("d").mode == 0o700
    with pytest.raises(FileAlreadyExists):
        sandbox.mkdir("d")
    sandbox.mkdir("d", exist_ok=True)
    with pytest.raises(FileMissing):
        sandbox.mkdir("a/b")
    sandbox.mkdir("a/b", parents=True)
    assert sandbox.is_dir("a/b")


def test_mkdir_over_a_file_is_an_error_even_if_existing_is_fine(sandbox: Sandbox) -> None:
    sandbox.write_bytes("f", b"")

    with pytest.raises(FileAlreadyExists):
        sandbox.mkdir("f", exist_ok=True)


def test_remove_takes_files_links_empty_directories_and_with_recursive_trees(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p empty tree/a/b && touch file tree/a/b/c && ln -s tree link && chmod 0 tree/a/b", check=True)

    sandbox.remove("file")
    sandbox.remove("empty")
    sandbox.remove("link", recursive=True)
    with pytest.raises(FileOperationError) as full:
        sandbox.remove("tree")
    assert full.value.errno == errno.ENOTEMPTY
    assert sandbox.exists("tree/a")
    sandbox.remove("tree", recursive=True)

    assert leftovers(sandbox) == []
    with pytest.raises(FileMissing):
        sandbox.remove("file")


@pytest.mark.parametrize("path", [".", "", "a/..", "..", "/"])
def test_the_workspace_root_is_not_removed_or_renamed(sandbox: Sandbox, path: str) -> None:
    sandbox.write_bytes("kept", b"")

    with pytest.raises(WorkspaceRootProtected):
        sandbox.remove(path, recursive=True)
    with pytest.raises(WorkspaceRootProtected):
        sandbox.rename(path, "elsewhere")
    with pytest.raises(WorkspaceRootProtected):
        sandbox.remove(sandbox.workspace, recursive=True)

    assert sandbox.exists("kept")


def test_the_agent_refuses_the_root_under_any_other_name(sandbox: Sandbox, shared: PurePosixPath) -> None:
    sandbox.write_bytes("kept", b"")
    sandbox.symlink(shared / "parent", sandbox.workspace.parent, user="")

    with pytest.raises(FileOperationError) as refused:
        sandbox.remove(shared / "parent" / sandbox.workspace.name, recursive=True, user="")

    assert refused.value.errno == errno.EBUSY
    assert sandbox.exists("kept")


def test_rename_replaces(sandbox: Sandbox) -> None:
    sandbox.write_bytes("a", b"new")
    sandbox.write_bytes("b", b"old")

    sandbox.rename("a", "b")

    assert leftovers(sandbox) == ["b"]
    assert sandbox.read_bytes("b") == b"new"
    with pytest.raises(FileMissing):
        sandbox.rename("a", "c")


def test_copy_keeps_modes_times_and_links(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p t/d && echo hi > t/d/f && chmod 750 t/d/f && ln -s d/f t/l && touch -d @5 t/d/f", check=True)

    sandbox.copy("t", "u", recursive=True)

    assert sandbox.read_bytes("u/d/f") == b"hi\n"
    assert sandbox.stat("u/d/f").mode == 0o750
    assert sandbox.stat("u/d/f").mtime_ns == sandbox.stat("t/d/f").mtime_ns
    assert sandbox.read_link("u/l") == PurePosixPath("d/f")
    with pytest.raises(FileIsDirectory):
        sandbox.copy("t", "v")


def test_chmod_and_chown_change_what_stat_shows(sandbox: Sandbox) -> None:
    sandbox.write_bytes("f", b"")

    sandbox.chown("f", "12:34")
    sandbox.chmod("f", 0o7777)

    found = sandbox.stat("f")
    assert (found.uid, found.gid, found.mode) == (12, 34, 0o7777)
    sandbox.chown("f", ":56")
    assert (sandbox.stat("f").uid, sandbox.stat("f").gid) == (12, 56)


def test_a_symbolic_link_keeps_its_target_verbatim(sandbox: Sandbox) -> None:
    sandbox.symlink("l", b"/no/where\xff")

    assert sandbox.lstat("l").target == "/no/where\udcff"
    assert sandbox.read_link("l") == PurePosixPath("/no/where\udcff")
    with pytest.raises(FileAlreadyExists):
        sandbox.symlink("l", "x")
    with pytest.raises(FileOperationError):
        sandbox.read_link(".")


# --- upload and download --------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d" / "empty").mkdir(parents=True)
    (root / "d" / "run").write_bytes(b"#!/bin/sh\necho hi\n")
    (root / "d" / "run").chmod(0o755)
    (root / "link").symlink_to("d/run")
    (root / "dangling").symlink_to("/nowhere")
    (root / "big").write_bytes(os.urandom(1_500_000))
    return root


def test_a_file_goes_up_and_comes_down_with_its_mode(sandbox: Sandbox, tree: Path, tmp_path: Path) -> None:
    sandbox.upload(tree / "d" / "run", "bin/run")

    assert sandbox.stat("bin/run").mode == 0o755
    sandbox.download("bin/run", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tree / "d" / "run").read_bytes()
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "tree"]


def test_a_tree_goes_up_and_comes_down_whole(sandbox: Sandbox, tree: Path, tmp_path: Path) -> None:
    sandbox.upload(tree, "up/there")

    sandbox.download("up/there", tmp_path / "back")

    back = tmp_path / "back"
    assert {p.relative_to(back) for p in back.rglob("*")} == {p.relative_to(tree) for p in tree.rglob("*")}
    assert (back / "big").read_bytes() == (tree / "big").read_bytes()
    assert os.access(back / "d" / "run", os.X_OK)
    assert (back / "link").readlink() == Path("d/run")
    assert (back / "dangling").readlink() == Path("/nowhere")
    assert (back / "big").stat().st_mtime_ns == (tree / "big").stat().st_mtime_ns
    assert sandbox.exec(["./up/there/link"]).stdout == b"hi\n"


def test_a_tree_is_merged_into_a_directory_that_is_there(sandbox: Sandbox, tree: Path) -> None:
    sandbox.write_bytes("there/kept", b"")
    sandbox.write_bytes("there/d/run", b"replaced")
    sandbox.chmod("there", 0o711)

    sandbox.upload(tree, "there")

    assert sandbox.exists("there/kept")
    assert sandbox.read_bytes("there/d/run") == (tree / "d" / "run").read_bytes()
    assert sandbox.stat("there").mode == 0o711


def test_what_is_uploaded_belongs_to_the_owner_named(sandbox: Sandbox, tree: Path) -> None:
    sandbox.upload(tree, "theirs", owner="1234:5678")

    assert {(entry.uid, entry.gid) for entry in sandbox.walk("theirs")} == {(1234, 5678)}
    found = sandbox.stat("theirs")
    assert (found.uid, found.gid) == (1234, 5678)


def test_a_thousand_files_go_up_in_one_stream(sandbox: Sandbox, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}").write_text(str(number))

    sandbox.upload(tmp_path, "many")

    assert len(sandbox.list_dir("many")) == 1000
    assert sandbox.read_text("many/999") == "999"


def test_upload_of_nothing_is_the_host_s_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        sandbox.upload(tmp_path / "missing", "x")

    assert not isinstance(missing.value, FileOperationError)
    assert leftovers(sandbox) == []


def test_download_of_nothing_is_the_sandbox_s_error_and_leaves_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        sandbox.download("missing", tmp_path / "x")

    assert list(tmp_path.iterdir()) == []


def test_download_of_what_has_no_end_leaves_nothing(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_sandbox.core.files.MAX_WHOLE", 1 << 20)

    with pytest.raises(LimitExceeded, match="has no length"):
        sandbox.download("/dev/zero", tmp_path / "x")

    assert list(tmp_path.iterdir()) == []
    sandbox.download("/proc/version", tmp_path / "version")
    assert (tmp_path / "version").read_bytes().startswith(b"Linux")


def test_download_never_writes_outside_the_folder_named(sandbox: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    sandbox.exec(["ln", "-s", str(outside), "link"], check=True)
    sandbox.write_bytes("d/f", b"")
    target = tmp_path / "target"
    target.mkdir()

    sandbox.download(".", target)
    sandbox.remove("link")
    sandbox.write_bytes("link/escaped", b"x")
    with pytest.raises(UnsafeArchive, match="symbolic link"):
        sandbox.download(".", target)

    assert list(outside.iterdir()) == []

"""What `confine=True` promises: no path of the file API leads out of the workspace, whoever moves things meanwhile."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Sandbox
from pytest_sandbox.errors import (
    FileAlreadyExists,
    FileForbidden,
    FileIsDirectory,
    FileLinkLoop,
    FileMissing,
    FileNotDirectory,
    FileOperationError,
    FileOutsideWorkspace,
    NotAnswering,
    PatchRejected,
)
from pytest_sandbox.models import FileKind, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine

LINKS = 40  # that the kernel follows in one path (path_resolution(7))
DEEP = 300  # levels
SECRET = b"a secret"


@pytest.fixture
def confined(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The module's sandbox, leased confined: it belongs to the lease, and the container knows nothing of it."""
    core = sandbox._core
    before, core.settings = core.settings, replace(core.settings, confine=True)
    yield sandbox
    core.settings = before


@dataclass(frozen=True)
class Outside:
    """A directory outside of the workspace, and the ways that lead there. before: what was in it."""

    path: PurePosixPath
    ways: tuple[str, ...]
    before: bytes


def contents(sandbox: Sandbox, path: PurePosixPath) -> bytes:
    """What is there, by a command: those are not confined."""
    listed = "ls -lARn --full-time . 2>/dev/null || ls -lARn .; cat file"
    return sandbox.exec(listed, cwd=str(path), check=True).stdout


@pytest.fixture
def outside(confined: Sandbox) -> Iterator[Outside]:
    path = PurePosixPath("/tmp", f"{confined.name}-outside")
    up = os.path.relpath(path, confined.workspace)
    script = (
        f'mkdir -p "$0"/d/e && printf secret > "$0"/file && ln -s file "$0"/link && mkdir -p in/side && '
        f'ln -s "$0" absolute && ln -s {up} relative && ln -s ../../absolute in/side/chain && ln -s ../{up} in/deeper'
    )
    confined.exec(["sh", "-c", script, str(path)], check=True)
    ways = "absolute", "relative", "in/side/chain", "in/../absolute", "in/deeper", str(path), up, f"in/side/../../{up}"
    yield Outside(path, ways, contents(confined, path))
    confined.exec(["rm", "-rf", str(path)], check=True)


def walked(sandbox: Sandbox, path: str) -> list[object]:
    return list(sandbox.walk(path))


def read_in_part(sandbox: Sandbox, path: str) -> bytes:
    return sandbox.read_bytes(path, offset=1, length=2)


def patched(sandbox: Sandbox, path: str) -> None:
    sandbox.apply_patch("*** Begin Patch\n*** Add File: new\n+x\n*** End Patch\n", path=path)


def archived() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("unpacked"))
    return file.getvalue()


@pytest.mark.parametrize(
    "operation",
    [
        lambda sandbox, way: sandbox.read_bytes(f"{way}/file"),
        lambda sandbox, way: read_in_part(sandbox, f"{way}/link"),
        lambda sandbox, way: sandbox.write_bytes(f"{way}/file", b"changed"),
        lambda sandbox, way: sandbox.write_bytes(f"{way}/file", b"more", append=True),
        lambda sandbox, way: sandbox.write_bytes(f"{way}/new", b"", exclusive=True),
        lambda sandbox, way: sandbox.write_bytes(f"{way}/new/parents/file", b""),
        lambda sandbox, way: sandbox.stat(f"{way}/file"),
        lambda sandbox, way: sandbox.lstat(f"{way}/file"),
        lambda sandbox, way: sandbox.exists(f"{way}/nothing"),
        lambda sandbox, way: sandbox.is_dir(way),
        lambda sandbox, way: sandbox.read_link(f"{way}/link"),
        lambda sandbox, way: sandbox.list_dir(way),
        lambda sandbox, way: walked(sandbox, way),
        lambda sandbox, way: sandbox.glob("*", way),
        lambda sandbox, way: sandbox.mkdir(f"{way}/new"),
        lambda sandbox, way: sandbox.mkdir(f"{way}/new/parents", parents=True),
        lambda sandbox, way: sandbox.mkdir(way, parents=True, exist_ok=True),
        lambda sandbox, way: sandbox.remove(f"{way}/file"),
        lambda sandbox, way: sandbox.remove(f"{way}/d", recursive=True),
        lambda sandbox, way: sandbox.rename(f"{way}/file", "here"),
        lambda sandbox, way: sandbox.rename("in", f"{way}/new"),
        lambda sandbox, way: sandbox.copy(f"{way}/file", "here"),
        lambda sandbox, way: sandbox.copy(f"{way}/d", "here", recursive=True),
        lambda sandbox, way: sandbox.copy("in", f"{way}/new", recursive=True),
        lambda sandbox, way: sandbox.chmod(f"{way}/file", 0o700),
        lambda sandbox, way: sandbox.chmod(way, 0o700),
        lambda sandbox, way: sandbox.chown(f"{way}/file", "7:7"),
        lambda sandbox, way: sandbox.chown(f"{way}/link", "7:7", follow=False),
        lambda sandbox, way: sandbox.symlink(f"{way}/new", "file"),
        lambda sandbox, way: sandbox.unpack(archived(), f"{way}/d"),
        lambda sandbox, way: sandbox.unpack(PurePosixPath(f"{way}/file")),
        patched,
    ],
)
def test_no_operation_leads_out(
    confined: Sandbox, outside: Outside, operation: Callable[[Sandbox, str], object]
) -> None:
    for way in outside.ways:
        with pytest.raises(FileOutsideWorkspace, match="leads out of the workspace"):
            operation(confined, way)

    assert contents(confined, outside.path) == outside.before
    assert not confined.exists("here")


def test_trees_and_files_go_neither_up_nor_down_past_the_root(
    confined: Sandbox, outside: Outside, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("mine")
    for way in outside.ways:
        with pytest.raises(FileOutsideWorkspace):
            confined.upload(tmp_path / "tree", f"{way}/d")
        with pytest.raises(FileOutsideWorkspace):
            confined.upload(tmp_path / "tree/file", f"{way}/file")
        with pytest.raises(FileOutsideWorkspace):
            confined.download(f"{way}/d", tmp_path / "down")
        with pytest.raises(FileOutsideWorkspace):
            confined.download(f"{way}/file", tmp_path / "down")

    assert contents(confined, outside.path) == outside.before
    assert not (tmp_path / "down").exists()


def test_the_error_is_a_permission_error_that_names_the_path_and_no_missing_file(confined: Sandbox) -> None:
    with pytest.raises(PermissionError, match=r"'/etc/passwd' leads out of the workspace, and .* `confine`") as refused:
        confined.read_text("/etc/passwd")

    assert isinstance(refused.value, FileOperationError)
    assert not isinstance(refused.value, FileForbidden | FileMissing)
    assert refused.value.filename == "/etc/passwd"


def test_links_themselves_are_in_the_workspace_wherever_they_lead(confined: Sandbox, outside: Outside) -> None:
    confined.symlink("mine", outside.path)

    assert confined.read_link("mine") == outside.path
    assert confined.lstat("mine").kind is FileKind.SYMLINK
    confined.chown("mine", "7:7", follow=False)
    confined.copy("mine", "copy")
    confined.rename("copy", "moved")
    confined.write_bytes("in/file", b"")
    confined.rename("in/file", "mine")  # over it
    confined.remove("moved")
    assert {str(entry.path) for entry in confined.list_dir()} == {"absolute", "in", "mine", "relative"}
    assert contents(confined, outside.path) == outside.before


def test_what_lies_in_the_workspace_is_reached_by_any_way(confined: Sandbox) -> None:
    root = confined.workspace
    confined.write_bytes("d/e/f", b"content")
    confined.symlink("absolute", root / "d")
    confined.symlink("root", root)
    confined.symlink("d/relative", "../absolute/e")
    confined.symlink("d/e/odd", f"/{root}/./d//e/../e/f")
    ways = (
        "d/e/f",
        "./d//e/./f",
        "d/e/../e/f",
        f"{root}/d/e/f",
        f"//{root}//./d/e/f",
        "absolute/e/f",
        "d/relative/f",
        "root/d/relative/../e/odd",
    )

    assert [confined.read_bytes(way) for way in ways] == [b"content"] * len(ways)
    assert [confined.stat(way).size for way in ways] == [7] * len(ways)
    confined.write_bytes("d/relative/odd", b"through links")
    assert confined.lstat("d/e/odd").is_symlink
    assert confined.read_bytes("d/e/f") == b"through links"
    confined.write_bytes("absolute/new/g", b"")
    confined.mkdir("root/h/i", parents=True)
    confined.mkdir("absolute", exist_ok=True)
    assert [str(path) for path in confined.glob("**/g", "root")] == ["root/d/new/g"]
    assert {str(entry.path) for entry in confined.list_dir("d/..")} == {"absolute", "d", "h", "root"}
    assert confined.list_dir(root / "d/e") == confined.list_dir("d/relative")


def test_a_write_through_a_link_makes_what_it_leads_to(confined: Sandbox, outside: Outside) -> None:
    confined.symlink("dangling", "in/new")
    confined.symlink("leaving", outside.path / "new")

    confined.write_bytes("dangling", b"made")
    with pytest.raises(FileOutsideWorkspace):
        confined.write_bytes("leaving", b"made")

    assert confined.read_bytes("in/new") == b"made"
    assert contents(confined, outside.path) == outside.before


def test_other_errors_are_what_they_were(confined: Sandbox) -> None:
    confined.write_bytes("file", b"")
    confined.mkdir("d")

    with pytest.raises(FileMissing):
        confined.read_bytes("d/missing")
    with pytest.raises(FileMissing):
        confined.write_bytes("missing/file", b"", parents=False)
    with pytest.raises(FileNotDirectory):
        confined.read_bytes("file/below")
    with pytest.raises(FileNotDirectory):
        confined.list_dir("file")
    with pytest.raises(FileIsDirectory):
        confined.read_bytes("d/.")
    with pytest.raises(FileIsDirectory):
        confined.write_bytes("d/..", b"")
    with pytest.raises(FileIsDirectory):
        confined.write_bytes("d/", b"")
    with pytest.raises(FileAlreadyExists):
        confined.write_bytes("file", b"", exclusive=True)
    with pytest.raises(FileAlreadyExists):
        confined.mkdir("file", exist_ok=True)
    with pytest.raises(FileOperationError, match="Invalid argument"):
        confined.remove("d/../d/.", recursive=True)
    with pytest.raises(FileOperationError, match="File name too long"):
        confined.read_bytes(f"{'n' * 256}/f")
    with pytest.raises(PatchRejected):
        confined.apply_patch("no patch")
    assert {str(entry.path) for entry in confined.list_dir()} == {"d", "file"}


def test_a_loop_of_links_is_not_an_escape(confined: Sandbox) -> None:
    confined.exec("ln -s b a; ln -s a b; mkdir d; ln -s ../d/c d/c", check=True)
    confined.write_bytes("file", b"here")
    confined.exec(f"ln -s file l1; for i in $(seq 2 {LINKS + 1}); do ln -s l$((i - 1)) l$i; done", check=True)

    for path in ("a", "a/file", "d/c"):
        with pytest.raises(FileLinkLoop):
            confined.read_bytes(path)
        with pytest.raises(FileLinkLoop):
            confined.write_bytes(path, b"")
    assert not confined.exists("a")
    assert confined.read_bytes(f"l{LINKS}") == b"here"
    with pytest.raises(FileLinkLoop):
        confined.read_bytes(f"l{LINKS + 1}")


def test_deep_paths_are_walked(confined: Sandbox) -> None:
    path = "/".join(["d"] * DEEP)
    confined.write_bytes(f"{path}/file", b"deep")

    assert confined.read_bytes(f"{path}/../d/{'../' * (DEEP - 1)}{path[2:]}/file") == b"deep"
    with pytest.raises(FileOutsideWorkspace):
        confined.read_bytes(f"{path}/{'../' * (DEEP + 1)}file")


def test_rights_are_still_those_of_the_user(engine: object, tmp_path: Path) -> None:
    if not isinstance(engine, SubprocessEngine) or os.geteuid() != 0:
        pytest.skip("needs a workspace whose parents are everybody's, and root")
    settings = SandboxSettings(workspace=PurePosixPath(f"/tmp/{tmp_path.name}-{os.getpid()}"), confine=True)
    with Sandbox.create(settings, engine) as sandbox:
        try:
            sandbox.write_bytes("secret", b"", mode=0o600)
            sandbox.mkdir("closed", mode=0o700)
            sandbox.write_bytes("closed/file", b"")

            for path in ("secret", "closed/file", "closed/../secret"):
                with pytest.raises(FileForbidden):
                    sandbox.read_bytes(path, user="65534:65534")
        finally:
            sandbox.exec(["rm", "-rf", str(settings.workspace)])


def test_a_user_who_may_not_see_the_root_reads_nothing(confined: Sandbox) -> None:
    confined.write_bytes("file", b"")
    confined.chmod(".", 0o700)
    try:
        with pytest.raises(FileForbidden):
            confined.read_bytes("file", user="65534:65534")
    finally:
        confined.chmod(".", 0o755)


def test_commands_and_what_belongs_to_the_plugin_are_not_confined(confined: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")

    assert confined.exec(["cat", "/etc/passwd"]).ok
    confined.upload(tmp_path, "up", owner="0:0")  # looks owners up in /etc/passwd
    with pytest.raises(NotAnswering, match="ports that are listened on"):  # and these in /proc/net
        confined.wait_for_port(1, timeout=0.05)
    snapshot = confined.snapshot()
    confined.write_bytes("up/f", b"changed")
    assert confined.changes(snapshot).modified == {"up/f"}
    confined.reset(snapshot)
    assert confined.read_bytes("up/f") == b""


# --- others move things meanwhile ------------------------------------------------------------------------------------

SWAP = """
import ctypes, os, sys
exchange = ctypes.CDLL(None, use_errno=True).renameat2
pairs = [tuple(map(os.fsencode, pair.split("|"))) for pair in sys.argv[1:]]
print("ready", flush=True)
while True:
    for one, other in pairs:
        if exchange(-100, one, -100, other, 2):  # RENAME_EXCHANGE: neither name is ever missing
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
ROUNDS = 3000  # at most; some dozen are enough unless this machine is very busy


@pytest.fixture
def racing(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox in which a directory and a link out of the workspace change places all the time.

    `d` is a directory, or a link to one outside; `moved` is one or another directory, here or outside.
    """
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    for directory in (workspace / "d/sub", workspace / "moved", outside / "sub", outside / "moved"):
        directory.mkdir(parents=True)
    for place, content in ((workspace, b"inside"), (workspace / "d", b"inside"), (outside, SECRET)):
        (place / "file").write_bytes(content)
        (place / "sub").mkdir(exist_ok=True)
        (place / "sub/file").write_bytes(content)
    (workspace / "l").symlink_to(outside)
    pairs = f"{workspace}/d|{workspace}/l", f"{workspace}/moved|{outside}/moved"
    settings = SandboxSettings(workspace=PurePosixPath(workspace))
    with (
        Sandbox.create(settings, SubprocessEngine()) as sandbox,
        sandbox.start([sys.executable, "-c", SWAP, *pairs]) as swapping,
    ):
        swapping.stdout.wait_for("ready")
        yield sandbox
        assert not swapping.finished


def race(sandbox: Sandbox, operation: Callable[[Sandbox], object]) -> tuple[set[object], set[type[Exception]]]:
    """Results and errors, until both have been seen, or the same result so often that there is but one."""
    results, errors = set[object](), set[type[Exception]]()
    for round_number in range(ROUNDS):
        try:
            results.add(operation(sandbox))
        except FileOperationError as error:
            errors.add(type(error))
        if round_number > 50 and len(results) + len(errors) > 1:
            break
    return results, errors


@pytest.mark.parametrize(
    "operation",
    [
        lambda sandbox: sandbox.read_bytes("d/file"),
        lambda sandbox: sandbox.read_bytes("d/sub/../sub/file"),
        lambda sandbox: tuple(entry.size for entry in sandbox.list_dir("d") if entry.is_file),
        lambda sandbox: sandbox.stat("d/file").size,
    ],
)
def test_a_link_put_in_the_way_is_never_followed_out(racing: Sandbox, operation: Callable[[Sandbox], object]) -> None:
    free, _ = race(racing, operation)
    racing._core.settings = replace(racing._core.settings, confine=True)

    results, errors = race(racing, operation)

    assert len(free) == 2, "without confine both are read, or this test shows nothing"
    assert results in ({b"inside"}, {6}, {(6,)})
    assert errors == {FileOutsideWorkspace}


def test_a_directory_moved_out_leads_nowhere_by_its_parent(racing: Sandbox, tmp_path: Path) -> None:
    racing._core.settings = replace(racing._core.settings, confine=True)

    for _ in range(100):
        assert racing.read_bytes("moved/../file") == b"inside"


def test_nothing_is_ever_made_or_changed_outside(racing: Sandbox, tmp_path: Path) -> None:
    racing._core.settings = replace(racing._core.settings, confine=True)

    def change(sandbox: Sandbox) -> None:
        sandbox.write_bytes("d/sub/new/file", b"x")
        sandbox.write_bytes("d/file", b"inside", append=True)
        sandbox.chmod("d/file", 0o600)
        sandbox.mkdir("d/made", exist_ok=True)
        sandbox.copy("d/file", "d/copy")
        sandbox.rename("d/copy", "d/renamed")
        sandbox.remove("d/sub/new", recursive=True)

    _, errors = race(racing, change)

    outside = tmp_path / "outside"
    assert FileOutsideWorkspace in errors
    assert errors <= {FileOutsideWorkspace, FileMissing}  # a half of a round was made in the other directory
    assert {str(path.relative_to(outside)) for path in outside.rglob("*")} == {"file", "sub", "sub/file", "moved"}
    assert (outside / "file").read_bytes() == SECRET
    assert (outside / "file").stat().st_mode & 0o777 == 0o644

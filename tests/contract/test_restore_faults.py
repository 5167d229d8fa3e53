"""What restore promises where the ground moves: the root gone or covered, the disk full, a hundred thousand files.

On the subprocess engine, some in a mount namespace of their own: in a container the root is a mount and stays.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Archive, Changes, Sandbox, SandboxSettings
from pytest_sandbox.agent.binaries import agent_binary
from pytest_sandbox.core.archive import Entry
from pytest_sandbox.errors import FileMissing, FileSystemReadOnly, NoSpaceInSandbox
from tests.support.subprocess_engine import SubprocessEngine, agent_path

MEMORY = 64 * 1024  # KiB that the agent and its workers may have, each


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "around" / "workspace"


@pytest.fixture
def sandbox(workspace: Path) -> Iterator[Sandbox]:
    with Sandbox.create(SandboxSettings(workspace=PurePosixPath(workspace)), SubprocessEngine()) as sandbox:
        sandbox.exec("mkdir d; echo 1 > d/f; ln d/f g; chmod 711 .; touch -d @5 .", check=True)
        yield sandbox


@pytest.fixture
def mounting(workspace: Path) -> Iterator[Sandbox]:
    """A sandbox that may mount, and has a workspace of 4 MiB."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting takes CAP_SYS_ADMIN and unshare(1)")
    workspace.mkdir(parents=True)
    begin = f"mount -t tmpfs -o size=4m none '{workspace}' && exec '{agent_path()}'"
    engine = SubprocessEngine(agent=("unshare", "-m", "sh", "-c", begin))
    with Sandbox.create(SandboxSettings(workspace=PurePosixPath(workspace)), engine) as sandbox:
        sandbox.exec("mkdir d; echo 1 > d/f; dd if=/dev/zero bs=1M count=1 of=large 2>/dev/null; echo > large.end")
        yield sandbox


@pytest.mark.parametrize(
    "deed",
    [
        "rm -r workspace",
        "mv workspace moved",
        "rm -r workspace; echo > workspace",
        "mv workspace moved; ln -s moved workspace",
        "mkdir precious; echo kept > precious/f; rm -r workspace; ln -s precious workspace",
        "mv workspace moved; cp -a moved workspace",
        "rm -r workspace; mkfifo workspace",
        "chmod 0 workspace; chown 5:5 workspace",
    ],
)
def test_the_root_is_made_anew(sandbox: Sandbox, workspace: Path, deed: str) -> None:
    snapshot = sandbox.snapshot()
    sandbox.exec(deed, cwd=str(workspace.parent), check=True)
    around = {path.name for path in workspace.parent.iterdir()}

    for _ in range(2):
        sandbox.restore(snapshot)

        assert sandbox.persist().sha256 == snapshot.archive.sha256
        assert sandbox.changes(snapshot) == Changes()
    assert {path.name for path in workspace.parent.iterdir()} == around | {"workspace"}
    if (workspace.parent / "precious").exists():
        assert [path.read_text() for path in (workspace.parent / "precious").iterdir()] == ["kept\n"]


def test_changes_of_a_root_that_is_gone_are_an_error(sandbox: Sandbox, workspace: Path) -> None:
    snapshot = sandbox.snapshot()
    sandbox.exec("rm -r workspace", cwd=str(workspace.parent), check=True)

    with pytest.raises(FileMissing):
        sandbox.changes(snapshot)


def test_a_root_that_something_is_mounted_over_is_brought_to_the_snapshot_there_and_below(mounting: Sandbox) -> None:
    snapshot = mounting.snapshot()
    mounting.exec("echo 2 > d/f", check=True)
    mounting.exec(["mount", "-t", "tmpfs", "none", str(mounting.workspace)], check=True)

    mounting.restore(snapshot)
    assert mounting.persist().fingerprint() == snapshot.fingerprint()
    mounting.exec(["umount", str(mounting.workspace)], cwd="/", check=True)
    mounting.restore(snapshot)

    assert mounting.persist().sha256 == snapshot.archive.sha256


WRITE_MAPPED = """
import mmap
with open("d/f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[0] = mapped[0]
    print("mapped", flush=True)
    input()
    mapped[0] = ord("2")
"""


def test_a_write_to_a_mapped_file_is_caught_by_its_content(mounting: Sandbox) -> None:
    with mounting.start([sys.executable, "-c", WRITE_MAPPED]) as writing:
        assert writing.stdout.read_line() == b"mapped\n"
        snapshot = mounting.snapshot()
        writing.write(b"\n")
        writing.wait(timeout=10)
    assert mounting.read_text("d/f") == "2\n"

    assert mounting.changes(snapshot, paranoid=True).modified == {"d/f"}
    mounting.restore(snapshot, paranoid=True)

    assert mounting.persist().sha256 == snapshot.archive.sha256


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 256, 1000, (256 << 10) - 1, 256 << 10, (256 << 10) + 1])
def test_a_paranoid_restore_writes_only_what_differs(sandbox: Sandbox, size: int) -> None:
    sandbox.write_bytes("blocks", bytes(number % 251 for number in range(size)))  # agent and host hash in blocks of 128
    snapshot = sandbox.snapshot()
    before = {entry.path: entry.inode for entry in sandbox.walk()}

    sandbox.restore(snapshot, paranoid=True)

    assert {entry.path: entry.inode for entry in sandbox.walk()} == before


def test_the_setting_makes_restore_paranoid(mounting: Sandbox) -> None:
    mounting._core.settings = replace(mounting.settings, paranoid=True)

    with mounting.start([sys.executable, "-c", WRITE_MAPPED]) as writing:
        writing.stdout.read_line()
        snapshot = mounting.snapshot()
        writing.write(b"\n")
        writing.wait(timeout=10)
    mounting.reset(snapshot)

    assert mounting.read_text("d/f") == "1\n"


def test_a_mount_in_the_workspace_is_left_alone_and_what_is_below_it_comes_back(mounting: Sandbox) -> None:
    snapshot = mounting.snapshot()
    mounting.exec("echo 2 > d/f; mount -t tmpfs none d; echo 3 > d/f", check=True)

    mounting.restore(snapshot)
    assert mounting.read_text("d/f") == "3\n"
    mounting.exec("umount d", check=True)
    mounting.restore(snapshot)

    assert mounting.persist().sha256 == snapshot.archive.sha256


def test_a_full_disk_is_a_limit_and_the_next_restore_is_right(mounting: Sandbox) -> None:
    snapshot = mounting.snapshot()
    held = "rm large; dd if=/dev/zero bs=1M count=9 of=h 2>/dev/null; exec 3<h; rm h; echo held; read x"

    with mounting.start(held) as holding:
        assert holding.stdout.read_line() == b"held\n"
        with pytest.raises(NoSpaceInSandbox):
            mounting.restore(snapshot)
    mounting.restore(snapshot)

    assert mounting.persist().sha256 == snapshot.archive.sha256


def test_an_archive_that_is_too_large_for_the_disk_can_be_undone(mounting: Sandbox) -> None:
    snapshot = mounting.snapshot()

    with pytest.raises(NoSpaceInSandbox):
        mounting.hydrate(Archive.build([Entry("too/large", content=b"x" * (8 << 20))]))
    mounting.restore(snapshot)

    assert mounting.persist().sha256 == snapshot.archive.sha256


def test_a_hundred_thousand_files_take_no_more_than_64_mib(tmp_path: Path, workspace: Path) -> None:
    # The one that users get: sanitizers reserve terabytes of addresses.
    agent = agent_binary(platform.machine()).path
    limited = SubprocessEngine(agent=("sh", "-c", f"ulimit -v {MEMORY}; exec '{agent}'"))
    for directory in range(100):
        folder = workspace / f"directory-{directory:03}" / "some-name-of-usual-length"
        folder.mkdir(parents=True)
        for file in range(1000):
            (folder / f"file-{file:04}.txt").touch()

    with Sandbox.create(SandboxSettings(workspace=PurePosixPath(workspace)), limited) as sandbox:
        snapshot = sandbox.snapshot()
        touched = workspace / "directory-042" / "some-name-of-usual-length"
        (touched / "file-0001.txt").write_text("changed")
        (touched / "added").touch()

        assert len(sandbox.changes(snapshot).modified) == 1
        sandbox.restore(snapshot)
        assert not sandbox.changes(snapshot)
        other = Archive.read(snapshot.archive.open())
        (touched / "added").touch()
        sandbox.hydrate(other)

        assert not (touched / "added").exists()


def test_inodes_that_are_used_up_are_no_space_left(mounting: Sandbox) -> None:
    mounting.exec("mkdir few; mount -t tmpfs -o nr_inodes=10 none few", check=True)

    mounting.exec("cd few; for name in 0 1 2 3 4 5 6 7 8 9; do : > $name; done 2>/dev/null")
    with pytest.raises(NoSpaceInSandbox):
        mounting.write_bytes("few/one more", b"")

    mounting.remove("few/0")
    mounting.write_bytes("few/0", b"room again")


@pytest.mark.parametrize("confine", [False, True])
def test_a_read_only_file_system_is_an_error_of_its_own(mounting: Sandbox, confine: bool) -> None:
    mounting._core.settings = replace(mounting._core.settings, confine=confine)
    mounting.exec("mkdir ro; mount -t tmpfs -o ro none ro", check=True)

    with pytest.raises(FileSystemReadOnly):
        mounting.write_text("ro/f", "")
    with pytest.raises(FileSystemReadOnly):
        mounting.mkdir("ro/d")
    with pytest.raises(FileSystemReadOnly):
        mounting.chmod("ro", 0o700)
    with pytest.raises(FileSystemReadOnly):
        mounting.unpack(Archive.build([Entry("f", content=b"")]), "ro")

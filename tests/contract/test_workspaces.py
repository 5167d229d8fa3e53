"""What persist, hydrate, snapshot, restore and reset promise, on every engine."""

from __future__ import annotations

import errno
import gc
import io
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Archive, Sandbox, Snapshot
from pytest_sandbox.agent.client import AgentFailure
from pytest_sandbox.agent.wire import BodyWriter, Kind, to_wire
from pytest_sandbox.core.archive import Entry
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.core.tar import BLOCK, Member, MemberKind, encode_header
from pytest_sandbox.errors import DamagedArchive, FileOperationError, UnsafeArchive
from pytest_sandbox.loop import run
from pytest_sandbox.models import SandboxSettings

from .test_files import ODD_NAMES

NANO = 1_234_567_890_123_456_789
END = bytes(2 * BLOCK)
NOBODY = 0xFFFFFFFF  # the id in an entry that needs none

# Everything that a workspace may have; `sh` and the usual tools are all that the images share.
POPULATE = r"""
mkdir -p d/empty d/sub
printf 'one\n' > d/one; printf 'two\n' > two; printf '#!/bin/sh\necho ran\n' > run; chmod 4755 run
ln two d/sub/linked; ln -s d/one link; ln -s /nowhere dangling
chmod 1777 d/empty; chmod 0 d/one; touch -d '2001-02-03 04:05:06' two
dd if=/dev/zero of=sparse bs=1 count=1 seek=1048575 2>/dev/null
dd if=/dev/urandom of=large bs=65536 count=9 2>/dev/null
"""


@pytest.fixture
def populated(sandbox: Sandbox) -> Sandbox:
    sandbox.exec(POPULATE, check=True)
    for name in ODD_NAMES:
        sandbox.write_bytes(name, name.encode("utf-8", "surrogateescape"))
    return sandbox


@pytest.fixture(autouse=True)
def root_as_it_was(sandbox: Sandbox) -> Iterator[None]:
    """The workspace root's own mode, which the archives here change, is not part of what `sandbox` cleans."""
    before = sandbox.stat(".")
    yield
    sandbox.chown(".", f"{before.uid}:{before.gid}")
    sandbox.chmod(".", before.mode, user="")


def names(archive: Archive) -> list[str]:
    return [str(member.path) for member in archive.members() if member.name]


def described(sandbox: Sandbox) -> list[tuple[object, ...]]:
    """What lstat and reading tell of a workspace, without an archive in between."""
    return [
        (
            str(entry.path),
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.target,
            entry.links if entry.is_file else 0,
            sandbox.read_bytes(entry.path, user="") if entry.is_file else b"",
        )
        for entry in sandbox.walk(user="")
    ]


def tar_of(*members: tuple[str, bytes, bytes, str], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), link
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# --- persist --------------------------------------------------------------------------------------------------------


def test_persist_has_every_member_as_it_is(populated: Sandbox) -> None:
    populated.write_bytes("owned", b"", owner="123456:3000000")

    members = {str(member.path): member for member in populated.persist().members()}

    assert members["."].kind is MemberKind.DIRECTORY
    assert members["run"].mode == 0o4755
    assert members["d/empty"].mode == 0o1777
    assert members["d/one"].mode == 0
    assert (members["owned"].uid, members["owned"].gid) == (123456, 3000000)
    assert members["d/sub/linked"].kind is MemberKind.FILE
    assert (members["two"].kind, members["two"].link) == (MemberKind.HARD_LINK, b"d/sub/linked")
    assert members["link"].link == b"d/one"
    assert members["dangling"].link == b"/nowhere"
    assert members["d/one"].mtime_ns == populated.stat("d/one").mtime_ns
    assert set(ODD_NAMES) <= members.keys()


def test_persist_keeps_sparse_files_sparse(populated: Sandbox) -> None:
    (member,) = [member for member in populated.persist().members() if member.name == b"sparse"]

    assert member.real_size == 1 << 20
    assert member.size < 1 << 17


def test_persist_is_byte_for_byte_the_canonical_form_that_this_host_writes_too(populated: Sandbox) -> None:
    populated.write_bytes("n" * 100, b"")
    populated.write_bytes("n" * 101, b"")
    populated.mkdir("d" * 99)
    populated.mkdir("d" * 100)
    populated.symlink("l" * 101, "t" * 101)
    populated.write_bytes("deep/" + "a" * 90 + "/" + "b" * 90, b"x", owner="2097151:2097152")
    populated.exec("touch -d '1969-01-01 00:00:00' old; touch -d @5 whole", check=True)

    archive = populated.persist()

    assert archive.open().read() == Archive.read(archive.open()).open().read()


def test_persist_twice_gives_equal_bytes(populated: Sandbox) -> None:
    assert populated.persist().sha256 == populated.persist().sha256


def test_persist_of_nothing_is_the_root_alone(sandbox: Sandbox) -> None:
    assert [member.name for member in sandbox.persist().members()] == [b""]


def test_sockets_and_fifos_are_left_out(sandbox: Sandbox) -> None:
    sandbox.exec("mkfifo fifo; touch file", check=True)

    assert names(sandbox.persist()) == ["file"]


def test_gnu_tar_and_tarfile_read_what_persist_writes(populated: Sandbox, tmp_path: Path) -> None:
    populated.persist().save(tmp_path / "archive.tar")

    with tarfile.open(tmp_path / "archive.tar", encoding="utf-8", errors="surrogateescape") as witness:
        found = {info.name: info for info in witness}

    assert found["two"].islnk()
    assert found["run"].mode == 0o4755
    assert found["sparse"].size == 1 << 20
    assert set(ODD_NAMES) - {"trailing "} <= found.keys()


def test_ephemeral_paths_and_patterns_are_left_out(
    fresh: Sandbox, engine_of: Callable[[SandboxSettings], Sandbox]
) -> None:
    settings = replace(fresh.settings, ephemeral=("*.log", "build/out", ".cache"))
    sandbox = engine_of(settings)
    sandbox.exec(
        "mkdir -p build/out/x out .cache/deep src; touch a.log src/b.log build/kept out/kept .cache/f", check=True
    )

    assert names(sandbox.persist()) == ["build", "build/kept", "out", "out/kept", "src"]


@pytest.fixture
def engine_of(engine: object, tmp_path: Path) -> Iterator[Callable[[SandboxSettings], Sandbox]]:
    """Further sandboxes on the same engine, each with a workspace of its own."""
    made: list[Sandbox] = []

    def make(settings: SandboxSettings) -> Sandbox:
        if settings.workspace != SandboxSettings().workspace:
            settings = replace(settings, workspace=PurePosixPath(tmp_path / f"another-{len(made)}"))
        made.append(Sandbox.create(settings, engine))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.close()


def test_persist_survives_files_that_come_go_and_grow_meanwhile(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir d; for i in $(seq 300); do echo $i > d/$i; done", check=True)
    churn = 'while :; do for i in 1 2 3 4 5 6 7 8 9; do rm -f d/$i; echo "$i$i$i" >> d/2$i; echo > d/$i; done; done'

    with sandbox.start(churn):
        for _ in range(20):
            assert len(sandbox.persist().members()) > 280


# --- hydrate --------------------------------------------------------------------------------------------------------


def test_what_persist_made_hydrate_takes_and_the_workspace_is_equal(populated: Sandbox) -> None:
    before, archive = described(populated), populated.persist()
    populated.exec(
        "rm -rf d two; mkdir large.d; echo changed > run; ln -sf elsewhere link; mkdir two; touch two/x", check=True
    )

    populated.hydrate(archive)

    assert described(populated) == before
    assert populated.stat("two").inode == populated.stat("d/sub/linked").inode
    assert populated.persist().sha256 == archive.sha256


def test_hydrate_keeps_sparse_files_sparse(populated: Sandbox) -> None:
    archive = populated.persist()
    populated.remove("sparse")

    populated.hydrate(archive)

    assert int(populated.exec("du -k sparse", check=True).stdout.split()[0]) < 512
    assert populated.stat("sparse").size == 1 << 20


def test_what_the_archive_lacks_is_gone(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p a/b/c && touch a/b/c/d .hidden && chmod 0 a/b && mkfifo p && ln -s / root", check=True)

    sandbox.hydrate(Archive.build([Entry("only", content=b"this")]))

    assert names(sandbox.persist()) == ["only"]


def test_the_root_s_mode_and_owner_come_from_the_archive_if_it_has_them(sandbox: Sandbox) -> None:
    sandbox.chmod(".", 0o711, user="")

    sandbox.hydrate(Archive.build([Entry("f", content=b"")]))
    assert sandbox.stat(".").mode == 0o711
    sandbox.hydrate(Archive.build([Entry(".", mode=0o1750, uid=12, gid=34, mtime_ns=NANO)]))

    root = sandbox.stat(".", user="")
    assert (root.mode, root.uid, root.gid, root.mtime_ns) == (0o1750, 12, 34, NANO)


def test_archives_of_others_are_taken_in_any_form(sandbox: Sandbox, tmp_path: Path) -> None:
    raw = tar_of(("z/f", tarfile.REGTYPE, b"content", ""), ("a", tarfile.LNKTYPE, b"", "z/f"), form=tarfile.GNU_FORMAT)
    packed = tmp_path / "archive.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        info = tarfile.TarInfo("from/gz")
        archive.addfile(info)

    sandbox.hydrate(raw)
    assert sandbox.read_bytes("a") == sandbox.read_bytes("z/f") == b"content"
    sandbox.hydrate(io.BytesIO(raw))
    assert names(sandbox.persist()) == ["a", "z", "z/f"]
    sandbox.hydrate(packed)
    assert names(sandbox.persist()) == ["from", "from/gz"]


@pytest.mark.parametrize(
    "raw",
    [
        tar_of(("../escaped", tarfile.REGTYPE, b"", "")),
        tar_of(("/escaped", tarfile.REGTYPE, b"", "")),
        tar_of(("l", tarfile.SYMTYPE, b"", "/"), ("l/escaped", tarfile.REGTYPE, b"", "")),
        tar_of(("h", tarfile.LNKTYPE, b"", "/etc/passwd")),
        tar_of(("node", tarfile.CHRTYPE, b"", "")),
        tar_of(("f", tarfile.REGTYPE, b"", ""), ("f", tarfile.DIRTYPE, b"", "")),
    ],
)
def test_a_hostile_archive_is_refused_before_anything_is_touched(sandbox: Sandbox, raw: bytes) -> None:
    sandbox.write_bytes("kept", b"")

    with pytest.raises(UnsafeArchive):
        sandbox.hydrate(raw)

    assert names(sandbox.persist()) == ["kept"]


def test_a_truncated_archive_is_refused_before_anything_is_touched(sandbox: Sandbox) -> None:
    sandbox.write_bytes("kept", b"")
    raw = tar_of(("f", tarfile.REGTYPE, b"content", ""))

    with pytest.raises(DamagedArchive):
        sandbox.hydrate(raw[:700])

    assert names(sandbox.persist()) == ["kept"]


def send_unchecked(core: SandboxCore, raw: bytes, *, merge: bool = False) -> None:
    """HYDRATE what the host would never let through."""

    async def send() -> None:
        body = BodyWriter().str(b"").str(to_wire(core.workspace)).u32(0).u8(merge).bytes()
        async with core.channel(Kind.HYDRATE, body) as channel:
            await channel.send(raw)
            await channel.send_eof()
            await channel.result()

    run(send())


def made_of(*members: Member) -> bytes:
    return b"".join(encode_header(member) for member in members)


FILE, LINK, DIRECTORY, HARD_LINK = MemberKind.FILE, MemberKind.SYMLINK, MemberKind.DIRECTORY, MemberKind.HARD_LINK


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    "raw",
    [
        made_of(Member(b"../escaped", FILE, 0o644)) + END,
        made_of(Member(b"/escaped", FILE, 0o644)) + END,
        made_of(Member(b"a/../../escaped", FILE, 0o644)) + END,
        made_of(Member(b"h", HARD_LINK, 0o644, link=b"../secret")) + END,
        made_of(Member(b"h", HARD_LINK, 0o644, link=b"/etc/passwd")) + END,
        made_of(Member(b"b", FILE, 0o644), Member(b"a", FILE, 0o644)) + END,
        made_of(Member(b"a", FILE, 0o644), Member(b"a", FILE, 0o644)) + END,
        made_of(Member(b"a", FILE, 0o644, size=10_000)) + END,
        made_of(Member(b"a", FILE, 0o644))[:300],
        made_of(Member(b"a", FILE, 0o644)),
        bytes(BLOCK),
        b"",
        b"no tar at all" * 100,
    ],
)
def test_the_agent_checks_every_member_again(core: SandboxCore, sandbox: Sandbox, raw: bytes, merge: bool) -> None:
    around = [str(entry.path) for entry in sandbox.list_dir(sandbox.workspace.parent, user="")]

    with pytest.raises(AgentFailure):
        send_unchecked(core, raw, merge=merge)

    assert [str(entry.path) for entry in sandbox.list_dir(sandbox.workspace.parent, user="")] == around
    assert sandbox.exec(["true"]).ok


def test_a_member_below_a_link_of_the_archive_stays_inside(core: SandboxCore, sandbox: Sandbox) -> None:
    around = [str(entry.path) for entry in sandbox.list_dir(sandbox.workspace.parent, user="")]

    send_unchecked(core, made_of(Member(b"l", LINK, 0o777, link=b".."), Member(b"l/escaped", FILE, 0o644)) + END)

    assert [str(entry.path) for entry in sandbox.list_dir(sandbox.workspace.parent, user="")] == around
    assert [str(entry.path) for entry in sandbox.walk()] == ["l", "l/escaped"]


def test_no_live_symbolic_link_is_written_through(sandbox: Sandbox) -> None:
    outside = PurePosixPath("/tmp", f"{sandbox.name}-outside")
    sandbox.mkdir(outside, user="")
    sandbox.write_bytes(outside / "precious", b"kept", user="")
    sandbox.symlink("d", outside)
    sandbox.symlink("precious", outside / "precious")

    sandbox.hydrate(Archive.build([Entry("d/precious", content=b"new"), Entry("precious", content=b"new")]))

    assert sandbox.read_bytes(outside / "precious") == b"kept"
    assert [str(entry.path) for entry in sandbox.list_dir(outside)] == ["precious"]
    assert sandbox.read_bytes("d/precious") == b"new"
    sandbox.remove(outside, recursive=True, user="")


def test_a_venv_like_tree_runs_after_it_was_moved_out_and_in(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p venv/bin && ln -s /bin/sh venv/bin/sh", check=True)  # by this name: busybox looks at it
    archive = sandbox.persist()
    sandbox.remove("venv", recursive=True)

    sandbox.hydrate(archive)

    assert sandbox.exec(["venv/bin/sh", "-c", "echo runs"]).stdout == b"runs\n"


def test_extended_attributes_go_in_and_out(sandbox: Sandbox) -> None:
    member = Member(b"f", MemberKind.FILE, 0o644, xattrs=((b"user.color", b"\0blue\n"), (b"user.empty", b"")))
    archive = Archive.read(encode_header(member) + END)

    try:
        sandbox.hydrate(archive)
    except FileOperationError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("the file system below the workspace has no user.* attributes")

    assert sandbox.persist().members()[1].xattrs == member.xattrs


def test_an_acl_that_a_new_file_is_given_by_its_directory_goes_unless_the_archive_has_it(sandbox: Sandbox) -> None:
    # acl(5) as Linux stores it: version, then tag, permissions and id of each entry; uid 1000 is named.
    entries = ((0x01, 7, NOBODY), (0x02, 7, 1000), (0x04, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 5, NOBODY))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    directory = Member(b"d", MemberKind.DIRECTORY, 0o755, xattrs=((b"system.posix_acl_default", acl),))
    try:
        sandbox.hydrate(Archive.read(encode_header(directory) + END))
    except FileOperationError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("the file system below the workspace has no access control lists")

    sandbox.hydrate(
        Archive.read(encode_header(directory) + encode_header(Member(b"d/f", MemberKind.FILE, 0o640)) + END)
    )

    _, _, file = sandbox.persist().members()
    assert (file.name, file.mode, file.xattrs) == (b"d/f", 0o640, ())


def test_a_large_archive_goes_in_and_out(sandbox: Sandbox) -> None:
    content = os.urandom(1 << 20) * 12

    sandbox.hydrate(Archive.build([Entry("large", content=content)]))
    archive = sandbox.persist()

    assert not archive.in_memory
    assert sandbox.read_bytes("large") == content
    (member,) = [member for member in archive.members() if member.name]
    assert b"".join(archive.content(member)) == content


# --- snapshot and restore -------------------------------------------------------------------------------------------

CHANGES = {
    "content": "echo changed > two",
    "content of equal size and time": "cp -p two /tmp/$$; printf 'TWO\\n' > two; touch -r /tmp/$$ two; rm /tmp/$$",
    "appended": "echo more >> large",
    "truncated": ": > large",
    "mode": "chmod 600 run",
    "setuid lost": "chmod 755 run",
    "time": "touch -d @77 run",
    "time of a directory": "touch -d @77 d/empty",
    "removed file": "rm two",
    "removed tree": "rm -rf d",
    "removed everything": "rm -rf * .[!.]*",
    "added file": "echo > added",
    "added tree": "mkdir -p x/y/z && touch x/y/z/f && chmod 0 x/y",
    "renamed": "mv two three",
    "file into directory": "rm two && mkdir two && touch two/f",
    "directory into file": "rm -rf d && echo > d",
    "directory into link": "mv d e && ln -s e d",
    "file into link": "mv large elsewhere && ln -s elsewhere large",
    "link into file": "rm link && cp two link",
    "other target": "ln -sf /elsewhere link",
    "link unlinked": "cp two t && rm two && mv t two",
    "linked": "ln large linked-large",
    "hard links swapped": "rm d/sub/linked && ln large d/sub/linked",
    "fifo": "rm two && mkfifo two",
    "hole filled": "dd if=/dev/urandom of=sparse bs=1 count=5 seek=5 conv=notrunc 2>/dev/null",
    "replaced by rename": "cp -p two t && mv t two",
    "unreadable": "chmod 0 d/sub large",
    "shorter": "printf '#!' > run",
    "longer": "printf more >> run; chmod 4755 run",
    "hole punched": "dd if=/dev/zero of=run bs=1 count=1 seek=1048575 2>/dev/null",
    "nothing": ":",
}
WAYS_BACK: dict[str, Callable[[Sandbox, Snapshot], None]] = {
    "restore": lambda sandbox, snapshot: sandbox.restore(snapshot),
    "paranoid": lambda sandbox, snapshot: sandbox.restore(snapshot, paranoid=True),
    "reset": lambda sandbox, snapshot: sandbox.reset(snapshot),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("bring_back", WAYS_BACK)
def test_restore_and_reset_undo(populated: Sandbox, change: str, bring_back: str) -> None:
    snapshot = populated.snapshot()
    before = described(populated)
    populated.exec(CHANGES[change], check=True)

    WAYS_BACK[bring_back](populated, snapshot)

    assert described(populated) == before
    assert populated.persist().sha256 == snapshot.archive.sha256


def test_restore_undoes_a_change_of_owner(populated: Sandbox) -> None:
    snapshot = populated.snapshot()
    populated.chown("run", "77:88")
    populated.chown("link", "77:88", follow=False)

    populated.restore(snapshot)

    assert populated.persist().sha256 == snapshot.archive.sha256


def test_restore_undoes_a_change_within_the_same_clock_tick_as_the_snapshot(sandbox: Sandbox) -> None:
    """Racily clean: neither size nor times need to differ, for the kernel's clock ticks every few milliseconds."""
    for round_number in range(30):
        sandbox.write_bytes("file", b"before")
        snapshot = sandbox.snapshot()
        sandbox.write_bytes("file", b"after.", append=False, parents=False)
        sandbox.exec("printf BEHIND > file", check=True)

        sandbox.restore(snapshot)

        assert sandbox.read_bytes("file") == b"before", round_number


def test_restoring_again_and_again_costs_no_exactness(populated: Sandbox) -> None:
    snapshot = populated.snapshot()

    for number in range(10):
        populated.exec(f"echo {number} > two; rm -rf d; mkdir new{number}", check=True)
        populated.restore(snapshot)

    assert populated.persist().sha256 == snapshot.archive.sha256


def test_many_snapshots_each_bring_back_their_own_state(sandbox: Sandbox) -> None:
    snapshots: list[Snapshot] = []
    for number in range(5):
        sandbox.write_text("state", str(number))
        sandbox.write_text(f"only-{number}", "")
        snapshots.append(sandbox.snapshot(f"state {number}"))

    for number in (4, 0, 3, 1, 2):
        sandbox.restore(snapshots[number])
        assert sandbox.read_text("state") == str(number)
        assert names(sandbox.persist())[:-1] == [f"only-{n}" for n in range(number + 1)]
    assert [snapshot.name for snapshot in snapshots] == [f"state {number}" for number in range(5)]


def test_a_snapshot_can_be_taken_to_another_sandbox(
    populated: Sandbox, engine_of: Callable[[SandboxSettings], Sandbox]
) -> None:
    snapshot = populated.snapshot()
    other = engine_of(populated.settings)

    other.restore(snapshot)
    assert other.persist().sha256 == snapshot.archive.sha256
    other.exec("rm -rf two d; echo > added", check=True)
    other.restore(snapshot)

    assert other.persist().sha256 == snapshot.archive.sha256


def test_an_archive_of_another_day_is_a_snapshot_too(populated: Sandbox, tmp_path: Path) -> None:
    populated.persist().save(tmp_path / "kept.tar")
    populated.exec("rm -rf d two", check=True)

    snapshot = Snapshot("kept", Archive.read(tmp_path / "kept.tar"))
    populated.restore(snapshot)

    assert populated.persist().fingerprint() == snapshot.fingerprint()


def test_an_archive_that_says_nothing_of_the_root_is_a_snapshot_too(sandbox: Sandbox) -> None:
    snapshot = Snapshot("of others", Archive.build([Entry("f", content=b"x")]))

    for _ in range(2):
        sandbox.write_bytes("g", b"")
        sandbox.restore(snapshot)
        assert names(sandbox.persist()) == ["f"]


def test_fingerprints_are_equal_if_and_only_if_the_workspaces_are(populated: Sandbox) -> None:
    before = populated.snapshot()

    populated.exec("touch two", check=True)
    touched = populated.snapshot()
    populated.exec("chmod 711 run", check=True)
    changed = populated.snapshot()

    assert before.fingerprint() == touched.fingerprint() != changed.fingerprint()
    assert before.fingerprint(times=True) != touched.fingerprint(times=True)


def test_ephemeral_paths_survive_no_restore_but_cost_nothing(
    fresh: Sandbox, engine_of: Callable[[SandboxSettings], Sandbox]
) -> None:
    sandbox = engine_of(replace(fresh.settings, ephemeral=("*.log",)))
    sandbox.write_bytes("a.log", b"")
    sandbox.write_bytes("kept", b"")

    snapshot = sandbox.snapshot()
    sandbox.restore(snapshot)

    assert names(snapshot.archive) == ["kept"]
    assert sandbox.exists("kept")


def test_an_index_that_nobody_can_use_any_more_is_forgotten(sandbox: Sandbox, core: SandboxCore) -> None:
    snapshot = sandbox.snapshot()
    index = core._indexes.of(snapshot)
    assert index is not None
    del snapshot
    gc.collect()

    sandbox.snapshot()

    async def restore() -> None:
        body = BodyWriter().str(b"").str(to_wire(core.workspace)).u32(index).u8(0).bytes()
        async with core.channel(Kind.RESTORE, body) as channel:
            await channel.send_eof()
            await channel.result()

    with pytest.raises(AgentFailure) as unknown:
        run(restore())
    assert unknown.value.errno == errno.ENOENT


def test_a_snapshot_whose_index_the_agent_has_lost_is_hydrated(populated: Sandbox, core: SandboxCore) -> None:
    snapshot = populated.snapshot()

    async def forget() -> None:
        body = BodyWriter().u32(core._indexes.of(snapshot) or 0).bytes()
        async with core.channel(Kind.FORGET, body) as channel:
            await channel.result()

    run(forget())
    for _ in range(2):
        populated.exec("rm -rf two d", check=True)
        populated.restore(snapshot)
        assert populated.persist().sha256 == snapshot.archive.sha256


# --- reset ----------------------------------------------------------------------------------------------------------


def test_reset_kills_every_process_and_restores(populated: Sandbox) -> None:
    snapshot = populated.snapshot()
    populated.exec("rm -rf d; (sleep 1000 & echo $! > pid) > /dev/null 2>&1; touch added", check=True)
    pid = populated.read_text("pid").strip()

    populated.reset(snapshot)

    assert not populated.exists(f"/proc/{pid}/status") or "zombie" in populated.read_text(f"/proc/{pid}/status")
    assert populated.persist().sha256 == snapshot.archive.sha256


@pytest.mark.docker
@pytest.mark.parametrize("ends", [True, False], ids=["ends by itself", "is killed"])
def test_reset_undoes_what_a_process_wrote_to_a_mapped_file(sandbox: Sandbox, mapper: Path, ends: bool) -> None:
    sandbox.upload(mapper, "mapper")
    sandbox.write_text("mapped", "a" * 5000)
    snapshot = sandbox.snapshot()
    process = sandbox.start(["./mapper", "mapped"])
    assert process.stdout.read_line() == b"changed\n"
    if ends:
        process.close_stdin()
        process.wait()

    sandbox.reset(snapshot)

    assert sandbox.read_text("mapped") == "a" * 5000


def test_reset_does_not_write_to_a_file_that_has_a_name_outside(populated: Sandbox) -> None:
    snapshot = populated.snapshot()
    if populated.exec("ln run ../outside && echo changed > run").exit_code:
        pytest.skip("the workspace is a file system of its own")

    populated.reset(snapshot)

    assert populated.persist().sha256 == snapshot.archive.sha256
    assert populated.exec("cat ../outside && rm ../outside", check=True).stdout.text == "changed\n"


def test_restore_leaves_what_a_process_has_open_to_it(sandbox: Sandbox) -> None:
    sandbox.write_text("data", "before")
    snapshot = sandbox.snapshot()
    with sandbox.start("echo changed > data; exec 3< data; echo ready; read line; cat <&3") as process:
        assert process.stdout.read_line() == b"ready\n"
        sandbox.restore(snapshot)
        process.write(b"go\n")
        assert process.stdout.read_line() == b"changed\n"

    assert sandbox.read_text("data") == "before"


def test_reset_empties_tmp_and_its_like_where_they_are_the_sandbox_s_own(sandbox: Sandbox, core: SandboxCore) -> None:
    hello = core._client.hello
    if hello is None or hello.pid != 1:
        pytest.skip("the agent as a subprocess has this host's /tmp, which is left alone")
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        sandbox.exec(f"cd {directory}; mkdir -p a/b; touch c .d; chmod 700 .", check=True)

    sandbox.reset()

    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        assert sandbox.list_dir(directory) == []
        assert sandbox.stat(directory).mode == 0o1777


def test_a_subprocess_agent_leaves_this_host_s_tmp_alone(sandbox: Sandbox, core: SandboxCore, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()

    sandbox.reset()

    assert (tmp_path / "kept").exists()

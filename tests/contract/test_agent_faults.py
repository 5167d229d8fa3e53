"""What the agent does when the sandbox, the disk, the clock or its own host fails it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from pytest_sandbox import Archive, Sandbox
from pytest_sandbox.agent.wire import MAGIC, UNLIMITED, VERSION, BodyWriter, FrameDecoder, FrameType, Kind, encode_frame
from pytest_sandbox.core.tar import BLOCK, Member, MemberKind, encode_header
from pytest_sandbox.errors import FileForbidden, FileOperationError, NoSpaceInSandbox, OperationStalled, SandboxLost
from pytest_sandbox.models import SandboxSettings
from tests.support.folders import let_others_in
from tests.support.subprocess_engine import SubprocessEngine, agent_path

SECOND = 1_000_000_000
BOUND = 10  # seconds for what takes milliseconds; a test must not hang
NOBODY = "65534:65534"
LIBRARY_SIGNALS = 0b11 << 31  # 32 and 33, which the C library keeps for itself; GNU make lets them be ignored
DEEP = 4000  # levels; the paths are longer than PATH_MAX
in_a_container = pytest.mark.parametrize("engine", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this to an agent")


# --- a host that dies or does not read -------------------------------------------------------------------------------


@dataclass
class BareAgent:
    """An agent and nobody between: frames go out as they are written here."""

    process: subprocess.Popen[bytes]

    def open(self, kind: Kind, body: BodyWriter) -> int:
        """Greet it, open channel 1 and return the pid at work."""
        hello = BodyWriter().raw(MAGIC).u16(VERSION).raw(bytes(16)).bytes()
        self.send(encode_frame(FrameType.HELLO, 0, hello))
        self.send(encode_frame(FrameType.OPEN, 1, BodyWriter().u8(kind).u32(2**32 - 1).bytes(), body.bytes()))
        assert self.process.stdout is not None
        decoder = FrameDecoder()
        while True:
            for frame in decoder.feed(os.read(self.process.stdout.fileno(), 4096)):
                if frame.type is FrameType.OPENED:
                    return int.from_bytes(frame.payload[4:8], "little")

    def send(self, frame: bytes) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), frame)

    def let_output_stick(self) -> None:
        """Ask for more than anybody reads, until it reads no more itself."""
        assert self.process.stdin is not None
        self.open(Kind.READ, BodyWriter().str(b"").str(b"").str(b"/dev/zero").u64(0).u64(UNLIMITED))
        credit = encode_frame(FrameType.WINDOW, 1, BodyWriter().u8(0).u32(1).bytes())
        os.set_blocking(self.process.stdin.fileno(), False)
        while select.select([], [self.process.stdin], [], 0.2)[1]:  # once it can't write it doesn't read either
            with suppress(BlockingIOError):
                self.send(credit)


@pytest.fixture
def bare() -> Iterator[BareAgent]:
    process = subprocess.Popen([agent_path()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    with process:
        yield BareAgent(process)
        process.kill()


def wait_until_gone(pidfd: int) -> bool:
    with os.fdopen(pidfd):
        return bool(select.select([pidfd], [], [], BOUND)[0])


def test_an_agent_that_is_killed_leaves_no_half_written_file(bare: BareAgent, tmp_path: Path) -> None:
    target = tmp_path / "file"
    body = BodyWriter().str(b"").str(b"").str(os.fsencode(target)).u32(0).i32(-1).str(b"")
    worker = os.pidfd_open(bare.open(Kind.WRITE, body))
    bare.send(encode_frame(FrameType.DATA, 1, b"\0", b"a part of it"))

    bare.process.kill()

    assert wait_until_gone(worker)
    assert not list(tmp_path.iterdir())


def test_an_agent_ends_with_its_host_though_its_output_is_stuck(bare: BareAgent) -> None:
    assert bare.process.stdin is not None
    bare.let_output_stick()

    bare.process.stdin.close()

    assert bare.process.wait(BOUND) in (0, 71)


@needs_root
def test_an_agent_is_stopped_from_outside_though_its_output_is_stuck() -> None:
    """As the init of a PID namespace: a host that is frozen does not keep its containers from being stopped."""
    program = ["unshare", "--pid", "--fork", "--kill-child", str(agent_path())]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        BareAgent(process).let_output_stick()
        init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())

        os.kill(init, signal.SIGTERM)
        try:
            assert process.wait(BOUND) == 128 + signal.SIGTERM
        finally:
            process.kill()


# --- a sandbox that fights back --------------------------------------------------------------------------------------


def test_a_command_that_ends_as_signals_arrive_keeps_its_exit_code(tmp_path: Path) -> None:
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"))
    with (
        Sandbox.create(settings, SubprocessEngine()) as sandbox,
        sandbox.start("echo $PPID; read line; exit 7") as process,
    ):
        supervisor, agent = int(process.stdout.read_some()), int(sandbox.container.id)
        os.kill(supervisor, signal.SIGSTOP)
        process.close_stdin()
        for _ in range(2):  # its supervisor reads one, finds the command ended, and ends itself
            process.send_signal("USR1")
        sandbox.exec(f"until grep -q '^State:.Z' /proc/{process.pid}/status; do :; done", check=True)
        os.kill(agent, signal.SIGSTOP)
        ended = os.pidfd_open(supervisor)
        os.kill(supervisor, signal.SIGCONT)
        assert wait_until_gone(ended)
        os.kill(agent, signal.SIGCONT)

        assert process.wait(BOUND).exit_code == 7


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three seconds of every minute that the host would wait for an agent."""
    monkeypatch.setattr("pytest_sandbox.agent.client.BEAT", 0.2)


@pytest.mark.usefixtures("hasty")
def test_a_stopped_agent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.subprocess_engine.END_BOUND", 0.1)
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"))
    with Sandbox.create(settings, SubprocessEngine()) as sandbox:
        agent = int(sandbox.container.id)
        os.kill(agent, signal.SIGSTOP)
        try:
            with pytest.raises(SandboxLost, match="its agent does not answer"):
                sandbox.read_bytes("file")
            with pytest.raises(SandboxLost, match=r"running \(its agent does not answer"):
                sandbox.exec("true")
        finally:
            monkeypatch.undo()
            os.kill(agent, signal.SIGCONT)


@pytest.mark.usefixtures("hasty")
def test_a_stopped_worker_costs_its_operation_and_not_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_sandbox.agent.client.STALL_BEATS", 15)
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"))

    def stopping() -> Iterator[bytes]:
        yield b"a part"
        agent = sandbox.container.id
        worker = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()[-1]  # the youngest
        os.kill(int(worker), signal.SIGSTOP)
        yield b"another"

    with Sandbox.create(settings, SubprocessEngine()) as sandbox:
        with pytest.raises(OperationStalled, match="`write` in the sandbox made no progress"):
            sandbox.write_bytes("file", stopping())
        monkeypatch.undo()

        assert sandbox.list_dir() == []
        assert sandbox.exec("echo fine").stdout == b"fine\n"


@needs_root
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("printf garbage > /proc/{}/fd/1; sleep 60", "broke the protocol: a frame of unknown type"),
        ("cat /proc/{}/fd/0 > /dev/null", "its agent does not answer, for"),
    ],
)
def test_who_may_interfere_with_the_agent_s_streams_loses_the_sandbox(tmp_path: Path, script: str, reason: str) -> None:
    """That takes CAP_SYS_PTRACE, which root on this machine has, and root in a container has not."""
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"))
    with Sandbox.create(settings, SubprocessEngine()) as sandbox, pytest.raises(SandboxLost, match=reason):
        sandbox.exec(script.format(sandbox.container.id))


@needs_root
def test_commands_of_an_agent_without_privilege_end_before_it_when_memory_does(tmp_path: Path) -> None:
    with as_nobody(tmp_path) as sandbox:
        assert sandbox.exec("cat /proc/self/oom_score_adj").stdout == b"500\n"


@in_a_container
def test_nobody_can_put_something_else_in_the_place_of_an_empty_input(fresh: Sandbox) -> None:
    fresh.exec("rm /dev/null && mkfifo /dev/null", check=True)

    assert fresh.exec(["cat"], timeout=BOUND).stdout == b""


def test_a_directory_need_not_be_listable_to_work_in_it(sandbox: Sandbox) -> None:
    box = PurePosixPath("/tmp", f"{sandbox.name}-box")
    sandbox.mkdir(box, user="")
    try:
        sandbox.chmod(box, 0o733, user="")

        sandbox.write_bytes(box / "mine", b"1", user=NOBODY)
        sandbox.copy(box / "mine", box / "copy", user=NOBODY)
        sandbox.remove(box / "mine", user=NOBODY)

        assert sandbox.read_bytes(box / "copy", user="") == b"1"
    finally:
        sandbox.remove(box, recursive=True, user="")


def test_a_file_does_not_inherit_what_the_archive_lacks(sandbox: Sandbox) -> None:
    """A directory's default ACL, left by a test, must not show in the files that a restore makes in it."""
    everybody = b"\2\0\0\0" + b"".join(  # ACL_USER_OBJ, ACL_USER 65534, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER (acl(5))
        bytes([tag, 0, 7, 0]) + (65534 if tag == 2 else 2**32 - 1).to_bytes(4, "little") for tag in (1, 2, 4, 16, 32)
    )
    left = Member(b"d", MemberKind.DIRECTORY, 0o755, xattrs=((b"system.posix_acl_default", everybody),))
    try:
        sandbox.hydrate(Archive.read(encode_header(left) + bytes(2 * BLOCK)))
    except FileOperationError:
        pytest.skip("the file system below the workspace has no ACLs")
    members = Member(b"d", MemberKind.DIRECTORY, 0o755), Member(b"d/file", MemberKind.FILE, 0o644)

    sandbox.hydrate(Archive.read(b"".join(map(encode_header, members)) + bytes(2 * BLOCK)))

    assert [member.xattrs for member in sandbox.persist().members()] == [(), (), ()]


@needs_root
def test_persist_does_not_leave_out_what_it_can_not_read(tmp_path: Path) -> None:
    with as_nobody(tmp_path) as sandbox:
        sandbox.write_bytes("secret", b"", mode=0)

        with pytest.raises(FileForbidden):
            sandbox.persist()


@contextmanager
def as_nobody(place: Path) -> Iterator[Sandbox]:
    let_others_in(place)
    workspace = place / "workspace"
    workspace.mkdir()
    os.chown(workspace, 65534, 65534)
    agent = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(agent_path()))
    with Sandbox.create(SandboxSettings(workspace=PurePosixPath(workspace)), SubprocessEngine(agent=agent)) as sandbox:
        yield sandbox


# --- mounts that the kernel does not tell of -------------------------------------------------------------------------

# An engine's seccomp profile of old: no statx(2), which is the only call that tells of mount points, since Linux 5.8.
WITHOUT_STATX = """
import ctypes, os, platform, struct, sys
number = {"x86_64": 332, "aarch64": 291}[platform.machine()]
instructions = (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)  # else EPERM
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""


@needs_root
@pytest.mark.parametrize("statx", [True, False])
def test_what_is_mounted_is_left_alone_on_kernels_that_do_not_tell(tmp_path: Path, statx: bool) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    for directory in (outside, workspace, workspace / "d", workspace / "d/a mount"):
        directory.mkdir()
    (outside / "precious").write_text("kept")
    bind = 'mount --make-rprivate / && mount --bind "$0" "$1" && shift && exec "$@"'
    agent = [str(agent_path())] if statx else [sys.executable, "-c", WITHOUT_STATX, str(agent_path())]
    inside = ("unshare", "-m", "sh", "-c", bind, str(outside), str(workspace / "d/a mount"), *agent)
    settings = SandboxSettings(workspace=PurePosixPath(workspace))

    with Sandbox.create(settings, SubprocessEngine(agent=inside)) as sandbox:
        assert sandbox.read_bytes("d/a mount/precious") == b"kept"
        assert [str(member.path) for member in sandbox.persist().members()] == [".", "d"]
        sandbox.hydrate(Archive.build([]))
        with pytest.raises(FileOperationError):
            sandbox.remove("d", recursive=True)

    assert (outside / "precious").read_text() == "kept"


# --- a disk, a clock and trees beyond the usual ----------------------------------------------------------------------


@in_a_container
def test_a_full_disk_is_an_error_that_leaves_nothing(sandbox: Sandbox) -> None:
    small = PurePosixPath("/dev/shm")  # 64 MiB with Docker

    with pytest.raises(NoSpaceInSandbox):
        sandbox.write_bytes(small / "file", (bytes(1 << 20) for _ in range(100)))

    assert not sandbox.list_dir(small)


@pytest.mark.parametrize("seconds", [-SECOND, -2, 8**11, SECOND * 10])
def test_times_long_ago_and_far_ahead_are_kept(sandbox: Sandbox, seconds: int) -> None:
    date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    sandbox.exec(f"echo 1 > file; touch -d '{date}' file", env={"TZ": "UTC0"}, check=True)
    snapshot = sandbox.snapshot()
    before = sandbox.stat("file").mtime_ns
    sandbox.exec("echo 2 > file; touch -d @1 file", check=True)

    sandbox.restore(snapshot)

    assert before == min(seconds, 9_223_372_035) * SECOND  # the wire's 64 bits of nanoseconds end in 2262
    assert sandbox.stat("file").mtime_ns == before
    assert sandbox.read_bytes("file") == b"1\n"


def test_a_file_beyond_eight_gibibytes(sandbox: Sandbox) -> None:
    sandbox.exec("echo end | dd of=big bs=1 seek=10737418240 2>/dev/null", check=True)
    snapshot = sandbox.snapshot()
    sandbox.exec("rm big; echo small > big", check=True)

    sandbox.restore(snapshot)

    assert sandbox.stat("big").size == (10 << 30) + 4
    assert sandbox.read_bytes("big", offset=10 << 30) == b"end\n"


def test_a_tree_deeper_than_any_path(sandbox: Sandbox) -> None:
    empty = sandbox.snapshot()
    archive = Archive.read(
        b"".join(
            encode_header(Member(b"/".join([b"d"] * depth), MemberKind.DIRECTORY, 0o755)) for depth in range(1, DEEP)
        )
        + bytes(2 * BLOCK)
    )

    sandbox.hydrate(archive)
    deep = sandbox.snapshot()
    sandbox.restore(empty)
    assert sandbox.list_dir() == []
    sandbox.restore(deep)

    assert len(sandbox.persist().members()) == DEEP
    sandbox.remove("d", recursive=True)


def test_commands_ignore_no_signal_that_whoever_started_the_agent_ignores(tmp_path: Path) -> None:
    """As an engine does that was started in the background of a shell, and its containers with it."""
    settings = SandboxSettings(workspace=PurePosixPath(tmp_path / "workspace"))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Sandbox.create(settings, SubprocessEngine()) as sandbox:
            ignored = sandbox.exec("sed -n 's/^SigIgn:\\t//p' /proc/self/status").stdout
    finally:
        signal.signal(signal.SIGINT, before)

    assert int(ignored, 16) & ~LIBRARY_SIGNALS == 0

"""Every exception of the package; of ours it imports what keeps secrets out of messages.

    SandboxError
    ├── CommandError                  the command failed
    │   ├── CommandFailed             exit code other than 0, with check=True
    │   ├── OutputEnded               an output stream is over, and the awaited line was not in it
    │   ├── TerminalEnded             a terminal's command is over, and what was awaited can't come any more
    │   ├── ServiceFailed             the image's own program is over, and what was awaited can't come any more
    │   ├── CommandLost               how it ended can't be known: something in the sandbox killed its supervisor
    │   └── CommandNotStarted         it never began, errno says why
    │       ├── CommandNotFound
    │       ├── CommandNotExecutable
    │       ├── ArgumentListTooLong
    │       ├── NoSuchUser
    │       ├── NoSuchDirectory
    │       ├── TooManyProcesses      a limit: the sandbox's processes
    │       └── TerminalNotAvailable  the container has no pseudo-terminal
    ├── LimitExceeded                 it hit a limit
    │   ├── CommandTimeout
    │   ├── CommandHitLimit           memory, processes, file size; with check=True
    │   ├── ProcessStillRunning       wait(timeout=) of a process, which goes on
    │   ├── OperationStalled          of files, or a sweep: no progress for minutes
    │   ├── NotAnswering              a port, a command or an output that was waited for
    │   ├── TerminalTimeout           what a terminal was to show, or to take, in time
    │   └── OutputTruncated           check=True, and the output was cut by its cap
    ├── InfrastructureError           engine, image, disk or container failed; evidence attached
    │   ├── EngineError
    │   │   ├── EngineNotReachable
    │   │   │   └── EngineNotFound    none was named, and none is where engines usually are
    │   │   ├── EnginePermissionDenied
    │   │   ├── EngineTimeout
    │   │   └── EngineRequestFailed
    │   ├── ImageNotAvailable
    │   │   └── ImageNotMade          it could not be built, loaded or imported from local files
    │   ├── RepositoryNotAvailable    git could not fetch it
    │   ├── NoFreeSlot                as many containers as are allowed, and none went
    │   ├── SandboxStartFailed
    │   ├── SandboxLost
    │   ├── ProtocolError
    │   ├── AgentVersionMismatch      a kept sandbox's agent is of another version
    │   ├── SessionGone               a kept sandbox is gone, and its state names no snapshot that is left
    │   ├── NoSpaceOnHost
    │   ├── HostFolderUnusable        where runs keep what they need on this host
    │   └── AgentMissing
    ├── FileOperationError            an OSError too: errno, strerror, filename
    │   └── FileMissing, FileForbidden, FileIsDirectory, FileNotDirectory, FileAlreadyExists,
    │       FileLinkLoop, FileSystemReadOnly, FileOutsideWorkspace, …
    ├── ArchiveError
    │   ├── DamagedArchive
    │   └── UnsafeArchive
    ├── PatchRejected                 it can't be read, or does not fit what is there; nothing was changed
    └── UsageError                    called wrongly
        ├── InvalidSetting
        │   └── InvalidMount          one of the mounts; named, and why
        ├── InvalidEntry              of a Baseline
        ├── LimitNotAvailable         the engine, or its storage, can't set it
        ├── NotWithThisEngine         what other engines can do and this one can't
        ├── UnknownKey
        ├── InvalidPort
        ├── NameTaken                 another sandbox of the test has it in their network
        ├── PortTaken                 the port of the tests' machine that was asked for
        ├── WorkspaceRootProtected
        ├── NothingToCompareWith
        ├── NoService                 the image has no program of its own, or it was not started
        ├── NotKept
        ├── InvalidState
        ├── NotOurs
        ├── SessionInUse
        ├── MadeBeforeFork            by the process of which this one is a fork
        └── SandboxClosed

The class of failure that reports and re-runs go by is `SandboxError.failure`.
"""

from __future__ import annotations

import errno as errno_module
import os
import shlex
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from .secret import masked

if TYPE_CHECKING:
    from .models import ExecResult, ProcessExit

TAIL_LINES = 5  # of each stream, in a message: two tails and three lines of text stay below 15 lines
TAIL_WIDTH = 160
SERVICE_LINES = 10  # of its log: why a program could not start is rarely in its last line
BUILD_LINES = 20  # of the log of a build that failed: its last step, mostly


class FailureClass(Enum):
    """Whose fault it was: decides what a report says and whether a re-run can help."""

    COMMAND = "command"
    LIMIT = "limit"
    INFRASTRUCTURE = "infrastructure"
    USAGE = "usage"


def shown(command: str | Sequence[str]) -> str:
    """One line of at most 200 characters for a command, as a shell would take it, secrets masked."""
    text = masked(command if isinstance(command, str) else shlex.join(command))
    line = " ".join(text.split()) if isinstance(command, str) else text.replace("\n", "\\n")
    return line if len(line) <= 200 else line[:197] + "..."


def tail(stream: bytes, name: str, count: int = TAIL_LINES) -> str:
    """The last lines of an output stream, secrets masked, each below the name, or nothing when it is empty."""
    lines = masked(stream.decode("utf-8", "replace")).rstrip().splitlines()
    if not lines:
        return ""
    cut = [line if len(line) <= TAIL_WIDTH else line[: TAIL_WIDTH - 3] + "..." for line in lines[-count:]]
    left_out = f" (last {count} of {len(lines)} lines)" if len(lines) > count else ""
    return "\n".join([f"\n{name}{left_out}:", *(f"  {line}" for line in cut)])


class SandboxError(Exception):
    """Root of all errors of this package."""

    failure: ClassVar[FailureClass] = FailureClass.USAGE


# --- the command failed ---------------------------------------------------------------------------------------------


class CommandError(SandboxError):
    """The command itself failed."""

    failure = FailureClass.COMMAND


class CommandFailed(CommandError):
    """A command ended with an exit code other than 0 and was called with check=True."""

    def __init__(self, result: ExecResult) -> None:
        self.result = result
        super().__init__(result)

    def __str__(self) -> str:
        result = self.result
        cut = "".join(
            f"\n{name} was cut: {len(stream)} of {stream.total_bytes} bytes kept"
            for name, stream in (("stdout", result.stdout), ("stderr", result.stderr))
            if stream.truncated
        )
        return (
            f"`{shown(result.command)}` failed with {_end(result)}"
            + tail(result.stdout, "stdout")
            + tail(result.stderr, "stderr")
            + cut
        )


def _end(result: ExecResult | ProcessExit) -> str:
    end = f"exit code {result.exit_code}" if result.exit_code >= 0 else f"signal {-result.exit_code}"
    return f"{end} after {result.duration:.2f} s"


class CommandLost(CommandError):
    """A process in the sandbox killed the command's supervisor; the agent has then killed the rest of its tree."""

    def __init__(self, command: str | Sequence[str]) -> None:
        self.command = command
        super().__init__(command)

    def __str__(self) -> str:
        return (
            f"how `{shown(self.command)}` ended is unknown: something in the sandbox killed its supervisor; "
            "all its processes were killed"
        )


class CommandNotStarted(CommandError):
    """A command never began to run.

    operation: the step that failed, as the agent names it; errno: Linux's number; subject: what it concerned.
    """

    def __init__(self, command: str | Sequence[str], errno: int, operation: str, subject: str) -> None:
        self.command, self.errno, self.operation, self.subject = command, errno, operation, subject
        super().__init__(command, errno, operation, subject)

    def __str__(self) -> str:
        return f"`{shown(self.command)}` did not start: {self.operation} {self.subject!r}: {os.strerror(self.errno)}"


class CommandNotFound(CommandNotStarted):
    """Neither the path nor any directory of PATH has the program."""

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: no program {self.subject!r} in the sandbox; "
            "check PATH, or use an image that has it"
        )


class CommandNotExecutable(CommandNotStarted):
    """The file is there, but execve(2) refused it: no permission, or not a program for this machine."""

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: {self.subject!r} can't be executed "
            f"({os.strerror(self.errno)}); check its mode, its first line, and its architecture"
        )


class ArgumentListTooLong(CommandNotStarted):
    """Arguments and environment exceed what execve(2) takes (128 KiB each, a quarter of the stack in all)."""

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: argument list too long; pass large input through stdin= or a file"
        )


class NoSuchUser(CommandNotStarted):
    """The sandbox's passwd or group has no such name."""

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: no user or group {self.subject!r} in the sandbox's "
            "/etc/passwd and /etc/group; a numeric `uid` or `uid:gid` needs no entry there"
        )


class NoSuchDirectory(CommandNotStarted):
    """The working directory is missing or may not be entered."""

    def __str__(self) -> str:
        return f"`{shown(self.command)}` did not start: cwd {self.subject!r}: {os.strerror(self.errno)}"


class TooManyProcesses(CommandNotStarted):
    """The sandbox has as many processes and threads as `pids` allows."""

    failure = FailureClass.LIMIT

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: the sandbox can't have more processes; "
            "end some (sweep() ends all), or raise `pids` in the settings"
        )


class TerminalNotAvailable(CommandNotStarted):
    """No pseudo-terminal could be had in the container."""

    def __str__(self) -> str:
        return (
            f"`{shown(self.command)}` did not start: no terminal ({self.subject}: {os.strerror(self.errno)}); "
            "the container needs /dev/pts, and there may be too many terminals already"
        )


def command_not_started(command: str | Sequence[str], errno: int, operation: str, subject: str) -> CommandNotStarted:
    """The error for a FAILURE frame that answered an EXEC."""
    if operation == "user":
        kind: type[CommandNotStarted] = NoSuchUser
    elif operation == "chdir":
        kind = NoSuchDirectory
    elif operation == "pty":
        kind = TerminalNotAvailable
    elif operation == "fork" and errno == errno_module.EAGAIN:
        kind = TooManyProcesses
    elif errno == errno_module.E2BIG:
        kind = ArgumentListTooLong
    elif operation == "execve" and errno in (errno_module.ENOENT, errno_module.ENOTDIR):
        kind = CommandNotFound
    elif operation == "execve":
        kind = CommandNotExecutable
    else:
        kind = CommandNotStarted
    return kind(command, errno, operation, subject)


class TerminalEnded(CommandError):
    """A terminal's command has ended, so what was awaited of it can't come any more.

    end: how it ended. awaited: what for. screen: in a frame; stream: the last that came.
    """

    def __init__(
        self, command: str | Sequence[str], end: str, awaited: str, screen: str = "", stream: str = ""
    ) -> None:
        self.command, self.end, self.awaited, self.screen, self.stream = command, end, awaited, screen, stream
        super().__init__(command, end, awaited, screen, stream)

    def __str__(self) -> str:
        return f"terminal `{shown(self.command)}` {self.end}, and could not {self.awaited}" + _seen(
            self.screen, self.stream
        )


def _seen(screen: str, stream: str) -> str:
    """What a terminal shows, for people to look at."""
    return (f"\n{masked(screen)}" if screen else "") + tail(stream.encode(errors="replace"), "stream")


# --- it hit a limit -------------------------------------------------------------------------------------------------


class OutputEnded(CommandError):
    """A process has ended its output, and the line that was waited for was not in it. seen: the last lines."""

    def __init__(self, command: str | Sequence[str], awaited: str, seen: bytes) -> None:
        self.command, self.awaited, self.seen = command, awaited, seen
        super().__init__(command, awaited, seen)

    def __str__(self) -> str:
        return f"`{shown(self.command)}` ended its output without a line with {self.awaited!r}" + tail(
            self.seen, "its last lines"
        )


class ServiceFailed(CommandError):
    """The image's own program has ended by itself, so what was awaited can't come any more.

    end: how it ended, None if that can't be known. awaited: what did not come. log: the last that it wrote.
    """

    def __init__(
        self, command: str | Sequence[str], sandbox: str, end: ProcessExit | None, awaited: str, log: bytes
    ) -> None:
        self.command, self.sandbox, self.end, self.awaited, self.log = command, sandbox, end, awaited, log
        super().__init__(command, sandbox, end, awaited, log)

    def __str__(self) -> str:
        how = "in a way that can't be known" if self.end is None else f"with {_end(self.end)}"
        hits = "".join(f" ({hit})" for hit in self.end.limits) if self.end is not None else ""
        return (
            f"the service of {self.sandbox}, `{shown(self.command)}`, has ended {how}{hits}, and {self.awaited}"
        ) + (tail(self.log, "its log", SERVICE_LINES) or "\nits log is empty")


class LimitExceeded(SandboxError):
    """A limit that the caller or the settings had set was reached."""

    failure = FailureClass.LIMIT


class CommandTimeout(LimitExceeded, TimeoutError):
    """A command ran longer than its timeout; no process of it is alive any more.

    result: what it had written until then, exit_code as it ended when it was killed.
    """

    def __init__(self, result: ExecResult, timeout: float) -> None:
        self.result, self.timeout = result, timeout
        super().__init__(result, timeout)

    def __str__(self) -> str:
        result = self.result
        return (
            f"`{shown(result.command)}` was killed with all its processes after timeout={self.timeout:g} s"
            + tail(result.stdout, "stdout until then")
            + tail(result.stderr, "stderr until then")
        )


class CommandHitLimit(LimitExceeded):
    """A command failed, was called with check=True, and a limit was hit while it ran: `result.limits`."""

    def __init__(self, result: ExecResult) -> None:
        self.result = result
        super().__init__(result)

    def __str__(self) -> str:
        result = self.result
        hits = "; ".join(f"{hit} (`{hit.limit.value}` in the settings)" for hit in result.limits)
        return (
            f"`{shown(result.command)}`: {hits}; {_end(result)}"
            + tail(result.stdout, "stdout")
            + tail(result.stderr, "stderr")
        )


class ProcessStillRunning(LimitExceeded, TimeoutError):
    """A process did not end within the time that wait() was given. It runs on."""

    def __init__(self, command: str | Sequence[str], timeout: float) -> None:
        self.command, self.timeout = command, timeout
        super().__init__(command, timeout)

    def __str__(self) -> str:
        return f"`{shown(self.command)}` is still running after {self.timeout:g} s; terminate() or kill() would end it"


class NotAnswering(LimitExceeded, TimeoutError):
    """What was waited for did not come in time.

    awaited: what that was. seen: what the last attempt saw. listening: TCP ports of the sandbox that somebody serves.
    """

    def __init__(
        self, awaited: str, sandbox: str, timeout: float, seen: str, listening: Sequence[int] | None = None
    ) -> None:
        self.awaited, self.sandbox, self.timeout, self.seen = awaited, sandbox, timeout, seen
        self.listening = None if listening is None else tuple(listening)
        super().__init__(awaited, sandbox, timeout, seen, self.listening)

    def __str__(self) -> str:
        ports = ""
        if self.listening is not None:
            ports = f"\nports that are listened on there: {', '.join(map(str, self.listening)) or 'none'}"
        return f"{self.awaited} of {self.sandbox} did not answer within {self.timeout:g} s; at last: {self.seen}{ports}"


class TerminalTimeout(LimitExceeded, TimeoutError):
    """A terminal did not show or take in time what it should. Its command goes on, and nothing of its output is lost.

    awaited: what it was to do. screen: in a frame; stream: the last that came.
    """

    def __init__(
        self, command: str | Sequence[str], timeout: float, awaited: str, screen: str = "", stream: str = ""
    ) -> None:
        self.command, self.timeout, self.awaited, self.screen, self.stream = command, timeout, awaited, screen, stream
        super().__init__(command, timeout, awaited, screen, stream)

    def __str__(self) -> str:
        return f"terminal `{shown(self.command)}` did not {self.awaited} within {self.timeout:g} s" + _seen(
            self.screen, self.stream
        )


class OperationStalled(LimitExceeded, TimeoutError):
    """An operation made no progress for so long that it was given up. It was ended in the sandbox, which can be used.

    operation: as the agent's protocol names it. seconds: without a sign of it.
    """

    def __init__(self, operation: str, seconds: float) -> None:
        self.operation, self.seconds = operation, seconds
        super().__init__(operation, seconds)

    def __str__(self) -> str:
        return (
            f"`{self.operation}` in the sandbox made no progress for {self.seconds:g} s and was ended; "
            "its worker was stopped by something in the sandbox, or its file system hangs"
        )


class OutputTruncated(LimitExceeded):
    """A command called with check=True succeeded, but wrote more than output_limit; the result holds the beginning."""

    def __init__(self, result: ExecResult, limit: int) -> None:
        self.result, self.limit = result, limit
        super().__init__(result, limit)

    def __str__(self) -> str:
        result = self.result
        return (
            f"`{shown(result.command)}` wrote {result.stdout.total_bytes} bytes to stdout and "
            f"{result.stderr.total_bytes} to stderr, output_limit={self.limit} kept the first of each; "
            "raise output_limit=, or read it as it comes with start()"
        )


# --- the infrastructure failed --------------------------------------------------------------------------------------


class InfrastructureError(SandboxError):
    """Engine, image, disk or container failed; the only class that a re-run in a new sandbox can cure."""

    failure = FailureClass.INFRASTRUCTURE


class EngineError(InfrastructureError):
    """The container engine did not do what it was asked."""


class EngineNotReachable(EngineError):
    """Nothing answers at the engine's endpoint."""

    def __init__(self, endpoint: str, reason: str) -> None:
        self.endpoint, self.reason = endpoint, reason
        super().__init__(endpoint, reason)

    def __str__(self) -> str:
        return (
            f"no container engine answers at {self.endpoint}: {self.reason}\n"
            "start it (`systemctl start docker`, Docker Desktop, or `dockerd` as root), or set DOCKER_HOST"
        )


class EngineNotFound(EngineNotReachable):
    """No engine was named, and there is none where engines usually are. tried: places, each with the reason."""

    def __init__(self, tried: Sequence[tuple[str, str]]) -> None:
        self.tried = tuple(tried)
        EngineError.__init__(self, self.tried)
        self.endpoint, self.reason = "any of the usual places", "there is none"

    def __str__(self) -> str:
        return "\n".join(
            [
                "no container engine was found, and none is named by the setting `engine`, DOCKER_HOST or a context:",
                *(f"  {place}: {reason}" for place, reason in self.tried),
                "start one (`systemctl start docker`, Docker Desktop, `dockerd` as root), or install Podman",
            ]
        )


class EnginePermissionDenied(EngineError):
    """The engine's socket is there, but this user may not use it."""

    reason = "permission denied"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        super().__init__(endpoint)

    def __str__(self) -> str:
        return (
            f"permission denied at the container engine's socket {self.endpoint}\n"
            "add this user to the `docker` group and log in again, or use a rootless engine"
        )


class EngineTimeout(EngineError):
    """A call to the engine had no answer within its bound."""

    def __init__(self, endpoint: str, call: str, seconds: float, subject: str = "") -> None:
        self.endpoint, self.call, self.seconds, self.subject = endpoint, call, seconds, subject
        super().__init__(endpoint, call, seconds, subject)

    def __str__(self) -> str:
        of = f" of {self.subject}" if self.subject else ""
        return (
            f"the container engine at {self.endpoint} did not answer `{self.call}`{of} within {self.seconds:g} s; "
            "it may be hanging: try `docker ps`, restart it if that hangs too"
        )


class EngineRequestFailed(EngineError):
    """The engine answered a call with an error of its own."""

    def __init__(self, call: str, subject: str, reason: str) -> None:
        self.call, self.subject, self.reason = call, subject, reason
        super().__init__(call, subject, reason)

    def __str__(self) -> str:
        return f"the container engine refused `{self.call}` of {self.subject}: {self.reason}"


class ImageNotAvailable(InfrastructureError):
    """The image is not on the engine and could not be, or was not to be, pulled."""

    def __init__(self, image: str, policy: str, reason: str) -> None:
        self.image, self.policy, self.reason = image, policy, reason
        super().__init__(image, policy, reason)

    def __str__(self) -> str:
        return (
            f"image {self.image} is not available (pull={self.policy}): {self.reason}\n"
            f"run `docker pull {self.image}`, or name another one: "
            "--sandbox-image, SANDBOX_IMAGE or the ini key sandbox_image"
        )


class ImageNotMade(ImageNotAvailable):
    """An image could not be made from local files; it is not tried again in this process.

    step: what was being done. log: what a build has said until then.
    """

    def __init__(self, image: str, step: str, reason: str, log: str = "") -> None:
        self.image, self.step, self.reason, self.log = image, step, reason, log
        InfrastructureError.__init__(self, image, step, reason, log)

    def __str__(self) -> str:
        return f"no image from {self.image}: {self.step}: {self.reason}" + tail(
            self.log.encode(errors="replace"), "log", BUILD_LINES
        )


class RepositoryNotAvailable(InfrastructureError):
    """A git repository, or what was asked for of it, could not be had. url: without credentials."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(url, reason)

    def __str__(self) -> str:
        return f"git repository {self.url}: {self.reason}"


class NoFreeSlot(InfrastructureError):
    """There are as many containers as there may be, and none of them went while this one was waited for.

    held: slots that the one who asked has already. waited: seconds, or None if every slot is held by somebody who waits
    for another, so that waiting would have had no end.
    """

    def __init__(self, slots: int, held: int, waited: float | None) -> None:
        self.slots, self.held, self.waited = slots, held, waited
        super().__init__(slots, held, waited)

    def __str__(self) -> str:
        if self.waited is not None:
            why = f"and none came free within {self.waited:g} s"
        else:
            why = f"and whoever holds one waits for another; this process has {self.held}"
        return (
            f"no slot for another sandbox: all {self.slots} are taken, {why}\n"
            "let fewer tests run at a time, or allow more containers: --sandbox-slots"
        )


class SandboxStartFailed(InfrastructureError):
    """The container or its agent did not come up; what was made on the way is removed again.

    step: what was being done; evidence: the last words of agent and engine.
    """

    def __init__(self, image: str, step: str, reason: str, evidence: str = "") -> None:
        self.image, self.step, self.reason, self.evidence = image, step, reason, evidence
        super().__init__(image, step, reason, evidence)

    def __str__(self) -> str:
        return f"no sandbox from image {self.image}: {self.step}: {self.reason}" + tail(
            self.evidence.encode(errors="replace"), "evidence"
        )


class SandboxLost(InfrastructureError):
    """The sandbox ended under our feet: container removed or killed, agent killed, engine gone."""

    def __init__(self, sandbox: str, reason: str, evidence: str = "") -> None:
        self.sandbox, self.reason, self.evidence = sandbox, reason, evidence
        super().__init__(sandbox, reason, evidence)

    def __str__(self) -> str:
        return f"sandbox {self.sandbox} is gone: {self.reason}" + tail(
            self.evidence.encode(errors="replace"), "evidence"
        )


class ProtocolError(InfrastructureError):
    """The other end of the stream does not speak the agent's protocol: taken over, damaged, or of another version."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"the sandbox's agent broke the protocol: {self.reason}"


class AgentVersionMismatch(InfrastructureError):
    """A kept sandbox was made by another version of this package, and its agent speaks another protocol."""

    def __init__(self, sandbox: str, theirs: int, ours: int) -> None:
        self.sandbox, self.theirs, self.ours = sandbox, theirs, ours
        super().__init__(sandbox, theirs, ours)

    def __str__(self) -> str:
        return (
            f"the agent of sandbox {self.sandbox} speaks version {self.theirs} of the protocol, this package version "
            f"{self.ours}; resume it with the version that made it, or remove it and resume from its snapshot"
        )


class SessionGone(InfrastructureError):
    """A session can't be resumed: its container is gone, and there is no snapshot."""

    def __init__(self, sandbox: str, snapshot: str) -> None:
        self.sandbox, self.snapshot = sandbox, snapshot
        super().__init__(sandbox, snapshot)

    def __str__(self) -> str:
        why = "its snapshot is not in the store any more" if self.snapshot else "its state has no snapshot"
        return f"session {self.sandbox} can't be resumed: its container is gone, and {why}"


class NoSpaceOnHost(InfrastructureError):
    """The disk of this host is too full for an archive, a snapshot or a recording. written: bytes of it until then."""

    def __init__(self, directory: str, written: int) -> None:
        self.directory, self.written = directory, written
        super().__init__(directory, written)

    def __str__(self) -> str:
        return (
            f"no space left in {self.directory} on this host, with {self.written / 2**20:.1f} MiB of an archive in it\n"
            "free some, let TMPDIR name another directory, or take less out (`ephemeral` in the settings)"
        )


class HostFolderUnusable(InfrastructureError):
    """A folder of this host in which runs keep what they need can't be written to: full, read-only, somebody else's."""

    def __init__(self, folder: str, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(folder, reason)

    def __str__(self) -> str:
        return (
            f"{self.folder} of this host can't be used: {self.reason}\n"
            "mend that, or let XDG_STATE_HOME and XDG_CACHE_HOME name directories that can be written to"
        )


class AgentMissing(InfrastructureError):
    """This installation carries no agent for the engine's architecture."""

    def __init__(self, architecture: str, built: Sequence[str]) -> None:
        self.architecture, self.built = architecture, tuple(built)
        super().__init__(architecture, self.built)

    def __str__(self) -> str:
        have = ", ".join(self.built) or "none"
        return (
            f"no agent for {self.architecture} in this installation (it has: {have}); "
            "install a wheel, or run `make agent` in a source checkout"
        )


# --- files ----------------------------------------------------------------------------------------------------------


class FileOperationError(SandboxError, OSError):
    """A file operation in the sandbox failed; `errno`, `strerror` and `filename` as for any OSError.

    operation: the step that failed, as the agent names it.
    """

    failure = FailureClass.COMMAND

    def __init__(self, errno: int, operation: str, path: str) -> None:
        OSError.__init__(self, errno, os.strerror(errno), path)
        self.operation = operation

    def __str__(self) -> str:
        return f"{self.operation} {self.filename!r} in the sandbox: {self.strerror}"

    def __reduce__(self) -> tuple[type[FileOperationError], tuple[int, str, str]]:
        return type(self), (self.errno or 0, self.operation, str(self.filename))


class FileMissing(FileOperationError, FileNotFoundError):
    """ENOENT."""


class FileForbidden(FileOperationError, PermissionError):
    """EACCES or EPERM."""


class FileIsDirectory(FileOperationError, IsADirectoryError):
    """EISDIR."""


class FileNotDirectory(FileOperationError, NotADirectoryError):
    """ENOTDIR."""


class FileAlreadyExists(FileOperationError, FileExistsError):
    """EEXIST."""


class FileLinkLoop(FileOperationError):
    """ELOOP: symbolic links lead in a circle, or there are more than 40 on the way."""


class FileSystemReadOnly(FileOperationError):
    """EROFS: nobody can write there, whatever the rights."""


class FileOutsideWorkspace(FileOperationError, PermissionError):
    """The path leads out of the workspace, by itself or by a symbolic link, and the setting `confine` is on."""

    def __str__(self) -> str:
        return (
            f"{self.filename!r} leads out of the workspace, and the setting `confine` keeps file operations in it; "
            "commands can reach it"
        )


class NoSpaceInSandbox(FileOperationError):
    """ENOSPC or EDQUOT: a limit, not a fault of the command."""

    failure = FailureClass.LIMIT


_BY_ERRNO: dict[int, type[FileOperationError]] = {
    errno_module.ENOENT: FileMissing,
    errno_module.EACCES: FileForbidden,
    errno_module.EPERM: FileForbidden,
    errno_module.EISDIR: FileIsDirectory,
    errno_module.ENOTDIR: FileNotDirectory,
    errno_module.EEXIST: FileAlreadyExists,
    errno_module.ELOOP: FileLinkLoop,
    errno_module.EROFS: FileSystemReadOnly,
    errno_module.ENOSPC: NoSpaceInSandbox,
    errno_module.EDQUOT: NoSpaceInSandbox,
}


def file_error(errno: int, operation: str, path: str) -> FileOperationError:
    """The error for a FAILURE frame that answered a file operation."""
    if operation == "confine":
        return FileOutsideWorkspace(errno, operation, path)
    return _BY_ERRNO.get(errno, FileOperationError)(errno, operation, path)


# --- archives -------------------------------------------------------------------------------------------------------


class ArchiveError(SandboxError):
    """An archive can't be used; nothing in the sandbox was touched."""


class DamagedArchive(ArchiveError):
    """Truncated, corrupt, or not of a format we read."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        self.reason, self.offset = reason, offset
        super().__init__(reason, offset)

    def __str__(self) -> str:
        at = f" at byte {self.offset}" if self.offset is not None else ""
        return f"damaged archive: {self.reason}{at}; the workspace was not touched"


class UnsafeArchive(ArchiveError):
    """A member would reach outside the workspace, or is of a kind or size that is not taken."""

    def __init__(self, member: str, reason: str) -> None:
        self.member, self.reason = member, reason
        super().__init__(member, reason)

    def __str__(self) -> str:
        name = self.member if len(self.member) <= 120 else self.member[:117] + "..."
        return f"unsafe archive: member {name!r} {self.reason}; the workspace was not touched"


class PatchRejected(SandboxError, ValueError):
    """A patch can't be read, or does not fit what is there; nothing was changed.

    path: the file that it concerns; line: of the patch, from 1; hunk: which one of the file's, from 1. expected, found:
    what the patch and what the file has, as shown in the message.
    """

    def __init__(
        self,
        reason: str,
        *,
        path: str = "",
        line: int | None = None,
        hunk: int | None = None,
        expected: str = "",
        found: str = "",
        advice: str = "",
    ) -> None:
        self.reason, self.path, self.line, self.hunk = reason, path, line, hunk
        self.expected, self.found, self.advice = expected, found, advice
        super().__init__(reason, path, line, hunk, expected, found, advice)

    def __str__(self) -> str:
        where = [f"line {self.line} of the patch"] if self.line is not None else []
        where += [f"hunk {self.hunk}"] if self.hunk is not None else []
        where += [repr(self.path)] if self.path else []
        return (
            f"patch rejected{' at ' if where else ''}{', '.join(where)}: {self.reason}; nothing was changed"
            + (f"\nexpected {self.expected}" if self.expected else "")
            + (f"\nfound    {self.found}" if self.found else "")
            + (f"\n{self.advice}" if self.advice else "")
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _patch_rejected, (self.reason, {name: value for name, value in vars(self).items() if name != "reason"})


def _patch_rejected(reason: str, fields: dict[str, Any]) -> PatchRejected:
    return PatchRejected(reason, **fields)


# --- called wrongly -------------------------------------------------------------------------------------------------


class UsageError(SandboxError):
    """The call can't be meant: wrong values, or a session that has ended."""


class InvalidSetting(UsageError, ValueError):
    """A setting has a value that is not taken.

    source: where it came from, as the user wrote it: `--sandbox-memory`, `SANDBOX_MEMORY` …
    """

    def __init__(self, source: str, value: object, expected: str) -> None:
        self.source, self.value, self.expected = source, value, expected
        super().__init__(source, value, expected)

    def __str__(self) -> str:
        return f"{self.source}: {self.value!r} is not valid; expected {self.expected}"


class InvalidMount(InvalidSetting):
    """A mount can't be meant, is refused, or can't be had from the engine. mount: as a line of the setting says it."""

    def __init__(self, mount: str, reason: str, source: str = "mounts") -> None:
        self.mount, self.reason, self.source = mount, reason, source
        UsageError.__init__(self, mount, reason, source)

    def __str__(self) -> str:
        return f"{self.source}: mount {self.mount!r}: {self.reason}"


class NotWithThisEngine(UsageError):
    """The engine can't do it, though others can. engine: its kind. instead: what to do."""

    def __init__(self, engine: str, ability: str, instead: str) -> None:
        self.engine, self.ability, self.instead = engine, ability, instead
        super().__init__(engine, ability, instead)

    def __str__(self) -> str:
        return f"{self.engine} can't {self.ability}; {self.instead}, or use another engine (--sandbox-engine)"


class LimitNotAvailable(UsageError):
    """A limit of the settings can't be had here. limit: the setting's name; bound: its value, as shown."""

    def __init__(self, limit: str, bound: str, reason: str) -> None:
        self.limit, self.bound, self.reason = limit, bound, reason
        super().__init__(limit, bound, reason)

    def __str__(self) -> str:
        return f"no sandbox can have {self.limit}={self.bound} here: {self.reason}"


class InvalidEntry(UsageError, ValueError):
    """An entry of a Baseline can't be meant. path: of the entry."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return f"Baseline entry {self.path!r}: {self.reason}"


class UnknownKey(UsageError, ValueError):
    """press() was given the name of no key."""

    def __init__(self, key: str, near: Sequence[str]) -> None:
        self.key, self.near = key, tuple(near)
        super().__init__(key, self.near)

    def __str__(self) -> str:
        meant = f"; did you mean {' or '.join(self.near)}?" if self.near else ""
        return (
            f"no key is called {self.key!r}{meant}; expected a character, or a name such as enter, up, f5, "
            "alone or as in ctrl-c, alt-x, shift-tab"
        )


class InvalidPort(UsageError, ValueError):
    """A number that no port has."""

    def __init__(self, port: object) -> None:
        self.port = port
        super().__init__(port)

    def __str__(self) -> str:
        return f"{self.port!r} is no port; expected a whole number from 1 to 65535"


class NameTaken(UsageError):
    """Two sandboxes of one test were to have the same name in their network. sandbox: the one that has it."""

    def __init__(self, name: str, sandbox: str) -> None:
        self.name, self.sandbox = name, sandbox
        super().__init__(name, sandbox)

    def __str__(self) -> str:
        return f"the name {self.name!r} is taken: sandbox {self.sandbox} has it; names are a test's own, in either case"


class PortTaken(UsageError):
    """A port of the tests' machine that was asked for can't be had."""

    def __init__(self, port: int, reason: str) -> None:
        self.port, self.reason = port, reason
        super().__init__(port, reason)

    def __str__(self) -> str:
        return f"port {self.port} of this machine can't be had: {self.reason}; leave host_port out for a free one"


class WorkspaceRootProtected(UsageError):
    """The workspace root itself, or a directory above it, can't be removed, renamed or replaced."""

    def __init__(self, operation: str, path: str) -> None:
        self.operation, self.path = operation, path
        super().__init__(operation, path)

    def __str__(self) -> str:
        return (
            f"{self.operation} {self.path!r}: this is the workspace root or above it; "
            "restore() a snapshot, or remove what is in it"
        )


class NothingToCompareWith(UsageError):
    """changes() was asked without a snapshot, and the sandbox was never brought to one."""

    def __init__(self, sandbox: str) -> None:
        self.sandbox = sandbox
        super().__init__(sandbox)

    def __str__(self) -> str:
        return (
            f"changes of sandbox {self.sandbox}: since when? It was never brought to a snapshot; "
            "take one with `before = sandbox.snapshot()`, then ask for changes(since=before)"
        )


class NoService(UsageError):
    """A sandbox has no service: its image has no program of its own, or it was not started."""

    def __init__(self, sandbox: str, reason: str) -> None:
        self.sandbox, self.reason = sandbox, reason
        super().__init__(sandbox, reason)

    def __str__(self) -> str:
        return f"sandbox {self.sandbox} has no service: {self.reason}"


class NotKept(UsageError):
    """detach() of a sandbox that was not made to be kept."""

    def __init__(self, sandbox: str) -> None:
        self.sandbox = sandbox
        super().__init__(sandbox)

    def __str__(self) -> str:
        return (
            f"sandbox {self.sandbox} ends with this process; create it with keep=True, or keep() it, to leave it behind"
        )


class InvalidState(UsageError, ValueError):
    """A state can't be used: edited, damaged, or of another version."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"no state of a session: {self.reason}; use one exactly as state() has given it"


class NotOurs(UsageError):
    """The container, or the engine, that a state names is there, but is not the one that it was."""

    def __init__(self, sandbox: str, what: str = "the container of that id was made by somebody else") -> None:
        self.sandbox, self.what = sandbox, what
        super().__init__(sandbox, what)

    def __str__(self) -> str:
        return f"session {self.sandbox} is not resumed: {self.what}"


class SessionInUse(UsageError):
    """Another process has resumed the session, or made it and still runs."""

    def __init__(self, sandbox: str) -> None:
        self.sandbox = sandbox
        super().__init__(sandbox)

    def __str__(self) -> str:
        return f"session {self.sandbox} is in use by another process; let that one end, or detach() it there"


class MadeBeforeFork(UsageError):
    """A forked process has used what its parent made, and goes on using. what: a sandbox, an engine; process: whose."""

    def __init__(self, what: str, process: int) -> None:
        self.what, self.process = what, process
        super().__init__(what, process)

    def __str__(self) -> str:
        return (
            f"{self.what} belongs to process {self.process}, of which this one is a fork; use it there, or make one "
            "here with Sandbox.create()"
        )


class SandboxClosed(UsageError):
    """The session was closed before this call."""

    def __init__(self, sandbox: str) -> None:
        self.sandbox = sandbox
        super().__init__(sandbox)

    def __str__(self) -> str:
        return f"sandbox {self.sandbox} is closed; keep it open for as long as it is used"

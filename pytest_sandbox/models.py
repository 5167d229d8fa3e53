"""Values that cross between the layers: frozen dataclasses and enums, no behaviour that needs a sandbox.

It imports nothing of ours but the settings, which stand in configuration.py because every pytest run loads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath

from .configuration import MEBIBYTE as MEBIBYTE
from .configuration import Isolation as Isolation
from .configuration import PullPolicy as PullPolicy
from .configuration import SandboxSettings as SandboxSettings

SHOWN_PATHS = 3  # of those that a test has changed, in its line of the report
SHOWN_WIDTH = 60  # characters of each
DEFAULT_OUTPUT_LIMIT = 64 * MEBIBYTE  # bytes of each stream that exec() keeps


class Output(bytes):
    """What a command wrote to one stream: bytes, and what is known about them.

    total_bytes: what the command wrote; more than len() when the output limit cut it.
    """

    total_bytes: int

    def __new__(cls, content: bytes = b"", total_bytes: int | None = None) -> Output:
        self = super().__new__(cls, content)
        self.total_bytes = len(content) if total_bytes is None else total_bytes
        return self

    @property
    def text(self) -> str:
        """Decoded as UTF-8; what is not, is replaced by U+FFFD. The bytes themselves stay exact."""
        return self.decode("utf-8", "replace")

    @property
    def truncated(self) -> bool:
        return self.total_bytes > len(self)

    def __reduce__(self) -> tuple[type[Output], tuple[bytes, int]]:
        return Output, (bytes(self), self.total_bytes)


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What a command used, with the children it waited for (wait4(2)).

    user_seconds, system_seconds: CPU time. peak_bytes: resident memory of the largest single process.
    """

    user_seconds: float
    system_seconds: float
    peak_bytes: int


class Limit(Enum):
    """A limit of the settings that can be told to have been hit; the value is the setting's name."""

    MEMORY = "memory"
    PIDS = "pids"
    FILE_SIZE = "file_size"


@dataclass(frozen=True, slots=True)
class LimitHit:
    """A limit that was hit while a command ran, and it failed. bound: the setting's value.

    Memory and processes are the whole sandbox's: what hit them may have been another of its commands.
    """

    limit: Limit
    bound: int

    def __str__(self) -> str:
        if self.limit is Limit.PIDS:
            return f"no more processes: limit {self.bound}"
        what = "out of memory" if self.limit is Limit.MEMORY else "file too large"
        return f"killed: {what}, limit {shown_size(self.bound)}"


def shown_size(count: int) -> str:
    """`64 MiB`, `1.5 KiB`, `100 bytes`."""
    for unit, name in ((1024 * MEBIBYTE, "GiB"), (MEBIBYTE, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended.

    exit_code: negative for a signal, -9 for SIGKILL. duration: seconds from start to end, measured in the sandbox.
    survivors: processes that it started are still running in the background. limits: those hit, if it failed.
    """

    command: str | tuple[str, ...]
    exit_code: int
    stdout: Output
    stderr: Output
    duration: float
    usage: ResourceUsage
    survivors: bool = False
    limits: tuple[LimitHit, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended that start() had begun; its output went to whoever read it.

    exit_code, duration, usage, survivors, limits: as in ExecResult. stdout_bytes, stderr_bytes: what it wrote, read or
    not.
    """

    exit_code: int
    duration: float
    usage: ResourceUsage
    survivors: bool
    stdout_bytes: int
    stderr_bytes: int
    limits: tuple[LimitHit, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Eof(Enum):
    """Stands for the end of a terminal's command, as something to expect."""

    EOF = "end of the command"


EOF = Eof.EOF


@dataclass(frozen=True, slots=True)
class TerminalMatch:
    """What a terminal was expected to show, and did.

    index, pattern: which of the alternatives. text: what matched; empty for EOF. before: what came since the last
    match. after: what has come behind it, and is still to be matched. match: of a regular expression, for its groups.
    """

    index: int
    pattern: str | re.Pattern[str] | Eof
    before: str
    text: str
    after: str
    match: re.Match[str] | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """Output of a terminal, cut to a budget if there was one.

    text: without control sequences; head and tail around a marker if truncated. tokens: of all that came, 4 bytes each.
    """

    text: str
    tokens: int
    truncated: bool


class FileKind(Enum):
    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    FIFO = "p"
    SOCKET = "s"
    CHARACTER_DEVICE = "c"
    BLOCK_DEVICE = "b"


@dataclass(frozen=True, slots=True)
class FileStat:
    """One file as lstat(2) or stat(2) in the sandbox saw it.

    path: as asked for, or relative to the directory that was listed. mode: the 12 permission bits.
    mtime_ns: nanoseconds since the epoch. owner, group: names in the sandbox, empty if it has none for the number.
    """

    path: PurePosixPath
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    owner: str
    group: str
    mtime_ns: int
    inode: int
    links: int
    target: str | None = None

    @property
    def is_file(self) -> bool:
        return self.kind is FileKind.FILE

    @property
    def is_dir(self) -> bool:
        return self.kind is FileKind.DIRECTORY

    @property
    def is_symlink(self) -> bool:
        return self.kind is FileKind.SYMLINK


class ChangeKind(Enum):
    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class RootChange:
    """How a path in a container's root file system differs from the image, as the engine sees it."""

    path: PurePosixPath
    kind: ChangeKind


@dataclass(frozen=True, slots=True)
class OutsideChanges:
    """Paths outside of the workspace that a test has changed. complete: False if there were more than could be kept."""

    paths: tuple[PurePosixPath, ...] = ()
    complete: bool = True

    def __bool__(self) -> bool:
        return bool(self.paths) or not self.complete

    def __str__(self) -> str:
        """The first paths and how many more: `/etc/passwd, /etc/shadow and 4 more`."""
        named = ", ".join(map(_shown, self.paths[:SHOWN_PATHS]))
        more = len(self.paths) - SHOWN_PATHS
        counted = f"{more} more" if self.complete else f"{max(more, 0)} more, at least"
        return f"{named} and {counted}" if more > 0 or not self.complete else named


def _shown(path: PurePosixPath) -> str:
    """A path on one line, whatever characters a sandbox has put into it, short enough for a terminal."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return line if len(line) <= SHOWN_WIDTH else f"…{line[1 - SHOWN_WIDTH :]}"


@dataclass(frozen=True, slots=True)
class ImageProgram:
    """What an image runs by itself, as it is configured.

    entrypoint, arguments: ENTRYPOINT and CMD; with neither there is nothing to run. directory: WORKDIR. stop_signal:
    STOPSIGNAL, a name or a number.
    """

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    directory: str = "/"
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True, slots=True)
class Container:
    """A started container, as the engine knows it.

    image_digest: content id of the image it was made from. image_user: the USER of the image, empty for root.
    program: what the image would run. volumes: directories of the image that are volumes, but for those in whose place
    is the workspace or a mount: nothing restores them. named_volumes: of the setting `mounts`; None if only the engine
    knows.
    """

    id: str
    name: str
    image: str
    image_digest: str
    image_user: str
    program: ImageProgram = ImageProgram()  # immutable
    volumes: tuple[str, ...] = ()
    named_volumes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a port of a sandbox is reached from the tests' machine. protocol: `tcp` or `udp`."""

    host: str
    port: int
    protocol: str = "tcp"

    @property
    def address(self) -> tuple[str, int]:
        """As sockets take it."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:40123`, without a slash at its end; of UDP `udp://…`."""
        return f"{'http' if self.protocol == 'tcp' else self.protocol}://{self}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine says of itself that matters when something does not work; empty where it says nothing.

    storage: its driver; backing: the file system below that. cgroups: version. missing_limits: settings that it can't
    keep. security: kinds of confinement it has. runtimes: names for the setting of that name.
    """

    api_version: str
    storage: str
    backing: str
    cgroups: str
    cgroup_driver: str
    missing_limits: tuple[str, ...]
    security: tuple[str, ...]
    runtimes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptSandbox:
    """A container that outlives the process which made it. identity: 32 hex digits, of its own and nobody else's."""

    id: str
    name: str
    image: str
    identity: str


@dataclass(frozen=True, slots=True)
class FoundSandbox:
    """A sandbox's container, found on the engine, whoever made it.

    image: by which it was named. identity: as in KeptSandbox. run, host: of whom made it. created: seconds since the
    epoch, by the engine's clock. kept: created to be kept.
    """

    id: str
    name: str
    image: str
    identity: str
    run: str
    host: str
    created: float
    running: bool
    kept: bool

    @property
    def container(self) -> Container:
        """As far as it is known, for remove()."""
        return Container(self.id, self.name, self.image, "", "")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on the engine. created: seconds since the epoch, by the engine's clock."""

    id: str
    created: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """For headers and reports: `docker 27.3.1 at unix:///var/run/docker.sock (DOCKER_HOST), linux/x86_64`.

    cores, memory: of the machine it runs on, memory in bytes. source: what led to the endpoint.
    """

    name: str
    version: str
    endpoint: str
    architecture: str
    id: str
    cores: int
    memory: int
    source: str = ""

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f"{self.name} {self.version} at {self.endpoint}{source}, linux/{self.architecture}"

"""What a sandbox is made from. Kept apart from the other models because every pytest run loads it, used or not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .secret import MASK, Secret, hidden_names

if TYPE_CHECKING:
    from .image import Image
    from .mounts import Mount

MEBIBYTE = 1024 * 1024
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class PullPolicy(Enum):
    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class Isolation(Enum):
    """What a test finds.

    WORKSPACE: the container may have served an earlier test; its processes are gone, workspace and /tmp are restored,
    and nothing else was changed: after a test that did, the next one gets another container.
    CONTAINER: a new container for each test. NONE: nothing is restored between tests.
    """

    WORKSPACE = "workspace"
    CONTAINER = "container"
    NONE = "none"


class RecordPolicy(Enum):
    """Whose terminals' recordings are kept."""

    OFF = "off"
    FAILED = "failed"
    ALL = "all"


class KeepPolicy(Enum):
    """Whose sandboxes outlive the run."""

    NEVER = "never"
    FAILED = "failed"
    ALWAYS = "always"


class ReportPolicy(Enum):
    """Of which tests the report tells what their sandboxes did."""

    FAILED = "failed"
    NEVER = "never"


class MissingPolicy(Enum):
    """What becomes of tests that need an engine where there is none."""

    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)  # slots would make the class twice: 1 ms of every pytest run
class SandboxSettings:
    """What a sandbox is made from. Equal settings make interchangeable sandboxes.

    image: name, name@digest or id, or what to make one from. user: whom commands run as, empty for the image's own.
    users: to be in its /etc/passwd, each `name`, `name:uid` or `name:uid:group,group`.
    environment: added to the image's. ephemeral: paths and patterns that snapshots leave out.
    memory: bytes. cpus: cores, fractions allowed. pids: processes and threads.
    disk: bytes of the root file system and of the workspace, each; None for what the engine's disk has.
    file_size: bytes of a file that a command writes, None for no limit. open_files: of each process, None for the
    engine's limit, of which a program gets 1024 unless it asks for more.
    network: empty for none (loopback only), else the name of an engine network, `bridge` for the default one.
    mounts: what the sandbox has besides, none of them restored: Bind, Volume, Tmpfs.
    timeout: seconds a command may take unless the call says otherwise, None for no limit.
    paranoid: restoring compares every file's content, not only of those whose attributes tell of a change.
    service: the image's own program runs beside the commands.
    terminals: open at once; beyond it an older one is closed.
    secrets: patterns of names of environment variables whose values are shown nowhere; nor is a Secret.
    hardened: commands are confined as far as they can be: no capabilities, not root, nothing to write outside of
    workspace and /tmp, no network. runtime: the engine's name of an OCI runtime, empty for its default one.
    confine: file operations of the session stay beneath the workspace root. Commands do not.
    tolerated: paths and patterns outside of the workspace whose change does not make a container unfit for more tests.
    """

    image: str | Image = "python:3.13-slim"
    pull: PullPolicy = PullPolicy.MISSING
    workspace: PurePosixPath = PurePosixPath("/workspace")  # noqa: RUF009  # immutable
    user: str = ""
    users: Sequence[str] = ()
    environment: Mapping[str, str | Secret] = field(default_factory=dict)
    network: str = ""
    mounts: Sequence[Mount] = ()
    memory: int = 2048 * MEBIBYTE
    cpus: float = 2.0
    pids: int = 2048
    disk: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    timeout: float | None = 300.0
    ephemeral: Sequence[str] = ()
    tolerated: Sequence[str] = ("__pycache__",)  # Python writes one beside whatever it imports first
    secrets: Sequence[str] = ("*KEY*", "*PASS*", "*SECRET*", "*TOKEN*", "*CREDENTIAL*")
    isolation: Isolation = Isolation.WORKSPACE
    paranoid: bool = False
    service: bool = False
    confine: bool = False
    terminals: int = 64
    hardened: bool = False
    runtime: str = ""

    def __post_init__(self) -> None:
        if self.environment:
            hidden_names(self.environment, self.secrets)  # remembered, before anybody can show them

    def __repr__(self) -> str:
        hidden = hidden_names(self.environment, self.secrets)
        shown = {name: MASK if name in hidden else value for name, value in self.environment.items()}
        values = {each.name: getattr(self, each.name) for each in fields(self)} | {"environment": shown}
        return f"SandboxSettings({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @property
    def container_key(self) -> tuple[object, ...]:
        """Equal for settings that one container can serve: everything that is fixed when it is created.

        The user is, because the workspace is made theirs.
        """
        return (
            self.image,
            self.pull,
            self.workspace,
            self.user,
            tuple(self.users),
            self.network,
            tuple(self.mounts),
            self.memory,
            self.cpus,
            self.pids,
            self.disk,
            self.hardened,
            self.runtime,
        )


@dataclass(frozen=True)
class RunSettings:
    """What holds for a whole run, whatever the sandboxes in it are made from.

    engine: `auto`, `docker`, `podman`, or an endpoint.
    pool: sandboxes kept ready for each kind that tests use up.
    slots: containers at a time, of all runs of this user on the engine, 0 for what its cores and memory suggest.
    slots_timeout: seconds to wait for one, None for no limit.
    events: file to which all operations are written, from the run's root directory on; empty for none.
    missing: what becomes of tests that need an engine where there is none.
    keep: of which tests the sandboxes outlive the run, a few at most.
    rerun_infrastructure: times that a test is run again which failed for the infrastructure alone.
    report: of which tests the report tells what their sandboxes did.
    record: whose terminals to record. recordings: the folder for that, from the run's root directory on.
    store: folder in which baselines are kept, empty for one in the user's cache, `none` to keep nothing.
    store_size: bytes of archives in it. store_days: baselines that were not used for so long are removed.
    refresh: make kept baselines anew.
    """

    engine: str = "auto"
    pool: int = 1
    slots: int = 0
    slots_timeout: float | None = 300.0
    missing: MissingPolicy = MissingPolicy.FAIL
    keep: KeepPolicy = KeepPolicy.NEVER
    rerun_infrastructure: int = 0
    report: ReportPolicy = ReportPolicy.FAILED
    record: RecordPolicy = RecordPolicy.OFF
    events: str = ""
    recordings: str = "sandbox-recordings"
    store: str = ""
    store_size: int = 4096 * MEBIBYTE
    store_days: float = 14.0
    refresh: bool = False


def read_size(text: str) -> int:
    """Return the bytes that a text says: a number, alone or with `k`, `m` or `g`. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text.strip().lower())
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * UNITS[match[2]])

"""What a sandbox has besides its image and its workspace: declared and checked here, made by the engine.

As objects, and as lines in the syntax of `docker run --mount`. It imports nothing of ours but errors and configuration.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from .configuration import read_size
from .errors import InvalidMount

KERNELS = ("/proc", "/sys", "/dev")  # what is in them are devices and processes
DEFAULT_TMPFS_MODE = 0o1777

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_BOOLEANS = {"": True, "true": True, "1": True, "false": False, "0": False}
_OPTIONS = {
    "bind": ("source", "target", "readonly"),
    "volume": ("source", "target", "readonly", "volume-driver", "volume-opt"),
    "tmpfs": ("target", "tmpfs-size", "tmpfs-mode"),
}
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")  # what engines take


class Mount:
    """What is to be at a path of a sandbox: a Bind, a Volume or a Tmpfs. As text, a line that says the same."""

    __slots__ = ()
    target: PurePosixPath | str

    @property
    def place(self) -> PurePosixPath:
        """Where in the sandbox it is to be."""
        return PurePosixPath(self.target)


@dataclass(frozen=True, slots=True)
class Bind(Mount):
    """A file or directory of the engine's machine, at another path of the sandbox.

    source: a relative path starts at the run's root directory; outside of pytest at the current one. What else is
    mounted below it on that machine is not in it. read_only: False opens a hole, for whatever runs in the sandbox can
    then write to that machine; nobody restores it.
    """

    source: Path | str
    target: PurePosixPath | str
    read_only: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _target(self, self.target))
        if not str(self.source) or "\0" in str(self.source):
            raise InvalidMount(str(self), "it needs a source, the path of a file or directory")
        object.__setattr__(self, "source", Path(self.source))

    def __str__(self) -> str:
        readonly = "readonly" if self.read_only else "readonly=false"
        return _written("type=bind", f"source={self.source}", f"target={self.target}", readonly)


@dataclass(frozen=True, slots=True)
class Volume(Mount):
    """A volume of the engine, by its name.

    One that is there is used, and left alone. Otherwise it is made, with that driver and these options of it, and it
    goes with the last sandbox that has it. Nobody restores what is in it.
    """

    name: str
    target: PurePosixPath | str
    read_only: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _target(self, self.target))
        if not _VOLUME_NAME.fullmatch(self.name):
            raise InvalidMount(
                str(self), f"{self.name!r} is no name of a volume; a path is the source of a bind (type=bind)"
            )

    def __str__(self) -> str:
        return _written(
            "type=volume",
            f"source={self.name}",
            f"target={self.target}",
            *(["readonly"] if self.read_only else []),
            *([f"volume-driver={self.driver}"] if self.driver else []),
            *(f"volume-opt={name}={value}" for name, value in self.options.items()),
        )


@dataclass(frozen=True, slots=True)
class Tmpfs(Mount):
    """A directory in memory, of the sandbox's own, which is empty when a test begins.

    size: bytes at most; None for half of the sandbox's memory, in which it counts. mode: of the directory.
    """

    target: PurePosixPath | str
    size: int | None = None
    mode: int = DEFAULT_TMPFS_MODE

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _target(self, self.target))
        if self.size is not None and not _is_whole(self.size, 1):
            raise InvalidMount(str(self), f"its size {self.size!r} is not a number of bytes above 0")
        if not _is_whole(self.mode, 0) or self.mode > 0o7777:
            raise InvalidMount(str(self), f"its mode {self.mode!r} is not one of 0 to 0o7777")

    def __str__(self) -> str:
        return _written(
            "type=tmpfs",
            f"target={self.target}",
            *([f"tmpfs-size={self.size}"] if self.size is not None else []),
            *([f"tmpfs-mode={self.mode:o}"] if self.mode != DEFAULT_TMPFS_MODE and _is_whole(self.mode, 0) else []),
        )


def parsed(text: str) -> Mount:
    """Return the mount that a line says: `type=bind,source=./data,target=/data`. Raises InvalidMount."""
    type_, options, driver_options = _options(text)
    taken = _OPTIONS.get(type_)
    if taken is None:
        raise InvalidMount(text, f"its type {type_!r} is none of bind, volume, tmpfs")
    for name in [*options, *(["volume-opt"] if driver_options else [])]:
        if name not in taken:
            raise InvalidMount(text, f"{name!r} is no option of a {type_} here; those are type, {', '.join(taken)}")
    if "target" not in options:
        raise InvalidMount(text, "it needs a target")
    readonly = options.get("readonly", "true" if type_ == "bind" else "false").lower()
    if readonly not in _BOOLEANS:
        raise InvalidMount(text, f"readonly is true or false, not {readonly!r}")
    if type_ == "bind":
        source = options.get("source", "")
        return Bind(Path(source).expanduser() if source else "", options["target"], _BOOLEANS[readonly])
    if type_ == "volume":
        driver = options.get("volume-driver", "")
        return Volume(options.get("source", ""), options["target"], _BOOLEANS[readonly], driver, driver_options)
    try:
        size = read_size(options["tmpfs-size"]) if "tmpfs-size" in options else None
        mode = int(options.get("tmpfs-mode", f"{DEFAULT_TMPFS_MODE:o}"), 8)
    except ValueError:
        raise InvalidMount(text, "tmpfs-size is bytes or a number with k, m or g, and tmpfs-mode is octal") from None
    return Tmpfs(options["target"], size, mode)


def anchored(mounts: Sequence[Mount], root: Path) -> tuple[Mount, ...]:
    """The same mounts, relative sources of binds taken from a directory."""
    return tuple(replace(mount, source=root / mount.source) if isinstance(mount, Bind) else mount for mount in mounts)


def check(mounts: Sequence[Mount], workspace: PurePosixPath, own: Collection[str], agent: str) -> None:
    """Raise InvalidMount unless all these can be in one sandbox.

    own: directories that each sandbox has mounted in any case; it can have others in them. agent: another one, in which
    it can't.
    """
    closed = [PurePosixPath(directory) for directory in (*KERNELS, agent)]
    known: list[Mount] = []
    for mount in mounts:
        if not isinstance(mount, Mount):
            raise InvalidMount(str(mount), f"a {type(mount).__name__} is none of Bind, Volume, Tmpfs")
        target = mount.place
        if target in (workspace, *workspace.parents):
            where = "is" if target == workspace else "is above"
            raise InvalidMount(
                str(mount), f"its target {where} the workspace {workspace}; mount below that, or elsewhere"
            )
        if taken := next((each for each in closed if each in (target, *target.parents)), None):
            raise InvalidMount(str(mount), f"{taken} is the kernel's, or the agent's")
        for directory in map(PurePosixPath, (*own, agent)):
            if target in (directory, *directory.parents):
                raise InvalidMount(str(mount), f"its target would hide {directory}, which is each sandbox's own")
        for other in known:
            if target == other.place:
                raise InvalidMount(str(mount), f"{str(other)!r} has the same target")
            if target in other.place.parents or other.place in target.parents:
                raise InvalidMount(str(mount), f"its target and that of {str(other)!r} are one in the other")
        known.append(mount)


def _options(text: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """The type, the options by their own names, and those for a volume's driver."""
    try:
        fields = next(csv.reader([text.strip()], strict=True), [])
    except csv.Error as error:
        raise InvalidMount(text, f"it can't be read ({error})") from None
    options: dict[str, str] = {}
    driver_options: dict[str, str] = {}
    for each in fields:
        name, _, value = each.strip().partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        key, into = name, options
        if name == "volume-opt":
            key, _, value = value.partition("=")
            into = driver_options
        if not key or key in into:
            raise InvalidMount(text, f"{name!r} is there twice" if key else f"{each!r} has no name")
        into[key] = value
    return options.pop("type", "volume").lower(), options, driver_options


def _written(*fields: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _target(mount: Mount, target: object) -> PurePosixPath:
    if not isinstance(target, PurePosixPath | str) or not str(target) or "\0" in str(target):
        raise InvalidMount(str(mount), "it needs a target, a path in the sandbox")
    if not str(target).startswith("/"):
        raise InvalidMount(str(mount), f"its target {str(target)!r} is relative; it has to begin with a slash")
    path = PurePosixPath("/" + str(target).lstrip("/"))  # of two slashes, which POSIX leaves open, pathlib keeps both
    if ".." in path.parts:
        raise InvalidMount(str(mount), f"its target {str(target)!r} has a `..`")
    if path == PurePosixPath("/"):
        raise InvalidMount(str(mount), "its target is the root of the sandbox")
    return path


def _is_whole(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least

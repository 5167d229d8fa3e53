"""Mounts as engines take them, and the sources that no sandbox is to have. No engine is asked here."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidMount
from ..models import SandboxSettings
from ..mounts import Bind, Mount, Tmpfs, Volume
from .addresses import UNIX, docker_sockets, podman_service, podman_sockets

# Other names of those in addresses.py, as another machine may have them, and what Docker itself stands upon.
FURTHER_SOCKETS = ("/run/docker.sock", "/var/run/podman/podman.sock", "/run/containerd/containerd.sock")
# What engines say to a source, and to a driver, that are not there.
NO_SOURCE = re.compile(r"bind source path does not exist|statfs .*: no such file")
NO_DRIVER = re.compile(r"volume plugin|plugin .* not found|volume driver")


def engine_mounts(settings: SandboxSettings, endpoint: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return binds and volumes in the engine's form. labels: of volumes that it has to make. Raises InvalidMount."""
    made = []
    for mount in settings.mounts:
        if isinstance(mount, Bind):
            made.append(_bound(mount, endpoint))
        if isinstance(mount, Volume):
            made.append(_volume(mount, labels))
    return made


def engine_tmpfs(settings: SandboxSettings) -> dict[str, str]:
    """Return the directories in memory, each with mount(8)'s options."""
    return {
        str(mount.target): tmpfs_options(mount.size or settings.memory // 2, mount.mode)
        for mount in settings.mounts
        if isinstance(mount, Tmpfs)
    }


def tmpfs_options(size: int, mode: int, *, execute: bool = True) -> str:
    return f"rw,{'exec' if execute else 'noexec'},nosuid,nodev,mode={mode:o},size={size}"


def volume_names(settings: SandboxSettings) -> tuple[str, ...]:
    return tuple(sorted({mount.name for mount in settings.mounts if isinstance(mount, Volume)}))


def refused(mounts: Sequence[Mount], answer: str) -> InvalidMount | None:
    """Return what is wrong with one of the mounts, if that is why an engine refused to make a container."""
    for mount in mounts:
        if isinstance(mount, Bind) and NO_SOURCE.search(answer) and str(mount.source) in answer:
            return InvalidMount(str(mount), "its source is not there on the engine's machine")
        if isinstance(mount, Volume) and mount.driver and mount.driver in answer and NO_DRIVER.search(answer):
            return InvalidMount(str(mount), f"the engine has no volume driver {mount.driver!r}")
    return None


def _volume(mount: Volume, labels: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {"Labels": dict(labels)}
    if mount.driver or mount.options:
        options["DriverConfig"] = {"Name": mount.driver or "local", "Options": dict(mount.options)}
    return {
        "Type": "volume",
        "Source": mount.name,
        "Target": str(mount.target),
        "ReadOnly": mount.read_only,
        "VolumeOptions": options,
    }


def _bound(mount: Bind, endpoint: str) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": _source(mount, endpoint),
        "Target": str(mount.target),
        "ReadOnly": mount.read_only,
        # Else what is mounted below the source comes along, and of that read-only says nothing.
        "BindOptions": {"NonRecursive": True},
    }


def _source(mount: Bind, endpoint: str) -> str:
    """Return the path to name to the engine: of this machine with links resolved, of another one as it is."""
    if _is_here(endpoint):
        try:
            source = Path(mount.source).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # the second, up to Python 3.12, for a loop of links
            reason = (isinstance(error, OSError) and error.strerror) or "a loop of symbolic links"
            raise InvalidMount(str(mount), f"its source {mount.source}: {reason.lower()}") from None
        local, text = source, str(source)
    else:
        local, text = None, posixpath.normpath("/" + str(mount.source).lstrip("/"))
    if text == "/":
        raise InvalidMount(str(mount), "its source is the root of the engine's machine")
    for socket in _sockets(endpoint):
        if _leads_to(local or Path(text), socket, here=local is not None):
            raise InvalidMount(str(mount), f"its source is, or has in it, an engine's socket ({socket})")
    return text


def _is_here(endpoint: str) -> bool:
    return endpoint.startswith(UNIX) or endpoint == podman_service().url


def _sockets(endpoint: str) -> Iterator[Path]:
    """Where engines listen: whoever reaches one of these owns its machine."""
    if endpoint.startswith(UNIX):
        yield Path(endpoint.removeprefix(UNIX))
    for address in (*docker_sockets(os.environ, Path.home()), *podman_sockets(os.environ)):
        if (path := address.path) is not None:
            yield path
    yield from map(Path, FURTHER_SOCKETS)


def _leads_to(source: Path, socket: Path, *, here: bool) -> bool:
    """Whether a path is the socket, or a directory that it is in; if they are here, by whatever name."""
    if here:
        try:
            socket = socket.resolve(strict=True)
            return any(source.samefile(each) for each in (socket, *socket.parents))
        except OSError:
            pass  # it is not there, or not for this user to see
    return source in (socket, *socket.parents)

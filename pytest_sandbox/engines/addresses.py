"""Where an engine may be, and what says so: variables, the docker command's files, and the sockets that engines have.

It only looks; who answers there is for others to find out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineNotReachable
from .companions import SOCKET

DEFAULT_URL = "unix:///var/run/docker.sock"
UNIX = "unix://"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a TLS endpoint is talked to with. authority: None for those that the system trusts.

    verify: whether the other side has to prove who it is. certificate, key: our own proof, or None.
    """

    authority: Path | None
    certificate: Path | None
    key: Path | None
    verify: bool


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint. url: unix://, tcp:// or ssh://. source: what says so, for people: `DOCKER_HOST`.

    command: of the companion (companions.py) at whose socket it is to be had. socket: where that is.
    """

    url: str
    source: str
    tls: TlsFiles | None = None
    command: tuple[str, ...] = ()
    socket: Path | None = None

    @property
    def path(self) -> Path | None:
        """The Unix socket to connect to, if it is one."""
        if self.socket is not None:
            return self.socket
        return Path(self.url.removeprefix(UNIX)) if self.url.startswith(UNIX) else None


def of_docker_command(environment: Mapping[str, str], home: Path) -> Address | None:
    """Return the address that the `docker` command would use, or None if that is just its default socket.

    DOCKER_HOST comes before DOCKER_CONTEXT, and that before the config file's current context. Raises
    EngineNotReachable for a context that isn't there, and for files that can't be read.
    """
    folder = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    if host := environment.get("DOCKER_HOST"):
        return at_url(host, "DOCKER_HOST", environment, home)
    if context := environment.get("DOCKER_CONTEXT"):
        source = f"DOCKER_CONTEXT `{context}`"
    else:
        context = (_json(folder / "config.json") or {}).get("currentContext") or ""
        source = f"current context `{context}`"
    return None if context in ("", "default") else _of_context(folder / "contexts", context, source)


def of_podman_command(environment: Mapping[str, str]) -> Address | None:
    """Return the address that `podman --remote` would take from its variable."""
    host = environment.get("CONTAINER_HOST")
    return Address(host, "CONTAINER_HOST") if host else None


def at_url(url: str, source: str, environment: Mapping[str, str], home: Path) -> Address:
    """Return the address of a URL; TLS is what the docker command's variables say, as with `docker --host`.

    Raises EngineNotReachable if they name files that are missing.
    """
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    named = environment.get("DOCKER_CERT_PATH")
    if not url.startswith("tcp://") or not (verify or environment.get("DOCKER_TLS") or named):
        return Address(url, source)
    folder = Path(named or environment.get("DOCKER_CONFIG") or home / ".docker")
    if verify and not (folder / "ca.pem").is_file():
        raise EngineNotReachable(url, f"DOCKER_TLS_VERIFY is set, and there is no {folder / 'ca.pem'}")
    return Address(url, source, _tls_files(folder, verify))


def docker_sockets(environment: Mapping[str, str], home: Path) -> list[Address]:
    """Return where the kinds of Docker listen, the docker command's default first."""
    runtime = _runtime_directory(environment)
    return [
        Address(DEFAULT_URL, "Docker's default socket"),
        Address(f"{UNIX}{runtime}/docker.sock", "rootless Docker's socket"),
        Address(f"{UNIX}{home}/.docker/run/docker.sock", "Docker Desktop's socket"),
        Address(f"{UNIX}{home}/.docker/desktop/docker.sock", "Docker Desktop's socket on Linux"),
        Address(f"{UNIX}{home}/.colima/default/docker.sock", "Colima's socket"),
    ]


def podman_sockets(environment: Mapping[str, str]) -> list[Address]:
    return [
        Address(f"{UNIX}/run/podman/podman.sock", "Podman's socket"),
        Address(f"{UNIX}{_runtime_directory(environment)}/podman/podman.sock", "rootless Podman's socket"),
    ]


def podman_service() -> Address:
    """Return where Podman serves when it is told to; it has no daemon of its own."""
    command = ("podman", "system", "service", "--time=0", f"unix://{SOCKET}")
    return Address("`podman system service`", "started for this run", command=command)


def _of_context(contexts: Path, name: str, source: str) -> Address:
    """Read a context as the docker command stores it: below the digest of its name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _json(contexts / "meta" / digest / "meta.json")
    if meta is None:
        raise EngineNotReachable(f"the docker context {name!r}", "there is no such context")
    endpoint = (meta.get("Endpoints") or {}).get("docker") or {}
    url = endpoint.get("Host") or DEFAULT_URL
    folder, verify = contexts / "tls" / digest / "docker", not endpoint.get("SkipTLSVerify", False)
    if not url.startswith("tcp://") or (verify and not folder.is_dir()):
        return Address(url, source)
    return Address(url, source, _tls_files(folder, verify))


def _tls_files(folder: Path, verify: bool) -> TlsFiles:
    authority, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    ours = certificate.is_file() and key.is_file()
    return TlsFiles(
        authority if authority.is_file() else None, certificate if ours else None, key if ours else None, verify
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EngineNotReachable(f"what {path} names", f"it can't be read: {error}") from error
    if not isinstance(content, dict):
        raise EngineNotReachable(f"what {path} names", "it holds no JSON object")
    return content


def _runtime_directory(environment: Mapping[str, str]) -> str:
    # A session that sudo, cron or a CI system has begun often lacks the variable, and the folder is there.
    return environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"

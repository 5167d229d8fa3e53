"""Which engine to use: the one that is named, or else the first that answers where engines usually are.

Faces and fixtures look here; core takes the engine that it is given.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import EngineNotFound, EngineNotReachable, EnginePermissionDenied
from . import addresses
from .addresses import Address
from .blocking import in_thread
from .companions import SOCKET, CompanionFailed, companion, last_words

if TYPE_CHECKING:
    from .base import Engine

# What --sandbox-engine takes besides an endpoint → a coroutine function that returns the engine at an Address, as
# `module:object`: imported when it is asked for, because an engine's client may take longer to import than all the rest
# of a pytest run.
ENGINES = {
    "docker": "pytest_sandbox.engines.docker:DockerEngine.at",
    "podman": "pytest_sandbox.engines.docker:DockerEngine.at",
}
AUTO = "auto"

REMOTE_SOCKET = "/var/run/docker.sock"
# Nobody is asked anything, what the user's configuration shares with other connections is left alone, and a connection
# that is cut has ended after 15 s.
SSH_OPTIONS = {
    "BatchMode": "yes",
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
    "StreamLocalBindMask": "0177",
}


async def find_engine(choice: str = AUTO) -> Engine:
    """Return the engine of a choice: AUTO, one of ENGINES, or an endpoint.

    One that is named, by the choice, a variable or a context, has to answer: no other takes its place. Raises
    EngineNotReachable, EnginePermissionDenied, EngineTimeout; EngineNotFound if none is named and none is there.
    """
    environment, home = os.environ, Path.home()
    if choice not in (AUTO, *ENGINES):
        return await _connected("docker", addresses.at_url(choice, "as chosen", environment, home))
    docker, podman = choice in (AUTO, "docker"), choice in (AUTO, "podman")
    if docker and (named := addresses.of_docker_command(environment, home)):
        return await _connected("docker", named)
    if podman and (named := addresses.of_podman_command(environment)):
        return await _connected("podman", named)
    tried: list[tuple[str, str]] = []
    places: list[tuple[str, Address]] = []
    if docker:
        places += [("docker", each) for each in addresses.docker_sockets(environment, home)]
    if podman:
        places += [("podman", each) for each in addresses.podman_sockets(environment)]
        places.append(("podman", addresses.podman_service()))
    failures: list[EngineNotReachable | EnginePermissionDenied] = []
    for kind, place in places:
        if missing := _missing(place):
            tried.append((f"{place.url} ({place.source})", missing))
            continue
        passed_over = [f"{error.endpoint}: {error.reason}" for error in failures]
        try:
            return await _connected(kind, replace(place, source="; ".join([place.source, *passed_over])))
        except (EngineNotReachable, EnginePermissionDenied) as error:
            failures.append(error)
            tried.append((f"{place.url} ({place.source})", error.reason))
    # Where there was only one, it is the one to speak of.
    raise failures[0] if len(failures) == 1 else EngineNotFound(tried)


def _missing(place: Address) -> str:
    """Say why there is nothing to connect to; no reason to import the client, which is slow, for that."""
    if place.command:
        return "" if shutil.which(place.command[0]) else "no such program on PATH"
    try:
        if place.path is not None:
            place.path.stat()
    except PermissionError:
        return ""  # the client's own error says what to do
    except OSError as error:
        return str(error.strerror)
    return ""


async def _connected(kind: str, address: Address) -> Engine:
    """Connect, by way of a companion where it takes one."""
    if command := address.command or _tunnel(address.url):
        try:
            serving = await in_thread(partial(companion, command))
        except CompanionFailed as error:
            raise EngineNotReachable(address.url, str(error)) from error
        address = replace(address, command=command, socket=serving)
    try:
        engine: Engine = await resolve_name(ENGINES[kind])(address)
    except EngineNotReachable as error:
        if address.socket is None or not (words := last_words(address.socket)):
            raise
        raise EngineNotReachable(address.url, words) from error  # ssh knows what its other end could not do
    return engine


def _tunnel(url: str) -> tuple[str, ...]:
    """Return the command that brings a remote engine's socket here; none if the URL is not of that kind.

    Not `docker system dial-stdio`, as the docker command does: that takes a process, a login and a docker command there
    for each connection. Here one login serves all processes, and a sandbox's stream is as good as a local one.
    """
    there = urlsplit(url)
    if there.scheme != "ssh":
        return ()
    options = [f"-o{name}={value}" for name, value in SSH_OPTIONS.items()]
    user = ["-l", there.username] if there.username else []
    port = ["-p", str(there.port)] if there.port else []
    socket = there.path.rstrip("/") or REMOTE_SOCKET
    return ("ssh", "-N", "-T", *options, *user, *port, "-L", f"{SOCKET}:{socket}", "--", there.hostname or "")

"""The seam to container engines: what an engine does for a session, and nothing else.

A new engine is one file beside this one that implements Engine, and one line in discovery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..models import (
    Container,
    EngineDescription,
    EngineFacts,
    FoundSandbox,
    KeptSandbox,
    RootChange,
    SandboxSettings,
    StoredImage,
)

# In memory, mounted by the engine, emptied between tests: the largest size of each as a part of the memory limit, so
# that a full one is ENOSPC and not a killed process. /var/tmp is where databases and editors put theirs.
SCRATCH = {"/tmp": 1 / 2, "/var/tmp": 1 / 4}

AGENT_DIRECTORY = "/.pytest-sandbox"  # of each container, in which the agent is


class ByteStream(Protocol):
    """The duplex byte stream to an agent; used from the owner loop only."""

    async def read(self) -> bytes:
        """Return what has arrived, at least one byte; b"" at the end, and from then on.

        Errors of the transport (reset, TLS, ssh) are an end too: evidence() says what happened.
        """
        ...

    async def write(self, chunk: bytes) -> None:
        """Send all of it; return when it is with the operating system, which may push back.

        Only one write is under way at a time: the caller sees to that. Raises BrokenPipeError after the end.
        """
        ...

    def evidence(self) -> str:
        """Return the last few KiB that came beside the stream (the agent's standard error, a transport's error)."""
        ...

    def close(self) -> None:
        """Give up the stream at once, never blocking; the agent sees the end of its input. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """A running container with its agent's stream; nobody has spoken on it yet."""

    container: Container
    stream: ByteStream


class Engine(Protocol):
    """A container engine. All methods are coroutines run in the owner loop; a blocking client is called in a thread.

    Every call is bounded in time (EngineTimeout) and translates its client's errors into ours at this boundary
    (EngineNotReachable, EnginePermissionDenied, EngineRequestFailed, ImageNotAvailable).

    progress: told, from any thread, what a call that may take long is at: a short line in place of the last one, and an
    empty one at its end. notify: told when a request has had no answer for long, while it is waited for.
    """

    progress: Callable[[str], None]
    notify: Callable[[str], None]

    async def describe(self) -> EngineDescription:
        """Return who the engine is, as it said when it was found."""
        ...

    async def ensure_image(self, settings: SandboxSettings) -> str:
        """Return the image's content id, pulling according to the policy, or making it from local files.

        Processes that need the same one wait for the one that makes it. Raises ImageNotAvailable; ImageNotMade.
        """
        ...

    async def start(self, settings: SandboxSettings, name: str, *, identity: str = "", keep: bool = False) -> Started:
        """Start a container of that name with the agent as PID 1 and its stream open.

        Leaves nothing behind when it fails or is cancelled, at whatever step. The container ends when the stream
        does, and the engine then removes it with its anonymous volumes, also when this process was killed.

        Named volumes of the settings' mounts that are not there are made, and carry who made them as labels: such a
        one goes with the last container that has it, or if this process is killed with the next run's sweep. Raises
        InvalidMount for what can't be mounted, or would hand the engine itself to the sandbox.

        identity: carried as a label, by which a kept one is rejoined. keep: it goes on when the stream ends, and ends
        only when it is removed; no sweep takes it. Another one can be kept later, by its agent and a KeptNote.
        """
        ...

    async def rejoin(self, kept: KeptSandbox) -> Started | None:
        """Open a new stream to a kept container, nobody having spoken on it yet; None if it is gone.

        Its identity decides, not its id. Raises NotOurs for a container that has another, or none.
        """
        ...

    async def kept(self) -> list[KeptSandbox]:
        """Return the containers of this engine that run and were created to be kept, or kept by a run of this host."""
        ...

    async def sandboxes(self) -> list[FoundSandbox]:
        """Return the containers of all sandboxes on this engine, in whatever state, whoever made them."""
        ...

    async def facts(self) -> EngineFacts:
        """Ask the engine about itself, for those who want to know why something does not work."""
        ...

    async def leftovers(self, unused: float, *, remove: bool) -> list[str]:
        """Return what nobody needs any more, a line for each; remove it, if asked to.

        That is what killed runs of this host left, images made from local files that this host has not used for so many
        seconds, and older volumes of other versions' agents. Nothing that a container needs.
        """
        ...

    async def alive(self, container: Container) -> bool:
        """Say whether it runs now: asked of the engine, not remembered."""
        ...

    async def post_mortem(self, container: Container) -> str:
        """Say in one line what the engine knows of a container that ended: `killed for memory`, `exit code 65` …"""
        ...

    async def changes(self, container: Container) -> list[RootChange]:
        """Return how the root file system differs from the image, in any order.

        Volumes and other mounts are not in it, but for the directories they are mounted on; a directory in which
        something changed is. An engine that can't tell, because its sandboxes have no file system of their own,
        returns nothing.
        """
        ...

    async def remove(self, container: Container) -> None:
        """Make sure that the container is gone, killing it if need be, with volumes made for it that no other one has.

        Gone already is success.
        """
        ...

    async def commit(self, container: Container, name: str, labels: Mapping[str, str]) -> str:
        """Make an image of a container's root file system, and return its content id.

        It is configured as the image that the container was made from: user, entrypoint, command, environment; with
        these labels and none of the container's. Volumes and other mounts are not in it. name: may be taken away from
        another image.
        """
        ...

    async def images(self, label: str) -> list[StoredImage]:
        """Return the images that have a label, `name` or `name=value`."""
        ...

    async def remove_image(self, image: str) -> None:
        """Remove an image, unless a container was made from it. Gone already is success."""
        ...

    async def remove_unused_images(self, seconds: float) -> None:
        """Remove images made from local files that this host has not used for so long, and that no container needs."""
        ...

    async def create_network(self, name: str) -> None:
        """Make a network that leads nowhere but to those in it. Removed with the sandboxes if this process is killed,
        at the latest by the next run.
        """
        ...

    async def connect(self, container: Container, network: str, name: str) -> None:
        """Let a running container into a network, where the others reach it by a name."""
        ...

    async def disconnect(self, container: Container, network: str) -> None:
        """Take a container out of a network. Out of it or gone already is success."""
        ...

    async def remove_network(self, name: str) -> None:
        """Remove a network, whoever is in it. Gone already is success."""
        ...

    async def close(self) -> None:
        """Let go of connections. Containers stay as they are."""
        ...

"""What all operations of a session stand on: its channels, its paths, and what to say when it is gone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from types import MappingProxyType

from ..agent.client import DEFAULT_WINDOW, AgentClient, Channel, ConnectionLost
from ..agent.wire import BodyReader, Kind, to_wire
from ..engines.base import Engine, Started
from ..errors import EngineError, MadeBeforeFork, SandboxClosed, SandboxError, SandboxLost
from ..models import Container, SandboxSettings
from .events import Journal
from .progress import Transfer

logger = logging.getLogger(__name__)

ROOT_USERS = ("", "0", "root", "0:0", "root:root")
NOBODY = "65534:65534"  # by number, since an image may lack the name
CONTAINER_INIT = 1  # the agent's pid there


class SessionBase:
    """A container whose agent has answered."""

    journal: Journal | None = None  # to which its operations are told
    identity: Mapping[str, object] = MappingProxyType({})  # of an event: that it is this session's says enough

    def __init__(self, engine: Engine, settings: SandboxSettings, started: Started, client: AgentClient) -> None:
        self.settings = settings
        self.container: Container = started.container
        self._engine = engine
        self._stream = started.stream
        self._client = client
        self._process = os.getpid()
        self._closing: asyncio.Task[None] | None = None
        self._loss: SandboxLost | None = None
        self._loss_lock = asyncio.Lock()  # 200 commands lose their sandbox at once; the engine is asked once

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def is_parents(self) -> bool:
        """Whether this process is a fork of the one that it belongs to, and has no business with it."""
        return self._process != os.getpid()

    @property
    def lost(self) -> bool:
        """Whether nothing can be asked of it any more; never waits."""
        return self._client.lost is not None or self._closing is not None

    @property
    def in_container(self) -> bool:
        """Whether the agent is the init of a container; as a plain subprocess it shares everything with its host."""
        return self._client.hello is not None and self._client.hello.pid == CONTAINER_INIT

    @property
    def workspace(self) -> PurePosixPath:
        return self.settings.workspace

    @property
    def default_user(self) -> str:
        """Whom operations run as unless a call says otherwise; empty for the agent's own user, which is root."""
        return self.settings.user or self.image_user

    @property
    def image_user(self) -> str:
        """Whom the image names, empty for root; in a hardened sandbox, which has no root by default, nobody."""
        named = self.container.image_user
        return NOBODY if self.settings.hardened and named in ROOT_USERS else named

    def absolute(self, path: str | bytes | PurePosixPath) -> bytes:
        """The path in the sandbox; a relative one is below the workspace root. Raises ValueError for a NUL."""
        raw = to_wire(path)
        if b"\0" in raw:
            raise ValueError(f"path {path!r} has a NUL byte")
        return raw if raw.startswith(b"/") else to_wire(self.settings.workspace) + b"/" + raw

    @property
    def beneath(self) -> bytes:
        """What the file API's paths may not lead out of, as bodies have it: empty, unless the settings confine it."""
        return to_wire(self.settings.workspace) if self.settings.confine else b""

    def transfer(self, what: str, total: int | None = None) -> Transfer:
        """Say what a transfer of so many bytes is at, if it takes long."""
        return Transfer(self._engine.progress, what, total)

    @asynccontextmanager
    async def channel(self, kind: Kind, body: bytes, *, window: int = DEFAULT_WINDOW) -> AsyncIterator[Channel]:
        """Run one operation of the agent: see AgentClient.channel.

        Raises SandboxClosed, SandboxLost; an AgentFailure is the operation's to translate.
        """
        async with self.losing(), self._client.channel(kind, body, window=window) as channel:
            yield channel

    async def _sweep(self) -> BodyReader:
        """Kill every process in the sandbox but the agent; return what that says of it (SWEEP in docs/protocol.md)."""
        async with self.channel(Kind.SWEEP, b"") as channel:
            return BodyReader(await channel.result())

    @asynccontextmanager
    async def losing(self) -> AsyncIterator[None]:
        """Turn a lost connection into the error that a user can act upon."""
        try:
            yield
        except ConnectionLost as lost:
            raise await self._why(lost.reason) from None

    async def _why(self, reason: str) -> SandboxError:
        if self.is_parents:
            return MadeBeforeFork(f"sandbox {self.name}", self._process)
        if self._closing is not None:
            return SandboxClosed(self.name)
        async with self._loss_lock:
            if self._loss is None:
                self._loss = SandboxLost(self.name, await self._post_mortem(reason), self._stream.evidence())
                logger.debug("sandbox.lost name=%s reason=%s", self.name, self._loss.reason)
        return SandboxLost(self.name, self._loss.reason, self._loss.evidence)

    async def _post_mortem(self, reason: str) -> str:
        try:
            return f"{await self._engine.post_mortem(self.container)} ({reason})"
        except EngineError as error:
            return f"{reason}; and of the engine: {error}"

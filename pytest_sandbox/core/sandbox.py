"""A session from its making to its end; what it does in between is in processes, terminal, files and snapshot."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..agent.client import AgentClient, AgentFailure, ConnectionLost
from ..agent.wire import VERSION, BodyReader, BodyWriter, Kind, to_wire
from ..engines.base import AGENT_DIRECTORY, SCRATCH, Engine, Started
from ..engines.kept import KeptNote, KeptNotes
from ..engines.runs import current_run
from ..errors import (
    AgentVersionMismatch,
    FileOperationError,
    InvalidSetting,
    NotKept,
    NotOurs,
    SandboxClosed,
    SandboxError,
    SandboxStartFailed,
    SessionGone,
    SessionInUse,
)
from ..models import Container, KeptSandbox, SandboxSettings
from ..mounts import anchored
from ..mounts import check as check_mounts
from ..secret import Secret
from .archive import Archive
from .console import ConsoleOperations
from .events import Journal, told
from .network import PrivateNetwork
from .outside import OutsideOperations
from .patching import PatchOperations
from .ports import PortOperations
from .session import ROOT_USERS
from .snapshot import Snapshot, SnapshotOperations
from .sources import in_thread
from .state import SessionState, written_settings
from .store import Kept, Store, default_folder
from .terminal import TerminalOperations
from .users import UserEntry, UsersClash, with_users

logger = logging.getLogger(__name__)

HELLO_BOUND = 10.0  # seconds; an answer takes milliseconds once the container runs
# The end of one host's stream has a way through the engine to go, and nobody tells the next host that it arrived.
RELEASE_BOUND = 1.0  # seconds
RELEASE_POLL = 0.1
IN_USE = "in use by another host"  # the agent's words, docs/protocol.md
OTHER_ARCHITECTURE = "exec format error"  # execve(2)'s ENOEXEC, in an engine's words
UNKNOWN_USER = "a user of the image's /etc/passwd, a uid, or `user:group`"

_numbers = itertools.count(1)


def next_name() -> str:
    """A container name that nobody has used before."""
    return f"pytest-sandbox-{_process_id()}-{next(_numbers)}"


@functools.cache
def _process_id() -> str:
    return os.urandom(4).hex()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_process_id.cache_clear)  # a child's names are its own


class Home(Protocol):
    """Where a sandbox came from, and its forks come from and go back to; what SandboxPool offers."""

    async def lease(self, settings: SandboxSettings, baseline: Snapshot | None = None) -> SandboxCore: ...

    async def release(self, sandbox: SandboxCore) -> object: ...


@dataclass(frozen=True)
class _Coming:
    """Stands for a sandbox in its first event."""

    journal: Journal | None
    settings: SandboxSettings
    name: str
    identity: Mapping[str, object] = field(default_factory=dict)


class SandboxCore(
    TerminalOperations, ConsoleOperations, PortOperations, PatchOperations, SnapshotOperations, OutsideOperations
):
    """One sandbox. Everything here runs in the owner loop; faces.py has what tests see.

    home: of one that came from a pool, that pool.
    """

    home: Home | None = None
    kept_identity = ""  # of one that outlives this process
    _identity = ""  # which its container carries, whether it is kept or not

    @cached_property
    def networks(self) -> list[PrivateNetwork]:
        """Those it has joined."""
        return []

    @cached_property
    def _forks(self) -> list[SandboxCore]:
        return []

    @classmethod
    async def create(
        cls,
        engine: Engine,
        settings: SandboxSettings,
        name: str | None = None,
        *,
        keep: bool = False,
        journal: Journal | None = None,
    ) -> Self:
        """Start a container and return when commands can run in it. A service is begun by begin_service().

        A failure at any step, or a cancellation, leaves nothing behind.
        keep: it lives on when this process ends or loses it; until it is closed, here or by who resumes it.
        Raises ImageNotAvailable, EngineError, SandboxStartFailed; InvalidMount.
        """
        check_mounts(settings.mounts, settings.workspace, SCRATCH, AGENT_DIRECTORY)
        settings = replace(settings, mounts=anchored(settings.mounts, Path.cwd()))
        identity = secrets.token_hex(16)
        coming = _Coming(journal, settings, name or next_name())
        core = await told(
            coming,
            "create",
            {"image": str(settings.image)},
            lambda: cls._create(engine, settings, coming.name, identity, keep=keep),
        )
        core.journal, core._identity = journal, identity
        core.kept_identity = identity if keep else ""
        return core

    @classmethod
    async def _create(cls, engine: Engine, settings: SandboxSettings, name: str, identity: str, *, keep: bool) -> Self:
        _check_hardened(settings)
        await engine.ensure_image(settings)
        async with AsyncExitStack() as undo:
            started = await engine.start(settings, name, identity=identity, keep=keep)
            undo.push_async_callback(_remove, engine, started.container)
            client = AgentClient(started.stream)
            undo.push_async_callback(client.close)
            core = cls(engine, replace(settings, confine=False), started, client)
            step = "waiting for its agent's hello"
            try:
                async with asyncio.timeout(HELLO_BOUND):
                    await client.start()
                if settings.mounts and not core.in_container:
                    raise InvalidSetting("mounts", ", ".join(map(str, settings.mounts)), "an engine with containers")
                if settings.users:
                    step = "making its users"
                    await core._make_users()
                step = f"making the workspace {settings.workspace}"
                await core._make_workspace()
            except ConnectionLost as lost:
                reason, evidence = await core._post_mortem(lost.reason), started.stream.evidence()
                if OTHER_ARCHITECTURE in evidence:
                    machine = (await engine.describe()).architecture
                    reason = f"the engine says that it is for {machine}, but does not run programs for that ({reason})"
                raise SandboxStartFailed(str(settings.image), step, reason, evidence) from None
            except TimeoutError:
                reason = f"no answer within {HELLO_BOUND:g} s"
                raise SandboxStartFailed(str(settings.image), step, reason, started.stream.evidence()) from None
            except AgentFailure as failure:
                if failure.operation == "owner":
                    raise InvalidSetting("user", core.default_user, UNKNOWN_USER) from None
                reason = f"{failure.operation} {failure.subject!r}: {os.strerror(failure.errno)}"
                raise SandboxStartFailed(str(settings.image), step, reason) from None
            except FileOperationError as error:
                raise SandboxStartFailed(str(settings.image), step, str(error)) from None
            undo.pop_all()
            core.settings = settings
            return core

    @classmethod
    async def resume(
        cls,
        engine: Engine,
        state: SessionState,
        *,
        store: Path | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        journal: Journal | None = None,
    ) -> Self:
        """Go on with a session: in its container if that is still there, else in a new one, from the last snapshot.

        What runs in the container runs on. store: as state() had it. environment: variables, for those whose values are
        secret and so not in the state.
        Raises SessionInUse, NotOurs, AgentVersionMismatch, SessionGone, InvalidState; and what create() raises.
        """
        settings = state.restored_settings(environment)
        coming = _Coming(journal, settings, state.name)
        arguments = {"container": state.container, "snapshot": bool(state.snapshot)}
        core = await told(coming, "resume", arguments, lambda: cls._resume(engine, state, settings, store))
        core.journal = journal
        return core

    @classmethod
    async def _resume(cls, engine: Engine, state: SessionState, settings: SandboxSettings, store: Path | None) -> Self:
        if (await engine.describe()).id != state.engine:
            raise NotOurs(state.name, "it was made on another engine")
        loop = asyncio.get_running_loop()
        patience = loop.time() + RELEASE_BOUND
        kept = KeptSandbox(state.container, state.name, str(settings.image), state.identity)
        while state.identity and (started := await engine.rejoin(kept)) is not None:
            try:
                core = await cls._rejoined(engine, settings, started)
            except SessionInUse:
                if loop.time() > patience:
                    raise
                await asyncio.sleep(RELEASE_POLL)
                continue
            core.kept_identity = core._identity = state.identity
            return core
        archive = await in_thread(lambda: _stored(store, state.snapshot)) if state.snapshot else None
        if archive is None:
            raise SessionGone(state.name, state.snapshot)
        async with AsyncExitStack() as undo:
            core = await cls.create(engine, settings, keep=bool(state.identity))
            undo.push_async_callback(core.close)
            await core.restore(Snapshot("resumed", archive))
            await core.begin_service()
            undo.pop_all()
        return core

    @classmethod
    async def _rejoined(cls, engine: Engine, settings: SandboxSettings, started: Started) -> Self:
        """Speak to a kept container's agent. A failure leaves the container as it is."""
        name = started.container.name
        client = AgentClient(started.stream)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(client.close)
            core = cls(engine, settings, started, client)
            try:
                async with asyncio.timeout(HELLO_BOUND):
                    await client.start()
            except ConnectionLost as lost:
                if client.other_version is not None:
                    raise AgentVersionMismatch(name, client.other_version, VERSION) from None
                if IN_USE in started.stream.evidence():
                    raise SessionInUse(name) from None
                reason = await core._post_mortem(lost.reason)
                raise SandboxStartFailed(
                    str(settings.image), "joining it again", reason, started.stream.evidence()
                ) from None
            except TimeoutError:
                reason = f"no answer within {HELLO_BOUND:g} s"
                raise SandboxStartFailed(str(settings.image), "joining it again", reason) from None
            undo.pop_all()
        return core

    async def state(self, *, snapshot: bool = True, store: Path | None = None) -> SessionState:
        """Return what another process needs to resume this session.

        snapshot: take one, and keep it in the store, for when the container is gone. store: folder for that, by default
        the user's own. It has no values of variables whose names the setting `secrets` matches.
        """
        archive = (await self.snapshot("state")).archive if snapshot else None
        key = await in_thread(lambda: _put(store, archive, self.name)) if archive is not None else ""
        return await self._state(self.kept_identity, key)

    async def _state(self, identity: str, snapshot: str) -> SessionState:
        # One made from local files goes by its content: the files may be elsewhere, or others, by then.
        image = self.settings.image if isinstance(self.settings.image, str) else self.container.image_digest
        settings, hidden = written_settings(replace(self.settings, image=image))
        return SessionState(
            engine=(await self._engine.describe()).id,
            container=self.container.id,
            name=self.name,
            identity=identity,
            image_digest=self.container.image_digest,
            settings=settings,
            hidden=hidden,
            snapshot=snapshot,
        )

    async def keep(self, note: str = "") -> None:
        """Let it outlive this process from now on, as if created with keep=True; until it is closed. Idempotent.

        note: what it is kept for; `pytest-sandbox ls` shows it. Raises SandboxLost.
        """
        if self.kept_identity:
            return
        state = await self._state(self._identity, "")
        notes = KeptNotes()
        # Noted first: killed in between, we leave a note without a container, and not a container that nobody knows of.
        notes.write(
            KeptNote(
                engine=state.engine,
                container=state.container,
                name=self.name,
                identity=self._identity,
                image=str(self.settings.image),
                run=current_run().id,
                since=time.time(),
                note=note,
                state=state.to_json(),
            )
        )
        async with AsyncExitStack() as undo:
            undo.callback(notes.forget, self._identity)
            async with self.channel(Kind.KEEP, b"") as channel:
                BodyReader(await channel.result()).done()
            undo.pop_all()
        self.kept_identity = self._identity

    async def detach(self) -> None:
        """Leave a kept sandbox as it is; what runs in it runs on. Only resume() brings it back.

        Raises NotKept. Forks are closed: they are not kept.
        """
        if not self.kept_identity:
            raise NotKept(self.name)
        if self._closing is None:
            self._closing = asyncio.create_task(self._leave(), name=f"detach {self.name}")
        await asyncio.shield(self._closing)

    async def close(self) -> None:
        """End everything in the sandbox and the container with it. Idempotent, and safe to call twice at once.

        In a forked process it does nothing: the sandbox is the parent's.
        """
        if self.is_parents:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(told(self, "remove", {}, self._close), name=f"close {self.name}")
        # Shielded: a caller that is cancelled must not keep another one, or the next, from a complete end.
        await asyncio.shield(self._closing)

    async def fork(self) -> SandboxCore:
        """Return another sandbox of equal settings, its workspace as it is here now; each then goes its own way.

        Only the workspace is the same: processes, /tmp and the rest of the file system are those of a new sandbox. It
        ends when it is closed, or with this one: with the test, if that came from a fixture. Several can be made at
        once.
        Raises what create() and restore() raise.
        """
        snapshot = await self.snapshot("fork")
        async with AsyncExitStack() as undo:
            if self.home is not None:
                fork = await self.home.lease(self.settings, snapshot)
                undo.push_async_callback(self.home.release, fork)
            else:
                fork = await type(self).create(self._engine, self.settings, journal=self.journal)
                undo.push_async_callback(fork.close)
                await fork.restore(snapshot)
            await fork.begin_service()
            undo.pop_all()
        self._forks.append(fork)
        if self._closing is not None:  # meanwhile; whoever closed it did not know of this fork
            await self.end_forks()
            raise SandboxClosed(self.name)
        return fork

    @property
    def forks(self) -> tuple[SandboxCore, ...]:
        """Those that were forked from here and have not ended."""
        return tuple(self._forks)

    async def end_lease(self) -> None:
        """End what belongs to whoever has the sandbox now: endpoints, networks, and forks as end_forks() does."""
        async with AsyncExitStack() as ends:
            ends.push_async_callback(self.end_forks)
            while self.networks:
                ends.push_async_callback(self.networks.pop().leave, self)
            ends.push_async_callback(self.close_ports)

    async def end_forks(self) -> None:
        """Give back or close what was forked from here. All are tried; the first error is raised."""
        forks, self._forks = self._forks, []
        ends = (self.home.release(fork) if self.home is not None else fork.close() for fork in forks)
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def running(self) -> bool:
        """Ask the engine whether the container runs now."""
        if self.is_parents:
            raise await self._why("")
        return await self._engine.alive(self.container)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _leave(self) -> None:
        try:
            await self.end_lease()
        finally:
            await self._client.close()

    async def _close(self) -> None:
        try:
            await self._leave()
        finally:
            await self._engine.remove(self.container)
            if self.kept_identity:
                KeptNotes().forget(self.kept_identity)

    async def _make_users(self) -> None:
        """Enter the settings' users into the image's own files, and make their home directories."""
        if not self.in_container:  # the files would be this machine's
            raise InvalidSetting("users", ", ".join(self.settings.users), "an engine with containers")
        users = [UserEntry.parse(user) for user in self.settings.users]
        files = "/etc/passwd", "/etc/group"
        before = [await self.read_text(file, user="") if await self.exists(file, user="") else "" for file in files]
        try:
            after = with_users(before[0], before[1], users)
        except UsersClash as clash:
            raise InvalidSetting("users", str(clash), "names and numbers that are free in the image") from None
        for file, old, text in zip(files, before, after, strict=True):
            if text != old:
                await self.write_text(file, text, mode=0o644, user="")
        for user in users:
            if user.name and not await self.exists(user.home, user=""):
                await self.mkdir(user.home, mode=0o700, parents=True, user="")
                await self.chown(user.home, user.name)

    async def _make_workspace(self) -> None:
        workspace = to_wire(self.settings.workspace)
        made = BodyWriter().str(b"").str(b"").str(workspace).u32(0o755).u8(1).u8(1)
        async with self._client.channel(Kind.MKDIR, made.bytes()) as channel:
            await channel.result()
        # The engine may have mounted it, owned by root; it is the session's own either way.
        if self.default_user not in ROOT_USERS:
            owned = BodyWriter().str(b"").str(b"").str(workspace).str(to_wire(self.default_user)).u8(1)
            async with self._client.channel(Kind.CHOWN, owned.bytes()) as channel:
                await channel.result()


def _check_hardened(settings: SandboxSettings) -> None:
    """Raise InvalidSetting for settings that contradict each other."""
    if settings.hardened and settings.network:
        raise InvalidSetting("network", settings.network, "`none`, for the sandbox is hardened")
    if settings.hardened and settings.users:
        reason = "none, for the sandbox is hardened, and so its /etc/passwd read-only; let the image have them"
        raise InvalidSetting("users", ", ".join(settings.users), reason)


def _put(folder: Path | None, archive: Archive, name: str) -> str:
    """Keep an archive under a key that nobody else has. Nothing is kept, and that is said, if it can't be."""
    key = secrets.token_hex(32)
    store = Store(folder or default_folder(), logger.warning)
    store.obtain(key, f"the state of {name}", lambda: Kept(archive))
    return key if store.last_used(key) else ""


def _stored(folder: Path | None, key: str) -> Archive | None:
    def missing() -> Kept:
        raise LookupError(key)

    try:
        return Store(folder or default_folder(), logger.warning).obtain(key, "a session's state", missing).archive
    except LookupError:
        return None


async def _remove(engine: Engine, container: Container) -> None:
    """Undo a start. A failure to do so must not hide the failure that made it necessary."""
    try:
        await engine.remove(container)
    except SandboxError as error:
        logger.warning("container.remove.failed name=%s error=%s", container.name, error)

"""Warm sandboxes of one process: leased at a known state, taken back afterwards, replaced when they were lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ..errors import EngineError, FileOperationError, ImageNotAvailable, InfrastructureError, SandboxClosed
from ..models import Isolation
from .sandbox import SandboxCore

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..models import EngineDescription, SandboxSettings
    from .snapshot import Snapshot

logger = logging.getLogger(__name__)

Key = tuple[object, ...]  # SandboxSettings.container_key

WARM_LIMIT = 4  # idle sandboxes kept, of whatever settings; beyond it the one idle for longest is closed


class SandboxPool:
    """Sandboxes that serve one test after another; all methods run in the owner loop.

    find_engine: called once, on first use. Whether it is there is asked once too: a run without an engine fails at
    once from its second test on, instead of waiting for the probe's 3 s each time.
    """

    def __init__(self, find_engine: Callable[[], Awaitable[Engine]]) -> None:
        self._find_engine = find_engine
        self._engine: Engine | None = None
        self._unusable: dict[Key, EngineError | ImageNotAvailable] = {}  # () stands for the engine
        self._open: set[SandboxCore] = set()
        self._idle: list[SandboxCore] = []  # longest idle first
        self._pristine: dict[Key, Snapshot] = {}
        self._begun: dict[SandboxCore, Snapshot] = {}  # what those of Isolation.NONE were last brought to
        self.description: EngineDescription | None = None

    async def engine(self) -> Engine:
        """Return the engine. Raises EngineError, the same one each time."""
        if self._engine is None:
            self._raise_if_unusable(())
            try:
                engine = await self._find_engine()
                self.description = await engine.describe()
            except EngineError as error:
                self._unusable[()] = error
                raise
            self._engine = engine
        return self._engine

    async def lease(self, settings: SandboxSettings, baseline: Snapshot | None = None) -> SandboxCore:
        """Return a sandbox without processes, its workspace the baseline or, without one, what the image has there.

        A warm one if there is one for these settings, else a new one. Give it back with release(). Raises what
        SandboxCore.create raises; an engine or image that was not there is not asked for again.
        """
        while (sandbox := self._take_warm(settings)) is not None:
            if await self._bring_to(sandbox, baseline):
                return sandbox
        return await self._start(settings, baseline)

    async def release(self, sandbox: SandboxCore) -> None:
        """Take a sandbox back: kill its processes and keep it warm, or close it if nobody could use it any more.

        The sandboxes that were forked from it go first, in the same way.
        """
        try:
            await sandbox.end_forks()
        finally:
            await self._take_back(sandbox)

    async def _take_back(self, sandbox: SandboxCore) -> None:
        isolation = sandbox.settings.isolation
        if isolation is Isolation.CONTAINER:
            await self._discard(sandbox)
            return
        if isolation is Isolation.WORKSPACE:
            try:
                await sandbox.sweep()
            except (InfrastructureError, SandboxClosed) as error:
                # The test has ended it, which it may; who needed it for more has had this error already.
                logger.debug("pool.release.lost sandbox=%s reason=%s", sandbox.name, error)
                await self._discard(sandbox)
                return
        self._idle.append(sandbox)
        while len(self._idle) > WARM_LIMIT:
            await self._discard(self._idle.pop(0))

    async def close(self) -> None:
        """Close every sandbox, leased ones included, and the engine. Idempotent.

        All are tried; the first error is raised.
        """
        sandboxes, self._open = self._open, set()
        self._idle.clear()
        self._pristine.clear()
        self._begun.clear()
        outcomes = await asyncio.gather(*(sandbox.close() for sandbox in sandboxes), return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _take_warm(self, settings: SandboxSettings) -> SandboxCore | None:
        if settings.isolation is Isolation.CONTAINER:
            return None
        wanted = _interchangeable(settings)
        for sandbox in reversed(self._idle):
            if _interchangeable(sandbox.settings) == wanted:
                self._idle.remove(sandbox)
                sandbox.settings = settings  # user, environment, timeout … belong to the lease, not to the container
                return sandbox
        return None

    async def _bring_to(self, sandbox: SandboxCore, baseline: Snapshot | None) -> bool:
        """Say whether a warm sandbox could be brought to the baseline; close it if not."""
        state = baseline or self._pristine[sandbox.settings.container_key]
        if self._begun.get(sandbox) is state:
            return True
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._discard, sandbox)
            try:
                await sandbox.reset(state)
            except (InfrastructureError, SandboxClosed, FileOperationError) as error:
                # Killed, removed, or left in a state that can't be undone: the next test is not to suffer for it.
                logger.debug("pool.lease.replace sandbox=%s reason=%s", sandbox.name, error)
                return False
            undo.pop_all()
        self._remember_beginning(sandbox, state)
        return True

    async def _start(self, settings: SandboxSettings, baseline: Snapshot | None) -> SandboxCore:
        engine = await self.engine()
        key = settings.container_key
        self._raise_if_unusable(key)
        try:
            sandbox = await SandboxCore.create(engine, settings)
        except ImageNotAvailable as error:
            self._unusable[key] = error
            raise
        self._open.add(sandbox)
        sandbox.home = self
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._discard, sandbox)
            if key not in self._pristine:
                self._pristine[key] = await sandbox.snapshot("pristine")
            if baseline is None:
                sandbox.begin_at(self._pristine[key])
            else:
                await sandbox.restore(baseline)
            self._remember_beginning(sandbox, baseline or self._pristine[key])
            undo.pop_all()
        return sandbox

    def _remember_beginning(self, sandbox: SandboxCore, state: Snapshot) -> None:
        if sandbox.settings.isolation is Isolation.NONE:
            self._begun[sandbox] = state

    async def _discard(self, sandbox: SandboxCore) -> None:
        self._begun.pop(sandbox, None)
        await sandbox.close()
        self._open.discard(sandbox)

    def _raise_if_unusable(self, key: Key) -> None:
        if (error := self._unusable.get(key)) is not None:
            raise error.with_traceback(None)  # else each raise would add to the frames of the last


def _interchangeable(settings: SandboxSettings) -> Key:
    """Equal for settings that one sandbox may serve in turn; unrestored ones are kept apart from clean ones."""
    return (*settings.container_key, settings.isolation is Isolation.NONE)

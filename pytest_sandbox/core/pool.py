"""Warm sandboxes of one process: leased at a known state, taken back afterwards, replaced when they are used up."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TYPE_CHECKING

from ..configuration import RunSettings
from ..engines.slots import Slot, Slots, default_count
from ..errors import (
    EngineError,
    FileOperationError,
    HostFolderUnusable,
    ImageNotAvailable,
    InfrastructureError,
    MadeBeforeFork,
    NoFreeSlot,
    SandboxClosed,
)
from ..models import Isolation, OutsideChanges
from .events import told
from .network import PrivateNetwork
from .sandbox import SandboxCore, next_name

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..models import EngineDescription, SandboxSettings
    from .events import Journal
    from .recent import Recent
    from .snapshot import Snapshot
    from .terminal import MakeRecorder

logger = logging.getLogger(__name__)

Key = tuple[object, ...]

# A lock on a file has no event for "it is free", so whoever waits for one, or is waited for, has to look.
SLOT_POLL = 0.2  # seconds
PATIENCE = 1.0  # seconds of waiting before it is said what for

WARM_LIMIT = 4  # idle sandboxes kept, of whatever settings; beyond it the one idle for longest is closed


class SandboxPool:
    """Sandboxes that serve one test after another; all methods run in the owner loop.

    A sandbox is used up when a test had it with Isolation.CONTAINER, changed something outside of the workspace, or
    lost it. It is removed beside the tests; and once one of its kind was used up, run_settings.pool new ones are kept
    ready, started while tests run.

    Each container has a slot (engines/slots.py). A pool that finds none free removes its own idle ones first; one that
    has idle ones while another process waits removes those.

    find_engine: called once, on first use. Whether it is there is asked once too: a run without an engine fails at
    once from its second test on, instead of waiting for the probe's 3 s each time.
    """

    def __init__(
        self,
        find_engine: Callable[[], Awaitable[Engine]],
        run_settings: RunSettings | None = None,
        notify: Callable[[str], None] = logger.info,
        progress: Callable[[str], None] = logger.debug,
    ) -> None:
        """notify: takes a line for whoever is watching the run. progress: as Engine has it."""
        self._find_engine = find_engine
        self._run_settings = run_settings or RunSettings()
        self._notify = notify
        self._progress = progress
        self._engine: Engine | None = None
        self._process = os.getpid()
        self._unusable: dict[Key, EngineError | HostFolderUnusable | ImageNotAvailable] = {}  # () stands for the engine
        self._open: set[SandboxCore] = set()
        self._idle: list[SandboxCore] = []  # longest idle first
        self._used_up: set[Key] = set()  # kinds of which one was
        # Started or about to be; None where no slot was free.
        self._ready: defaultdict[Key, list[asyncio.Task[SandboxCore | None]]] = defaultdict(list)
        self._removing: set[asyncio.Task[None]] = set()  # and those that failed at it
        self._pristine: dict[Key, Snapshot] = {}
        self._begun: dict[SandboxCore, Snapshot] = {}  # what those of Isolation.NONE were last brought to
        self._outside: dict[SandboxCore, object] = {}  # as keep_outside() was told
        self._slots: Slots | None = None
        self._slot: dict[SandboxCore, Slot] = {}
        self._yielding: asyncio.Task[None] | None = None
        self.description: EngineDescription | None = None
        self.journal: Journal | None = None  # of the same
        self.recent: Recent | None = None  # what the journal remembers
        self.recorder: MakeRecorder | None = None  # of the terminals of sandboxes made from now on

    async def engine(self) -> Engine:
        """Return the engine. Raises EngineError or HostFolderUnusable, the same one each time; MadeBeforeFork."""
        if self.is_parents:
            raise MadeBeforeFork("the pool of sandboxes", self._process)
        if self._engine is None:
            self._raise_if_unusable(())
            async with AsyncExitStack() as undo:
                try:
                    engine = await self._find_engine()
                    undo.push_async_callback(engine.close)
                    description = await engine.describe()
                    slots = Slots(description, self._run_settings.slots or default_count(description))
                except (EngineError, HostFolderUnusable) as error:
                    self._unusable[()] = error
                    raise
                undo.pop_all()
            engine.progress, engine.notify = self._progress, self._notify
            self._engine, self._slots, self.description = engine, slots, description
        return self._engine

    @property
    def is_parents(self) -> bool:
        """Whether this process is a fork of the one that it belongs to, and has no business with it."""
        return self._process != os.getpid()

    async def network(self) -> PrivateNetwork:
        """Return a network for sandboxes to join; close it after their lease. Raises EngineError."""
        return PrivateNetwork(await self.engine(), f"{next_name()}-network")

    async def image_digest(self, settings: SandboxSettings) -> str:
        """Return the content id of the settings' image. Raises EngineError, ImageNotAvailable, each time the same."""
        engine = await self.engine()
        key = settings.container_key
        self._raise_if_unusable(key)
        try:
            return await engine.ensure_image(settings)
        except ImageNotAvailable as error:
            self._unusable[key] = error
            raise

    async def lease(
        self, settings: SandboxSettings, baseline: Snapshot | None = None, outside: object = None
    ) -> SandboxCore:
        """Return a sandbox without processes, its workspace the baseline or, without one, what the image has there.

        outside: stands for what the baseline has beyond the workspace. When no sandbox with that is free, a new one
        comes without the baseline, and has_outside() says no: make it there, then call keep_outside().

        A warm one if there is one for these settings, else a new one. Give it back with release(). Raises what
        SandboxCore.create raises; an engine or image that was not there is not asked for again.
        """
        await self.engine()
        while (sandbox := self._take_warm(settings, outside)) is not None:
            if await self._bring_to(sandbox, baseline):
                break
        else:
            sandbox = await self._take_new(settings, baseline if outside is None else None)
        self._start_ahead(settings)
        return sandbox

    async def release(self, sandbox: SandboxCore) -> OutsideChanges:
        """Take a sandbox back: kill its processes and keep it warm, or remove it if it is used up.

        The sandboxes that were forked from it go first, in the same way. One that is kept is left as it is.
        Return what was changed outside of the workspace and used it up, if that is why.
        """
        if sandbox.kept_identity:
            await self._let_go(sandbox)
            return OutsideChanges()
        if self.is_parents:
            return OutsideChanges()
        networked = bool(sandbox.networks)
        try:
            await sandbox.end_lease()
        finally:
            changes = await self._take_back(sandbox, networked=networked)
        return changes

    async def _take_back(self, sandbox: SandboxCore, *, networked: bool) -> OutsideChanges:
        isolation = sandbox.settings.isolation
        changes = OutsideChanges()
        fit = isolation is Isolation.NONE
        # The engine has written to the hosts and resolv.conf of one that was in a network, which is told from what the
        # test wrote there by nobody; and nobody looks into the image's volumes. Such a container is used up.
        if isolation is Isolation.WORKSPACE and not networked and not sandbox.container.volumes:
            try:
                changes = await sandbox.look_outside()
                # Of what was changed before, the engine could not tell whether it was changed again.
                fit = not changes and (sandbox.watched or not self.has_outside(sandbox))
            except (InfrastructureError, SandboxClosed) as error:
                # The test has ended it, which it may; who needed it for more has had this error already.
                logger.debug("pool.release.lost sandbox=%s reason=%s", sandbox.name, error)
        if not fit:
            self._used_up.add(_kind(sandbox.settings))
            self._remove_beside(sandbox)
            return changes
        self._idle.append(sandbox)
        while len(self._idle) > WARM_LIMIT:
            self._remove_beside(self._idle.pop(0))
        self._yield_if_wanted()
        return changes

    def forget_failures(self) -> None:
        """Ask again for an engine or an image that was not there."""
        self._unusable.clear()

    def leased(self, name: str) -> SandboxCore | None:
        """Return the sandbox of that name, if somebody has it now."""
        return next((each for each in self._open if each.name == name and each not in self._idle), None)

    def has_outside(self, sandbox: SandboxCore) -> bool:
        """Say whether a leased sandbox has what a baseline made outside of the workspace."""
        return sandbox in self._outside

    async def keep_outside(self, sandbox: SandboxCore, outside: object) -> None:
        """Let what is outside of the workspace now be the sandbox's own: it serves leases that ask for it only."""
        await sandbox.watch_outside()
        self._outside[sandbox] = outside

    async def close(self) -> None:
        """Remove every sandbox, leased ones included, and let go of the engine. Idempotent.

        All are tried; the first error is raised. In a forked process it does nothing.
        """
        if self.is_parents:
            return
        if self._yielding is not None:
            self._yielding.cancel()
            await asyncio.gather(self._yielding, return_exceptions=True)
        await self._give_up_ready()
        sandboxes, self._open = self._open, set()
        removing, self._removing = self._removing, set()
        self._idle.clear()
        self._pristine.clear()
        self._begun.clear()
        self._outside.clear()
        ends = (*removing, *(each.detach() if each.kept_identity else each.close() for each in sandboxes))
        outcomes = await asyncio.gather(*ends, return_exceptions=True)
        for slot in self._slot.values():
            slot.release()
        self._slot.clear()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    # --- warm ones ------------------------------------------------------------------------------------------------

    def _take_warm(self, settings: SandboxSettings, outside: object) -> SandboxCore | None:
        if settings.isolation is Isolation.CONTAINER:
            return None
        kind = _kind(settings)
        for sandbox in reversed(self._idle):
            if _kind(sandbox.settings) == kind and self._outside.get(sandbox) is outside:
                self._idle.remove(sandbox)
                sandbox.settings = settings  # user, environment, timeout … belong to the lease, not to the container
                return sandbox
        return None

    async def _bring_to(self, sandbox: SandboxCore, baseline: Snapshot | None) -> bool:
        """Say whether a warm sandbox could be brought to the baseline; remove it if not."""
        state = baseline or self._pristine[sandbox.settings.container_key]
        if self._begun.get(sandbox) is state:
            return True
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._remove, sandbox)
            try:
                await told(sandbox, "reset", {}, partial(sandbox.reset, state))
            except (InfrastructureError, SandboxClosed, FileOperationError) as error:
                # Killed, removed, or left in a state that can't be undone: the next test is not to suffer for it.
                logger.debug("pool.lease.replace sandbox=%s reason=%s", sandbox.name, error)
                return False
            undo.pop_all()
        self._remember_beginning(sandbox, state)
        return True

    def _remember_beginning(self, sandbox: SandboxCore, state: Snapshot) -> None:
        if sandbox.settings.isolation is Isolation.NONE:
            self._begun[sandbox] = state

    # --- new ones -------------------------------------------------------------------------------------------------

    async def _take_new(self, settings: SandboxSettings, baseline: Snapshot | None) -> SandboxCore:
        sandbox = await self._take_ready(settings) or await self._start(settings, await self._free_slot())
        sandbox.settings = settings
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._remove, sandbox)
            if baseline is not None:
                await sandbox.restore(baseline)
            if (state := baseline or self._pristine.get(settings.container_key)) is not None:
                self._remember_beginning(sandbox, state)
            undo.pop_all()
        return sandbox

    def _start_ahead(self, settings: SandboxSettings) -> None:
        """Have as many ready as were asked for, if these settings have used one up: they may well do so again."""
        kind = _kind(settings)
        if kind not in self._used_up:
            return
        while len(self._ready[kind]) < self._run_settings.pool:
            task = asyncio.create_task(self._start_if_slot(settings), name=f"start ahead for {settings.image}")
            self._ready[kind].append(task)
        self._yield_if_wanted()

    async def _start_if_slot(self, settings: SandboxSettings) -> SandboxCore | None:
        assert self._slots is not None
        slot = None if self._slots.wanted() else self._slots.take()
        return None if slot is None else await self._start(settings, slot)

    async def _take_ready(self, settings: SandboxSettings) -> SandboxCore | None:
        """Return one that was started ahead, waiting for it if need be. Raises what its start did."""
        ready = self._ready[_kind(settings)]
        while ready:
            task = ready.pop(0)
            try:
                sandbox = await asyncio.shield(task)
            except asyncio.CancelledError:
                ready.insert(0, task)  # it is the lease that is cancelled
                raise
            if sandbox is None:
                continue
            try:
                await sandbox.sweep()  # to hear from it: it may have waited for long
            except (InfrastructureError, SandboxClosed) as error:
                logger.debug("pool.ready.lost sandbox=%s reason=%s", sandbox.name, error)
                self._remove_beside(sandbox)
            else:
                return sandbox
        return None

    async def _start(self, settings: SandboxSettings, slot: Slot) -> SandboxCore:
        key = settings.container_key
        with ExitStack() as unused:
            unused.callback(slot.release)
            engine = await self.engine()
            self._raise_if_unusable(key)
            try:
                sandbox = await SandboxCore.create(engine, settings, journal=self.journal)
            except ImageNotAvailable as error:
                self._unusable[key] = error
                raise
            unused.pop_all()
        self._open.add(sandbox)
        sandbox.recorder = self.recorder
        self._slot[sandbox] = slot
        sandbox.home = self
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._remove, sandbox)
            if settings.isolation is Isolation.WORKSPACE:
                await sandbox.watch_outside()
            if key not in self._pristine:
                self._pristine[key] = await sandbox.snapshot("pristine")
            sandbox.begin_at(self._pristine[key])
            undo.pop_all()
        return sandbox

    # --- slots ----------------------------------------------------------------------------------------------------

    async def _free_slot(self) -> Slot:
        """Return a slot, waiting for one if need be. Raises NoFreeSlot."""
        assert self._slots is not None
        if (slot := self._slots.take()) is not None:
            return slot
        loop = asyncio.get_running_loop()
        began, bound, told = loop.time(), self._run_settings.slots_timeout, False
        held = self._slot.values()
        with self._slots.waiting(held):
            while True:
                await self._give_up_idle()
                if (slot := self._slots.take()) is not None:
                    return slot
                if all(task.done() for task in self._removing) and self._slots.is_deadlock(held):
                    raise NoFreeSlot(self._slots.count, len(held), None)
                waited = loop.time() - began
                if bound is not None and waited >= bound:
                    raise NoFreeSlot(self._slots.count, len(held), bound)
                if waited >= PATIENCE and not told:
                    self._notify(f"waiting for one of {self._slots.count} slots; other tests' containers have them all")
                    told = True
                await asyncio.sleep(SLOT_POLL)

    async def _give_up_idle(self) -> None:
        await self._give_up_ready()
        while self._idle:
            self._remove_beside(self._idle.pop(0))
        going = {task for task in self._removing if not task.done()}
        if going:
            await asyncio.wait(going)

    async def _give_up_ready(self) -> None:
        ready = [task for tasks in self._ready.values() for task in tasks]
        self._ready.clear()
        for task in ready:
            task.cancel()
        for started in await asyncio.gather(*ready, return_exceptions=True):
            if isinstance(started, SandboxCore):
                self._remove_beside(started)
            elif isinstance(started, Exception):
                logger.warning("pool.start.failed and nobody needed it: %s", started)

    def _yield_if_wanted(self) -> None:
        """Look from now on whether another process waits for the slots of what is idle here."""
        if self._yielding is None or self._yielding.done():
            self._yielding = asyncio.create_task(self._yield_slots(), name="yield slots")

    async def _yield_slots(self) -> None:
        assert self._slots is not None
        while self._idle or any(self._ready.values()):
            await asyncio.sleep(SLOT_POLL)
            if self._slots.wanted():
                await self._give_up_ready()
                if self._idle:
                    self._remove_beside(self._idle.pop(0))

    # --- the end --------------------------------------------------------------------------------------------------

    def _remove_beside(self, sandbox: SandboxCore) -> None:
        """Remove it while tests go on; close() raises what went wrong with that."""
        task = asyncio.create_task(self._remove(sandbox), name=f"remove {sandbox.name}")
        self._removing.add(task)
        task.add_done_callback(self._removed)

    def _removed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._removing.discard(task)

    async def _remove(self, sandbox: SandboxCore) -> None:
        try:
            await sandbox.close()
        finally:
            self._forget(sandbox)

    async def _let_go(self, sandbox: SandboxCore) -> None:
        """Leave one that is kept as it is; what follows it here is a new one, and its slot is free."""
        self._used_up.add(_kind(sandbox.settings))
        try:
            await sandbox.detach()
        finally:
            self._forget(sandbox)

    def _forget(self, sandbox: SandboxCore) -> None:
        self._begun.pop(sandbox, None)
        self._outside.pop(sandbox, None)
        self._open.discard(sandbox)
        if (slot := self._slot.pop(sandbox, None)) is not None:
            slot.release()

    def _raise_if_unusable(self, key: Key) -> None:
        if (error := self._unusable.get(key)) is not None:
            raise error.with_traceback(None)  # else each raise would add to the frames of the last


def _kind(settings: SandboxSettings) -> Key:
    """Equal for settings that one sandbox may serve; those that are never restored or never kept are of other kinds."""
    return (*settings.container_key, settings.isolation)

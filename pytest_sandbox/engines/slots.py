"""How many containers this user's runs have on an engine at a time, whatever worker or run they belong to.

A *slot* is a lock on a file. The kernel frees it when its process ends, however that ends, so nothing is counted and
nothing can be counted wrongly. Nobody is woken when one comes free: whoever needs one asks again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ..folders import state_folder, writing
from ..models import MEBIBYTE, EngineDescription
from .locks import is_held

PER_CORE = 8  # a sandbox mostly waits for its test
AT_LEAST = 16
MEMORY_EACH = 256 * MEBIBYTE

FREE, STUCK = b"-", b"w"  # what a slot's file says of its holder: works, or waits for another slot


def default_count(engine: EngineDescription) -> int:
    """Return how many containers an engine's cores and memory are good for."""
    return max(4, min(max(AT_LEAST, PER_CORE * engine.cores), engine.memory // MEMORY_EACH))


@dataclass(eq=False, slots=True)
class Slot:
    """The right to have one container; given back by release(), or by the end of the process."""

    descriptor: int

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self.descriptor >= 0:
            _held.discard(self)
            os.close(self.descriptor)
            self.descriptor = -1


class Slots:
    """The slots of one engine. All methods return at once. All raise HostFolderUnusable."""

    def __init__(self, engine: EngineDescription, count: int) -> None:
        self.count = count
        self._folder = state_folder("slots", hashlib.sha256(engine.id.encode()).hexdigest()[:16])

    def take(self) -> Slot | None:
        """Take a free slot, or return None if there is none."""
        for number in range(self.count):
            descriptor = self._opened(str(number))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            slot = Slot(descriptor)
            _held.add(slot)
            with ExitStack() as undo:
                undo.callback(slot.release)
                self._mark(slot, FREE)
                undo.pop_all()
            return slot
        return None

    def taken(self) -> int:
        """Return how many are held at the moment."""
        return sum(self._is_taken(number) for number in range(self.count))

    def wanted(self) -> bool:
        """Say whether somebody waits for a slot, who should have those of idle containers."""
        return is_held(self._opened("waiting"))

    @contextmanager
    def waiting(self, held: Collection[Slot]) -> Iterator[None]:
        """Let others know that this process waits, and will give none of its slots back before it has got another.

        held: those slots.
        """
        descriptor = self._opened("waiting")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # wanted() holds it for microseconds
            yield
        finally:
            for slot in held:
                self._mark(slot, FREE)
            os.close(descriptor)

    def is_deadlock(self, held: Collection[Slot]) -> bool:
        """Say whether every slot is held by somebody who waits for another, so that none will ever come free.

        Whoever is told so gives up, and then the others are not stuck any more: of several who ask, one is told.
        """
        lock = self._opened("deciding")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for slot in held:
                self._mark(slot, STUCK)
            if not all(self._is_stuck(number) for number in range(self.count)):
                return False
            for slot in held:
                self._mark(slot, FREE)
            return True
        finally:
            os.close(lock)

    def _is_stuck(self, number: int) -> bool:
        descriptor = self._opened(str(number))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 1, 0) == STUCK
        finally:
            os.close(descriptor)
        return False  # free, whatever its last holder wrote

    def _is_taken(self, number: int) -> bool:
        return is_held(self._opened(str(number)), fcntl.LOCK_SH)  # as _is_stuck() does: no lookers exclude each other

    def _opened(self, name: str) -> int:
        with writing(self._folder):
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _mark(self, slot: Slot, state: bytes) -> None:
        if slot.descriptor >= 0:
            with writing(self._folder):
                os.pwrite(slot.descriptor, state, 0)


_held: set[Slot] = set()


def _let_go_in_child() -> None:
    """A forked child has the parent's locks too, and would keep them when that has ended."""
    for slot in list(_held):
        slot.release()


os.register_at_fork(after_in_child=_let_go_in_child)

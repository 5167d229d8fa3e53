"""The last operations of each sandbox, remembered at next to no cost, and told only of a test that fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import PurePath
from typing import Any

from ..models import SandboxSettings
from .events import Event, EventPair, Observed, Outcome, arguments_of, facts_of, outcome_of, running_test, told_of

REMEMBERED = 8  # operations of each sandbox
SANDBOXES = 64  # of the many that a run has; those used last
SMALL = 4096  # characters or bytes of an argument that is kept as it is
MOST_PARTS = 64  # of a command

Pair = tuple[Event, Event | None]  # without a finish it is under way


class Recent:
    """A journal's memory; as its listener it does the same with events that are made for others anyway.

    Used in the owner loop only.
    """

    def __init__(self) -> None:
        self._of: dict[str, deque[_Operation | _Heard]] = {}  # by the sandbox's name, least recently used first

    def begin(
        self, core: Observed, operation: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Operation:
        begun = _Operation(core, operation, args, kwargs)
        self._remember(core.name, begun)
        return begun

    def __call__(self, event: Event) -> None:
        if event.phase == "start":
            self._remember(event.session, _Heard(event))
            return
        for each in reversed(self._of.get(event.session, ())):
            if isinstance(each, _Heard) and each.start.id == event.id:
                each.finish = event
                return

    def of_test(self, test: str) -> dict[str, list[Pair]]:
        """What the sandboxes did in a test, by their names, the oldest first."""
        told = {name: [each.pair() for each in kept if each.test == test] for name, kept in self._of.items()}
        return {name: pairs for name, pairs in told.items() if pairs}

    def _remember(self, sandbox: str, begun: _Operation | _Heard) -> None:
        kept = self._of.pop(sandbox, None) or deque(maxlen=REMEMBERED)
        self._of[sandbox] = kept
        kept.append(begun)
        while len(self._of) > SANDBOXES:
            del self._of[next(iter(self._of))]


@dataclass(slots=True)
class _Heard:
    start: Event
    finish: Event | None = None

    @property
    def test(self) -> str:
        return self.start.test

    def pair(self) -> Pair:
        return self.start, self.finish


@dataclass(slots=True)
class _Core:
    """What events need to know of whose operation it was; not the thing itself, which would live on."""

    name: str
    settings: SandboxSettings
    identity: Mapping[str, object]
    journal: None = None


class _Operation:
    """One that was called. Of its result, and of large arguments, no more is kept than is told."""

    __slots__ = ("_arguments", "_began", "_core", "_duration", "_end", "_events", "_operation", "_telling", "test")

    def __init__(
        self, core: Observed, operation: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.test = running_test()
        self._core = _Core(core.name, core.settings, core.identity)
        self._operation, self._arguments = operation, (args, kwargs)
        self._events: list[Event] = []
        self._telling: EventPair | None = None
        self._end: tuple[Outcome, Mapping[str, object], str | None] | None = None
        self._began, self._duration = time.monotonic(), 0.0
        if not all(map(_is_small, args)) or not all(map(_is_small, kwargs.values())):
            self._begun()

    def succeeded(self, result: object) -> None:
        self._duration = time.monotonic() - self._began
        self._end = Outcome.OK, facts_of(result), None

    def failed(self, error: BaseException) -> None:
        self._duration = time.monotonic() - self._began
        self._end = outcome_of(error), facts_of(getattr(error, "result", None)), told_of(error)

    def pair(self) -> Pair:
        """The events that a listener would have been told, but for the times of day."""
        telling = self._begun()
        if self._end is not None and len(self._events) == 1:
            telling.finish(*self._end)
        start, *finish = (replace(event, test=self.test) for event in self._events)
        return start, replace(finish[0], duration=self._duration) if finish else None

    def _begun(self) -> EventPair:
        if self._telling is None:
            args, kwargs = self._arguments
            arguments = arguments_of(self._operation, (self._core, *args), kwargs)
            self._telling = EventPair(self._core, self._operation.__name__, arguments, self._events.append)
            self._arguments = (), {}
        return self._telling


def _is_small(argument: object) -> bool:
    """Whether it can be kept as it is: it can't change any more, nor keep anything large or open alive."""
    if isinstance(argument, str | bytes):
        return len(argument) <= SMALL
    if isinstance(argument, list | tuple):  # a command; a list that is changed later is told as it is then
        return len(argument) <= MOST_PARTS and all(isinstance(part, str) and len(part) <= SMALL for part in argument)
    return argument is None or isinstance(argument, bool | int | float | Enum | PurePath)

"""What sandboxes do, told as it happens: a start and a finish for each operation, to whoever listens.

A journal belongs to sandboxes, not to the process; without one, an operation pays for a look whether there is one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

from ..errors import SandboxError, shown
from ..models import ExecResult, Output, ProcessExit, SandboxSettings
from ..secret import hidden_names, masked

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = 1  # of a line in a file of events
EXCERPT = 1000  # characters of an output's end, of an error, of an argument
# Text that goes into a sandbox: how much of it there was says enough, and a password typed into a terminal is nobody's.
CONTENTS = frozenset({"content", "text", "stdin", "line", "source", "patch", "archive"})

_numbers = itertools.count(1)


class Outcome(Enum):
    """How an operation ended; the first four are the classes of our own errors."""

    COMMAND = "command"
    LIMIT = "limit"
    INFRASTRUCTURE = "infrastructure"
    USAGE = "usage"
    OK = "ok"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """The start of an operation, or its finish, which has the same id.

    time: seconds since the epoch. session: the sandbox's name. kind: the operation's. test: the one that runs, if any.
    facts: arguments at the start, what is known of the result at the finish; JSON values. duration: seconds.
    """

    id: str
    time: float
    session: str
    kind: str
    phase: str
    test: str
    facts: Mapping[str, object]
    duration: float | None = None
    outcome: Outcome | None = None
    error: str | None = None


Listener = Callable[[Event], object]


class Memory(Protocol):
    """What remembers operations as they were called, to make events of them only when somebody asks."""

    def begin(
        self, core: Observed, operation: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Telling: ...


class Journal:
    """Hands events to listeners, in the owner loop: they must not wait. One that fails is not called again.

    memory: has operations to itself as long as nobody listens, at a fraction of what their events cost.
    """

    def __init__(self, *listeners: Listener, memory: Memory | None = None) -> None:
        self._listeners = list(listeners)
        self._memory = memory

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    def begin(
        self, core: Observed, operation: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Telling:
        """Tell the start of an operation; its end is told to what is returned."""
        if self._memory is not None and not self._listeners:
            return self._memory.begin(core, operation, args, kwargs)
        return EventPair(core, operation.__name__, arguments_of(operation, (core, *args), kwargs), self.tell)

    def tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  # anybody's code: an operation must not fail for it
                self._listeners.remove(listener)
                logger.warning("events.listener.failed and is left out from now on: %r", error)


class JsonLines:
    """A listener that appends to a file, a JSON object a line; several processes may write to the same one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write(2) with O_APPEND for a line: those of other processes don't get into the middle of it.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, event: Event) -> None:
        fields = {"format": FORMAT, **asdict(event)}
        line = json.dumps({name: value for name, value in fields.items() if value is not None}, default=_json)
        os.write(self._descriptor, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)


def log(event: Event) -> None:
    """A listener that logs, at DEBUG."""
    logger.debug("event.%s kind=%s id=%s session=%s facts=%s", event.phase, event.kind, event.id, event.session, event)


class Observed(Protocol):
    """What has operations that are told: a session, or a command in it. identity: facts that tell it from others."""

    @property
    def journal(self) -> Journal | None: ...

    @property
    def settings(self) -> SandboxSettings: ...

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, object]: ...


class Telling(Protocol):
    """An operation whose end is to be told."""

    def succeeded(self, result: object) -> None: ...
    def failed(self, error: BaseException) -> None: ...


def observed(
    operation: Callable[..., Coroutine[Any, Any, T]], core: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, T]:
    """Return the operation's coroutine; what it does is told to the journal that its core has, if it has one."""
    journal: Journal | None = getattr(core, "journal", None)
    if journal is None:
        return operation(core, *args, **kwargs)
    return _told(lambda: journal.begin(core, operation, args, kwargs), lambda: operation(core, *args, **kwargs))


async def observed_iterator(
    operation: Callable[..., AsyncGenerator[T, None]], core: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[T, None]:
    """The same for an async generator: one operation from the first item to the last, or to where it is left."""
    items = operation(core, *args, **kwargs)
    journal: Journal | None = getattr(core, "journal", None)
    telling = None if journal is None else journal.begin(core, operation, args, kwargs)
    try:
        async for item in items:
            yield item
    except BaseException as error:
        if telling is not None and not isinstance(error, GeneratorExit):
            telling.failed(error)
            telling = None
        raise
    finally:
        await items.aclose()
        if telling is not None:
            telling.succeeded(None)


async def told(core: Observed, kind: str, arguments: Mapping[str, object], operation: Callable[[], Awaitable[T]]) -> T:
    """Await what no test has called, and tell its start and finish to whoever listens to its core."""
    journal = core.journal
    if journal is None or not journal.has_listeners:
        return await operation()
    return await _told(lambda: EventPair(core, kind, arguments, journal.tell), operation)


async def _told(begin: Callable[[], Telling], operation: Callable[[], Awaitable[T]]) -> T:
    telling = begin()
    try:
        result = await operation()
    except BaseException as error:
        telling.failed(error)
        raise
    telling.succeeded(result)
    return result


def outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, SandboxError):
        return Outcome(error.failure.value)
    return Outcome.CANCELLED if isinstance(error, asyncio.CancelledError) else Outcome.ERROR


def told_of(error: BaseException) -> str:
    """Return an error's name and words; a cancellation has none."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def running_test() -> str:
    """The node id of the test that runs, empty outside of tests."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]


class EventPair:
    """One operation's two events. tell: takes them; the start at once."""

    def __init__(
        self, core: Observed, kind: str, arguments: Mapping[str, object], tell: Callable[[Event], object]
    ) -> None:
        self._hand_over, self._session, self._kind = tell, core.name, kind
        self._identity = core.identity
        self._id = f"{os.getpid()}-{next(_numbers)}"
        self._began = time.monotonic()
        if isinstance(env := arguments.get("env"), Mapping):
            hidden_names(env, core.settings.secrets)  # remembered, as the settings' own are
        self._tell("start", {name: _shown_argument(name, value) for name, value in arguments.items()})

    def succeeded(self, result: object) -> None:
        self.finish(Outcome.OK, facts_of(result))

    def failed(self, error: BaseException) -> None:
        facts = facts_of(getattr(error, "result", None))
        self.finish(outcome_of(error), facts, told_of(error))

    def finish(self, outcome: Outcome, facts: Mapping[str, object], error: str | None = None) -> None:
        """Tell the end, of which so much is known already."""
        said = None if error is None else _cut(masked(error))
        self._tell("finish", facts, time.monotonic() - self._began, outcome, said)

    def _tell(self, phase: str, facts: Mapping[str, object], *rest: Any) -> None:
        safe = {name: _safe(value) for name, value in {**self._identity, **facts}.items()}
        test = running_test()
        self._hand_over(Event(self._id, time.time(), self._session, self._kind, phase, test, safe, *rest))


def _safe(value: Any) -> Any:
    """The value with secrets masked, then cut: not the other way round, which could leave half of one."""
    if isinstance(value, _Excerpt):
        return masked(str(value))[-EXCERPT:]
    if isinstance(value, str):
        return masked(value)
    return [_safe(each) for each in value] if isinstance(value, list) else value


class _Excerpt(str):
    """Text of which the end is told."""

    __slots__ = ()


@functools.cache
def _signature(operation: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(operation)


def arguments_of(operation: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, object]:
    """What was passed, by name; defaults are not. Nothing for a call that can't be: it will say so itself."""
    try:
        bound = _signature(operation).bind(*args, **kwargs)
    except TypeError:
        return {}
    return dict(list(bound.arguments.items())[1:])


def _shown_argument(name: str, value: object) -> object:
    """What is told of an argument; masked before it is cut."""
    if name == "env" and isinstance(value, Mapping):
        return sorted(map(str, value))  # the names
    if name in CONTENTS and isinstance(value, str | bytes):
        return {"characters" if isinstance(value, str) else "bytes": len(value)}
    if name in ("command", "arguments") and isinstance(value, str | Sequence):
        return shown(value if isinstance(value, str) else [str(each) for each in value])
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | PurePath):
        return _cut(masked(str(value)))
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, list | tuple):
        return [_shown_argument("", each) for each in value[:20]]
    return type(value).__name__


def facts_of(result: object) -> dict[str, object]:
    """What a result says, as far as it is short."""
    if isinstance(result, ExecResult | ProcessExit):
        facts: dict[str, object] = {"exit_code": result.exit_code, "command_seconds": result.duration}
        facts |= {"limits": [str(hit) for hit in result.limits]} if result.limits else {}
        if isinstance(result, ExecResult):
            for name, stream in (("stdout", result.stdout), ("stderr", result.stderr)):
                facts[f"{name}_bytes"] = stream.total_bytes
                if stream:
                    # Beyond the excerpt, for a secret that its beginning would cut.
                    facts[name] = _Excerpt(Output(stream[-8 * EXCERPT :]).text)
        return facts
    if isinstance(result, bool | int | float):
        return {"result": result}
    if isinstance(result, str | bytes):
        return {"characters" if isinstance(result, str) else "bytes": len(result)}
    if isinstance(result, list | tuple | set | frozenset):
        return {"items": len(result)}
    return {"pid": result.pid} if hasattr(result, "pid") else {}


def _cut(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 3]}..."


def _json(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)

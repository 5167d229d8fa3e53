"""The state a module's tests begin from: declared as a Baseline, made once, and from then on only restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InfrastructureError
from .faces import Sandbox
from .loop import run

if TYPE_CHECKING:
    from types import TracebackType

    from .core.pool import SandboxPool
    from .core.sandbox import SandboxCore
    from .core.snapshot import Snapshot
    from .models import SandboxSettings


@dataclass(frozen=True, slots=True)
class Baseline:
    """What to put into the workspace before a module's first test, in this order: trees, files, commands.

    trees: path in the sandbox → local file or directory, copied with modes and links.
    files: path in the sandbox → content, text as UTF-8; a pair (content, mode) also sets the mode.
    commands: run one after another as exec() takes them; one that fails, fails every test that needs this baseline.

    Paths are relative to the workspace. What a command does elsewhere in the container is part of the baseline too, but
    can't be copied: in each further container all is done again. Processes and /tmp are not part of it.
    """

    files: Mapping[str, str | bytes | tuple[str | bytes, int]] = field(default_factory=dict)
    trees: Mapping[str, Path] = field(default_factory=dict)
    commands: Sequence[str | Sequence[str]] = ()

    def __call__(self, sandbox: Sandbox) -> None:
        """Make this state in a sandbox."""
        for path, source in self.trees.items():
            sandbox.upload(source, path)
        for path, entry in self.files.items():
            content, mode = entry if isinstance(entry, tuple) else (entry, None)
            sandbox.write_bytes(path, content.encode() if isinstance(content, str) else content, mode=mode)
        for command in self.commands:
            sandbox.exec(command, check=True)


@dataclass(frozen=True, slots=True)
class Made:
    """A baseline: its workspace and, if it reaches beyond that, what stands for the rest in the pool."""

    snapshot: Snapshot
    outside: object | None


class PreparedBaseline:
    """A baseline that is made once for each settings it is asked for with, and from then on only restored.

    One that changes something outside of the workspace can't be restored into another container: there it is made
    again, and the workspace then brought to what it was the first time.

    A failure is final for these settings: every later call raises it again, and no command is run a second time. Only
    a failure of the infrastructure is not held against the baseline: the next test gets a new sandbox and tries again.
    """

    def __init__(self, make: Callable[[Sandbox], object] | None, pool: SandboxPool) -> None:
        self._make = make
        self._pool = pool
        self._made: list[tuple[SandboxSettings, Made | Failure]] = []  # settings hold a dict and can't be a key

    def lease(self, settings: SandboxSettings, *, instead: Snapshot | None = None) -> SandboxCore:
        """Return a sandbox at the baseline made with these settings; without one, as the image has it.

        instead: a snapshot to begin at, whatever the baseline is.
        """
        if self._make is None or instead is not None:
            return run(self._pool.lease(settings, instead))
        made = self._made_with(self._make, settings)
        core = run(self._pool.lease(settings, made.snapshot, made.outside))
        if made.outside is not None and not self._pool.has_outside(core):
            with ExitStack() as undo:
                undo.callback(lambda: run(self._pool.release(core)))
                self._make(Sandbox(core))
                run(core.reset(made.snapshot))
                run(self._pool.keep_outside(core, made.outside))
                undo.pop_all()
        return core

    def _made_with(self, make: Callable[[Sandbox], object], settings: SandboxSettings) -> Made:
        outcome = next((outcome for made_with, outcome in self._made if made_with == settings), None)
        if outcome is None:
            outcome = self._prepare(make, settings)
            self._made.append((settings, outcome))
        if isinstance(outcome, Failure):
            # With the traceback it had at first: each raise of one exception would add to the frames of the last.
            raise outcome.error.with_traceback(outcome.traceback)
        return outcome

    def _prepare(self, make: Callable[[Sandbox], object], settings: SandboxSettings) -> Made | Failure:
        core = run(self._pool.lease(settings))
        try:
            if not core.watched:  # the pool has it done only where it needs to know itself
                run(core.watch_outside())
            make(Sandbox(core))
            # Ends every process, too: what still ran could change a file behind the snapshot's back.
            outside = object() if run(core.look_outside()) else None
            snapshot = run(core.snapshot("baseline"))
            if outside is not None:
                run(self._pool.keep_outside(core, outside))
            return Made(snapshot, outside)
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a user's function raises is kept, and raised for every test
            error.add_note("raised by the fixture sandbox_baseline, and so for each test that needs it")
            return Failure(error, error.__traceback__)
        finally:
            run(self._pool.release(core))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a baseline can't be made."""

    error: Exception
    traceback: TracebackType | None

"""The state a module's tests begin from: declared as a Baseline, made once, and from then on only restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InfrastructureError
from .faces import Sandbox
from .loop import run

if TYPE_CHECKING:
    from types import TracebackType

    from .core.pool import SandboxPool
    from .core.snapshot import Snapshot
    from .models import SandboxSettings


@dataclass(frozen=True, slots=True)
class Baseline:
    """What to put into the workspace before a module's first test, in this order: trees, files, commands.

    trees: path in the sandbox → local file or directory, copied with modes and links.
    files: path in the sandbox → content, text as UTF-8; a pair (content, mode) also sets the mode.
    commands: run one after another as exec() takes them; one that fails, fails every test that needs this baseline.

    Paths are relative to the workspace. Only the workspace is kept: what a command does elsewhere in the container, and
    the processes it leaves running, are not part of the baseline.
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


class PreparedBaseline:
    """A baseline that is made once for each settings it is asked for with.

    A failure is final for these settings: every later call raises it again, and no command is run a second time. Only
    a failure of the infrastructure is not held against the baseline: the next test gets a new sandbox and tries again.
    """

    def __init__(self, make: Callable[[Sandbox], object] | None, pool: SandboxPool) -> None:
        self._make = make
        self._pool = pool
        self._made: list[tuple[SandboxSettings, Snapshot | Failure]] = []  # settings hold a dict and can't be a key

    def snapshot(self, settings: SandboxSettings) -> Snapshot | None:
        """Return the baseline made with these settings, or None if there is none: the workspace as the image has it."""
        if self._make is None:
            return None
        outcome = next((outcome for made_with, outcome in self._made if made_with == settings), None)
        if outcome is None:
            outcome = self._prepare(self._make, settings)
            self._made.append((settings, outcome))
        if isinstance(outcome, Failure):
            # With the traceback it had at first: each raise of one exception would add to the frames of the last.
            raise outcome.error.with_traceback(outcome.traceback)
        return outcome

    def _prepare(self, make: Callable[[Sandbox], object], settings: SandboxSettings) -> Snapshot | Failure:
        core = run(self._pool.lease(settings))
        try:
            sandbox = Sandbox(core)
            make(sandbox)
            sandbox.sweep()  # what still ran could change a file behind the snapshot's back
            return sandbox.snapshot("baseline")
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

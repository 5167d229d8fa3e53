"""The state a module's tests begin from: declared as a Baseline, made once, and from then on only restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from .errors import InfrastructureError, UsageError
from .faces import Sandbox
from .keeping import IMAGE_LABEL, IMAGE_NAME, Made
from .loop import run
from .manifest import Entry, check_sources, entries, ephemeral, patterns
from .models import Isolation, PullPolicy
from .secret import Secret
from .settings import overridden

if TYPE_CHECKING:
    from types import TracebackType

    from .core.pool import SandboxPool
    from .core.sandbox import SandboxCore
    from .core.snapshot import Snapshot
    from .keeping import BaselineKeeper
    from .models import SandboxSettings


@dataclass(frozen=True, slots=True)
class Baseline:
    """What to put into the workspace before a module's first test, in this order: trees, files, commands, prepare.

    trees: path in the sandbox → local file or directory, copied with modes and links; or a Tree, Repository, Directory.
    Those that are ephemeral are placed in each sandbox of the tests anew, and are in no snapshot.
    files: path in the sandbox → content, text as UTF-8; a pair (content, mode) also sets the mode; or a File.
    commands: run one after another as exec() takes them; one that fails, fails every test that needs this baseline.
    prepare: called last, with the sandbox, for what these three can't say.

    Paths are relative to the workspace. What a command does elsewhere in the container is part of the baseline too, but
    can't be copied: in each further container all is done again. Processes and /tmp are not part of it. system: what is
    done elsewhere is kept as well, in an image made by the engine, except for what is mounted.

    It is kept for later runs, by all that is said here, the content of local files, the image and the settings. What
    `prepare` does can't be seen: with it, a baseline is kept only if it has a key, which has to change with what it
    does. key: any text, for whatever else decides about the outcome: a version, a date.
    settings: of the sandbox in which it is made, by the marker's keywords, where they differ from the tests' own: a
    network, say. That sandbox is made for the purpose; what is done outside of its workspace is lost, without system.
    """

    files: Mapping[str, str | bytes | Secret | tuple[str | bytes | Secret, int] | Entry] = field(default_factory=dict)
    trees: Mapping[str, Path | Entry] = field(default_factory=dict)
    commands: Sequence[str | Sequence[str]] = ()
    prepare: Callable[[Sandbox], object] | None = None
    key: str = ""
    system: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entries  # noqa: B018  # raises InvalidEntry here, where the traceback shows who wrote it

    @property
    def entries(self) -> dict[str, Entry]:
        """What it puts into the workspace, in order."""
        return entries(self.trees, self.files)

    def __call__(self, sandbox: Sandbox) -> None:
        """Make this state in a sandbox."""
        for path, entry in self.entries.items():
            entry.place(sandbox, path)
        for command in self.commands:
            sandbox.exec(command, check=True)
        if self.prepare is not None:
            self.prepare(sandbox)

    @property
    def identified(self) -> bool:
        """Whether all that it does can be told from what it says; a subclass may do anything."""
        return bool(self.key) or (self.prepare is None and type(self) is Baseline)


class PreparedBaseline:
    """A baseline that is made once for each settings it is asked for with, and from then on only restored.

    One that changes something outside of the workspace can't be restored into another container: there it is made
    again, and the workspace then brought to what it was the first time.

    name: of the module, for those who wait for it. keeper: has what other runs and workers made, None to do without.
    root: where relative paths in its settings begin.

    A failure is final for these settings: every later call raises it again, and no command is run a second time. Only
    a failure of the infrastructure is not held against the baseline: the next test gets a new sandbox and tries again.
    """

    def __init__(
        self,
        make: Callable[[Sandbox], object] | None,
        pool: SandboxPool,
        keeper: BaselineKeeper | None = None,
        name: str = "baseline",
        root: Path | None = None,
    ) -> None:
        self._baseline = make if isinstance(make, Baseline) or make is None else Baseline(prepare=make)
        self._pool = pool
        self._keeper = keeper
        self._name = name
        self._root = root
        self._ephemeral = {} if self._baseline is None else ephemeral(self._baseline.entries)
        self._placed_in: WeakSet[SandboxCore] = WeakSet()
        self._made: list[tuple[SandboxSettings, Made | Failure]] = []  # settings hold a dict and can't be a key

    def lease(self, settings: SandboxSettings, *, instead: Snapshot | None = None) -> SandboxCore:
        """Return a sandbox at the baseline made with these settings; without one, as the image has it.

        instead: a snapshot to begin at, whatever the baseline has in the workspace, but for what of it is ephemeral.
        """
        if self._baseline is None:
            return run(self._pool.lease(settings, instead))
        if not self._ephemeral:
            return self._lease(self._baseline, settings, instead)
        core = self._lease(self._baseline, self._leaving_out(settings), instead)
        if settings.isolation is not Isolation.NONE or core not in self._placed_in:
            with ExitStack() as undo:
                undo.callback(lambda: run(self._pool.release(core)))
                for path, entry in self._ephemeral.items():
                    entry.place(Sandbox(core), path)
                undo.pop_all()
        self._placed_in.add(core)
        return core

    def _leaving_out(self, settings: SandboxSettings) -> SandboxSettings:
        """The settings with which snapshots and changes leave out what is ephemeral here."""
        more = (pattern for pattern in patterns(self._ephemeral) if pattern not in settings.ephemeral)
        return replace(settings, ephemeral=(*settings.ephemeral, *more))

    def _lease(self, baseline: Baseline, settings: SandboxSettings, instead: Snapshot | None) -> SandboxCore:
        if instead is not None and not baseline.system:
            return run(self._pool.lease(settings, instead))
        made = self._made_with(baseline, settings)
        if made.image:
            settings = replace(settings, image=made.image, pull=PullPolicy.NEVER)
        core = run(self._pool.lease(settings, instead or made.snapshot, made.outside))
        if made.outside is not None and not self._pool.has_outside(core):
            with ExitStack() as undo:
                undo.callback(lambda: run(self._pool.release(core)))
                self._make_in(core, baseline)
                run(core.reset(made.snapshot))
                run(self._pool.keep_outside(core, made.outside))
                undo.pop_all()
        return core

    def _made_with(self, baseline: Baseline, settings: SandboxSettings) -> Made:
        outcome = next((outcome for made_with, outcome in self._made if made_with == settings), None)
        if outcome is None:
            outcome = self._prepare(baseline, settings)
            self._made.append((settings, outcome))
        if isinstance(outcome, Failure):
            # With the traceback it had at first: each raise of one exception would add to the frames of the last.
            raise outcome.error.with_traceback(outcome.traceback)
        return outcome

    def _prepare(self, baseline: Baseline, settings: SandboxSettings) -> Made | Failure:
        try:
            settings = overridden(settings, baseline.settings, "Baseline.settings", self._root)
            return self._obtain(baseline, self._leaving_out(settings))
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a user's function raises is kept, and raised for every test
            error.add_note("raised by the fixture sandbox_baseline, and so for each test that needs it")
            return Failure(error, error.__traceback__)

    def _obtain(self, baseline: Baseline, settings: SandboxSettings) -> Made:
        check_sources(baseline.entries)
        if self._keeper is not None and baseline.identified:
            return self._keeper.obtain(baseline, settings, self._name, lambda key: self._make(baseline, settings, key))
        if baseline.system:
            raise UsageError("Baseline(prepare=…, system=True) needs key=…, by which its image is found again")
        return self._make(baseline, settings)

    def _make(self, baseline: Baseline, settings: SandboxSettings, key: str = "") -> Made:
        # Nobody else is to get a container of which the system was changed, or one with another network.
        apart = baseline.system or bool(baseline.settings)
        core = run(self._pool.lease(replace(settings, isolation=Isolation.CONTAINER) if apart else settings))
        try:
            if not apart and not core.watched:  # the pool has it done only where it needs to know itself
                run(core.watch_outside())
            self._make_in(core, baseline)
            # Each ends every process, too: what still ran could change a file behind the snapshot's back.
            changed = run(core.sweep()) is None if apart else bool(run(core.look_outside()))
            snapshot = run(core.snapshot("baseline"))
            if baseline.system:
                engine = run(self._pool.engine())
                image = run(engine.commit(core.container, f"{IMAGE_NAME}:{key[:16]}", {IMAGE_LABEL: key}))
                return Made(snapshot, image=image)
            outside = object() if changed else None
            if outside is not None:
                run(self._pool.keep_outside(core, outside))
            return Made(snapshot, outside=outside)
        finally:
            run(self._pool.release(core))

    @staticmethod
    def _make_in(core: SandboxCore, baseline: Baseline) -> None:
        """Make it beside the service, if there is one, which is then stopped in good order: what it keeps is whole."""
        run(core.begin_service())
        baseline(Sandbox(core))
        run(core.end_service())


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a baseline can't be made."""

    error: Exception
    traceback: TracebackType | None

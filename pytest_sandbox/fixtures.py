"""The fixtures: settings → pool → factory → sandbox. Overriding one in a conftest changes all that follow from it.

Nothing here imports the engine's client or the owner loop before a test asks for a sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from . import reporting
from . import settings as settings_table
from .configuration import MissingPolicy
from .errors import EngineNotReachable
from .survivors import survivors_of
from .workers import SHARED, close_keeper, close_pool, keeper_of, pool_of

if TYPE_CHECKING:
    from pathlib import Path

    from .baseline import Baseline, PreparedBaseline
    from .core.network import PrivateNetwork
    from .core.pool import SandboxPool
    from .core.sandbox import SandboxCore
    from .core.snapshot import Snapshot
    from .faces import Sandbox, Terminal
    from .models import SandboxSettings

NAMES = frozenset(
    ("sandbox_factory", "sandbox", "terminal", "class_sandbox", "module_sandbox", "package_sandbox", "session_sandbox")
)  # a test that uses one of these needs an engine


class SandboxFactory:
    """Makes any number of sandboxes, each at the baseline and on its own; all end with the fixture's scope."""

    def __init__(
        self,
        settings: SandboxSettings,
        baseline: PreparedBaseline,
        claim: Callable[[SandboxCore], None],
        ended: ExitStack,
        pool: SandboxPool,
        root: Path | None = None,
    ) -> None:
        """root: where relative paths in a call begin."""
        self._settings = settings
        self._baseline = baseline
        self._claim = claim
        self._ended = ended
        self._pool = pool
        self._root = root

    def __call__(
        self, *, from_: Snapshot | None = None, baseline: bool = True, name: str | None = None, **overrides: object
    ) -> Sandbox:
        """Return a sandbox; the keywords are those of the marker, and win over it. Raises InvalidSetting, NameTaken.

        from_: a snapshot to begin with instead of the baseline, of whichever sandbox. baseline: whether to begin with
        it at all; without, with what the image has. name: the sandboxes that have one are in a network of their own, in
        which they reach each other by it.
        """
        from .faces import Sandbox
        from .loop import run

        settings = settings_table.overridden(self._settings, overrides, "sandbox_factory", self._root)
        network = None if name is None else self._network  # made now, to end after those in it
        core = self._baseline.lease(settings, instead=from_) if baseline else run(self._pool.lease(settings, from_))
        self._claim(core)
        if network is not None and name is not None:
            run(network.join(core, name))
        run(core.begin_service())  # in its network, at the baseline
        return Sandbox(core)

    @cached_property
    def _network(self) -> PrivateNetwork:
        from .loop import run

        network = run(self._pool.network())
        self._ended.callback(lambda: run(network.close()))
        return network


@contextmanager
def _factory(
    request: pytest.FixtureRequest, settings: SandboxSettings, pool: SandboxPool, baseline: PreparedBaseline | None
) -> Iterator[SandboxFactory]:
    """Make a factory for the scope of the requesting fixture, with the markers that hold there."""
    from .baseline import PreparedBaseline
    from .loop import run

    survivors = survivors_of(request.config)

    def claim(core: SandboxCore) -> None:
        if survivors is not None:
            survivors.leased(core, request.node, request.fixturename)
        ended.callback(release, core)
        if not isinstance(request.node, pytest.Item):
            request.config.stash.setdefault(SHARED, set()).add(core.name)

    def release(core: SandboxCore) -> None:
        if survivors is not None:
            survivors.released(core)
        if changes := run(pool.release(core)):
            reporting.record_outside(request.node, changes)

    with ExitStack() as ended:
        marked = settings_table.marked(settings, request.node)
        baseline = baseline or PreparedBaseline(None, pool)
        yield SandboxFactory(marked, baseline, claim, ended, pool, request.config.rootpath)


@pytest.fixture(scope="session")
def sandbox_settings(pytestconfig: pytest.Config) -> SandboxSettings:
    """What sandboxes are made from: options, environment, ini file. Override it to decide in Python; markers win."""
    return pytestconfig.stash[settings_table.SETTINGS]


@pytest.fixture(scope="module")
def sandbox_baseline() -> Baseline | Callable[[Sandbox], object] | None:
    """What a module's tests begin from: override it to return a Baseline, or a function that fills a given Sandbox.

    Made once and kept; a function, once per module and settings. None: the workspace is as the image has it, usually
    empty.
    """
    return None


@pytest.fixture(scope="session")
def sandbox_pool(pytestconfig: pytest.Config) -> Iterator[SandboxPool]:
    """The warm sandboxes of this process, closed at the end of the run."""
    from .loop import run

    pool = pool_of(pytestconfig)
    if pytestconfig.stash[settings_table.RUN].missing is MissingPolicy.SKIP:
        try:
            run(pool.engine())
        except EngineNotReachable as error:
            pytest.skip(f"no container engine: {str(error).splitlines()[0]}")
    yield pool
    close_keeper(pytestconfig)
    close_pool(pytestconfig, pool)


@pytest.fixture(scope="module")
def _prepared_baseline(
    request: pytest.FixtureRequest,
    sandbox_baseline: Baseline | Callable[[Sandbox], object] | None,
    sandbox_pool: SandboxPool,
) -> PreparedBaseline:
    from .baseline import PreparedBaseline

    name = f"baseline of {request.node.nodeid}"
    root = request.config.rootpath
    return PreparedBaseline(sandbox_baseline, sandbox_pool, keeper_of(request.config), name, root)


@pytest.fixture
def sandbox_factory(
    request: pytest.FixtureRequest,
    sandbox_settings: SandboxSettings,
    sandbox_pool: SandboxPool,
    _prepared_baseline: PreparedBaseline,
) -> Iterator[SandboxFactory]:
    """Call it for further sandboxes, `sandbox_factory(memory="512m")`: at the baseline, ending with the test."""
    with _factory(request, sandbox_settings, sandbox_pool, _prepared_baseline) as factory:
        yield factory


@pytest.fixture
def sandbox(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """A sandbox of this test's own: the workspace at the baseline, /tmp empty, no process of an earlier test."""
    return sandbox_factory()


@pytest.fixture
def terminal(sandbox: Sandbox) -> Iterator[Terminal]:
    """A shell on a terminal in the test's sandbox; it ends with the test."""
    with sandbox.terminal() as shell:
        yield shell


@pytest.fixture(scope="class")
def class_sandbox(
    request: pytest.FixtureRequest,
    sandbox_settings: SandboxSettings,
    sandbox_pool: SandboxPool,
    _prepared_baseline: PreparedBaseline,
) -> Iterator[Sandbox]:
    """A sandbox that the tests of a class share, state included; it begins at the baseline."""
    with _factory(request, sandbox_settings, sandbox_pool, _prepared_baseline) as factory:
        yield factory()


@pytest.fixture(scope="module")
def module_sandbox(
    request: pytest.FixtureRequest,
    sandbox_settings: SandboxSettings,
    sandbox_pool: SandboxPool,
    _prepared_baseline: PreparedBaseline,
) -> Iterator[Sandbox]:
    """A sandbox that the tests of a module share, state included; it begins at the baseline."""
    with _factory(request, sandbox_settings, sandbox_pool, _prepared_baseline) as factory:
        yield factory()


@pytest.fixture(scope="package")
def package_sandbox(
    request: pytest.FixtureRequest, sandbox_settings: SandboxSettings, sandbox_pool: SandboxPool
) -> Iterator[Sandbox]:
    """A sandbox that the tests of a package share, state included; baselines are a module's and don't apply."""
    with _factory(request, sandbox_settings, sandbox_pool, None) as factory:
        yield factory()


@pytest.fixture(scope="session")
def session_sandbox(
    request: pytest.FixtureRequest, sandbox_settings: SandboxSettings, sandbox_pool: SandboxPool
) -> Iterator[Sandbox]:
    """A sandbox that all tests of a run (of a worker, under xdist) share, state included; baselines don't apply."""
    with _factory(request, sandbox_settings, sandbox_pool, None) as factory:
        yield factory()

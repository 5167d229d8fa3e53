"""Sandboxes that outlive the run, to be looked into: those of failed tests or of all, by --sandbox-keep."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from .configuration import KeepPolicy
from .errors import SandboxClosed, SandboxError, SandboxLost
from .settings import RUN
from .workers import pool_of

if TYPE_CHECKING:
    from _pytest.nodes import Node

    from .core.sandbox import SandboxCore
    from .engines.kept import KeptNotes

NAME = "sandbox_survivors"  # of the plugin that is there when any are kept
SECTION = "sandbox kept"  # of a failed test's report
MOST = 8  # on this host; those of earlier runs make room
PROGRAM = "pytest-sandbox"


def register(config: pytest.Config) -> None:
    """Begin to keep, if the run is to."""
    policy = config.stash[RUN].keep
    if policy is not KeepPolicy.NEVER:
        config.pluginmanager.register(Survivors(config, policy), NAME)


def survivors_of(config: pytest.Config) -> Survivors | None:
    plugin = config.pluginmanager.get_plugin(NAME)
    return plugin if isinstance(plugin, Survivors) else None


@dataclass(frozen=True)
class _Lease:
    """node: whose fixture has the sandbox. fixture: its name."""

    core: SandboxCore
    node: Node
    fixture: str | None

    def serves(self, item: pytest.Item) -> bool:
        if self.node is item:
            return True
        return self.node in item.listchain() and self.fixture in getattr(item, "fixturenames", ())


class Survivors:
    """Keeps the sandboxes that a test has at the moment when it is known to have failed.

    At once, not at their end: a run that is killed after that leaves them as well.
    """

    def __init__(self, config: pytest.Config, policy: KeepPolicy) -> None:
        self._config = config
        self._policy = policy
        self._leases: list[_Lease] = []

    def leased(self, core: SandboxCore, node: Node, fixture: str | None) -> None:
        """Know of a sandbox that a fixture of that name has for a test, or for the tests of a class, a module …"""
        self._leases.append(_Lease(core, node, fixture))

    def released(self, core: SandboxCore) -> None:
        self._leases = [lease for lease in self._leases if lease.core is not core]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        wanted = report.failed or (self._policy is KeepPolicy.ALWAYS and report.when == "call")
        if (
            wanted
            and report.when != "teardown"
            and (lines := [line for core in self._of(item) for line in self._keep(core, item)])
        ):
            report.sections.append((SECTION, "\n".join(lines)))
        return report

    def _of(self, item: pytest.Item) -> Iterator[SandboxCore]:
        for lease in self._leases:
            if lease.serves(item):
                yield lease.core
                yield from lease.core.forks

    def _keep(self, core: SandboxCore, item: pytest.Item) -> list[str]:
        """Keep a sandbox, and say how it is opened, or why it is not kept; nothing of one that is gone."""
        from .engines.kept import KeptNotes
        from .loop import run

        try:
            if not run(core.running()):
                return []  # nobody is to make room for it
            if not core.kept_identity:
                notes = KeptNotes()
                with notes.counting():
                    if not self._make_room(notes):
                        return [f"{core.name} is not kept: {MOST} are already; `{PROGRAM} rm --all` makes room"]
                    run(core.keep(item.nodeid))
        except (SandboxLost, SandboxClosed):
            return []  # at this moment; where it matters, it is told
        except SandboxError as error:
            return [f"{core.name} could not be kept: {str(error).splitlines()[0]}"]
        return [f"{PROGRAM} shell {core.name}"]

    def _make_room(self, notes: KeptNotes) -> bool:
        """Remove those that earlier runs have kept until there is room for another one; say whether there is."""
        from .engines.runs import current_run
        from .loop import run
        from .models import Container

        engine = run(pool_of(self._config).engine())
        identity = run(engine.describe()).id
        kept = [note for note in notes.all() if note.engine == identity]
        excess = len(kept) + 1 - MOST
        for note in kept:
            if excess > 0 and current_run().is_dead(note.run) and not notes.is_in_use(note.identity):
                run(engine.remove(Container(note.container, note.name, note.image, "", "")))
                notes.forget(note.identity)
                excess -= 1
        return excess <= 0

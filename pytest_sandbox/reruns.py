"""Tests that failed because of the infrastructure alone are run again: --sandbox-rerun-infrastructure.

A re-run sets up the test's own fixtures anew, and so has a new sandbox. Fixtures of wider scope stay as they are, but
for those whose set-up was what failed. A sandbox that several tests share is lost with all that the earlier ones left
in it, so that a new one would not be the same: tests that lose it are not run again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol  # no public name; what every plugin that repeats tests goes by

from . import reporting
from .errors import FailureClass, InfrastructureError
from .settings import RUN
from .workers import SHARED, pool_of, uses_sandboxes

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

NAME = "sandbox_reruns"  # of the plugin that is there when tests are to be run again
PROPERTY = "sandbox_reruns"  # in junit: how often it was run again
OUTCOME = "rerun"  # of a report that is not the last word


def register(config: pytest.Config) -> None:
    """Begin to run tests again, if the run is to."""
    if limit := config.stash[RUN].rerun_infrastructure:
        config.pluginmanager.register(Reruns(limit), NAME)


def status(report: object) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Return how pytest counts and shows a report of ours, as pytest_report_teststatus does; None for all others."""
    if getattr(report, "outcome", None) != OUTCOME:
        return None
    return OUTCOME, "R", ("RERUN", {"yellow": True})


class Reruns:
    """limit: of times that a test is run again; and that an engine or image is asked for again, in the whole run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._asked_again = 0
        self._curable = True  # all that went wrong in the test that runs
        self._failed_fixtures: list[tuple[pytest.FixtureDef[object], SubRequest]] = []

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._last_reports(item, nextitem):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _last_reports(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterable[pytest.TestReport]:
        """Run a test until it has not failed for the infrastructure alone, or has been run often enough."""
        known = len(item.user_properties)
        for reruns in range(self._limit + 1):
            del item.user_properties[known:]
            if reruns:
                item.user_properties.append((PROPERTY, reruns))
            self._curable = True
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            failure = next((report for report in reports if report.failed), None)
            stopping = item.session.shouldstop or item.session.shouldfail
            if failure is None or not self._curable or reruns == self._limit or stopping:
                break
            failure.outcome = OUTCOME  # type: ignore[assignment]  # one of our own, as pytest_report_teststatus allows
            failure.when = "call"  # junit files take a teardown for the end of the test
            item.ihook.pytest_runtest_logreport(report=failure)
            self._forget_failures(item.config)
        return reports

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            error = None if call.excinfo is None else call.excinfo.value
            infrastructure = reporting.failure_of(error) is FailureClass.INFRASTRUCTURE
            shared = item.config.stash.get(SHARED, None) or set()
            self._curable &= infrastructure and shared.isdisjoint(reporting.sandboxes_of(error))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: SubRequest
    ) -> Generator[None, object, object]:
        try:
            return (yield)
        except InfrastructureError:
            self._failed_fixtures.append((fixturedef, request))
            raise

    def _forget_failures(self, config: pytest.Config) -> None:
        """Let be tried again what has failed: a fixture of wide scope would raise its first error again."""
        while self._failed_fixtures:
            fixturedef, request = self._failed_fixtures.pop()
            fixturedef.finish(request)
        if uses_sandboxes(config) and self._asked_again < self._limit:
            self._asked_again += 1
            pool_of(config).forget_failures()

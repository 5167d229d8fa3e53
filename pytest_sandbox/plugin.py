"""The entry point of pytest: hooks, each a line or two, and the fixtures.

Loaded by every pytest run where the package is installed, used or not: it must stay within 10 ms, so docker and the
owner loop are imported where they are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence

import pytest

from . import failures, recordings, reporting, reruns, survivors, workers
from . import settings as settings_table
from .async_fixtures import (
    async_class_sandbox,
    async_module_sandbox,
    async_package_sandbox,
    async_sandbox,
    async_sandbox_factory,
    async_session_sandbox,
)
from .errors import InvalidSetting, SandboxError
from .fixtures import (
    NAMES,
    _prepared_baseline,
    class_sandbox,
    module_sandbox,
    package_sandbox,
    sandbox,
    sandbox_baseline,
    sandbox_factory,
    sandbox_pool,
    sandbox_settings,
    session_sandbox,
    terminal,
)

__all__ = [
    "_prepared_baseline",
    "async_class_sandbox",
    "async_module_sandbox",
    "async_package_sandbox",
    "async_sandbox",
    "async_sandbox_factory",
    "async_session_sandbox",
    "class_sandbox",
    "module_sandbox",
    "package_sandbox",
    "sandbox",
    "sandbox_baseline",
    "sandbox_factory",
    "sandbox_pool",
    "sandbox_settings",
    "session_sandbox",
    "terminal",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    settings_table.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("asyncio") and config.getini("asyncio_mode") == "strict":
        # It came with us: who has left its mode as it was need not choose a scope for its loops, as it would demand.
        warnings.filterwarnings(
            "ignore", 'The configuration option "asyncio_default_fixture_loop_scope"', pytest.PytestDeprecationWarning
        )
    config.addinivalue_line(
        "markers", f"sandbox(**settings): settings of the test's sandbox, by keyword: {settings_table.KEYWORDS}"
    )
    try:
        config.stash[settings_table.SETTINGS] = settings_table.configured(config)
        config.stash[settings_table.RUN] = settings_table.run_configured(config)
    except InvalidSetting as error:
        raise pytest.UsageError(str(error)) from None
    recordings.register(config)
    survivors.register(config)
    failures.register(config)
    reruns.register(config)
    workers.begin_events(config)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    used = any(NAMES.intersection(getattr(item, "fixturenames", ())) for item in items)
    return [reporting.engine_line(config)] if used and not config.option.collectonly else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    failure = None if call.excinfo is None else reporting.failure_of(call.excinfo.value)
    if call.excinfo is None or failure is None:
        return reporting.without_secrets((yield))
    reporting.record_failure(item, failure)
    if item.config.getoption("fulltrace") or not isinstance(call.excinfo.value, SandboxError):
        report = yield
    else:
        with reporting.shortened(call.excinfo):
            report = yield
        reporting.complete_summary(report, call.excinfo)
    setattr(report, reporting.FAILURE_PROPERTY, failure.value)
    return reporting.without_secrets(report)


def pytest_report_teststatus(report: object) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    return reruns.status(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return reporting.without_secrets((yield))


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    return reporting.explained_comparison(op, left, right)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if workers.is_worker(session.config) and workers.uses_sandboxes(session.config):
        workers.send_to_controller(session.config, "engine", reporting.engine_line(session.config))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    workers.receive_from_worker(node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (line := workers.message_from_workers(config, "engine")) is not None:
        terminalreporter.write_line(line)
    stats = terminalreporter.stats
    for line in reporting.failure_lines([*stats.get("failed", ()), *stats.get("error", ())]):
        terminalreporter.write_line(line)
    for line in reporting.rerun_lines(stats.get(reruns.OUTCOME, ())):
        terminalreporter.write_line(line)
    for line in reporting.outside_lines(report for reports in terminalreporter.stats.values() for report in reports):
        terminalreporter.write_line(line)

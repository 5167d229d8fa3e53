"""What a run says about its sandboxes: the engine's line, and errors cut down to what a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pytest

from .errors import InfrastructureError, SandboxError
from .settings import SETTINGS
from .workers import pool_of

FAILURE_PROPERTY = "sandbox_failure"  # in junit: command, limit, infrastructure or usage

# Packages whose frames explain nothing to a user; neither do those of any plugin's hooks. --full-trace shows them.
INTERNAL = frozenset({"pytest_sandbox", "_pytest", "pytest_asyncio", "pluggy", "asyncio", "concurrent", "contextlib"})


def engine_line(config: pytest.Config) -> str:
    """Return what the header says of engine and image; an engine that does not answer costs its probe's 3 s at most."""
    from .loop import run

    pool = pool_of(config)
    try:
        if pool.description is None:
            run(pool.engine())
    except InfrastructureError as error:
        return f"sandbox: {str(error).splitlines()[0]}"
    return f"sandbox: {pool.description}, image {config.stash[SETTINGS].image}"


def record_failure_class(item: pytest.Item, error: SandboxError) -> None:
    """Put the class of failure beside the test's result, where junit files and re-run plugins find it."""
    item.user_properties.append((FAILURE_PROPERTY, error.failure.value))


@contextmanager
def shortened(excinfo: pytest.ExceptionInfo[BaseException]) -> Iterator[None]:
    """Leave the user's own frames and our message of a SandboxError, for as long as pytest writes its report.

    Debuggers, which come after the report, find the exception as it was raised.
    """
    error = excinfo.value
    whole, chain = excinfo.traceback, (error.__cause__, error.__suppress_context__)
    frames = _users_own(excinfo.tb)
    # Not only filtered: pytest cuts a Traceback at the test's own frame by following the raw one from there.
    excinfo.traceback = (
        pytest.ExceptionInfo.from_exc_info((type(error), error, frames)).traceback
        if frames is not None
        else whole.filter(lambda _: False)
    )
    error.__cause__, error.__suppress_context__ = None, True
    try:
        yield
    finally:
        excinfo.traceback = whole
        error.__cause__, error.__suppress_context__ = chain


def complete_summary(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Give the line in pytest's summary its message, which it lacks when no frame of the user's own was left."""
    if getattr(report.longrepr, "reprcrash", ...) is None:
        crash = excinfo.getrepr(style="value", tbfilter=False).reprcrash
        report.longrepr.reprcrash = crash  # type: ignore[union-attr]  # the attribute is there, as was just seen


def _users_own(traceback: TracebackType | None) -> TracebackType | None:
    """Return a copy of a traceback without the frames that explain nothing to a user."""
    own = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        hook = traceback.tb_frame.f_code.co_name.startswith("pytest_")
        if module.partition(".")[0] not in INTERNAL and not hook:
            own.append(traceback)
        traceback = traceback.tb_next
    copy = None
    for entry in reversed(own):
        copy = TracebackType(copy, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return copy

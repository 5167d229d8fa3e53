"""What a run says about its sandboxes: the engine's line, and errors cut down to what a user can act on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .errors import FailureClass, InfrastructureError, SandboxError, SandboxLost
from .secret import any_known, masked
from .settings import SETTINGS
from .workers import pool_of

if TYPE_CHECKING:
    from .changes import Change
    from .models import OutsideChanges

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

SIDE_WIDTH = 120  # of each side of a comparison, in the line that repeats it
FAILURE_PROPERTY = "sandbox_failure"  # in junit: command, limit, infrastructure or usage
OUTSIDE_PROPERTY = "sandbox_outside"  # in junit: what a test changed where nothing is restored
SHOWN_TESTS = 5

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


def failure_of(error: BaseException | None) -> FailureClass | None:
    """Return the class of a failure, None for one that is not ours.

    Of a group, as task groups raise them, it is that of all in it, or of one that is not the infrastructure's.
    """
    if isinstance(error, SandboxError):
        return error.failure
    if not isinstance(error, BaseExceptionGroup):
        return None
    inside = [failure_of(each) for each in error.exceptions]
    return next((each for each in inside if each is not FailureClass.INFRASTRUCTURE), FailureClass.INFRASTRUCTURE)


def sandboxes_of(error: BaseException | None) -> set[str]:
    """Return the names of the sandboxes whose loss an error tells of."""
    if isinstance(error, BaseExceptionGroup):
        return set().union(*map(sandboxes_of, error.exceptions))
    return {error.sandbox} if isinstance(error, SandboxLost) else set()


def record_failure(item: pytest.Item, failure: FailureClass) -> None:
    """Put the class of failure beside the test's result, where junit files and re-run plugins find it."""
    item.user_properties.append((FAILURE_PROPERTY, failure.value))


def failure_lines(failed: Sequence[object]) -> list[str]:
    """Return what the summary says of the classes of failures; nothing if none was ours."""
    classes = [getattr(report, FAILURE_PROPERTY, None) for report in failed]
    counted = [f"{classes.count(each.value)} {each.value}" for each in FailureClass if each.value in classes]
    plural = "s" if len(failed) > 1 else ""
    return [f"sandbox: of {len(failed)} failure{plural} {', '.join(counted)}"] if counted else []


def rerun_lines(reports: Iterable[object]) -> list[str]:
    """Return what the summary says of tests that were run again; nothing if none was."""
    tests = (report for report in reports if isinstance(report, pytest.TestReport))
    reruns = [report for report in tests if hasattr(report, FAILURE_PROPERTY)]  # others' reruns are theirs to tell of
    if not reruns:
        return []
    more = [f"  and {len(reruns) - SHOWN_TESTS} more"] if len(reruns) > SHOWN_TESTS else []
    return [
        f"sandbox: {len(reruns)} times a test was run again, as the infrastructure had failed",
        *(f"  {report.nodeid}: {_reason(report)}" for report in reruns[:SHOWN_TESTS]),
        *more,
    ]


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    line = str(getattr(crash, "message", None) or report.longreprtext).strip().partition("\n")[0]
    return line if len(line) <= SIDE_WIDTH else f"{line[: SIDE_WIDTH - 3]}..."


def record_outside(node: object, changes: OutsideChanges) -> None:
    """Put what a test changed outside of the workspace beside its result.

    Only a test's: a sandbox that a class or a module shares is not restored anyway.
    """
    if isinstance(node, pytest.Item):
        node.user_properties.append((OUTSIDE_PROPERTY, str(changes)))


def outside_lines(reports: Iterable[object]) -> list[str]:
    """Return what the summary says of tests that changed something outside of the workspace; nothing if none did."""
    told = [
        (report.nodeid, value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for name, value in report.user_properties
        if name == OUTSIDE_PROPERTY
    ]
    if not told:
        return []
    more = [f"  and {len(told) - SHOWN_TESTS} more"] if len(told) > SHOWN_TESTS else []
    return [
        f"sandbox: {len(told)} times a test changed something outside of the workspace, and its container was replaced",
        *(f"  {nodeid}: {changes}" for nodeid, changes in told[:SHOWN_TESTS]),
        *more,
        "  (do it in the image or in sandbox_baseline, or see `tolerated` and `isolation` in the settings)",
    ]


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


def without_secrets(report: Report) -> Report:
    """Mask secrets in all that a report shows, captured output included, and junit files after it."""
    if any_known():
        report.longrepr = _without_secrets(report.longrepr)
        report.sections = _without_secrets(report.sections)
    return report


def _without_secrets(part: Any) -> Any:
    """Mask them in what pytest keeps a report in: texts, lists and tuples of texts, objects with such fields."""
    if isinstance(part, str):
        return masked(part)
    if type(part) in (list, tuple):
        return type(part)(map(_without_secrets, part))
    if hasattr(part, "toterminal"):
        for name, value in vars(part).items():
            setattr(part, name, _without_secrets(value))
    return part


def explained_comparison(operator: str, left: object, right: object) -> list[str] | None:
    """Explain path by path why two changes, or sets of their paths, are not equal; None if it is about something else.

    What came from a sandbox is safe to print here.
    """
    if operator != "==" or "pytest_sandbox.changes" not in sys.modules:
        return None  # nobody has asked for changes yet, so neither side can have come from there
    from .changes import Changes, PathSet

    sides = left, right
    of_changes = all(isinstance(side, Changes) for side in sides)
    of_paths = all(isinstance(side, Set) for side in sides) and any(isinstance(side, PathSet) for side in sides)
    if not of_changes and not of_paths:
        return None
    one, other = map(_by_line, sides)
    told, expected = (one, other) if any(one.values()) or not any(other.values()) else (other, one)
    surprises = [change or line for line, change in told.items() if line not in expected]
    explanation = [f"{_cut(left)} == {_cut(right)}"]
    explanation += [f"not expected: {surprise}" for surprise in surprises]
    explanation += [f"expected, but not so: {line}" for line in expected if line not in told]
    for surprise in surprises:
        if not isinstance(surprise, str):
            explanation += surprise.diff.splitlines()
    return explanation


def _cut(side: object) -> str:
    text = repr(side)
    return text if len(text) <= SIDE_WIDTH else f"{text[: SIDE_WIDTH - 3]}..."


def _by_line(side: object) -> dict[str, Change | None]:
    """How each path is shown, and what is known of it."""
    from .changes import Changes, PathSet, shown_path

    if isinstance(side, Changes):
        kinds = (("added", side.added), ("modified", side.modified), ("removed", side.removed))
        return {f"{kind} {line}": change for kind, paths in kinds for line, change in _by_line(paths).items()}
    if isinstance(side, PathSet):
        return {shown_path(path): side.details.get(path) for path in side}
    paths = side if isinstance(side, Set) else ()
    return {shown_path(path) if isinstance(path, str) else repr(path): None for path in sorted(paths, key=repr)}


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

"""What the report of a failed test tells of its sandboxes: last operations, services, workspaces. --sandbox-report."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pytest

from .configuration import ReportPolicy
from .errors import TAIL_LINES, TAIL_WIDTH, SandboxError
from .secret import masked
from .settings import RUN
from .workers import pool_of, uses_sandboxes

if TYPE_CHECKING:
    from .core.events import Event
    from .core.pool import SandboxPool
    from .core.sandbox import SandboxCore

logger = logging.getLogger(__name__)

NAME = "sandbox_failures"  # of the plugin that is there unless nothing is to be told
COMMANDS, SERVICES, CHANGES = "sandbox commands", "sandbox service log", "sandbox workspace changes"
SHOWN_SANDBOXES = 4
SECTION_SIZE = 8000  # characters of a section, of which the last are kept
LOG_LINES = 20
SHOWN_CHANGES = 20
DIFF_LINES = 40
CHANGES_BOUND = 3.0  # seconds; a workspace that takes longer to look at is not worth the waiting
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def register(config: pytest.Config) -> None:
    """Begin to tell of failed tests, if the run is to."""
    if config.stash[RUN].report is not ReportPolicy.NEVER:
        config.pluginmanager.register(FailureReports(), NAME)


class FailureReports:
    """Adds sections to the report of a failed test, and properties of like names to its junit file."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not report.failed or not uses_sandboxes(item.config):
            return report
        over = report.when == "teardown"  # the sandboxes of the test itself are given back
        for title, text in _sections(pool_of(item.config), item.nodeid, over=over).items():
            report.sections.append((title, text))
            # Junit files take those of the test's last report, which is made from the item unless it is this one.
            for properties in (item.user_properties, report.user_properties if over else []):
                properties.append((title.replace(" ", "_"), text))
        return report


def _sections(pool: SandboxPool, test: str, *, over: bool) -> dict[str, str]:
    """What there is to tell, by title."""
    from .loop import run

    try:
        told = run(_told(pool, test, over=over))
    except Exception as error:  # the test's own failure is what matters: this must not take its place
        logger.warning("report.failed test=%s", test, exc_info=error)
        return {COMMANDS: f"what the sandboxes did can't be told: {error!r}"}
    return {title: _bounded(masked("\n".join(blocks))) for title, blocks in told.items()}


async def _told(pool: SandboxPool, test: str, *, over: bool) -> Mapping[str, list[str]]:
    told: dict[str, list[str]] = defaultdict(list)
    operations = pool.recent.of_test(test) if pool.recent is not None else {}
    for name in list(operations)[-SHOWN_SANDBOXES:]:
        told[COMMANDS] += [f"{name}:", *(line for pair in operations[name] for line in _operation(*pair))]
        sandbox = None if over else pool.leased(name)
        if sandbox is None or sandbox.lost:
            continue
        if sandbox.has_service:
            told[SERVICES] += await _service(sandbox)
        if changed := await _changed(sandbox):
            told[CHANGES] += [f"{name}:", *changed]
    return told


def _operation(start: Event, finish: Event | None) -> list[str]:
    """One operation in a line, and the end of what a command has written."""
    facts = {} if finish is None else finish.facts
    if finish is None or finish.duration is None:
        end = "has not ended"
    elif "exit_code" in facts:
        end = f"exit code {facts['exit_code']}, {finish.duration:.2f} s"
    else:
        error = (finish.error or "").partition("\n")[0][:TAIL_WIDTH]
        end = f"{printable(error)}, {finish.duration:.2f} s" if error else f"{finish.duration:.2f} s"
    lines = [f"  {start.kind}{_arguments(start.facts)}: {end}"]
    if finish is not None and finish.outcome is not None and finish.outcome.value == "limit" and "exit_code" in facts:
        lines[0] += f", {printable((finish.error or '').partition(':')[0])}"
    for stream in ("stdout", "stderr"):
        written = str(facts.get(stream, "")).rstrip().splitlines()
        count = facts.get(f"{stream}_bytes")
        lines += [f"    {stream}, the end of {count} bytes:"] if len(written) > TAIL_LINES else []
        lines += [f"    {stream}:"] if 0 < len(written) <= TAIL_LINES else []
        lines += [f"      {printable(line)[:TAIL_WIDTH]}" for line in written[-TAIL_LINES:]]
    return lines


def _arguments(facts: Mapping[str, object]) -> str:
    """What an operation was called with: ` ls -l`, ` path=notes text=12 characters`."""
    shown = []
    for name, value in facts.items():
        if name == "command":
            shown.append(f"`{value}`")
        elif isinstance(value, Mapping):
            shown += [f"{name}={size} {unit}" for unit, size in value.items()]
        else:
            shown.append(f"{name}={value}")
    return "".join(f" {printable(each)}" for each in shown)


async def _service(sandbox: SandboxCore) -> list[str]:
    service = sandbox.service
    end = "runs"
    if service.finished:
        how = service.exit
        end = "has ended" if how is None else f"has ended with exit code {how.exit_code} after {how.duration:.2f} s"
    log = await service.log()
    lines = [printable(line)[:TAIL_WIDTH] for line in log.text.rstrip().splitlines()]
    heading = f"{sandbox.name}: `{printable(' '.join(service.command))}` {end}; it wrote {log.total_bytes} bytes"
    return [heading + (", at last:" if lines else ""), *(f"  {line}" for line in lines[-LOG_LINES:])]


async def _changed(sandbox: SandboxCore) -> list[str]:
    """What differs from what the test began with; or why that can't be told."""
    import asyncio  # every pytest run loads this module

    asking = asyncio.create_task(sandbox.changes(), name=f"changes of {sandbox.name}")
    done, _ = await asyncio.wait([asking], timeout=CHANGES_BOUND)
    if not done:
        asking.cancel()  # its clean-up has bounds of its own, and nobody waits for it
        return [f"  not known: looking took more than {CHANGES_BOUND:g} s"]
    try:
        changes = list(asking.result())
    except SandboxError as error:
        return [f"  not known: {printable(str(error).partition(chr(10))[0])}"]
    lines = [f"  {change}" for change in changes[:SHOWN_CHANGES]]
    lines += [f"  and {len(changes) - SHOWN_CHANGES} more"] if len(changes) > SHOWN_CHANGES else []
    diff: list[str] = []
    for change in changes[:SHOWN_CHANGES]:
        if len(diff) <= DIFF_LINES:
            diff += change.diff.splitlines()
    lines += [f"  {line[:TAIL_WIDTH]}" for line in diff[:DIFF_LINES]]
    return [*lines, "  and more"] if len(diff) > DIFF_LINES else lines


def printable(text: object) -> str:
    """The text without colours, and with whatever else could move a cursor or end a line made visible."""
    line = _COLOUR.sub("", str(text)) if "\x1b" in str(text) else str(text)
    if line.isprintable():
        return line
    shown = (char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)
    return "".join(shown)


def _bounded(text: str) -> str:
    return text if len(text) <= SECTION_SIZE else f"(cut) …\n{text[-SECTION_SIZE:]}"

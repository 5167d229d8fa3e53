"""Recordings of the terminals of tests, kept of those that fail or of all: --sandbox-record."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .configuration import RecordPolicy
from .errors import shown
from .folders import PRIVATE
from .settings import RUN

if TYPE_CHECKING:
    from .core.recording import Recording

logger = logging.getLogger(__name__)

NAME = "sandbox_recordings"  # of the plugin that is there when anything is recorded
SECTION = "sandbox recordings"  # of a failed test's report
LONGEST_NAME = 100  # characters, of which a file system takes 255 bytes


def register(config: pytest.Config) -> None:
    """Begin to record, if the run is to."""
    run = config.stash[RUN]
    if run.record is not RecordPolicy.OFF:
        config.pluginmanager.register(Recordings(run.record, config.rootpath / run.recordings), NAME)


def recordings_of(config: pytest.Config) -> Recordings | None:
    plugin = config.pluginmanager.get_plugin(NAME)
    return plugin if isinstance(plugin, Recordings) else None


class Recordings:
    """Belongs each terminal to the test that runs when it is opened, whatever sandbox it is in."""

    def __init__(self, policy: RecordPolicy, folder: Path) -> None:
        self._policy = policy
        self._folder = folder
        self._test = ""  # node id
        self._made: dict[str, list[Recording]] = defaultdict(list)
        self._failed: set[str] = set()

    def record(
        self, command: str | Sequence[str], rows: int, columns: int, environment: Mapping[str, str]
    ) -> Recording:
        """Begin the recording of a terminal. Of its environment only TERM goes in: the rest may hold secrets."""
        from .core.recording import Recording

        kept = {name: value for name, value in environment.items() if name == "TERM"}
        recording = Recording(rows, columns, command=shown(command), title=self._test, environment=kept)
        self._made[self._test].append(recording)
        return recording

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._test = item.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # Once when it fails, for its report, and once more with what its fixtures' end added.
        over = report.when == "teardown"
        if report.failed:
            self._failed.add(item.nodeid)
        wanted = item.nodeid in self._failed or (over and self._policy is RecordPolicy.ALL)
        if wanted and (report.failed or over) and (lines := self._save(item.nodeid)) and report.failed:
            report.sections.append((SECTION, "\n".join(lines)))
        if over:
            self._made.pop(item.nodeid, None)
            self._failed.discard(item.nodeid)
        return report

    def _save(self, test: str) -> list[str]:
        """Write a test's recordings and return a line for each: its path, or why it could not be written."""
        lines = []
        for number, recording in enumerate(self._made.get(test, ()), start=1):
            path = self._folder / f"{file_name(test)}-{number}.cast"
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
                recording.save(path)
                lines.append(str(path))
            except OSError as error:
                # The test's own failure is what matters; nobody is to see this one in its place.
                logger.warning("recording.save.failed path=%s reason=%s", path, error)
                lines.append(f"{path} could not be written: {error.strerror}")
        return lines


def file_name(test: str) -> str:
    """Return a name for files of a test: readable, safe on every file system, and no other test's."""
    readable = re.sub(r"[^A-Za-z0-9_.]+", "_", test).strip("._")[:LONGEST_NAME]
    return f"{readable}-{hashlib.sha256(test.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"

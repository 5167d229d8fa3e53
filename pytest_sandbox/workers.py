"""What belongs to a process of the run: each xdist worker has sandboxes of its own, and the controller none.

Nothing is shared here: images and the agent's volume are, under file locks, by the engine. A worker that is killed
takes its sandboxes with it, as their streams end.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .configuration import ReportPolicy
from .errors import InfrastructureError
from .folders import PRIVATE_FILE
from .recordings import recordings_of
from .settings import RUN

if TYPE_CHECKING:
    from .core.events import Journal
    from .core.pool import SandboxPool
    from .core.recent import Recent
    from .keeping import BaselineKeeper

POOL = pytest.StashKey["SandboxPool"]()
KEEPER = pytest.StashKey["BaselineKeeper"]()
SHARED = pytest.StashKey[set[str]]()  # names of sandboxes that are of a wider scope than a test
MESSAGES = pytest.StashKey[dict[str, str]]()


def pool_of(config: pytest.Config) -> SandboxPool:
    """Return this process's pool, made on first use; it is closed when pytest ends, if not before."""
    if POOL not in config.stash or config.stash[POOL].is_parents:  # as in plugins that fork for each test
        from .core.pool import SandboxPool
        from .core.recent import Recent
        from .engines.discovery import find_engine

        tell, show = partial(notify, config), ProgressLine(config).show
        pool = SandboxPool(partial(find_engine, config.stash[RUN].engine), config.stash[RUN], tell, show)
        if (recordings := recordings_of(config)) is not None:
            pool.recorder = recordings.record
        pool.recent = Recent() if config.stash[RUN].report is not ReportPolicy.NEVER else None
        pool.journal = _journal_of(config, pool.recent)
        config.stash[POOL] = pool
        config.add_cleanup(lambda: close_pool(config, pool))
    return config.stash[POOL]


def close_pool(config: pytest.Config, pool: SandboxPool) -> None:
    """Close it; of what could not be removed tell, and blame no test: the last one is innocent of a lost engine."""
    from .loop import run

    try:
        run(pool.close())
    except InfrastructureError as error:
        notify(config, f"left for the next run to remove: {str(error).splitlines()[0]}")


def _journal_of(config: pytest.Config, recent: Recent | None) -> Journal | None:
    """Return what is told of operations: to the file of events, and to who remembers them for reports."""
    from .core.events import Journal, JsonLines, log

    if not config.stash[RUN].events:
        return None if recent is None else Journal(memory=recent)
    lines = JsonLines(_events_file(config))
    config.add_cleanup(lines.close)  # after the pool's, which was added later
    return Journal(lines, log, *([] if recent is None else [recent]))


def begin_events(config: pytest.Config) -> None:
    """Empty the file of events. Before the workers, which append to it, exist: the controller does it for all."""
    if not config.stash[RUN].events or is_worker(config):
        return
    file = _events_file(config)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(PRIVATE_FILE)
        file.write_bytes(b"")
    except OSError as error:
        raise pytest.UsageError(f"--sandbox-events: {file}: {error.strerror}") from None


def _events_file(config: pytest.Config) -> Path:
    return config.rootpath / Path(config.stash[RUN].events).expanduser()


def keeper_of(config: pytest.Config) -> BaselineKeeper:
    """Return what this process keeps baselines with, made on first use; the workers of a run are one run to it."""
    if KEEPER not in config.stash:
        from .core.store import DAY, Store
        from .keeping import BaselineKeeper

        run = config.stash[RUN]
        tell = partial(notify, config)
        store = Store(
            _store_folder(config, run.store), tell, size_limit=run.store_size, unused_limit=run.store_days * DAY
        )
        identity = config.workerinput["testrunuid"] if is_worker(config) else uuid.uuid4().hex  # type: ignore[attr-defined]
        keeper = BaselineKeeper(pool_of(config), store, identity, tell, refresh=run.refresh)
        config.stash[KEEPER] = keeper
    return config.stash[KEEPER]


def close_keeper(config: pytest.Config) -> None:
    """Let go of kept baselines, if any were used, while the engine can still be asked."""
    if (keeper := config.stash.get(KEEPER, None)) is not None:
        keeper.close()


def _store_folder(config: pytest.Config, chosen: str) -> Path:
    if chosen == "none":
        from .engines.heir import temporary_folder

        removed = ExitStack()
        config.add_cleanup(removed.close)
        return removed.enter_context(temporary_folder())
    if chosen:
        return config.rootpath / Path(chosen).expanduser()
    from .core.store import default_folder

    return default_folder()


def notify(config: pytest.Config, message: str) -> None:
    """Write a line where people see it at once, whatever is captured at the moment; callable from any thread."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        if reporter is not None and not is_worker(config):
            reporter.ensure_newline()
            reporter.write_line(f"sandbox: {message}", flush=True)
        else:  # a worker's reporter writes to nowhere, but its standard error is the controller's
            os.write(2, f"sandbox: {message}\n".encode(errors="replace"))


class ProgressLine:
    """One line of a terminal that says what a long call is at, and is gone when that is over. Nothing elsewhere.

    Callable from any thread.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.Lock()  # only one thread writes at a time
        self._shown = False

    def show(self, text: str) -> None:
        """Put the line in place of the last one; an empty one takes it away."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with self._lock, capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            if not os.isatty(2) or not (text or self._shown):
                return
            reporter = self._config.pluginmanager.getplugin("terminalreporter")
            if not self._shown and reporter is not None and not is_worker(self._config):
                reporter.ensure_newline()
                reporter.flush()
            columns = shutil.get_terminal_size().columns - 1  # a line that is full would begin another one
            line = f"sandbox: {text}"[:columns] if text else ""
            os.write(2, b"\r\x1b[K" + line.encode(errors="replace"))
            self._shown = bool(text)


def uses_sandboxes(config: pytest.Config) -> bool:
    """Say whether anything in this process has asked for the pool."""
    return POOL in config.stash


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workeroutput")


def send_to_controller(config: pytest.Config, name: str, message: str) -> None:
    """Leave a text for the controller; xdist brings it over when the worker ends."""
    config.workeroutput[f"sandbox_{name}"] = message  # type: ignore[attr-defined]  # xdist's documented way


def receive_from_worker(node: object) -> None:
    """Keep a worker's texts for the controller. A worker that crashed has sent none."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    received = config.stash.setdefault(MESSAGES, {})
    received.update(getattr(node, "workeroutput", None) or {})


def message_from_workers(config: pytest.Config, name: str) -> str | None:
    return config.stash.get(MESSAGES, {}).get(f"sandbox_{name}")

"""What belongs to a process of the run: each xdist worker has sandboxes of its own, and the controller none.

Nothing is shared here: images and the agent's volume are, under file locks, by the engine. A worker that is killed
takes its sandboxes with it, as their streams end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .recordings import recordings_of
from .settings import RUN

if TYPE_CHECKING:
    from .core.pool import SandboxPool

POOL = pytest.StashKey["SandboxPool"]()
MESSAGES = pytest.StashKey[dict[str, str]]()


def pool_of(config: pytest.Config) -> SandboxPool:
    """Return this process's pool, made on first use; it is closed when pytest ends, if not before."""
    if POOL not in config.stash:
        from .core.pool import SandboxPool
        from .engines.discovery import find_engine
        from .loop import run

        pool = SandboxPool(find_engine, config.stash[RUN])
        if (recordings := recordings_of(config)) is not None:
            pool.recorder = recordings.record
        config.stash[POOL] = pool
        config.add_cleanup(lambda: run(pool.close()))
    return config.stash[POOL]


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

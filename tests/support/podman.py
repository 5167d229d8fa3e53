"""Podman, as the engine of a whole run of tests: SANDBOX_TEST_ENGINE=podman."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_sandbox.engines.addresses import podman_service
from pytest_sandbox.engines.companions import CompanionFailed, companion

# Written by scripts/engine.py where the machine's own configuration runs no container.
CONFIGURATION = Path(__file__).parents[2] / ".venv" / "containers.conf"
SECONDS = 60


def use_podman() -> None:
    """Let DOCKER_HOST name Podman's service, here and in all that this process starts. It ends with them."""
    if shutil.which("podman") is None:
        raise pytest.UsageError(
            "SANDBOX_TEST_ENGINE=podman, and there is no podman; `make test PODMAN=no` does without"
        )
    if CONFIGURATION.exists():
        os.environ.setdefault("CONTAINERS_CONF", str(CONFIGURATION))
    try:
        os.environ["DOCKER_HOST"] = f"unix://{companion(podman_service().command, SECONDS)}"
    except CompanionFailed as error:
        raise pytest.UsageError(f"Podman's service: {error}") from error

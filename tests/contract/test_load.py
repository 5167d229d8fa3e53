"""Not a byte is lost on a busy machine: docker-py's own exec loses whole outputs there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pytest_sandbox.engines.base import Engine
from pytest_sandbox.faces import Sandbox
from pytest_sandbox.models import SandboxSettings

RUNS = 1000


@pytest.fixture
def full_load() -> Iterator[None]:
    """Two busy processes for each CPU."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for process in busy:
        process.kill()
        process.wait()


def test_every_one_of_a_thousand_outputs_arrives(sandbox: Sandbox, full_load: None) -> None:
    outputs = [bytes(sandbox.exec(["echo", "hi"]).stdout) for _ in range(RUNS)]

    assert outputs.count(b"hi\n") == RUNS


def test_an_output_that_follows_the_attach_at_once_arrives(
    engine: Engine, settings: SandboxSettings, full_load: None
) -> None:
    """The first bytes of a new stream are those that a client which reads its engine's header greedily loses."""
    for _ in range(5):
        with Sandbox.create(settings, engine) as fresh:
            assert fresh.exec(["echo", "hi"]).stdout == b"hi\n"

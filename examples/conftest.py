"""What all examples share: the image. Each suite stands on its own otherwise; copy its folder and change it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_sandbox import SandboxSettings

# Some suites need git, gcc and make, which the slim default image lacks; the full image of the same release has them.
FULLER = {"python:3.13-slim": "python:3.13"}

# Files that are put into sandboxes, tests among them: not for the pytest that runs here.
collect_ignore_glob = ["*/project/*", "*/task/*", "*/candidates/*"]


@pytest.fixture(scope="session")
def sandbox_settings(sandbox_settings: SandboxSettings) -> SandboxSettings:
    """The settings of the run, with an image that has what the examples need."""
    return replace(sandbox_settings, image=FULLER.get(sandbox_settings.image, sandbox_settings.image))

"""The build hook of hatchling: a wheel, editable or not, carries the agent for every architecture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AgentBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # the configuration it is generic over is hatchling's own
    """Compile what is out of date. The files are artifacts (pyproject.toml), for git does not know them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        # By path: to import the package takes what it depends on, and an isolated build has only hatchling and zig.
        path = Path(self.root, "pytest_sandbox", "agent", "build.py")
        specification = importlib.util.spec_from_file_location("agent_build", path)
        assert specification is not None
        assert specification.loader is not None
        build = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(build)
        build.build()

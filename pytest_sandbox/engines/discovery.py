"""Which engines there are, and which one to use. Faces and fixtures look here; core takes the engine it is given."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Engine

# name → a coroutine function without arguments that returns the engine, as `module:object`: imported when it is asked
# for, because an engine's client may take longer to import than all the rest of a pytest run.
ENGINES = {
    "docker": "pytest_sandbox.engines.docker:DockerEngine.from_environment",
}
DEFAULT_ENGINE = "docker"


async def find_engine(name: str = DEFAULT_ENGINE) -> Engine:
    """Return an engine that answered, within 3 s. Raises EngineNotReachable, EnginePermissionDenied, EngineTimeout."""
    engine: Engine = await resolve_name(ENGINES[name])()
    return engine

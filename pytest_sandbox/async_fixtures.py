"""The fixtures of fixtures.py for tests that are coroutines: each is the other face of the same sandbox.

They are plain fixtures, so they work in pytest-asyncio's both modes, with every scope of fixture and of event loop, and
beside the blocking ones: `sandbox` and `async_sandbox` of one test are one session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .async_faces import AsyncSandbox
    from .faces import Sandbox


class AsyncSandboxFactory:
    """Makes any number of sandboxes, each at the baseline and on its own; all end with the fixture's scope."""

    def __init__(self, factory: Callable[..., Sandbox]) -> None:
        self._factory = factory

    async def __call__(self, **overrides: object) -> AsyncSandbox:
        """Return a sandbox; the keywords are those of the marker, and win over it. Raises InvalidSetting."""
        import asyncio  # every pytest run loads this module

        # In a thread: a factory that a user has put in the place of ours blocks as well.
        return _other_face(await asyncio.to_thread(self._factory, **overrides))


def _other_face(sandbox: Sandbox) -> AsyncSandbox:
    from .async_faces import AsyncSandbox

    return AsyncSandbox(sandbox._core)


@pytest.fixture
def async_sandbox_factory(sandbox_factory: Callable[..., Sandbox]) -> AsyncSandboxFactory:
    """Await it for further sandboxes, `await async_sandbox_factory(memory="512m")`: as sandbox_factory makes them."""
    return AsyncSandboxFactory(sandbox_factory)


@pytest.fixture
def async_sandbox(sandbox: Sandbox) -> AsyncSandbox:
    """The test's own sandbox, its operations awaited."""
    return _other_face(sandbox)


@pytest.fixture(scope="class")
def async_class_sandbox(class_sandbox: Sandbox) -> AsyncSandbox:
    """The sandbox of the test's class, its operations awaited."""
    return _other_face(class_sandbox)


@pytest.fixture(scope="module")
def async_module_sandbox(module_sandbox: Sandbox) -> AsyncSandbox:
    """The sandbox of the test's module, its operations awaited."""
    return _other_face(module_sandbox)


@pytest.fixture(scope="package")
def async_package_sandbox(package_sandbox: Sandbox) -> AsyncSandbox:
    """The sandbox of the test's package, its operations awaited."""
    return _other_face(package_sandbox)


@pytest.fixture(scope="session")
def async_session_sandbox(session_sandbox: Sandbox) -> AsyncSandbox:
    """The sandbox of the run, its operations awaited."""
    return _other_face(session_sandbox)

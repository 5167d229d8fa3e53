from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import pytest_sandbox
from pytest_sandbox.async_faces import AsyncProcess, AsyncProcessOutput, AsyncSandbox, AsyncService, AsyncTerminal
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.errors import SandboxClosed, SandboxError
from pytest_sandbox.faces import Process, ProcessOutput, Sandbox, Service, Terminal, blocking, blocking_iterator


class Core:
    async def greet(self, name: str, *, loudly: bool = False) -> str:
        """Greet somebody."""
        return f"hello {name}{'!' * loudly}"

    async def fail(self) -> None:
        await self._deeper()

    async def _deeper(self) -> None:
        raise SandboxClosed("box")

    async def stumble(self) -> None:
        raise LookupError("a defect of ours")

    async def count(self, upto: int) -> AsyncGenerator[int, None]:
        for number in range(upto):
            yield number
        raise SandboxClosed("box")


class Face:
    def __init__(self) -> None:
        self._core = Core()

    greet = blocking(Core.greet)
    fail = blocking(Core.fail)
    stumble = blocking(Core.stumble)
    count = blocking_iterator(Core.count)


def test_a_blocking_method_returns_the_cores_result() -> None:
    assert Face().greet("world", loudly=True) == "hello world!"


def test_a_blocking_method_has_the_cores_signature_and_docstring() -> None:
    assert str(inspect.signature(Face().greet)) == "(name: 'str', *, loudly: 'bool' = False) -> 'str'"
    assert Face().greet.__doc__ == Face.greet.__doc__ == "Greet somebody."


def test_the_class_shows_the_cores_signature_too() -> None:
    assert list(inspect.signature(Face.greet).parameters) == ["self", "name", "loudly"]
    assert "exec(self, command" in pydoc.plain(pydoc.render_doc(Sandbox.exec))


def test_an_iterator_yields_what_the_core_yields_and_raises_its_error() -> None:
    iterator = Face().count(2)

    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(SandboxClosed):
        next(iterator)


def test_an_error_of_ours_shows_none_of_our_frames() -> None:
    with pytest.raises(SandboxError) as caught:
        Face().fail()

    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_an_error_of_ours_shows_none_of_our_frames"]


def test_an_error_of_another_kind_keeps_its_frames() -> None:
    with pytest.raises(LookupError) as caught:
        Face().stumble()

    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "stumble"


def test_every_operation_of_the_core_is_on_the_face() -> None:
    operations = {
        name
        for name, member in inspect.getmembers(SandboxCore)
        if not name.startswith("_") and (inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member))
    }

    inner = {"create", "close_ports", "console", "look_outside", "watch_outside"}
    inner |= {"begin_service", "end_forks", "end_lease", "end_service"}
    assert operations - inner <= set(vars(Sandbox))


ONLY_BLOCKING = {"__enter__", "__exit__", "__iter__"}
ONLY_AWAITED = {"__aenter__", "__aexit__", "__aiter__"}


@pytest.mark.parametrize(
    ("face", "other"),
    [
        (Sandbox, AsyncSandbox),
        (Process, AsyncProcess),
        (ProcessOutput, AsyncProcessOutput),
        (Service, AsyncService),
        (Terminal, AsyncTerminal),
    ],
)
def test_both_faces_have_the_same_members_with_the_same_signatures(face: type, other: type) -> None:
    members = {name: getattr(face, name) for name in vars(face) if name not in ONLY_BLOCKING}
    awaited = {name: getattr(other, name) for name in vars(other) if name not in ONLY_AWAITED}

    assert members.keys() == awaited.keys()
    for name, member in members.items():
        if callable(member) and not name.startswith("__"):
            assert inspect.signature(member) == inspect.signature(awaited[name]), name


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(pytest_sandbox.__file__).read_text())
    seen = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert set(pytest_sandbox.__all__) == seen - {None}
    assert all(hasattr(pytest_sandbox, name) for name in pytest_sandbox.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pytest_sandbox.nothing


def test_importing_the_package_imports_no_engine_and_no_loop() -> None:
    script = """
import sys, pytest_sandbox
print([name for name in sys.modules if name in ("docker", "asyncio") or name.startswith("pytest_sandbox.")])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

    assert ended.stdout == "[]\n"

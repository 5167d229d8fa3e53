"""An engine without containers: the agent as a plain subprocess on the machine that runs the tests.

It keeps the promises of the contract suite as the real engines do, in milliseconds. Commands run on this machine, as
this user.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pytest_sandbox.agent.binaries import agent_binary
from pytest_sandbox.engines.base import Started
from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.errors import EngineRequestFailed, NotOurs
from pytest_sandbox.models import (
    Container,
    EngineDescription,
    EngineFacts,
    FoundSandbox,
    ImageProgram,
    KeptSandbox,
    RootChange,
    SandboxSettings,
    StoredImage,
)

EVIDENCE_BYTES = 4096
READ_BYTES = 256 * 1024
END_BOUND = 5.0  # seconds that an agent may take to end after its input did


def agent_path() -> Path:
    """The agent under test: SANDBOX_TEST_AGENT, a build with sanitizers say, or the one that is installed."""
    chosen = os.environ.get("SANDBOX_TEST_AGENT")
    return Path(chosen) if chosen else agent_binary(platform.machine()).path


class PipeStream:
    """The stream to a subprocess; its standard error goes to an unlinked file, so nobody has to drain it."""

    def __init__(self, process: Process, stderr: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output, self._stderr = process.stdin, process.stdout, stderr
        self._closed = False
        self._last_words = ""

    async def read(self) -> bytes:
        return b"" if self._closed else await self._output.read(READ_BYTES)

    async def write(self, chunk: bytes) -> None:
        try:
            self._input.write(chunk)
            await self._input.drain()
        except ConnectionError as error:
            raise BrokenPipeError(str(error)) from error

    def evidence(self) -> str:
        if self._stderr.closed:
            return self._last_words
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), EVIDENCE_BYTES, max(0, size - EVIDENCE_BYTES)).decode(errors="replace")

    def close(self) -> None:
        self._closed = True
        self._input.close()

    def finish(self) -> None:
        """Keep the evidence and let go of its file; the agent has ended."""
        self.close()
        self._last_words = self.evidence()
        self._stderr.close()


@dataclass
class SubprocessEngine:
    """An Engine. agent: the program that it starts, as argv. environment: what it and its commands inherit.

    program: what its image, if it had one, would run.
    """

    agent: tuple[str, ...] = field(default_factory=lambda: (str(agent_path()),))
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    program: ImageProgram = field(default_factory=ImageProgram)
    names: dict[str, str] = field(default_factory=dict)  # of agents not yet removed, each with its container's id
    identities: dict[str, str] = field(default_factory=dict)  # by id
    created_kept: set[str] = field(default_factory=set)  # identities
    _joined: dict[str, list[tuple[Process, PipeStream]]] = field(default_factory=dict)
    _agents: dict[str, tuple[Process, PipeStream]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress: Callable[[str], None] = print  # nothing here takes long
        self.notify: Callable[[str], None] = print

    async def describe(self) -> EngineDescription:
        kernel, machine, cores = platform.release(), platform.machine(), os.cpu_count() or 1
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return EngineDescription("subprocess", kernel, "localhost", machine, "subprocess", cores, memory)

    async def ensure_image(self, settings: SandboxSettings) -> str:
        return "none"

    async def start(self, settings: SandboxSettings, name: str, *, identity: str = "", keep: bool = False) -> Started:
        process, stream = await self._spawn(*(["stay"] if keep else []))
        container = Container(str(process.pid), name, "none", "none", "", self.program)
        self._agents[container.id] = process, stream
        self.names[name] = container.id
        self.identities[container.id] = identity
        if keep:
            self.created_kept.add(identity)
        return Started(container, stream)

    async def rejoin(self, kept: KeptSandbox) -> Started | None:
        if kept.id not in self._agents or self._agents[kept.id][0].returncode is not None:
            return None
        if self.identities.get(kept.id) != kept.identity:
            raise NotOurs(kept.name)
        process, stream = await self._spawn("join", kept.id)
        self._joined.setdefault(kept.id, []).append((process, stream))
        return Started(Container(kept.id, kept.name, "none", "none", ""), stream)

    async def kept(self) -> list[KeptSandbox]:
        names = {container: name for name, container in self.names.items()}
        return [
            KeptSandbox(each, names[each], "none", identity)
            for each, identity in self.identities.items()
            if self._stays(identity)
        ]

    async def facts(self) -> EngineFacts:
        return EngineFacts("", "", "", "", "", (), (), ())

    async def leftovers(self, unused: float, *, remove: bool) -> list[str]:
        return []

    async def sandboxes(self) -> list[FoundSandbox]:
        return []  # nobody else can see them

    async def _spawn(self, *arguments: str) -> tuple[Process, PipeStream]:
        with ExitStack() as undo:
            stderr = undo.enter_context(tempfile.TemporaryFile())
            process = await asyncio.create_subprocess_exec(
                *self.agent,
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                env=self.environment,
                limit=READ_BYTES * 4,
            )
            undo.pop_all()
        return process, PipeStream(process, stderr)

    async def alive(self, container: Container) -> bool:
        return container.id in self._agents and self._agents[container.id][0].returncode is None

    async def post_mortem(self, container: Container) -> str:
        if container.id not in self._agents:
            return "removed"
        try:
            async with asyncio.timeout(END_BOUND):
                status = await self._agents[container.id][0].wait()
        except TimeoutError:
            return "running"
        return f"exit code {status}" if status >= 0 else f"killed by signal {-status}"

    async def changes(self, container: Container) -> list[RootChange]:
        return []  # its sandboxes are this machine

    async def remove(self, container: Container) -> None:
        self.names.pop(container.name, None)
        if container.id not in self._agents:
            return
        process, stream = self._agents.pop(container.id)
        stream.close()
        if self._stays(self.identities.pop(container.id, "")):
            _kill(process)  # it stays without a stream
        for joined, lent in self._joined.pop(container.id, []):
            lent.close()
            _kill(joined)
            await joined.wait()
            lent.finish()
        try:
            async with asyncio.timeout(END_BOUND):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        finally:
            stream.finish()

    def _stays(self, identity: str) -> bool:
        return identity in self.created_kept or KeptNotes().find(identity) is not None

    async def commit(self, container: Container, name: str, labels: Mapping[str, str]) -> str:
        raise EngineRequestFailed("commit", container.name, "there are no images here")

    async def images(self, label: str) -> list[StoredImage]:
        return []

    async def remove_image(self, image: str) -> None:
        pass

    async def remove_unused_images(self, seconds: float) -> None:
        pass

    async def create_network(self, name: str) -> None:
        raise EngineRequestFailed("network create", name, "there are no networks here")

    async def connect(self, container: Container, network: str, name: str) -> None:
        raise EngineRequestFailed("network connect", container.name, "there are no networks here")

    async def disconnect(self, container: Container, network: str) -> None:
        pass

    async def remove_network(self, name: str) -> None:
        pass

    async def close(self) -> None:
        pass


def _kill(process: Process) -> None:
    try:
        process.kill()
    except ProcessLookupError:
        pass  # it has ended

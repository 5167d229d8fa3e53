"""The bars of sessions: coroutines, many sandboxes at once, a tree that goes in, an image that is there already."""

from __future__ import annotations

import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import docker

from pytest_sandbox import AsyncSandbox, Sandbox, SandboxSettings

from .measure import Figure, seconds
from .peer import Peer

CALLS = 300
COMMANDS = 1000
SANDBOXES = 16
FILES = 1000
LABEL = "pytest-sandbox.benchmark"

SUITE = """
def test_one(sandbox):
    assert sandbox.read_text("/what") == "built\\n"
"""


def figures(image: str) -> Iterator[Figure]:
    """All of them, in the order of the bars."""
    settings = SandboxSettings(image=image)
    with Sandbox.create(settings) as sandbox, Peer(image) as peer:
        yield from asyncio.run(_awaited(sandbox))
        yield _at_once(settings, image)
        yield _tree(sandbox, peer)
    yield from _second_run(image)


async def _awaited(sandbox: Sandbox) -> list[Figure]:
    """Both faces in turns: what else the machine does meanwhile then goes to both."""
    awaited = AsyncSandbox(sandbox._core)
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(CALLS):
        took[0].append(seconds(lambda: sandbox.exec(["true"])))
        begin = time.perf_counter()
        await awaited.exec(["true"])
        took[1].append(time.perf_counter() - begin)
    blocking, more = (statistics.median(each) * 1000 for each in took)
    begin = time.perf_counter()
    await asyncio.gather(*(awaited.exec(["true"], check=True) for _ in range(COMMANDS)))
    together = time.perf_counter() - begin
    return [
        Figure('what `await` adds to exec(["true"]), median', "ms", more - blocking, at_most=0.3),
        Figure(f"{COMMANDS} awaited `true` at once", "s", together, at_most=3),
    ]


def _at_once(settings: SandboxSettings, image: str) -> Figure:
    """Sixteen started together, ready for commands; the engine's own time is that of `docker run -d`."""

    async def ours() -> float:
        begin = time.perf_counter()
        sandboxes = await asyncio.gather(*(AsyncSandbox.create(settings) for _ in range(SANDBOXES)))
        took = time.perf_counter() - begin
        await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))
        return took

    def theirs() -> float:
        with ThreadPoolExecutor(SANDBOXES) as threads, ExitStack() as ends:
            # A client each: theirs can't be used by so many threads at a time.
            peers = list(threads.map(lambda _: Peer(image), range(SANDBOXES)))
            for peer in peers:
                ends.enter_context(peer)
            begin = time.perf_counter()
            containers = list(threads.map(Peer.new_container, peers))
            took = time.perf_counter() - begin
            list(threads.map(lambda container: container.remove(force=True, v=True), containers))
        return took

    pairs = [(asyncio.run(ours()), theirs()) for _ in range(3)]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Figure(f"{SANDBOXES} sandboxes started at once", "s", one, other, at_least_times=0.77)  # 1.3 times its time


def _tree(sandbox: Sandbox, peer: Peer) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            file = Path(folder, f"directory{number % 10}", f"file{number}.txt")
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"content {number}\n" * 100)

        def theirs() -> None:
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(folder, ".")
            archive.seek(0)
            peer.put("/workspace", archive)

        ours = seconds(lambda: sandbox.upload(Path(folder), "tree"))
        return Figure(f"upload of a tree of {FILES} files", "s", ours, seconds(theirs), at_most=1)


def _second_run(image: str) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "image")
        context.mkdir()
        label = f"{LABEL}={uuid.uuid4().hex}"
        (context / "Dockerfile").write_text(f"FROM {image}\nLABEL {label}\nRUN echo built > /what\n")
        Path(folder, "test_suite.py").write_text(SUITE)
        engine = docker.from_env()
        try:
            first, second = _building(folder), _building(folder)
        finally:
            for made in engine.images.list(filters={"label": label}):
                engine.images.remove(made.tags[0], force=True)
            engine.close()
    yield Figure("building an image, first run of a suite", "s", first)
    yield Figure("building an image, second run of a suite", "s", second, at_most=0)


def _building(folder: str) -> float:
    """The seconds that a run of the suite spent in builds."""
    log = Path(folder, "log")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--log-file=log",
        "--log-file-level=DEBUG",
    ]
    environment = os.environ | {"SANDBOX_IMAGE": "./image", "SANDBOX_PULL": "never"}
    subprocess.run([*command, "test_suite.py"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return sum(float(took) for took in re.findall(r"engine\.build\.done .* seconds=([\d.]+)", log.read_text()))

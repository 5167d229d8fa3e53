"""The bars of the main job: exec, files, concurrency, and what the fixture adds to a test."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_sandbox import Sandbox, SandboxSettings

from .measure import Figure, median_ms, seconds
from .peer import Peer

KIBIBYTE = 1024
MEBIBYTE = 1024 * 1024
LARGE = 64 * MEBIBYTE

SUITE = """
import pytest
from pytest_sandbox import Baseline

@pytest.fixture(scope="module")
def sandbox_baseline():
    return Baseline(files={f"directory{i % 10}/file{i}.txt": f"content {i}" for i in range(200)})

@pytest.mark.parametrize("number", range(COUNT))
def test_one(sandbox, number):
    sandbox.write_text("directory3/file3.txt", f"changed by {number}")
    assert sandbox.exec(["cat", "directory3/file3.txt"], check=True).stdout.text == f"changed by {number}"
"""

PEER_SUITE = """
import io, os, tarfile
import docker, pytest

@pytest.fixture(scope="session")
def client():
    return docker.from_env()

@pytest.fixture(scope="session")
def files():
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for i in range(200):
            content = f"content {i}".encode()
            member = tarfile.TarInfo(f"directory{i % 10}/file{i}.txt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()

@pytest.fixture
def container(client, files):
    container = client.containers.run(
        os.environ["SANDBOX_IMAGE"], ["sleep", "3600"], detach=True, network_mode="none", working_dir="/workspace"
    )
    container.put_archive("/workspace", files)
    yield container
    container.remove(force=True, v=True)

@pytest.mark.parametrize("number", range(COUNT))
def test_one(container, number):
    write = container.exec_run(["sh", "-c", f"printf %s 'changed by {number}' > directory3/file3.txt"])
    assert write.exit_code == 0
    assert container.exec_run(["cat", "directory3/file3.txt"]).output.decode() == f"changed by {number}"
"""


def figures(image: str) -> Iterator[Figure]:
    """All of them, in the order of the bars."""
    with Sandbox.create(SandboxSettings(image=image)) as sandbox, Peer(image) as peer:
        yield from _exec(sandbox, peer)
        yield from _small_files(sandbox, peer)
        yield from _large_files(sandbox, peer)
        yield _concurrency(sandbox)
    yield _per_test(image)


def _exec(sandbox: Sandbox, peer: Peer) -> Iterator[Figure]:
    ours = median_ms(lambda: sandbox.exec(["true"], check=True), 300)
    theirs = median_ms(lambda: peer.exec("true"), 30)
    yield Figure('exec(["true"]), median', "ms", ours, theirs, at_most=3, at_least_times=15)


def _small_files(sandbox: Sandbox, peer: Peer) -> Iterator[Figure]:
    content = os.urandom(KIBIBYTE)
    yield Figure(
        "write 1 KiB, median",
        "ms",
        median_ms(lambda: sandbox.write_bytes("small", content), 300),
        median_ms(lambda: peer.write("small", content), 30),
        at_most=3,
    )
    yield Figure(
        "read 1 KiB, median",
        "ms",
        median_ms(lambda: sandbox.read_bytes("small"), 300),
        median_ms(lambda: peer.read("small"), 30),
        at_most=2,
    )


def _large_files(sandbox: Sandbox, peer: Peer) -> Iterator[Figure]:
    content = os.urandom(LARGE)
    ours = [seconds(lambda: sandbox.write_bytes("large", content)) for _ in range(3)]
    theirs = [seconds(lambda: peer.write("large", content)) for _ in range(3)]
    yield Figure("write 64 MiB", "s", statistics.median(ours), statistics.median(theirs), at_most=0.7)
    ours = [seconds(lambda: sandbox.read_bytes("large")) for _ in range(3)]
    theirs = [seconds(lambda: peer.read("large")) for _ in range(3)]
    yield Figure("read 64 MiB", "s", statistics.median(ours), statistics.median(theirs), at_most=0.7)
    yield Figure("host memory while 64 MiB stream in and out", "MiB", _streaming_growth(sandbox.settings), at_most=16)


def _streaming_growth(settings: SandboxSettings) -> float:
    """By how much a fresh process's memory peaks while it streams a large file each way, in MiB (proc(5))."""
    script = f"""
import tempfile
from pathlib import Path
from pytest_sandbox import Sandbox, SandboxSettings

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

with Sandbox.create(SandboxSettings(image={settings.image!r})) as sandbox, tempfile.TemporaryFile() as source:
    source.truncate({LARGE})
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    sandbox.write_bytes("large", source)
    assert sum(len(chunk) for chunk in sandbox.read_chunks("large")) == {LARGE}
    print((memory("VmHWM") - before) / {MEBIBYTE})
"""
    return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def _concurrency(sandbox: Sandbox) -> Figure:
    def hundred() -> None:
        with ThreadPoolExecutor(100) as threads:
            for result in threads.map(lambda _: sandbox.exec(["sleep", "1"], check=True), range(100)):
                assert result.ok

    return Figure("100 concurrent `sleep 1`", "s", seconds(hundred), at_most=2)


def _per_test(image: str) -> Figure:
    ours = _marginal_ms(SUITE, image, few=1, many=101)
    theirs = _marginal_ms(PEER_SUITE, image, few=1, many=11)
    return Figure("a test: 200-file baseline, one exec, one changed file", "ms", ours, theirs, at_most=25)


def _marginal_ms(suite: str, image: str, *, few: int, many: int) -> float:
    """What one more test costs: the difference of two whole runs, in which start-up and report cancel out."""
    with tempfile.TemporaryDirectory() as folder:
        took = {}
        for count in (few, many):
            (Path(folder) / "test_suite.py").write_text(suite.replace("COUNT", str(count)))
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py"]
            begin = time.perf_counter()
            subprocess.run(
                command, cwd=folder, env=os.environ | {"SANDBOX_IMAGE": image}, check=True, stdout=subprocess.DEVNULL
            )
            took[count] = time.perf_counter() - begin
        return (took[many] - took[few]) / (many - few) * 1000

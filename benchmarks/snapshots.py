"""The bars of snapshots: what a reset costs by size and by change, persist and hydrate, and what 2,000 tests leave.

`python -m benchmarks snapshots --plot docs/reset-cost.png` draws the two curves.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker

from pytest_sandbox import Archive, Sandbox, SandboxSettings

from .measure import Figure, seconds
from .peer import Peer

if TYPE_CHECKING:
    from pytest_sandbox import Snapshot

MEBIBYTE = 1024 * 1024
SIZES = (100, 1_000, 10_000, 100_000)
CHANGES = (1, 10, 100, 1_000, 10_000)
PER_DIRECTORY = 100
TESTS = 2_000
WARM_UP = 100  # tests, after which nothing may grow any more

# 100,000 files of some bytes take more inodes than memory; the container's own limit counts their page cache too.
MEMORY = 4096 * MEBIBYTE


def figures(image: str) -> Iterator[Figure]:
    """All of them, in the order of the bars."""
    settings = SandboxSettings(image=image, memory=MEMORY)
    with Sandbox.create(settings) as sandbox:
        yield _reset_figure(sandbox, 200, 10_000, changed=1, at_most=8)
    yield from _ten_thousand(settings)
    yield from _hundred_thousand(settings)
    yield from _growth(settings)


# --- curves -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """Milliseconds of a reset by what is on the x axis."""

    title: str
    x: str
    points: tuple[tuple[int, float], ...]

    def table(self) -> str:
        head = "| " + self.x + " | " + " | ".join(f"{x:,}" for x, _ in self.points) + " |"
        rule = "|---" * (len(self.points) + 1) + "|"
        return "\n".join((head, rule, "| reset, ms | " + " | ".join(f"{y:.1f}" for _, y in self.points) + " |"))


def curves(image: str) -> Iterator[Curve]:
    """How a reset grows with the entries of the workspace, and with what a test changed of it."""
    settings = SandboxSettings(image=image, memory=MEMORY)
    by_size = []
    for count in SIZES:
        with Sandbox.create(settings) as sandbox:
            by_size.append((count, _reset_ms(sandbox, _filled(sandbox, count, 1024), 10)))
    yield Curve("10 files changed", "files in the workspace", tuple(by_size))
    with Sandbox.create(settings) as sandbox:
        snapshot = _filled(sandbox, 10_000, 10_000)
        by_change = [(changed, _reset_ms(sandbox, snapshot, changed, times=5)) for changed in CHANGES]
    yield Curve("10,000 files of 10 kB", "files changed", tuple(by_change))


def plot(found: list[Curve], path: Path) -> None:
    """Draw the curves side by side, both axes logarithmic."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(9, 3.6), layout="constrained")
    for axes, curve in zip(drawing.subplots(1, len(found), sharey=True), found, strict=True):
        axes.loglog([x for x, _ in curve.points], [y for _, y in curve.points], marker="o")
        for x, y in curve.points:
            axes.annotate(f"{y:.0f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
        axes.set_title(curve.title, fontsize=10)
        axes.set_xlabel(curve.x)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.margins(y=0.15)
    drawing.axes[0].set_ylabel("milliseconds of a reset")
    drawing.savefig(path, dpi=110)


# --- what is measured -------------------------------------------------------------------------------------------------


def _ten_thousand(settings: SandboxSettings) -> Iterator[Figure]:
    """10,000 files, 100 MB: reset, persist, hydrate, beside what the engine's own calls take for the same."""
    archive = _tree(10_000, 10_000)
    with Sandbox.create(settings) as sandbox, Peer(str(settings.image)) as peer:

        def wipe() -> None:
            peer.exec("sh", "-c", "rm -rf /workspace/*")

        peer_hydrate = [seconds(lambda: peer.untar("/workspace", archive.open()))]
        peer_persist = [seconds(lambda: peer.tar("/workspace")) for _ in range(3)]
        peer_reset = []
        for _ in range(3):
            peer_reset.append(1000 * (seconds(wipe) + seconds(lambda: peer.put("/workspace", archive.open()))))
            wipe()
            peer_hydrate.append(seconds(lambda: peer.untar("/workspace", archive.open())))
        hydrate = []
        for _ in range(4):
            sandbox.hydrate(Archive.build([]))
            hydrate.append(seconds(lambda: sandbox.hydrate(archive)))
        persist = [seconds(sandbox.persist) for _ in range(3)]
        reset = _reset_ms(sandbox, sandbox.snapshot(), 10)
    yield Figure(
        "reset, 10,000 files / 100 MB, 10 changed; peer: rm -rf, put_archive",
        "ms",
        reset,
        statistics.median(peer_reset),
        at_most=40,
        at_least_times=25,
    )
    yield Figure(
        "persist, 10,000 files / 100 MB; peer: get_archive",
        "s",
        statistics.median(persist),
        statistics.median(peer_persist),
        at_most=0.6,
        at_least_times=1,
    )
    yield Figure(
        "hydrate into an empty root, the same; peer: exec tar -x",
        "s",
        statistics.median(hydrate),
        statistics.median(peer_hydrate),
        at_least_times=1 / 0.9,
    )


def _hundred_thousand(settings: SandboxSettings) -> Iterator[Figure]:
    with Sandbox.create(settings) as sandbox:
        snapshot = _filled(sandbox, 100_000, 100)
        yield Figure("reset, 100,000 files, 10 changed", "ms", _reset_ms(sandbox, snapshot, 10), at_most=400)
        with _peak_of_agent(sandbox) as peak:
            _touch(sandbox, 10)
            sandbox.reset(snapshot)
        yield Figure("memory of the agent meanwhile, all its processes", "MiB", peak() / MEBIBYTE, at_most=64)


def _reset_figure(sandbox: Sandbox, count: int, size: int, *, changed: int, at_most: float) -> Figure:
    snapshot = _filled(sandbox, count, size)
    return Figure(
        f"reset, {count} files, {changed} changed", "ms", _reset_ms(sandbox, snapshot, changed), at_most=at_most
    )


def _growth(settings: SandboxSettings) -> Iterator[Figure]:
    """What is there after so many tests, each with a reset, that was not there after the first ones."""
    with Sandbox.create(settings) as sandbox:
        snapshot = _filled(sandbox, 200, 1024)
        before: dict[str, float] = {}
        for number in range(WARM_UP + TESTS):
            if number == WARM_UP:
                before = _held(sandbox)
            sandbox.exec(["sh", "-c", f"echo {number} > 00/new; mkdir -p deep/er; sleep 60 &"], check=True)
            sandbox.reset(snapshot)
        after = _held(sandbox)
    for what, unit, most in (
        ("memory of this process", "MiB", 1),
        ("open files of this process", "", 0),
        ("memory of the agent", "MiB", 0.5),
        ("open files of the agent", "", 0),
        ("containers, volumes and networks of the engine", "", 0),
    ):
        yield Figure(f"{TESTS:,} tests with a reset: growth of {what}", unit, after[what] - before[what], at_most=most)


def _held(sandbox: Sandbox) -> dict[str, float]:
    gc.collect()
    agent = _agent_pid(sandbox)
    client = docker.from_env()
    try:
        objects = len(client.containers.list(all=True)) + len(client.volumes.list()) + len(client.networks.list())
    finally:
        client.close()
    return {
        "memory of this process": _memory(os.getpid(), "VmRSS") / MEBIBYTE,
        "open files of this process": _open_files("self"),
        "memory of the agent": _memory(agent, "VmRSS") / MEBIBYTE,
        "open files of the agent": _open_files(agent),
        "containers, volumes and networks of the engine": objects,
    }


# --- workspaces -------------------------------------------------------------------------------------------------------


def _tree(count: int, size: int) -> Archive:
    """So many files of so many random bytes, a hundred in a directory."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            directory = Path(folder, f"{number // PER_DIRECTORY:02d}")
            if number % PER_DIRECTORY == 0:
                directory.mkdir()
            (directory / f"file-{number:06d}").write_bytes(os.urandom(size))
        return Archive.from_tree(Path(folder))


def _filled(sandbox: Sandbox, count: int, size: int) -> Snapshot:
    sandbox.hydrate(_tree(count, size))
    return sandbox.snapshot()


def _reset_ms(sandbox: Sandbox, snapshot: Snapshot, changed: int, *, times: int = 15) -> float:
    """The median of a reset after so many files were written anew, in milliseconds."""
    taken = []
    for _ in range(times):
        _touch(sandbox, changed)
        taken.append(seconds(lambda: sandbox.reset(snapshot)))
    return statistics.median(taken) * 1000


def _touch(sandbox: Sandbox, count: int) -> None:
    """Write to so many files, spread over the workspace."""
    script = """
        all=$(find . -type f | wc -l)
        find . -type f | awk -v step=$((all / $1)) 'NR % step == 0' | head -n "$1" | while read -r file; do
            echo changed > "$file"
        done
    """
    sandbox.exec(["sh", "-c", script, "touch", str(count)], check=True)


# --- processes, by proc(5) --------------------------------------------------------------------------------------------


def _agent_pid(sandbox: Sandbox) -> int:
    """The agent's pid on this host."""
    client = docker.from_env()
    try:
        pid: int = client.containers.get(sandbox.name).attrs["State"]["Pid"]
        return pid
    finally:
        client.close()


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has just ended


def _open_files(pid: int | str) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@contextmanager
def _peak_of_agent(sandbox: Sandbox) -> Iterator[_Peak]:
    """Watch the agent and its workers, each by its own high-water mark; what they share is counted more than once."""
    peak = _Peak(_agent_pid(sandbox))
    peak.thread.start()
    try:
        yield peak
    finally:
        peak.ended.set()
        peak.thread.join()


class _Peak:
    def __init__(self, agent: int) -> None:
        self._agent = agent
        self._of: dict[int, int] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __call__(self) -> int:
        """Bytes of the agent and of its largest worker together."""
        workers = [most for pid, most in self._of.items() if pid != self._agent]
        return self._of.get(self._agent, 0) + max(workers, default=0)

    def _watch(self) -> None:
        children = Path(f"/proc/{self._agent}/task/{self._agent}/children")
        while not self.ended.wait(0.001):
            for pid in (self._agent, *map(int, children.read_text().split())):
                try:
                    if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/.pytest-sandbox"):  # not a command
                        self._of[pid] = max(self._of.get(pid, 0), _memory(pid, "VmHWM"))
                except (FileNotFoundError, ProcessLookupError):
                    pass  # it has ended meanwhile

"""`pytest-sandbox doctor`: tries all that tests need on this machine, and says how to mend what fails."""

from __future__ import annotations

import argparse
import enum
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..agent.binaries import BINARIES, agent_binary
from ..core.sandbox import SandboxCore
from ..core.store import Store
from ..engines.base import Engine
from ..engines.discovery import find_engine
from ..engines.slots import Slots, default_count
from ..errors import AgentMissing, ImageNotAvailable, LimitNotAvailable, SandboxError
from ..models import MEBIBYTE, EngineDescription, EngineFacts, PullPolicy, SandboxSettings, shown_size
from .choice import Standing, listed
from .pruning import chosen_store

INOTIFY = Path("/proc/sys/fs/inotify")
WATCHES = 16_384  # of directories outside the workspace; an image of Debian with Python has 1,100, a large one 10,000
LITTLE_DISK, NO_DISK = 1024 * MEBIBYTE, 64 * MEBIBYTE
SLOW = 0.1  # seconds for an answer; a local engine takes 5 ms
DISK_LIMIT = 1024 * MEBIBYTE
REFUSED = 64  # EX_USAGE of the agent, for a port that is none


class Level(enum.Enum):
    """PROBLEM: tests will fail for it. ADVICE: they will be slower, or one thing won't work."""

    OK = "ok"
    ADVICE = "advice"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """subject: what was looked at. text: what was seen. mend: what to do about it; empty if all is well."""

    level: Level
    subject: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.level.value:8} {self.subject}: {self.text}"
        return f"{line}\n         → {self.mend}" if self.mend else line


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


async def examine(arguments: argparse.Namespace) -> int:
    """Tell each finding as it comes; return 1 if there is a problem."""
    findings: list[Finding] = []
    async for finding in _findings(arguments):
        findings.append(finding)
        if not arguments.json:
            print(finding, flush=True)
    if arguments.json:
        print(json.dumps([{**vars(each), "level": each.level.value} for each in findings], indent=2))
    return int(any(finding.level is Level.PROBLEM for finding in findings))


async def _findings(arguments: argparse.Namespace) -> AsyncIterator[Finding]:
    for finding in (*versions(), *watches(), *disks(chosen_store(arguments))):
        yield finding
    began = time.monotonic()
    try:
        engine = await find_engine(arguments.engine)
    except SandboxError as error:
        text, _, mend = str(error).partition("\n")
        yield Finding(Level.PROBLEM, "engine", text, mend.replace("\n", " "))
        return
    try:
        async for finding in _of_engine(engine, time.monotonic() - began, arguments):
            yield finding
    except SandboxError as error:  # one that no check has a word for
        text, _, mend = str(error).partition("\n")
        yield Finding(Level.PROBLEM, "engine", text, mend.replace("\n", " ") or "try again; then `docker info`")
    finally:
        await engine.close()


async def _of_engine(engine: Engine, seconds: float, arguments: argparse.Namespace) -> AsyncIterator[Finding]:
    description = await engine.describe()
    yield ok("engine", f"{description}; found in {seconds * 1000:.0f} ms")
    yield await _round_trip(engine)
    yield agent(description)
    for finding in confinement(await engine.facts()):
        yield finding
    yield slots(description)
    yield await _leftovers(engine)
    image = arguments.image or os.environ.get("SANDBOX_IMAGE") or str(SandboxSettings().image)
    settings = SandboxSettings(image=image, pull=PullPolicy.NEVER)
    try:
        digest = await engine.ensure_image(settings)
    except ImageNotAvailable as error:
        mend = f"`docker pull {image}`, or name another one: --image, SANDBOX_IMAGE"
        yield Finding(Level.PROBLEM, "image", f"{image}: {error.reason}", mend)
        return
    yield ok("image", f"{image}, {digest[:19]}")
    async for finding in _a_sandbox(engine, settings):
        yield finding


# --- this machine -----------------------------------------------------------------------------------------------------


def versions() -> Iterator[Finding]:
    """Say what is installed."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    installed = ", ".join(f"{name} {_version(name) or 'not installed'}" for name in ("pytest", "pytest-sandbox"))
    yield ok("packages", installed)
    if xdist := _version("pytest-xdist"):
        yield ok("parallel", f"pytest-xdist {xdist}")
    else:
        yield Finding(
            Level.ADVICE, "parallel", "pytest-xdist is not installed", "`pip install pytest-xdist`: `pytest -n auto`"
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def watches(folder: Path = INOTIFY) -> Iterator[Finding]:
    """Look at the kernel's limits on watches, with which changes outside of the workspace are noticed."""
    try:
        most = {name: int((folder / name).read_text()) for name in ("max_user_watches", "max_user_instances")}
    except (OSError, ValueError):
        return  # no Linux, and so the engine's machine is another one
    said = ", ".join(f"{name} {count}" for name, count in most.items())
    if most["max_user_watches"] >= WATCHES and most["max_user_instances"] >= 64:
        yield ok("watches", said)
    else:
        mend = f"as root: `sysctl fs.inotify.max_user_watches={WATCHES * 8} fs.inotify.max_user_instances=512`"
        yield Finding(Level.ADVICE, "watches", f"{said}: restoring is slower where that does not suffice", mend)


def disks(store: Path, usage: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> Iterator[Finding]:
    """Look at the space for archives, and at the store. usage: bytes that are free."""
    for subject, folder in (("temporary files", Path(tempfile.gettempdir())), ("store", store)):
        free = usage(_there(folder))
        said = f"{folder}, {shown_size(free)} free"
        if subject == "store":
            count, size = Store(store, print).usage()
            said = f"{said}, {count} archives of {shown_size(size)}"
        level = Level.PROBLEM if free < NO_DISK else Level.ADVICE if free < LITTLE_DISK else Level.OK
        mend = "" if level is Level.OK else "free some, or name another folder: TMPDIR, --sandbox-store"
        yield Finding(level, subject, said, mend)
    folder = _there(store)
    if not os.access(folder, os.W_OK):
        yield Finding(Level.ADVICE, "store", f"{folder} can't be written to", "name another folder: --sandbox-store")


def _there(folder: Path) -> Path:
    """The folder, or the one above it in which it would be made."""
    return next(each for each in (folder, *folder.parents) if each.exists())


# --- the engine -------------------------------------------------------------------------------------------------------


async def _round_trip(engine: Engine) -> Finding:
    """Ask it three times; the fastest counts."""
    times = []
    for _ in range(3):
        with _timed() as taken:
            await engine.sandboxes()  # what engines answer at once; about itself Podman asks the package manager
        times.append(taken[0])
    said = f"answers within {min(times) * 1000:.0f} ms"
    if min(times) < SLOW:
        return ok("round trip", said)
    return Finding(Level.ADVICE, "round trip", said, "it is far away or busy: starting sandboxes will take long")


def agent(description: EngineDescription) -> Finding:
    """Say whether this installation has an agent for the engine's architecture."""
    have = ", ".join(sorted(path.name.removeprefix("agent-") for path in BINARIES.glob("agent-*")))
    try:
        found = agent_binary(description.architecture)
    except AgentMissing as error:
        return Finding(
            Level.PROBLEM,
            "agent",
            f"none for {error.architecture}, only for {have or 'nothing'}",
            "install a wheel, or run `make agent` in a source checkout",
        )
    return ok("agent", f"{found.build} for {description.architecture}; this installation has {have}")


def confinement(facts: EngineFacts) -> Iterator[Finding]:
    """Say what the engine can limit and forbid."""
    storage = f"{facts.storage or 'unknown'} on {facts.backing or 'unknown'}"
    yield ok("api", f"version {facts.api_version or 'unknown'}; storage {storage}")
    groups = f"version {facts.cgroups or 'unknown'}, driver {facts.cgroup_driver or 'unknown'}"
    if facts.missing_limits:
        mend = "the engine runs without these controllers; for a rootless one, delegate them (systemd's Delegate=)"
        yield Finding(Level.PROBLEM, "control groups", f"{groups}; no limit on {', '.join(facts.missing_limits)}", mend)
    else:
        yield ok("control groups", f"{groups}; memory, cpus and pids are limited")
    security = ", ".join(facts.security) or "unknown"
    if any("seccomp" in option for option in facts.security):
        yield ok("confinement", f"{security}; runtimes {', '.join(facts.runtimes) or 'unknown'}")
    else:
        yield Finding(Level.ADVICE, "confinement", f"{security}: no seccomp", "use a kernel and an engine that have it")


def slots(description: EngineDescription) -> Finding:
    """Say how many containers this user's runs may have, and have."""
    own = Slots(description, default_count(description))
    taken = own.taken()
    said = f"{taken} of {own.count} taken ({description.cores} cores, {shown_size(description.memory)})"
    if taken < own.count:
        return ok("slots", said)
    return Finding(
        Level.ADVICE, "slots", f"{said}: tests will wait", "let other runs end, or allow more: --sandbox-slots"
    )


async def _leftovers(engine: Engine) -> Finding:
    sandboxes = await listed(engine)
    counts = {standing: sum(each.standing is standing for each in sandboxes) for standing in Standing}
    said = ", ".join(f"{count} {standing.value}" for standing, count in counts.items() if count) or "none"
    if counts[Standing.LEFT]:
        return Finding(
            Level.ADVICE, "sandboxes", said, "the next run removes what was left behind; so does `pytest-sandbox prune`"
        )
    return ok("sandboxes", said)


async def _a_sandbox(engine: Engine, settings: SandboxSettings) -> AsyncIterator[Finding]:
    """Use one as a test does, and time it."""
    steps: list[str] = []
    subject = "a sandbox"
    try:
        with _step("start", steps):
            sandbox = await SandboxCore.create(engine, settings)
        async with sandbox:
            with _step("watch", steps):
                await sandbox.watch_outside()
            with _step("file", steps):
                await sandbox.write_text("doctor", "well")
            with _step("snapshot", steps):
                before = await sandbox.snapshot()
            with _step("command", steps):
                # The agent itself, the one program that every image has: asked for what it refuses.
                result = await sandbox.exec(["/proc/self/exe", "connect", "0"], user="", cwd="/")
            await sandbox.remove("doctor")
            with _step("restore", steps):
                await sandbox.restore(before)
            restored = await sandbox.read_text("doctor")
            watched = sandbox.watched
            with _step("end", steps):
                await sandbox.close()
    except SandboxError as error:
        text, _, mend = str(error).partition("\n")
        done = f" (until then: {', '.join(steps)})" if steps else ""
        yield Finding(Level.PROBLEM, subject, f"{text}{done}", mend.replace("\n", " ") or "see the engine's log")
        return
    if result.exit_code != REFUSED or restored != "well":
        mend = "run `make test` in a source checkout, and tell us: this is not known to happen"
        yield Finding(Level.PROBLEM, subject, "its command or its restored file is not what it should be", mend)
        return
    yield ok(subject, ", ".join(steps))
    if not watched:
        mend = "raise fs.inotify.max_user_watches and max_user_instances on the engine's machine"
        yield Finding(Level.ADVICE, "watches", "the image has more directories than can be watched: slower", mend)
    yield await _disk_limit(engine, settings)


async def _disk_limit(engine: Engine, settings: SandboxSettings) -> Finding:
    try:
        async with await SandboxCore.create(engine, replace(settings, disk=DISK_LIMIT)):
            return ok("disk limit", "the setting `disk` works")
    except LimitNotAvailable as error:
        return Finding(
            Level.ADVICE,
            "disk limit",
            f"the setting `disk` does not work: {error.reason}",
            "Docker can do it, with overlay2 on xfs and the mount option pquota",
        )
    except SandboxError as error:
        return Finding(Level.ADVICE, "disk limit", f"not known: {str(error).splitlines()[0]}", "try --sandbox-disk=1g")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Give a list that has the seconds when it is over."""
    taken: list[float] = []
    began = time.monotonic()
    yield taken
    taken.append(time.monotonic() - began)


@contextmanager
def _step(name: str, steps: list[str]) -> Iterator[None]:
    with _timed() as taken:
        yield
    steps.append(f"{name} {taken[0] * 1000:.0f} ms")

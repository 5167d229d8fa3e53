"""doctor and prune."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_sandbox.cli.doctor import LITTLE_DISK, NO_DISK, Level, agent, confinement, disks, slots, watches
from pytest_sandbox.core.archive import Archive
from pytest_sandbox.core.store import DAY, Kept, Store
from pytest_sandbox.engines.kept import KeptNotes
from pytest_sandbox.engines.slots import Slots, default_count
from pytest_sandbox.models import EngineDescription, EngineFacts
from tests.support.engine_proxy import EngineProxy, Fault

from .conftest import IMAGE, Command, Keep

FACTS = EngineFacts("1.41", "overlay2", "extfs", "1", "cgroupfs", (), ("seccomp",), ("runc",))


def description(architecture: str = "x86_64") -> EngineDescription:
    return EngineDescription("docker", "1", "unix:///x", architecture, "test", 1, 2**30)


@pytest.mark.parametrize(
    ("most", "level"), [((16_384, 64), Level.OK), ((8192, 128), Level.ADVICE), ((16_384, 63), Level.ADVICE)]
)
def test_few_watches_are_told_with_the_command_that_raises_them(
    tmp_path: Path, most: tuple[int, int], level: Level
) -> None:
    for name, count in zip(("max_user_watches", "max_user_instances"), most, strict=True):
        (tmp_path / name).write_text(f"{count}\n")

    [finding] = watches(tmp_path)

    assert (finding.level, "sysctl" in finding.mend) == (level, level is Level.ADVICE)


def test_where_the_kernel_has_no_watches_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert list(watches(tmp_path)) == []


@pytest.mark.parametrize(
    ("free", "level"), [(LITTLE_DISK, Level.OK), (LITTLE_DISK - 1, Level.ADVICE), (NO_DISK - 1, Level.PROBLEM)]
)
def test_a_full_disk_is_a_problem_and_a_rather_full_one_is_told(tmp_path: Path, free: int, level: Level) -> None:
    findings = list(disks(tmp_path / "not" / "there" / "yet", lambda _: free))

    assert [finding.level for finding in findings] == [level, level]
    assert all(bool(finding.mend) is (level is not Level.OK) for finding in findings)


def test_an_architecture_without_an_agent_is_a_problem() -> None:
    assert agent(description()).level is Level.OK
    assert agent(description("riscv64")).text.startswith("none for riscv64, only for aarch64, x86_64")


def test_controls_that_an_engine_lacks_are_told() -> None:
    assert {finding.level for finding in confinement(FACTS)} == {Level.OK}
    without = list(confinement(replace(FACTS, missing_limits=("memory", "pids"), security=())))
    assert [finding.level for finding in without] == [Level.OK, Level.PROBLEM, Level.ADVICE]
    assert "no limit on memory, pids" in without[1].text


def test_slots_that_are_all_taken_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert slots(description()).text.startswith("0 of 4 taken")
    own = Slots(description(), default_count(description()))
    held = [own.take() for _ in range(4)]

    assert slots(description()).level is Level.ADVICE
    for slot in held:
        assert slot is not None
        slot.release()


def test_an_engine_that_is_not_there_is_a_problem_and_what_to_do_is_said(command: Command, tmp_path: Path) -> None:
    result = command("doctor", DOCKER_HOST=f"unix://{tmp_path}/none.sock")

    assert result.returncode == 1
    [problem, mend] = result.stdout.splitlines()[-2:]
    assert problem.startswith("problem  engine: no container engine answers at ")
    assert "start it" in mend


@pytest.mark.docker
def test_a_sound_machine_passes_and_is_told_with_times(command: Command) -> None:
    result = command("doctor", "--json", "--image", IMAGE)

    findings = {each["subject"]: each for each in json.loads(result.stdout)}
    assert result.returncode == 0, result.stdout
    steps = [step.split()[0] for step in findings["a sandbox"]["text"].split(", ")]
    assert steps == ["start", "watch", "file", "snapshot", "command", "restore", "end"]
    assert {"python", "engine", "round trip", "agent", "control groups", "slots", "image", "disk limit"} <= set(
        findings
    )
    assert all(bool(each["mend"]) is (each["level"] != "ok") for each in findings.values())


@pytest.mark.docker
def test_a_missing_image_and_a_failing_engine_are_problems(command: Command, tmp_path: Path) -> None:
    missing = command("doctor", "--image", "no-such:image")
    with EngineProxy(tmp_path / "engine.sock") as proxy:
        proxy.fault(r"POST .*/containers/create", Fault.REFUSE)
        failing = command("doctor", "--image", IMAGE, DOCKER_HOST=proxy.endpoint)

    assert (missing.returncode, failing.returncode) == (1, 1)
    assert "problem  image: no-such:image: not present" in missing.stdout
    assert "`docker pull no-such:image`" in missing.stdout
    assert "problem  a sandbox: the container engine refused `create`" in failing.stdout


KILLED = f"""
import asyncio, os, signal
from pytest_sandbox.engines.discovery import find_engine
from pytest_sandbox.engines.docker import DockerEngine
from pytest_sandbox.engines.heir import heir
from pytest_sandbox.models import SandboxSettings

async def main():
    engine = await find_engine()
    # Between create and start nothing ends by itself, and without an heir nobody ends it.
    heir._deaf = True
    DockerEngine._attached = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    await engine.start(SandboxSettings(image={IMAGE!r}), "pytest-sandbox-killed-" + str(os.getpid()), identity="0" * 32)

asyncio.run(main())
"""


@pytest.mark.docker
def test_prune_removes_what_killed_runs_left_and_nothing_else(command: Command, keep: Keep, tmp_path: Path) -> None:
    kept = keep()
    killed = subprocess.Popen([sys.executable, "-c", KILLED])
    assert killed.wait() == -9
    name = f"pytest-sandbox-killed-{killed.pid}"
    options = ("--store", str(tmp_path / "store"))

    assert "left behind" in next(line for line in command("ls").stdout.splitlines() if line.startswith(name))
    dry = command("prune", "--dry-run", *options)
    assert f"would remove container {name}, left by a run that was killed" in dry.stdout.splitlines()
    assert name in command("ls").stdout

    done = command("prune", *options)

    assert f"removed container {name}, left by a run that was killed" in done.stdout.splitlines()
    assert "kept sandboxes: 1; `pytest-sandbox ls` lists them" in done.stdout
    assert command("prune", *options).stdout.startswith("nothing to remove\n")
    assert [note.name for note in KeptNotes().all()] == [kept.name]


@pytest.mark.docker
def test_prune_looks_after_the_store(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    for key in ("0" * 64, "1" * 64):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(key[:10]))
        archive = Archive.read(content.getvalue())
        Store(folder, print).obtain(key, "x", lambda archive=archive: Kept(archive))  # type: ignore[misc]
    fortnight_ago = time.time() - 15 * DAY
    os.utime(folder / "keys" / ("0" * 64), (fortnight_ago, fortnight_ago))

    dry = command("prune", "--dry-run", "--store", str(folder))
    assert "would remove 1.5 KiB of archives in the store" in dry.stdout.splitlines()
    assert len(list((folder / "objects").iterdir())) == 2

    done = command("prune", "--store", str(folder))
    assert "removed 1.5 KiB of archives in the store" in done.stdout.splitlines()
    assert [path.name for path in (folder / "keys").iterdir()] == ["1" * 64]
    assert len(list((folder / "objects").iterdir())) == 1

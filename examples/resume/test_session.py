"""The script as people run it: each call a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_sandbox import Sandbox, SandboxSettings, SessionState

SCRIPT = Path(__file__).parent / "session.py"
Call = Callable[[str], str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox_settings: SandboxSettings) -> Iterator[Call]:
    monkeypatch.setenv("SANDBOX_IMAGE", sandbox_settings.image)

    def call(command: str) -> str:
        run = [sys.executable, str(SCRIPT), command]
        return subprocess.run(run, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout

    yield call
    if (tmp_path / "session.json").exists():
        call("end")


def test_a_session_goes_on_in_the_next_process(call: Call) -> None:
    call("begin")

    assert call("step").startswith("1 steps in ")
    assert call("step").startswith("2 steps in ")


def test_it_goes_on_from_the_snapshot_when_the_container_is_gone(call: Call, tmp_path: Path) -> None:
    call("begin")
    call("step")
    state = SessionState.from_json((tmp_path / "session.json").read_text())
    [kept] = [each for each in Sandbox.kept() if each.identity == state.identity]
    Sandbox.remove_kept(kept)

    lines = call("step").splitlines()

    assert lines[0] == "its container is gone: going on from the snapshot"
    assert lines[1].startswith("2 steps in ")
